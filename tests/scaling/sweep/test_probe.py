"""The downstream measurement of a run, and records that the sweep was not planned on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.errors import DataError
from selfpab_jax.probe.config import ProbeSettings
from selfpab_jax.probe.report.results import MethodResult, ProbeResult
from selfpab_jax.scaling.sweep.config import parse_sweep
from selfpab_jax.scaling.sweep.expand import plan_sweep
from selfpab_jax.scaling.sweep.manifest import PlannedRun
from selfpab_jax.scaling.sweep.result import RunResult, is_complete, macro_f1_of, read_result, write_result
from selfpab_jax.scaling.sweep.run import probe_run, train_and_measure


class Recordings:
    def files(self) -> list[Path]:
        return []


TRAINED = RunResult("", "finished", 0.3, 0.7, 0.35, 10, 10, 1e5, 1e9)


@pytest.fixture(scope="module")
def line(tiny_records: Path) -> PlannedRun:
    content = {
        "base": "demo",
        "length": {"steps": 10},
        "grids": [{"seed": 0}],
        "probe": {"config": "probe/harth", "data": "d"},
    }
    return plan_sweep(parse_sweep(content, "", "small"), tiny_records).lines[0]


def test_the_score_is_the_headline_of_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Any, ...]] = []

    def probe_encoder(settings: ProbeSettings, model: Path, data: str, out: Path, *, overwrite: bool) -> ProbeResult:
        given.append((settings.dataset.name, model, data, out, overwrite))
        confusions = {"a": np.array([[8, 2], [0, 10]]), "b": np.array([[5, 5], [5, 5]])}
        method = MethodResult("linear", "linear head", "probe", (0,), ("sit", "walk"), (confusions,))
        return ProbeResult("d", "D", "1", ("sit", "walk"), ("back_x",), None, {}, "inner", (method,))

    monkeypatch.setattr("selfpab_jax.probe.run.probe_encoder", probe_encoder)
    monkeypatch.setattr("selfpab_jax.probe.run.open_source", lambda settings, data: Recordings())
    monkeypatch.setattr("selfpab_jax.train.export.export_run", lambda run, model, overwrite: None)
    (tmp_path / "c.yaml").write_text("dataset: {name: harth}\n")
    macro_f1 = probe_run(tmp_path, {"config": str(tmp_path / "c.yaml"), "data": "harth"})
    assert macro_f1 == pytest.approx((np.mean([16 / 18, 20 / 22]) + 0.5) / 2)
    assert given == [("harth", tmp_path / "model", "harth", tmp_path / "probe", True)]


def test_a_probe_that_cannot_be_done_is_refused_before_training(
    line: PlannedRun, tiny_records: Path, tmp_path: Path
) -> None:
    missing = replace(line, probe={"config": "probe/harth", "data": str(tmp_path / "not here")})
    with pytest.raises(DataError, match="not here"):
        train_and_measure(tmp_path / "run", missing, tiny_records)
    assert not (tmp_path / "run").exists()


def test_a_trained_run_is_only_probed(line: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = replace(TRAINED, hash=line.hash)
    write_result(tmp_path, done)
    assert not is_complete(line, read_result(tmp_path))
    monkeypatch.setattr("selfpab_jax.scaling.sweep.run.probe_run", lambda run, section: 0.8)
    result = train_and_measure(tmp_path, line, tmp_path / "no records are needed")
    assert result == replace(done, macro_f1=0.8, probe=line.probe)
    assert is_complete(line, result)
    assert is_complete(replace(line, probe=None), done)


def test_a_score_of_another_probe_does_not_count(line: PlannedRun) -> None:
    result = replace(TRAINED, hash=line.hash, macro_f1=0.7, probe=line.probe)
    assert is_complete(line, result)
    other = replace(line, probe={"config": "b.yaml", "data": "here"})
    assert not is_complete(other, result)
    assert macro_f1_of(other, result) is None
    assert is_complete(replace(line, probe=None), result)  # without a probe nothing is left to do


def test_other_records_than_planned_are_refused_before_training(
    line: PlannedRun, tiny_records: Path, tmp_path: Path, cohort_of: Callable[[int], Path]
) -> None:
    with pytest.raises(DataError, match="planned on"):
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
