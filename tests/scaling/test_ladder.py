"""The ladder: its files follow its formula, and their counts are those of real networks."""

import re

import pytest
import yaml

from selfpab_jax.errors import ConfigError
from selfpab_jax.model.config import ModelSettings, training_flops
from selfpab_jax.model.functional import make_functional
from selfpab_jax.scaling.ladder import PUBLISHED, RUNGS, ladder_file, learning_rate_of, parameter_count, rung


@pytest.mark.parametrize("name", [*RUNGS, PUBLISHED])
def test_files_follow_the_formula(name: str) -> None:
    path = ladder_file(name)
    text = path.read_text()
    content = yaml.safe_load(text)
    model = ModelSettings(**content["model"])
    expected = ModelSettings() if name == PUBLISHED else rung(RUNGS[name])
    for size in ("width", "heads", "feedforward", "layers", "dropout"):
        assert getattr(model, size) == getattr(expected, size)
    assert float(content["optimizer"]["learning_rate"]) == learning_rate_of(model.width)
    count = make_functional(model, 156, 156).parameter_count
    assert count == parameter_count(model, 156, 156)
    stated = re.search(r"parameters ([\d,]+) ", text)
    assert stated is not None
    assert stated[1] == f"{count:,}"
    millions = float(name.replace("1b", "1000m").rstrip("m"))
    assert count / 1e6 == pytest.approx(millions, rel=0.17), "as its name says"
    cost = re.search(r"cost +([\d,.]+) GFLOP", text)
    assert cost is not None
    assert float(cost[1].replace(",", "")) == pytest.approx(training_flops(model, 156, 156, 599) / 1e9, rel=1e-3)


def test_rungs_suit_matrix_units_and_go_from_a_million_to_a_billion() -> None:
    rungs = [rung(width) for width in RUNGS.values()]
    assert all(model.width % 128 == 0 for model in rungs)
    assert [model.head_size for model in rungs] == [64] + [128] * (len(rungs) - 1)
    counts = [parameter_count(model, 156, 156) for model in rungs]
    assert counts == sorted(counts)
    assert counts[0] < 1.2e6
    assert counts[-1] > 9e8
    assert {path.stem for path in ladder_file("1m").parent.glob("*.yaml")} == {*RUNGS, PUBLISHED}


def test_the_published_rate_is_the_rules_fixed_point() -> None:
    assert learning_rate_of(1500) == 1e-4
    assert learning_rate_of(64, 2e-3, 128) == 4e-3


def test_other_widths_and_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="width 100"):
        rung(100)
    with pytest.raises(ConfigError, match=r"2m .* 1m, 5m"):
        ladder_file("2m")
