"""Runs of a sweep: each is done once, failures are reported, edits are detected, and no finished run is lost."""

import copy
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from selfpab_jax.cli.main import main
from selfpab_jax.errors import DataError, LockedError, RunError
from selfpab_jax.io import write_json
from selfpab_jax.scaling.sweep.collect import collect
from selfpab_jax.scaling.sweep.lease import LeaseHeldError, hold_lease, leases_of
from selfpab_jax.scaling.sweep.manifest import PlannedRun, Sweep, hash_of, open_sweep, write_lines
from selfpab_jax.scaling.sweep.result import RESULT_FILE, RunResult, read_failure, read_result, write_result
from selfpab_jax.scaling.sweep.run import run_all, run_line
from selfpab_jax.scaling.sweep.status import status_of, status_table
from selfpab_jax.train.config import as_json

GRIDS = [{"hours": [0.1, 0.2], "seed": [0, 1]}]


@pytest.fixture(scope="module")
def planned(tiny_records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep file and its plan."""
    folder = tmp_path_factory.mktemp("planned")
    content = {"name": "small", "base": "demo", "length": {"steps": 10}, "grids": GRIDS}
    (folder / "given.yaml").write_text(yaml.safe_dump(content))
    words = ["sweep", "plan", str(folder / "given.yaml"), "--out", str(folder / "sweep")]
    assert main([*words, "--data.path", str(tiny_records)]) == 0
    return folder


@pytest.fixture
def folder(planned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planned, tmp_path / "copy")) / "sweep"


@pytest.fixture
def plan_again(folder: Path, tiny_records: Path) -> Callable[..., int]:
    def plan_again(**changes: object) -> int:
        given = folder.parent / "given.yaml"
        content = yaml.safe_load(given.read_text()) | changes
        given.write_text(yaml.safe_dump(content))
        return main(["sweep", "plan", str(given), "--out", str(folder), "--data.path", str(tiny_records)])

    return plan_again


def begin(run: Path, line: PlannedRun, step: int = 4) -> None:
    """What a killed run leaves behind."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "settings.json", line.settings)
    events = [
        {"time": 1.0, "event": "start", "step": 0, "steps": 10, "devices": 1},
        {"time": 2.0, "event": "train", "step": step, "loss": 0.5, "samples_per_second": 16.0},
        {"time": 3.0, "event": "validation", "step": step, "loss": 0.45, "best": 0.45},
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def trained(run: Path, line: PlannedRun, _data: Path) -> RunResult:
    begin(run, line, 10)
    return RunResult(line.hash, "finished", 0.3 + line.index / 100, 0.7, 0.35, 10, 10, line.tokens, line.flops)


def untouched(sweep: Sweep, line: PlannedRun) -> None:
    raise AssertionError(f"{line.name} was done again in {sweep.folder}")


def test_a_finished_run_is_not_repeated(folder: Path) -> None:
    sweep = open_sweep(folder)
    assert run_line(sweep, sweep.lines[0], work=trained) == "done"
    assert run_line(sweep, sweep.lines[0], work=lambda *_: untouched(sweep, sweep.lines[0])) == "done before"
    assert [state.state for state in status_of(sweep)] == ["done", "waiting", "waiting", "waiting"]
    point = collect(folder)[0]
    assert (point.loss, point.hours, point.subjects, point.status) == (0.3, sweep.lines[0].hours, 2, "done")
    assert (point.tokens, point.flops, point.seed) == (sweep.lines[0].tokens, sweep.lines[0].flops, 0)
    assert [p.status for p in collect(folder)[1:]] == ["waiting"] * 3


def test_a_failure_is_stored_in_one_line_until_it_is_retried(folder: Path) -> None:
    sweep = open_sweep(folder)
    line = sweep.lines[1]

    def diverges(*_: object) -> RunResult:
        raise RunError("the loss is nan at step 7\nand more")

    with pytest.raises(RunError, match=r"h0\.1-s1 failed: the loss is nan at step 7"):
        run_line(sweep, line, work=diverges)
    assert read_failure(sweep, line) == "the loss is nan at step 7"
    with pytest.raises(RunError, match=r"failed before: .*--retry"):
        run_line(sweep, line, work=trained)
    assert status_of(sweep)[1].state == "failed"
    assert collect(folder)[1].status == "failed"
    assert run_line(sweep, line, retry=True, work=trained) == "done"
    assert status_of(sweep)[1].state == "done"

    def breaks(*_: object) -> RunResult:
        raise MemoryError("RESOURCE_EXHAUSTED")

    with pytest.raises(MemoryError):
        run_line(sweep, sweep.lines[2], work=breaks)
    assert read_failure(sweep, sweep.lines[2]) == "MemoryError: RESOURCE_EXHAUSTED"
    assert not leases_of(sweep.leases, sweep.lines[2].name)[-1].is_live()


@pytest.mark.slow
def test_the_run_of_another_worker_is_skipped(folder: Path, capsys: pytest.CaptureFixture) -> None:
    sweep = open_sweep(folder)
    line = sweep.lines[0]
    begin(sweep.run(line), line)
    with hold_lease(sweep.leases, line.name):
        with pytest.raises(LeaseHeldError, match=f"process {os.getpid()} on"):
            run_line(sweep, line, work=trained)
        state = status_of(sweep)[0]
        assert (state.state, state.loss, state.step) == ("running", 0.45, 4)
        assert state.left_seconds == (10 - 4) * 32 / 16
        assert main(["sweep", "run", str(folder), "--index", "0"]) == 1
        assert f"process {os.getpid()} on" in capsys.readouterr().err
        started: list[str] = []
        code, skipped = run_all(sweep, lambda line: started.append(line.name) or 0)
        assert started == [line.name for line in sweep.lines[1:]]
        assert code == 1
        assert "h0.1-s0 is taken" in skipped[0]
    assert "stopped at step 4" in status_of(sweep)[0].note
    assert run_line(sweep, line, work=trained) == "done"


def test_a_run_that_is_still_being_trained_is_not_a_failure(folder: Path) -> None:
    sweep = open_sweep(folder)
    line = sweep.lines[0]

    def held(*_: object) -> RunResult:
        raise LockedError("RUN is being trained by another process")

    with pytest.raises(LeaseHeldError, match="is taken: RUN"):
        run_line(sweep, line, work=held)
    assert not read_failure(sweep, line)
    assert run_line(sweep, line, work=trained) == "done"


def test_a_run_whose_probe_failed_keeps_its_loss_in_the_fits(folder: Path) -> None:
    sweep = open_sweep(folder)
    line = sweep.lines[0]

    def no_probe(run: Path, line: PlannedRun, data: Path) -> RunResult:
        write_result(run, trained(run, line, data))
        raise DataError("nosuch/: no such folder")

    with pytest.raises(RunError, match="no such folder"):
        run_line(sweep, line, work=no_probe)
    point = collect(folder)[0]
    assert (point.status, point.loss, point.macro_f1) == ("done", 0.3, None)


def test_a_run_by_name(folder: Path, capsys: pytest.CaptureFixture) -> None:
    sweep = open_sweep(folder)
    assert sweep.named("h0.2-s1") == sweep.lines[3]
    assert main(["sweep", "run", str(folder), "--name", "h9-s9"]) == 2
    assert "no run h9-s9" in capsys.readouterr().err
    assert main(["sweep", "run", str(folder), "--name", "h0.2-s1", "--index", "3"]) == 2


def test_a_late_worker_does_not_overwrite_the_result_of_another(folder: Path) -> None:
    sweep = open_sweep(folder)
    line = sweep.lines[0]

    def while_another_finishes(run: Path, line: PlannedRun, data: Path) -> RunResult:
        write_result(run, trained(run, line, data))
        for lease in leases_of(sweep.leases, line.name):  # another worker took this one for dead
            (sweep.leases / f"{line.name}.{lease.number + 1}").write_text("{}")
        return replace(trained(run, line, data), loss=9.9)

    with pytest.raises(RunError, match="taken over"):
        run_line(sweep, line, work=while_another_finishes)
    result = read_result(sweep.run(line))
    assert result is not None
    assert result.loss == 0.3


@pytest.mark.slow
def test_sigterm_releases_the_run(folder: Path) -> None:
    sweep = open_sweep(folder)

    def asked_to_stop(*_: object) -> RunResult:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        raise AssertionError("SIGTERM did nothing")

    before = signal.getsignal(signal.SIGTERM)
    assert run_line(sweep, sweep.lines[0], work=asked_to_stop) == "interrupted"
    assert run_line(sweep, sweep.lines[0], work=lambda *_: None) == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is before
    assert not leases_of(sweep.leases, sweep.lines[0].name)[-1].is_live()
    assert read_failure(sweep, sweep.lines[0]) == ""
    assert run_line(sweep, sweep.lines[0], work=trained) == "done"


def test_a_failed_run_does_not_stop_the_others(folder: Path) -> None:
    sweep = open_sweep(folder)
    assert run_line(sweep, sweep.lines[0], work=trained) == "done"
    started = []

    def start(line: PlannedRun) -> int:
        started.append(line.name)
        if line.index == 2:
            return -9
        return 0 if run_line(sweep, line, work=trained) == "done" else 1

    code, skipped = run_all(sweep, start)
    assert started == ["h0.1-s1", "h0.2-s0", "h0.2-s1"]
    assert (code, skipped) == (1, ["h0.2-s0 failed: its process ended with code -9"])
    assert run_all(sweep, lambda _: 75) == (75, [])
    assert run_all(sweep, lambda line: 0 if run_line(sweep, line, work=trained) else 1) == (0, [])
    assert "4 done; " in status_table(status_of(sweep))
    assert "best 0.3000, h0.1-s0" in status_table(status_of(sweep))


def test_an_edited_run_is_neither_continued_nor_fitted(folder: Path, capsys: pytest.CaptureFixture) -> None:
    sweep = open_sweep(folder)
    for line in sweep.lines[:2]:
        run_line(sweep, line, work=trained)
    path = sweep.run(sweep.lines[0]) / "settings.json"
    before = path.read_text()
    content = json.loads(before)
    content["optimizer"]["learning_rate"] = 5.0
    path.write_text(json.dumps(content))
    state = status_of(sweep)[0]
    assert state.state == "failed"
    assert state.note == "edited after planning: optimizer.learning_rate was 0.001, is 5.0"
    with pytest.raises(RunError, match=r"h0.1-s0 was edited .*restore"):
        run_line(sweep, sweep.lines[0], work=trained)
    assert [point.status for point in collect(folder)[:2]] == ["failed", "done"]
    assert "h0.1-s0 is excluded: edited" in capsys.readouterr().err
    path.write_text(before)
    assert [point.loss for point in collect(folder)[:2]] == [0.3, 0.31]
    content["optimizer"]["learning_rate"] = 1e-3
    content["checkpoint"]["every_steps"] = 7  # what a resumed run may change
    path.write_text(json.dumps(content))
    assert status_of(sweep)[0].state == "done"


def test_half_written_files_lose_no_finished_run(folder: Path) -> None:
    sweep = open_sweep(folder)
    for line in sweep.lines[:3]:
        run_line(sweep, line, work=trained)
    first, second, third = (sweep.run(line) for line in sweep.lines[:3])
    with (first / "log.jsonl").open("ab") as log:
        log.write(b'{"time": 4.0, "event": "tra')
    (second / "log.jsonl").write_bytes(b"\x00\xff\xfe" * 50)
    (third / RESULT_FILE).write_text('{"hash": "')
    states = status_of(sweep)
    assert [state.state for state in states] == ["done", "done", "waiting", "waiting"]
    assert "measured again" in states[2].note
    assert run_line(sweep, sweep.lines[2], work=trained) == "done"
    (third / "settings.json").write_text("{")
    assert status_of(sweep)[2].note == "edited after planning: settings.json cannot be read"
    sweep.failure(sweep.lines[3]).parent.mkdir()
    sweep.failure(sweep.lines[3]).write_text("{")
    assert "damaged" in status_of(sweep)[3].note


def test_an_edited_plan_is_refused_and_repaired_by_planning_again(
    folder: Path, plan_again: Callable[..., int], capsys: pytest.CaptureFixture
) -> None:
    sweep = open_sweep(folder)
    run_line(sweep, sweep.lines[1], work=trained)
    plan = folder / "plan.jsonl"
    whole = plan.read_text()
    plan.write_text(whole.replace('"learning_rate": 0.001', '"learning_rate": 0.002', 1))
    assert main(["sweep", "status", str(folder)]) == 1
    assert "plan.jsonl line 1 (h0.1-s0) was edited" in capsys.readouterr().err
    for damaged in (whole[:-9], "".join(whole.splitlines(keepends=True)[:2]), "", whole.split("\n", 1)[1]):
        plan.write_text(damaged)
        assert main(["sweep", "status", str(folder)]) == 1
        assert "plan.jsonl" in capsys.readouterr().err
    assert plan_again() == 0
    assert {state.line.name: state.state for state in status_of(open_sweep(folder))} == {
        "h0.1-s1": "done", "h0.1-s0": "waiting", "h0.2-s0": "waiting", "h0.2-s1": "waiting",
    }  # fmt: skip


def test_a_sweep_file_edited_after_runs_finished(
    folder: Path, plan_again: Callable[..., int], capsys: pytest.CaptureFixture
) -> None:
    sweep = open_sweep(folder)
    for line in sweep.lines[:2]:
        run_line(sweep, line, work=trained)
    before = (folder / "plan.jsonl").read_text()
    assert plan_again(length={"steps": 20}) == 1
    error = capsys.readouterr().err
    assert "2 runs that were started would change (h0.1-s0: optimizer.steps was 10, is 20, h0.1-s1" in error
    assert plan_again(length={"steps": 10}, grids=[{"hours": [0.2, 0.3], "seed": [0, 1]}]) == 1
    assert "h0.1-s0 would be gone" in capsys.readouterr().err
    assert (folder / "plan.jsonl").read_text() == before
    assert plan_again(grids=[{"hours": [0.1, 0.3], "seed": [0, 1]}]) == 0
    content = capsys.readouterr().out
    assert "2 runs stay as planned, 2 are new" in content
    assert "no longer planned (h0.2-s0, h0.2-s1)" in content
    states = status_of(open_sweep(folder))
    assert [(s.line.index, s.line.name, s.state) for s in states] == [
        (0, "h0.1-s0", "done"), (1, "h0.1-s1", "done"), (2, "h0.3-s0", "waiting"), (3, "h0.3-s1", "waiting"),
    ]  # fmt: skip


def test_the_stored_sweep_file_edited_by_hand(folder: Path, capsys: pytest.CaptureFixture) -> None:
    stored = folder / "sweep.yaml"
    stored.write_text(stored.read_text().replace("steps: 10", "steps: 11"))
    assert main(["sweep", "status", str(folder)]) == 0
    content = capsys.readouterr()
    assert "edited after planning (length.steps was 10, is 11)" in content.err
    assert "4 waiting" in content.out


def test_two_sweeps_in_one_folder(folder: Path, plan_again: Callable[..., int], capsys: pytest.CaptureFixture) -> None:
    before = (folder / "plan.jsonl").read_text()
    assert plan_again(name="other") == 1
    assert "holds the sweep small, this is other" in capsys.readouterr().err
    assert (folder / "plan.jsonl").read_text() == before
    (folder / "plan.jsonl").unlink()
    (folder / "photos").mkdir()
    assert plan_again(name="small") == 1
    assert "other files (photos)" in capsys.readouterr().err


def test_status_as_json_and_wrong_calls(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["sweep", "status", str(folder), "--json"]) == 0
    states = json.loads(capsys.readouterr().out)
    assert [state["run"] for state in states] == ["h0.1-s0", "h0.1-s1", "h0.2-s0", "h0.2-s1"]
    assert states[0] | {"state": "waiting", "loss": None, "steps": 10} == states[0]
    assert main(["sweep", "run", str(folder)]) == 2
    assert main(["sweep", "run", str(folder), "--index", "4"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "give either --index" in first
    assert "--index is 4; " in second


def test_a_sweep_of_version_0_1(folder: Path, plan_again: Callable[..., int], capsys: pytest.CaptureFixture) -> None:
    lines = [with_old_names(line) for line in open_sweep(folder).lines]
    write_lines(lines, folder / "plan.jsonl")
    (folder / "claims").mkdir()
    sweep = open_sweep(folder)
    assert sweep.leases == folder / "claims"
    assert run_line(sweep, sweep.lines[0], work=trained) == "done"  # its settings.json has the old names
    assert plan_again(overrides={"optimizer": {"batch_size": 32}}) == 0
    assert "4 runs stay as planned, 0 are new" in capsys.readouterr().out
    again = open_sweep(folder)
    assert [line.hash for line in again.lines] == [line.hash for line in lines]
    write_json(again.run(again.lines[0]) / "settings.json", as_json(again.lines[0].pretrain_settings()))  # resumed
    assert [state.state for state in status_of(again)] == ["done", "waiting", "waiting", "waiting"]
    assert plan_again(length={"steps": 20}) == 1
    assert "h0.1-s0: optimizer.steps was 10, is 20" in capsys.readouterr().err


def with_old_names(line: PlannedRun) -> PlannedRun:
    settings = copy.deepcopy(line.settings)
    settings["optimiser"] = settings.pop("optimizer")
    settings["model"]["rematerialise"] = settings["model"].pop("rematerialize")
    settings["task"]["alteration"] = settings["task"].pop("masking")
    return replace(line, settings=settings, hash=hash_of(settings, line.final, line.records))
