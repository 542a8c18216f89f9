"""Runs of a sweep: each is leased, trained or continued, measured and probed, and its result is stored."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selfpab_jax.config import find_preset, parse_settings, read_yaml
from selfpab_jax.errors import DataError, ExitCode, LockedError, RunError, SelfPABError
from selfpab_jax.scaling.sweep.lease import LeaseHeldError, hold_lease, leases_by_run
from selfpab_jax.scaling.sweep.manifest import PlannedRun, Sweep, edits
from selfpab_jax.scaling.sweep.result import (
    RunResult,
    is_complete,
    macro_f1_of,
    measure,
    read_failure,
    read_result,
    write_failure,
    write_result,
)

if TYPE_CHECKING:
    from selfpab_jax.probe.config import ProbeSettings

Outcome = Literal["done", "done before", "interrupted"]
Work = Callable[[Path, PlannedRun, Path], RunResult | None]
"""Trains and measures a run, given its directory, its line and the records; returns None where it was stopped."""


class Stopped(BaseException):
    """SIGTERM arrived outside of the training loop, which has a handler of its own."""


def run_line(
    sweep: Sweep, line: PlannedRun, *, data: Path | None = None, retry: bool = False, work: Work | None = None
) -> Outcome:
    """Do what is left to do of one run.

    Args:
        sweep: the sweep.
        line: the run.
        data: directory of the records, where it is not the planned one on this machine.
        retry: continue a run that failed.
        work: replaces training and measuring.

    Raises:
        LeaseHeldError: another worker has the run, or the trunk that it is branched off.
        RunError: the run failed before and `retry` is not set, its settings were edited, or it fails now; the reason
            is stored then.
    """
    run = sweep.run(line)
    _check(sweep, line, retry)
    if is_complete(line, read_result(run)):
        return "done before"
    try:
        with _stoppable(), hold_lease(sweep.leases, line.name) as is_ours:
            _check(sweep, line, retry)
            if is_complete(line, read_result(run)):  # by the worker that had it until now
                return "done before"
            sweep.failure(line).unlink(missing_ok=True)
            records = data or Path(line.settings["data"]["path"])
            try:
                result = (work or train_and_measure)(run, line, records)
            except LockedError as error:  # its lease expired, but the process lives: not a failure of the run
                raise LeaseHeldError(f"{line.name} is taken: {error}") from error
            except Exception as error:
                if is_ours():
                    write_failure(sweep, line, error)
                if isinstance(error, SelfPABError):
                    raise RunError(f"{line.name} failed: {error}") from error
                raise
            if result is None:
                return "interrupted"
            if not is_ours():
                raise RunError(f"{line.name} was taken over by another worker, which continues it")
            write_result(run, result)
            return "done"
    except Stopped:
        return "interrupted"


def train_and_measure(run: Path, line: PlannedRun, data: Path) -> RunResult | None:
    """Train, measure and probe a run; what is done already is not repeated.

    Args:
        run: its directory.
        line: of the plan.
        data: directory of the records.

    Returns:
        The result; None where training was stopped.

    Raises:
        DataError: these are not the records that the sweep was planned on.
    """
    from selfpab_jax.data.records.dataset import open_records
    from selfpab_jax.probe.monitor import open_probe
    from selfpab_jax.scaling.sweep.expand import records_fingerprint
    from selfpab_jax.train.branch import begin_branch
    from selfpab_jax.train.loop import pretrain

    result = read_result(run)
    if result is None or result.hash != line.hash:
        if records_fingerprint(open_records(data)) != line.records:
            raise DataError(
                f"{data} does not hold the records that the sweep was planned on; give those, or plan a new sweep"
            )
        if line.probe is not None:
            _probe_settings(line.probe)  # a mistake there should not cost a training first
        settings = line.pretrain_settings()
        settings = replace(settings, data=replace(settings.data, path=data))
        if line.trunk:
            settings = replace(settings, branch=replace(settings.branch, run=run.parent / line.trunk))
        ending = pretrain(settings, run, resume=True, open_probe=open_probe, begin=begin_branch)
        if ending == "interrupted":
            return None
        result = measure(run, line, data, ending)
        write_result(run, result)
    if line.probe is not None and macro_f1_of(line, result) is None:
        result = replace(result, macro_f1=probe_run(run, line.probe), probe=line.probe)
    return result


def probe_run(run: Path, probe: Mapping[str, Any]) -> float:
    """Probe the best checkpoint of a run; the model goes to RUN/model, the report of the probe to RUN/probe.

    Args:
        run: directory of the trained run.
        probe: of the sweep: `config`, a preset of `selfpab-jax probe`, and `data`, its recordings.

    Returns:
        Macro-F1 of the first method of the report: the mean over test subjects and seeds, 0 to 1.

    Raises:
        ConfigError: the preset is missing or a setting is invalid.
        DataError: the recordings cannot be probed.
        ModelError: the model does not fit the recordings.
    """
    from selfpab_jax.probe.run import probe_encoder
    from selfpab_jax.train.export import export_run

    model, out = run / "model", run / "probe"
    settings = _probe_settings(probe)
    export_run(run, model, overwrite=model.exists())
    result = probe_encoder(settings, model, str(probe["data"]), out, overwrite=True)
    shutil.rmtree(out / "cache", ignore_errors=True)  # features of all recordings, which every run would keep
    return result.headline.summary.macro_f1.mean


def _probe_settings(probe: Mapping[str, Any]) -> "ProbeSettings":
    """The settings of a sweep's probe, whose recordings are there."""
    from selfpab_jax.probe.config import ProbeSettings
    from selfpab_jax.probe.run import open_source

    settings = parse_settings(ProbeSettings, read_yaml(find_preset(str(probe["config"]))))
    list(open_source(settings.dataset, Path(str(probe["data"]))).files())
    return settings


def run_all(sweep: Sweep, start: Callable[[PlannedRun], int], *, retry: bool = False) -> tuple[int, list[str]]:
    """Do all runs that are left, one after another; a failed one does not stop the others.

    Args:
        sweep: the sweep.
        start: does one run and returns its exit code (`in_subprocess`).
        retry: continue runs that failed, too.

    Returns:
        The exit code, which is `FAILED` if a run failed or another worker has one, and one line for each run that was
        not done.
    """
    skipped = []
    for number, line in enumerate(sweep.lines, 1):
        if is_complete(line, read_result(sweep.run(line))) and not edits(sweep, line):
            continue
        failure, leases = read_failure(sweep, line), leases_by_run(sweep.leases).get(line.name)
        if failure and not retry:
            skipped.append(f"{line.name} failed before: {failure}; --retry tries it again")
            continue
        if leases and leases[-1].is_live():
            skipped.append(f"{line.name} is taken: {leases[-1].describe()}")
            continue
        print(f"run {number} of {len(sweep.lines)}: {line.name}", file=sys.stderr, flush=True)
        code = start(line)
        if code == ExitCode.STOPPED:
            return code, skipped
        if code:
            skipped.append(f"{line.name} failed: {read_failure(sweep, line) or f'its process ended with code {code}'}")
    return (ExitCode.FAILED if skipped else ExitCode.OK), skipped


def in_subprocess(words: list[str]) -> Callable[[PlannedRun], int]:
    """A function that does one run with `selfpab-jax sweep run --name` in a process of its own.

    The name identifies the run, because planning again may change its number. SIGTERM is passed on to the process, so
    that it saves.

    Args:
        words: of the command, without the name.
    """

    def start(line: PlannedRun) -> int:
        process = subprocess.Popen([sys.executable, "-m", "selfpab_jax.cli.main", *words, "--name", line.name])
        is_stopped = False

        def pass_on(number: int, _frame: object) -> None:
            nonlocal is_stopped
            is_stopped = True
            process.send_signal(number)

        before = signal.signal(signal.SIGTERM, pass_on)
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the terminal sent it to both processes
            code = process.wait()
            is_stopped = True
        finally:
            signal.signal(signal.SIGTERM, before)
        return ExitCode.STOPPED if is_stopped else code

    return start


@contextmanager
def _stoppable() -> Iterator[None]:
    """Raises `Stopped` on SIGTERM, so that the lease is released; during training the loop has its own handler."""

    def stop(_number: int, _frame: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(sweep: Sweep, line: PlannedRun, retry: bool) -> None:
    edited = edits(sweep, line)
    if edited:
        raise RunError(
            f"{sweep.run(line)} was edited after planning ({'; '.join(edited[:4])}); restore its settings.json, or "
            "move the directory away to train the run again"
        )
    failure = read_failure(sweep, line)
    if failure and not retry:
        raise RunError(f"{line.name} failed before: {failure}; --retry tries it again")
    if line.trunk:
        from selfpab_jax.train.branch import kept_steps

        run = sweep.run(line)
        if not kept_steps(run) and line.trunk_steps not in kept_steps(run.parent / line.trunk):
            raise LeaseHeldError(f"{line.name} waits for step {line.trunk_steps} of {line.trunk}, its trunk")
