"""The rules of the house that can be counted: see CONTRIBUTING.md."""

import sys
from pathlib import Path

import pytest

import selfpab_jax

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import layout

FILES = layout.modules()
GRAPH = layout.imports(FILES)


def test_no_circle_and_no_arrow_up() -> None:
    assert layout.circles(GRAPH) == []
    assert layout.arrows_up(GRAPH) == []


def test_a_class_name_has_one_meaning() -> None:
    assert layout.class_names_used_twice(FILES) == {}


def test_every_public_name_is_there() -> None:
    for name in selfpab_jax.__all__:
        assert getattr(selfpab_jax, name) is not None


def test_files_and_folders_can_be_read() -> None:
    assert {module: lines for module, path in FILES.items() if (lines := layout.lines_of(path)) > 400} == {}
    assert max(layout.files_per_folder(FILES.values()).values()) <= 15


@pytest.mark.parametrize(("module", "most"), [("train.step", 12), ("train.loop", 35)])
def test_the_training_step_and_loop_pull_in_few_files(module: str, most: int) -> None:
    reached = layout.closure(f"selfpab_jax.{module}", GRAPH)
    assert len([each for each in reached if FILES[each].name != "__init__.py"]) <= most
