"""The downstream measurement of a run: its model, exported, under a probe."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from selfpab_jax.errors import DataError, RunError, SelfPABError
from selfpab_jax.scaling.sweep.lease import Taken, claimed, claims_by_run
from selfpab_jax.scaling.sweep.manifest import Line, Sweep, changed_by_hand
from selfpab_jax.scaling.sweep.status import (
    Result,
    is_complete,
    measure,
    probed,
    read_failure,
    read_result,
    write_result,
)
from selfpab_jax.train.export import export_run
from selfpab_jax.train.run_dir import Held, write_json

# The downstream measurement of a run: its model, exported, under a probe.


def downstream_of_run(run: Path, probe_section: Mapping[str, Any]) -> float:
    """Macro-F1 of a run's best checkpoint; the model goes into RUN/model, the probe's report into RUN/probe."""
    model, out = run / "model", run / "probe"
    export_run(run, model, overwrite=model.exists())
    macro_f1 = downstream(model, probe_section, out)
    shutil.rmtree(out / "cache", ignore_errors=True)  # features of all recordings, for every run
    return macro_f1


def downstream(model_directory: Path, probe_section: Mapping[str, Any], out: Path) -> float:
    """Probe a model and tell one figure.

    Args:
        model_directory: an exported model.
        probe_section: of the sweep: `config`, a preset of `selfpab-jax probe`, and `data`, its recordings.
        out: where the probe's report goes; results there are replaced.

    Returns:
        Macro-F1 of the report's headline: the mean over test subjects and seeds, 0 to 1.

    Raises:
        ConfigError, DataError, ModelError: what the probe cannot do.
    """
    from selfpab_jax.cli.probe import probe_parser, run_probe
    from selfpab_jax.probe.report.results import load

    words = ["--config", str(probe_section["config"]), "--model", str(model_directory)]
    words += ["--data", str(probe_section["data"]), "--out", str(out), "--overwrite"]
    run_probe(probe_parser().parse_args(words))
    return load(out).headline.summary.macro_f1.mean


# Runs of a sweep, one at a time: claimed, trained or gone on with, measured, probed, written down.

STOPPED_AND_SAVED = 75
Outcome = Literal["done", "done before", "interrupted"]
Work = Callable[[Path, Line, Path], Result | None]
"""Trains and measures a run, from its directory, line and records; None where it was asked to stop."""


class Stopped(BaseException):
    """SIGTERM came while no training loop was there to take it."""


def run_line(
    sweep: Sweep, line: Line, *, data: Path | None = None, retry: bool = False, work: Work | None = None
) -> Outcome:
    """Do what is left of one run.

    Args:
        sweep: the sweep.
        line: the run.
        data: directory of the records, where it is not the planned one on this machine.
        retry: go on with a run that failed.
        work: in place of training and measuring.

    Raises:
        RunError: another worker has it, it failed before and is not to be retried, its directory was changed by
            hand, or it fails now; the reason is then written down.
    """
    run = sweep.run(line)
    _check(sweep, line, retry)
    if is_complete(line, read_result(run)):
        return "done before"
    try:
        with _stoppable(), claimed(sweep.claims, line.name) as is_ours:
            _check(sweep, line, retry)
            if is_complete(line, read_result(run)):  # by the worker who had it until now
                return "done before"
            sweep.failure(line).unlink(missing_ok=True)
            records = data or Path(line.settings["data"]["path"])
            try:
                result = (work or train_and_measure)(run, line, records)
            except Held as error:  # its claim ran out, but it lives: no failure of the run
                raise Taken(f"{line.name} is taken: {error}") from error
            except Exception as error:
                if is_ours():
                    _write_failure(sweep, line, error)
                if isinstance(error, SelfPABError):
                    raise RunError(f"{line.name} failed: {error}") from error
                raise
            if result is None:
                return "interrupted"
            if not is_ours():
                raise RunError(f"{line.name} was taken over by another worker, which goes on with it")
            write_result(run, result)
            return "done"
    except Stopped:
        return "interrupted"


def train_and_measure(run: Path, line: Line, data: Path) -> Result | None:
    """The real work: training, measurement, probe. What is there already is not done again."""
    from selfpab_jax.data.records.dataset import open_records
    from selfpab_jax.scaling.sweep.expand import records_fingerprint, settings_from_json
    from selfpab_jax.train.loop import pretrain

    result = read_result(run)
    if result is None or result.hash != line.hash:
        if records_fingerprint(open_records(data)) != line.records:
            raise DataError(
                f"{data} holds other records than the sweep was planned on; give those, or plan a new sweep"
            )
        settings = settings_from_json(line.settings)
        ending = pretrain(replace(settings, data=replace(settings.data, path=data)), run, resume=True)
        if ending == "interrupted":
            return None
        result = measure(run, line, data, ending)
        write_result(run, result)
    if line.probe is not None and probed(line, result) is None:
        result = replace(result, macro_f1=downstream_of_run(run, line.probe), probe=line.probe)
    return result


def run_all(sweep: Sweep, start: Callable[[Line], int], *, retry: bool = False) -> tuple[int, list[str]]:
    """All runs that are left, one after another; a failed one does not stop the others.

    Args:
        sweep: the sweep.
        start: does a run in a process of its own and returns its exit code (`in_process_of_its_own`).
        retry: those that failed before, too.

    Returns:
        Exit code: 0, 1 if a run failed or another worker has one, 75 if asked to stop; and a line for each run that
        was not done.
    """
    left_out = []
    for number, line in enumerate(sweep.lines, 1):
        if is_complete(line, read_result(sweep.run(line))) and not changed_by_hand(sweep, line):
            continue
        failed, claims = read_failure(sweep, line), claims_by_run(sweep.claims).get(line.name)
        if failed and not retry:
            left_out.append(f"{line.name} failed before: {failed}; --retry tries it again")
            continue
        if claims and claims[-1].is_live():
            left_out.append(f"{line.name} is taken: {claims[-1].describe()}")
            continue
        print(f"run {number} of {len(sweep.lines)}: {line.name}", file=sys.stderr, flush=True)
        code = start(line)
        if code == STOPPED_AND_SAVED:
            return code, left_out
        if code:
            left_out.append(f"{line.name} failed: {read_failure(sweep, line) or f'its process ended with {code}'}")
    return (1 if left_out else 0), left_out


def in_process_of_its_own(words: list[str]) -> Callable[[Line], int]:
    """Starts `selfpab-jax sweep run` for one run, by name: planning again may number runs anew.

    SIGTERM goes on to it, so that it saves.

    Args:
        words: of the command, without the name.
    """

    def start(line: Line) -> int:
        process = subprocess.Popen([sys.executable, "-m", "selfpab_jax.cli.main", *words, "--name", line.name])
        asked = False

        def pass_on(number: int, _frame: object) -> None:
            nonlocal asked
            asked = True
            process.send_signal(number)

        before = signal.signal(signal.SIGTERM, pass_on)
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the terminal sent it to both
            code = process.wait()
            asked = True
        finally:
            signal.signal(signal.SIGTERM, before)
        return STOPPED_AND_SAVED if asked else code

    return start


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM as `Stopped`, so that claims are given back; while training, the loop has its own handler."""

    def stop(_number: int, _frame: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(sweep: Sweep, line: Line, retry: bool) -> None:
    changed = changed_by_hand(sweep, line)
    if changed:
        raise RunError(
            f"{sweep.run(line)} was changed by hand ({'; '.join(changed[:4])}); put its settings.json back, or move "
            "the directory away to train the run anew"
        )
    failed = read_failure(sweep, line)
    if failed and not retry:
        raise RunError(f"{line.name} failed before: {failed}; --retry tries it again")


def _write_failure(sweep: Sweep, line: Line, error: Exception) -> None:
    path = sweep.failure(line)
    path.parent.mkdir(parents=True, exist_ok=True)
    reason = " ".join((str(error).strip() or type(error).__name__).split("\n", 1)[0].split())[:400]
    if not isinstance(error, SelfPABError):
        reason = f"{type(error).__name__}: {reason}"
    write_json(path, {"reason": reason, "hash": line.hash})
