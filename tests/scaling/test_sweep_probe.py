"""The downstream measurement of a run, and records that are not those planned on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonargparse import Namespace

from selfpab_jax.cli.main import main
from selfpab_jax.errors import DataError
from selfpab_jax.probe.report.results import MethodResult, ProbeResult, save_result
from selfpab_jax.scaling.sweep.config import sweep_of
from selfpab_jax.scaling.sweep.expand import plan_sweep
from selfpab_jax.scaling.sweep.manifest import Line
from selfpab_jax.scaling.sweep.run import downstream, train_and_measure
from selfpab_jax.scaling.sweep.status import Result, is_complete, probed, read_result, write_result

TRAINED = Result("", "finished", 0.3, 0.7, 0.35, 10, 10, 1e5, 1e9)


@pytest.fixture(scope="module")
def line(tiny_records: Path) -> Line:
    told = {
        "base": "demo",
        "length": {"steps": 10},
        "grids": [{"seed": 0}],
        "probe": {"config": "probe/harth", "data": "d"},
    }
    return plan_sweep(sweep_of(told, "", "small"), tiny_records).lines[0]


def test_downstream_is_the_headline_of_the_probes_own_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Namespace] = []

    def run_probe(options: Namespace) -> int:
        given.append(options)
        confusions = {"a": np.array([[8, 2], [0, 10]]), "b": np.array([[5, 5], [5, 5]])}
        method = MethodResult("linear", "linear head", "probe", (0,), ("sit", "walk"), (confusions,))
        save_result(ProbeResult("d", "D", "1", ("sit", "walk"), ("back_x",), None, {}, "inner", (method,)), options.out)
        return 0

    monkeypatch.setattr("selfpab_jax.cli.probe.run_probe", run_probe)
    (tmp_path / "c.yaml").write_text("dataset: {name: harth}\n")
    section = {"config": str(tmp_path / "c.yaml"), "data": str(tmp_path / "harth")}
    macro_f1 = downstream(tmp_path / "model", section, tmp_path / "out")
    assert macro_f1 == pytest.approx((np.mean([16 / 18, 20 / 22]) + 0.5) / 2)
    assert (given[0].model, given[0].data, given[0].out) == (tmp_path / "model", tmp_path / "harth", tmp_path / "out")
    assert given[0].overwrite
    assert given[0].dataset.name == "harth"


def test_a_trained_run_is_only_probed(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = replace(TRAINED, hash=line.hash)
    write_result(tmp_path, done)
    assert not is_complete(line, read_result(tmp_path))
    monkeypatch.setattr("selfpab_jax.scaling.sweep.run.downstream_of_run", lambda run, section: 0.8)
    result = train_and_measure(tmp_path, line, tmp_path / "no records are needed")
    assert result == replace(done, macro_f1=0.8, probe=line.probe)
    assert is_complete(line, result)
    assert is_complete(replace(line, probe=None), done)


def test_a_score_of_another_probe_does_not_count(line: Line) -> None:
    result = replace(TRAINED, hash=line.hash, macro_f1=0.7, probe=line.probe)
    assert is_complete(line, result)
    other = replace(line, probe={"config": "b.yaml", "data": "here"})
    assert not is_complete(other, result)
    assert probed(other, result) is None
    assert is_complete(replace(line, probe=None), result)  # without a probe nothing is left to do


def test_other_records_than_planned_are_refused_before_training(
    line: Line, tiny_records: Path, tmp_path: Path, cohort_of: Callable[[int], Path]
) -> None:
    with pytest.raises(DataError, match="holds other records than the sweep was planned on"):
        train_and_measure(tmp_path / "run", line, cohort_of(4))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def cohort_of(tmp_path: Path) -> Callable[[int], Path]:
    def cohort_of(subjects: int) -> Path:
        assert main(["cohort", str(tmp_path / "c"), "--subjects", str(subjects), "--hours", "1"]) == 0
        build = ["records", "build", "--source", "hunt4", str(tmp_path / "c"), "--out", str(tmp_path / "r")]
        assert main([*build, "--window_seconds", "20", "--workers", "1", "--validation", "0.3", "--test", "0"]) == 0
        return tmp_path / "r"

    return cohort_of
