"""Runs of a sweep: each once, failures told, hand-made changes found, and no finished run lost."""

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
from selfpab_jax.errors import DataError, RunError
from selfpab_jax.scaling.sweep.collect import collect
from selfpab_jax.scaling.sweep.lease import Taken, claimed, claims_of
from selfpab_jax.scaling.sweep.manifest import Line, Sweep, open_sweep
from selfpab_jax.scaling.sweep.run import run_all, run_line
from selfpab_jax.scaling.sweep.status import (
    RESULT_FILE,
    Result,
    read_failure,
    read_result,
    status_of,
    status_table,
    write_result,
)
from selfpab_jax.train.run_dir import Held, write_json

GRIDS = [{"hours": [0.1, 0.2], "seed": [0, 1]}]


@pytest.fixture(scope="module")
def planned(tiny_records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep file and its plan."""
    folder = tmp_path_factory.mktemp("planned")
    told = {"name": "small", "base": "demo", "length": {"steps": 10}, "grids": GRIDS}
    (folder / "given.yaml").write_text(yaml.safe_dump(told))
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
        told = yaml.safe_load(given.read_text()) | changes
        given.write_text(yaml.safe_dump(told))
        return main(["sweep", "plan", str(given), "--out", str(folder), "--data.path", str(tiny_records)])

    return plan_again


def begin(run: Path, line: Line, step: int = 4) -> None:
    """What a run leaves that was killed on its way."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "settings.json", line.settings)
    events = [
        {"time": 1.0, "event": "start", "step": 0, "steps": 10, "devices": 1},
        {"time": 2.0, "event": "train", "step": step, "loss": 0.5, "samples_per_second": 16.0},
        {"time": 3.0, "event": "validation", "step": step, "loss": 0.45, "best": 0.45},
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def trained(run: Path, line: Line, _data: Path) -> Result:
    begin(run, line, 10)
    return Result(line.hash, "finished", 0.3 + line.index / 100, 0.7, 0.35, 10, 10, line.tokens, line.flops)


def untouched(sweep: Sweep, line: Line) -> None:
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


def test_a_failure_is_told_in_a_line_and_stays_until_it_is_retried(folder: Path) -> None:
    sweep = open_sweep(folder)
    line = sweep.lines[1]

    def diverges(*_: object) -> Result:
        raise RunError("the loss is nan at step 7\nand more")

    with pytest.raises(RunError, match=r"h0\.1-s1 failed: the loss is nan at step 7"):
        run_line(sweep, line, work=diverges)
    assert read_failure(sweep, line) == "the loss is nan at step 7"
    with pytest.raises(RunError, match="failed before: the loss is nan at step 7; --retry tries it again"):
        run_line(sweep, line, work=trained)
    assert status_of(sweep)[1].state == "failed"
    assert collect(folder)[1].status == "failed"
    assert run_line(sweep, line, retry=True, work=trained) == "done"
    assert status_of(sweep)[1].state == "done"

    def breaks(*_: object) -> Result:
        raise MemoryError("RESOURCE_EXHAUSTED")

    with pytest.raises(MemoryError):
        run_line(sweep, sweep.lines[2], work=breaks)
    assert read_failure(sweep, sweep.lines[2]) == "MemoryError: RESOURCE_EXHAUSTED"
    assert not claims_of(sweep.claims, sweep.lines[2].name)[-1].is_live()


def test_a_run_that_another_worker_has_is_left_to_it(folder: Path, capsys: pytest.CaptureFixture) -> None:
    sweep = open_sweep(folder)
    line = sweep.lines[0]
    begin(sweep.run(line), line)
    with claimed(sweep.claims, line.name):
        with pytest.raises(Taken, match=f"h0.1-s0 is taken: process {os.getpid()} on"):
            run_line(sweep, line, work=trained)
        state = status_of(sweep)[0]
        assert (state.state, state.loss, state.step) == ("running", 0.45, 4)
        assert state.left_seconds == (10 - 4) * 32 / 16
        assert main(["sweep", "run", str(folder), "--index", "0"]) == 1
        assert f"is taken: process {os.getpid()} on" in capsys.readouterr().err
        started: list[str] = []
        code, left_out = run_all(sweep, lambda line: started.append(line.name) or 0)
        assert started == [line.name for line in sweep.lines[1:]]
        assert code == 1
        assert "h0.1-s0 is taken" in left_out[0]
    assert "stopped at step 4" in status_of(sweep)[0].note
    assert run_line(sweep, line, work=trained) == "done"


def test_a_run_that_somebody_still_trains_is_not_a_failure(folder: Path) -> None:
    sweep = open_sweep(folder)
    line = sweep.lines[0]

    def held(*_: object) -> Result:
        raise Held("RUN is being trained by another process")

    with pytest.raises(Taken, match=r"h0\.1-s0 is taken: RUN is being trained"):
        run_line(sweep, line, work=held)
    assert not read_failure(sweep, line)
    assert run_line(sweep, line, work=trained) == "done"


def test_a_run_whose_probe_failed_keeps_its_loss_in_the_fits(folder: Path) -> None:
    sweep = open_sweep(folder)
    line = sweep.lines[0]

    def no_probe(run: Path, line: Line, data: Path) -> Result:
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
    assert "has no run h9-s9 (any more)" in capsys.readouterr().err
    assert main(["sweep", "run", str(folder), "--name", "h0.2-s1", "--index", "3"]) == 2


def test_who_comes_late_does_not_repeat_what_the_other_just_finished(folder: Path) -> None:
    sweep = open_sweep(folder)
    line = sweep.lines[0]

    def while_another_finishes(run: Path, line: Line, data: Path) -> Result:
        write_result(run, trained(run, line, data))
        for claim in claims_of(sweep.claims, line.name):  # taken for dead, and taken over
            (sweep.claims / f"{line.name}.{claim.number + 1}").write_text("{}")
        return replace(trained(run, line, data), loss=9.9)

    with pytest.raises(RunError, match="was taken over by another worker"):
        run_line(sweep, line, work=while_another_finishes)
    result = read_result(sweep.run(line))
    assert result is not None
    assert result.loss == 0.3


def test_sigterm_gives_the_run_back(folder: Path) -> None:
    sweep = open_sweep(folder)

    def asked_to_stop(*_: object) -> Result:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        raise AssertionError("SIGTERM did nothing")

    before = signal.getsignal(signal.SIGTERM)
    assert run_line(sweep, sweep.lines[0], work=asked_to_stop) == "interrupted"
    assert run_line(sweep, sweep.lines[0], work=lambda *_: None) == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is before
    assert not claims_of(sweep.claims, sweep.lines[0].name)[-1].is_live()
    assert read_failure(sweep, sweep.lines[0]) == ""
    assert run_line(sweep, sweep.lines[0], work=trained) == "done"


def test_all_runs_in_turn_whatever_becomes_of_one(folder: Path) -> None:
    sweep = open_sweep(folder)
    assert run_line(sweep, sweep.lines[0], work=trained) == "done"
    started = []

    def start(line: Line) -> int:
        started.append(line.name)
        if line.index == 2:
            return -9
        return 0 if run_line(sweep, line, work=trained) == "done" else 1

    code, left_out = run_all(sweep, start)
    assert started == ["h0.1-s1", "h0.2-s0", "h0.2-s1"]
    assert (code, left_out) == (1, ["h0.2-s0 failed: its process ended with -9"])
    assert run_all(sweep, lambda _: 75) == (75, [])
    assert run_all(sweep, lambda line: 0 if run_line(sweep, line, work=trained) else 1) == (0, [])
    assert "4 done; " in status_table(status_of(sweep))
    assert "best 0.3000, h0.1-s0" in status_table(status_of(sweep))


def test_a_run_changed_by_hand_is_neither_run_nor_fitted(folder: Path, capsys: pytest.CaptureFixture) -> None:
    sweep = open_sweep(folder)
    for line in sweep.lines[:2]:
        run_line(sweep, line, work=trained)
    path = sweep.run(sweep.lines[0]) / "settings.json"
    before = path.read_text()
    told = json.loads(before)
    told["optimizer"]["learning_rate"] = 5.0
    path.write_text(json.dumps(told))
    state = status_of(sweep)[0]
    assert state.state == "failed"
    assert state.note == "changed by hand: optimizer.learning_rate was 0.001, is 5.0"
    with pytest.raises(RunError, match=r"h0.1-s0 was changed by hand .*put its settings.json back"):
        run_line(sweep, sweep.lines[0], work=trained)
    assert [point.status for point in collect(folder)[:2]] == ["failed", "done"]
    assert "h0.1-s0 is left out: changed by hand" in capsys.readouterr().err
    path.write_text(before)
    assert [point.loss for point in collect(folder)[:2]] == [0.3, 0.31]
    told["optimizer"]["learning_rate"] = 1e-3
    told["checkpoint"]["every_steps"] = 7  # what a resumed run may change
    path.write_text(json.dumps(told))
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
    assert "it is measured again" in states[2].note
    assert run_line(sweep, sweep.lines[2], work=trained) == "done"
    (third / "settings.json").write_text("{")
    assert status_of(sweep)[2].note == "changed by hand: settings.json cannot be read"
    sweep.failure(sweep.lines[3]).parent.mkdir()
    sweep.failure(sweep.lines[3]).write_text("{")
    assert status_of(sweep)[3].note == "for a reason that was not written down whole"


def test_a_plan_changed_by_hand_is_refused_and_mended_by_planning_again(
    folder: Path, plan_again: Callable[..., int], capsys: pytest.CaptureFixture
) -> None:
    sweep = open_sweep(folder)
    run_line(sweep, sweep.lines[1], work=trained)
    plan = folder / "plan.jsonl"
    whole = plan.read_text()
    plan.write_text(whole.replace('"learning_rate": 0.001', '"learning_rate": 0.002', 1))
    assert main(["sweep", "status", str(folder)]) == 1
    assert "plan.jsonl line 1 (h0.1-s0) was changed by hand" in capsys.readouterr().err
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
    assert "nothing was written" in error
    assert plan_again(length={"steps": 10}, grids=[{"hours": [0.2, 0.3], "seed": [0, 1]}]) == 1
    assert "h0.1-s0 would be gone" in capsys.readouterr().err
    assert (folder / "plan.jsonl").read_text() == before
    assert plan_again(grids=[{"hours": [0.1, 0.3], "seed": [0, 1]}]) == 0
    told = capsys.readouterr().out
    assert "2 runs stay as they were planned, 2 are new" in told
    assert "2 runs that were not started are no longer planned (h0.2-s0, h0.2-s1)" in told
    states = status_of(open_sweep(folder))
    assert [(s.line.index, s.line.name, s.state) for s in states] == [
        (0, "h0.1-s0", "done"), (1, "h0.1-s1", "done"), (2, "h0.3-s0", "waiting"), (3, "h0.3-s1", "waiting"),
    ]  # fmt: skip


def test_the_stored_sweep_file_edited_by_hand(folder: Path, capsys: pytest.CaptureFixture) -> None:
    stored = folder / "sweep.yaml"
    stored.write_text(stored.read_text().replace("steps: 10", "steps: 11"))
    assert main(["sweep", "status", str(folder)]) == 0
    told = capsys.readouterr()
    assert "sweep.yaml was edited after planning (length.steps was 10, is 11); runs go by the plan" in told.err
    assert "4 waiting" in told.out


def test_two_sweeps_in_one_folder(folder: Path, plan_again: Callable[..., int], capsys: pytest.CaptureFixture) -> None:
    before = (folder / "plan.jsonl").read_text()
    assert plan_again(name="other") == 1
    assert "holds the sweep small, this is other; choose another --out" in capsys.readouterr().err
    assert (folder / "plan.jsonl").read_text() == before
    (folder / "plan.jsonl").unlink()
    (folder / "photos").mkdir()
    assert plan_again(name="small") == 1
    assert "holds other files (photos) and is no sweep" in capsys.readouterr().err


def test_status_for_programs_and_wrong_calls(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["sweep", "status", str(folder), "--json"]) == 0
    states = json.loads(capsys.readouterr().out)
    assert [state["run"] for state in states] == ["h0.1-s0", "h0.1-s1", "h0.2-s0", "h0.2-s1"]
    assert states[0] | {"state": "waiting", "loss": None, "steps": 10} == states[0]
    assert main(["sweep", "run", str(folder)]) == 2
    assert main(["sweep", "run", str(folder), "--index", "4"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "give either --index" in first
    assert "--index is 4; " in second
