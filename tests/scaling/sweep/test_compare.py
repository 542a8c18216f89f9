"""Runs of a sweep ranked by their probes."""

import json
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.probe.report.results import MethodResult, ProbeResult, save_result
from selfpab_jax.scaling.sweep.compare import compare_runs
from selfpab_jax.scaling.sweep.manifest import Sweep, open_sweep
from selfpab_jax.scaling.sweep.result import RunResult, write_result

CLASSES = ("sit", "walk", "run")
RIGHT = {"linear": [[4, 6], [6, 4], [8, 2]], "log": [[6, 4], [9, 1], [9, 1]], "power": [[5, 5], [5, 5], [5, 5]]}
"""Of 10 seconds of sitting of each of three subjects: recognized, and taken for walking."""


@pytest.fixture
def sweep(tiny_records: Path, tmp_path: Path) -> Sweep:
    (tmp_path / "small.yaml").write_text(
        """{base: demo, length: {steps: 4}, probe: {config: probe/harth, data: d},
            grids: [{data.scale: [linear, log, power], seed: [0, 1]}]}"""
    )
    out = tmp_path / "sweep"
    assert (
        main(["sweep", "plan", str(tmp_path / "small.yaml"), "--out", str(out), "--data.path", str(tiny_records)]) == 0
    )
    found = open_sweep(out)
    for line in found.lines:
        rows = RIGHT[line.settings["data"]["scale"]]
        confusions = {
            subject: np.array([[right, wrong, 0], [0, 10, 0], [0, 3 * (line.seed == 1), 0]])
            for subject, (right, wrong) in zip("abc", rows, strict=True)
        }
        method = MethodResult("linear", "linear head", "probe", (0,), CLASSES, (confusions,))
        result = ProbeResult("d", "D", "1", CLASSES, ("back_x",), None, {}, "inner", (method,))
        save_result(result, found.run(line) / "probe")
        write_result(found.run(line), RunResult(line.hash, "finished", 0.3, 1, 1, 4, 4, 1, 1, 0.5, line.probe))
    return found


def f1(right: int, wrong: int) -> tuple[float, float]:
    return 2 * right / (2 * right + wrong), 20 / (20 + wrong)


def test_runs_are_ranked_and_paired_by_subject(sweep: Sweep) -> None:
    found = compare_runs(sweep, "scale_linear", without=["run"])
    assert [group.name for group in found.groups] == ["scale_log", "scale_linear", "scale_power"]
    best, reference = found.groups[:2]
    expected = {each: float(np.mean(f1(*row))) for each, row in zip("abc", RIGHT["log"], strict=True)}
    # In seed 1, 3 seconds of running are taken for walking, which costs precision but leaves running out of the mean.
    walk = [20 / (20 + wrong + 3) for _, wrong in RIGHT["log"]]
    other = {each: (f1(*row)[0] + w) / 2 for each, row, w in zip("abc", RIGHT["log"], walk, strict=True)}
    assert best.subjects == pytest.approx({each: (expected[each] + other[each]) / 2 for each in "abc"})
    assert best.seeds == (0, 1)
    assert best.difference is not None
    assert best.difference.mean == pytest.approx(best.mean - reference.mean)
    assert (best.difference.subjects, best.difference.better) == (3, 3)
    assert best.difference.low > 0
    assert reference.difference is None


def test_every_class_counts_unless_it_is_left_out(sweep: Sweep) -> None:
    with_running = compare_runs(sweep, "scale_linear").groups[0].mean
    assert with_running < compare_runs(sweep, "scale_linear", without=["run"]).groups[0].mean - 0.1


def test_a_run_without_a_score_is_named(sweep: Sweep) -> None:
    (sweep.run(sweep.lines[0]) / "result.json").unlink()
    found = compare_runs(sweep)
    assert found.unprobed == ("scale_linear-s0",)
    assert {group.name: group.seeds for group in found.groups}["scale_linear"] == (1,)
    assert any("scale_linear-s0" in note for note in found.table().notes)


def test_no_score_no_such_run_or_class_are_refused(sweep: Sweep) -> None:
    with pytest.raises(ConfigError, match="no such runs; there are scale_linear, scale_log, scale_power"):
        compare_runs(sweep, "linear")
    with pytest.raises(ConfigError, match="no such class; there are sit, walk, run"):
        compare_runs(sweep, without=["swim"])
    for line in sweep.lines[:2]:
        (sweep.run(line) / "result.json").unlink()
    with pytest.raises(DataError, match="no run of scale_linear is probed yet"):
        compare_runs(sweep)


def test_the_command_prints_and_keeps_the_ranking(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", "compare", str(sweep.folder), "--without_classes", "[run]", "--out", str(tmp_path / "report")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.index("scale_log") < printed.index("scale_power")
    assert "score it on others" in printed
    kept = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert [group["name"] for group in kept["groups"]] == ["scale_log", "scale_linear", "scale_power"]
    assert "| scale_log |" in (tmp_path / "report" / "comparison.md").read_text()
