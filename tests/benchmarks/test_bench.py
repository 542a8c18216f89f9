"""The regression benchmark: its parts run at small sizes, and its table compares."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("bench")


def test_figures_are_kept_and_compared(bench: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "results" / "cpu.json"
    sets = ["avx2"]
    assert bench.kept(path, sets) == {}
    slow = bench.Figure("step", 4.0, "s", more_is_better=False)
    bench.save(path, [slow, bench.Figure("loader", 700.0, "MB/s")], sets)
    bench.save(path, [bench.Figure("loader", 800.0, "MB/s", aim=750.0)], sets)
    kept = bench.kept(path, sets)
    assert kept["step"] == slow
    assert kept["loader"].value == 800.0
    assert "-25.0% better" in bench.line(bench.Figure("step", 3.0, "s", more_is_better=False), kept["step"])
    assert "-25.0% worse" in bench.line(bench.Figure("loader", 600.0, "MB/s"), kept["loader"])
    assert " met " in bench.line(kept["loader"], None)
    assert " met " not in bench.line(bench.Figure("loader", 700.0, "MB/s", aim=750.0), None)
    assert bench.line(slow, None).endswith("new")


def test_figures_of_other_instruction_sets_are_not_compared(bench: ModuleType, tmp_path: Path) -> None:
    narrow = "model name\t: AMD EPYC\nflags\t\t: fma avx avx2\n"
    wide = narrow.replace("avx2", "avx2 avx512f avx512bw")
    assert bench.instruction_sets(narrow) == ["avx2"]
    assert bench.instruction_sets(wide) == ["avx2", "avx512"]
    assert bench.instruction_sets("") == []
    assert bench.machine_kind(narrow) != bench.machine_kind(wide)
    path = tmp_path / "cpu.json"
    bench.save(path, [bench.Figure("step", 4.0, "s")], bench.instruction_sets(wide))
    assert bench.kept(path, bench.instruction_sets(wide))
    assert bench.kept(path, bench.instruction_sets(narrow)) == {}


def test_kept_figures_can_be_read(bench: ModuleType) -> None:
    files = list(bench.RESULTS.glob("*.json"))
    assert files
    for path in files:
        sets = bench.json.loads(path.read_text())["instruction_sets"]
        assert bench.kept(path, sets)
        assert path.stem.endswith(sets[-1])


def test_waiting_is_what_goes_beyond_the_step(bench: ModuleType, tiny_records: Path) -> None:
    waiting_share = bench.bench_data.waiting_share
    assert waiting_share(tiny_records, steps=20, batch=4, step_s=0.0) > 0.9
    assert waiting_share(tiny_records, steps=6, batch=4, step_s=0.3) < 0.5


def test_embedding_of_files_beside_the_forward_pass(bench: ModuleType) -> None:
    tiny = {"width": 16, "heads": 2, "feedforward": 16, "layers": 1}
    found = bench.bench_program._embed((6, 1, {"compute": "float32", **tiny}))
    assert found.hours_s > 0
    assert found.bare_hours_s > 0
