"""Shards built by several processes of one machine, with progress."""

import fcntl
import io
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from selfpab_jax.data.records.format import NAME, VERSION, RecordsInfo, read_info
from selfpab_jax.data.records.shards import NothingUsable, build_shard, result_path, shard_path
from selfpab_jax.data.records.spec import PLAN_FILE, Plan, Shard, check_same, write_plan
from selfpab_jax.errors import DataError

# Shards built by several processes of one machine, with progress.

POLL_SECONDS = 0.5
SINGLE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Done:
    """What the workers have done so far."""

    files: int
    windows: int
    rejected: int


Report = Callable[[Done], None]


def build_shards(plan: Plan, folder: Path, shards: list[Shard], workers: int, strict: bool, report: Report) -> None:
    """Builds the shards in `workers` processes and reports a few times a second.

    Processes are spawned, never forked (JAX and Grain run threads), and end by themselves when this one is killed.
    Which worker builds which shard changes nothing in the files.

    Raises:
        DataError: strict, and a file was to be set aside; or a worker was killed.
    """
    context = get_context("spawn")
    counters = [context.Value("q", 0) for _ in range(3)]
    with (
        _single_threaded(),
        ProcessPoolExecutor(min(workers, len(shards)) or 1, context, _start_worker, (os.getpid(), counters)) as pool,
    ):
        with _deaf_to_interrupts():
            futures = [pool.submit(_run, plan, folder, shard, strict) for shard in shards]
        pending = set(futures)
        try:
            while pending:
                finished, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                # In the shards' order: of two files that cannot be used, the first one is told.
                for future in sorted(finished, key=futures.index):
                    future.result()
                report(Done(*(counter.value for counter in counters)))
        except BrokenProcessPool:
            raise DataError("a worker process was killed (out of memory?); repeat the command to go on") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started meanwhile leave Ctrl-C to this one, which ends them without their tracebacks."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _single_threaded:
    """Children start with one BLAS thread each: as many processes as cores are running already."""

    def __enter__(self) -> None:
        self.before = {name: os.environ.get(name) for name in SINGLE_THREAD}
        os.environ.update(dict.fromkeys(SINGLE_THREAD, "1"))

    def __exit__(self, *_: object) -> None:
        for name, value in self.before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


_counters: list[Any] = []
"""Shared counters of this worker process: the pool's initializer is the only door for them."""


def _start_worker(parent: int, counters: list[Any]) -> None:
    _counters[:] = counters
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _run(plan: Plan, folder: Path, shard: Shard, strict: bool) -> int:
    return build_shard(plan, folder, shard, strict, _count)


def _count(windows: int, rejected: int) -> None:
    for counter, amount in zip(_counters, (1, windows, rejected), strict=True):
        with counter.get_lock():
            counter.value += amount


class Progress:
    """Lines for people on stderr: hours of recording done, windows a second, time left.

    One line rewritten on a terminal, a plain line every few seconds elsewhere.
    """

    def __init__(self, files: int, window_hours: float, every: float = 10.0) -> None:
        self.files, self.window_hours, self.every = files, window_hours, every
        self.start, self.last = time.monotonic(), 0.0
        self.terminal = sys.stderr.isatty()

    def __call__(self, done: Done) -> None:
        """Prints when it is time."""
        now = time.monotonic()
        last = done.files >= self.files
        if not done.files or (not last and now - self.last < (0.5 if self.terminal else self.every)):
            return
        self.last = now
        seconds = max(now - self.start, 1e-9)
        left = seconds / done.files * (self.files - done.files)
        line = (
            f"records: {done.files}/{self.files} files, {done.windows * self.window_hours:.1f} h, "
            f"{done.windows / seconds:.0f} windows/s, {done.rejected} set aside, {_clock(left)} left"
        )
        end = "" if self.terminal and not last else "\n"
        print(f"\r{line:<78}" if self.terminal else line, end=end, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


# Recordings in, finished records out; killed, it goes on where it was.

STAGING = ".building"


@dataclass(frozen=True)
class Runner:
    """Who builds the shards: worker processes of this machine, or a Beam pipeline with options."""

    workers: int = 1
    beam_options: tuple[str, ...] | None = None
    strict: bool = False


def build_records(plan: Plan, out: Path, runner: Runner, overwrite: bool = False, resume: bool = False) -> RecordsInfo:
    """Builds records into `out/spectrograms/1.0.0` and says what they are.

    Finished shards wait in `out/.building` until all are there; the folder of the data set appears at once, complete.
    The same call after a kill goes on with the shards that are missing.

    Args:
        plan: what to build.
        out: the folder to build in.
        runner: how.
        overwrite: delete what an earlier build left in `out`, finished or not.
        resume: finished records of the same options are no error but the answer.

    Raises:
        DataError: finished records in `out`, an unfinished build of another plan, another build at work, nothing
            usable, or a full disk.
    """
    with _lock(out):
        folder, staging = out / NAME / VERSION, out / STAGING
        if overwrite:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(staging, ignore_errors=True)
        if folder.exists() and (resume or staging.exists()) and read_info(folder).options == plan.options():
            # Killed while clearing up, or asked to go on with what is done.
            shutil.rmtree(staging, ignore_errors=True)
            return read_info(folder)
        if folder.exists():
            raise DataError(f"{out}: finished records are in it already; choose another --out, or add --overwrite")
        try:
            if (staging / PLAN_FILE).exists():
                check_same(plan, staging)
            else:
                write_plan(plan, staging)
            _sweep(out)
            _prepare(plan, out, staging, runner)
            shutil.rmtree(staging)
        except NothingUsable:
            # The same folder serves the next attempt, with other options or mended files.
            shutil.rmtree(staging)
            raise
        except OSError as error:
            raise DataError(f"{out}: cannot build here ({error}); mend that and repeat the command to go on") from None
    return read_info(folder)


def unfinished(staging: Path, shards: list[Shard]) -> list[Shard]:
    """The shards whose result is not there yet."""
    return [
        shard for shard in shards if not (result_path(staging, shard).exists() and shard_path(staging, shard).exists())
    ]


def _prepare(plan: Plan, out: Path, staging: Path, runner: Runner) -> None:
    from selfpab_jax.data.records.tfds import Spectrograms

    def build_missing(plan: Plan, staging: Path, shards: list[Shard]) -> None:
        missing = unfinished(staging, shards)
        if not missing:
            return
        if runner.beam_options is not None:
            from selfpab_jax.data.records.beam import build_shards_with_beam

            build_shards_with_beam(plan, staging, missing, runner.strict, runner.beam_options)
        else:
            progress = Progress(sum(shard.files for shard in missing), plan.records.new_seconds / 3600)
            build_shards(plan, staging, missing, runner.workers, runner.strict, progress)

    builder = Spectrograms(data_dir=str(out), plan=plan, staging=staging, build_shards=build_missing)
    with redirect_stdout(io.StringIO()):  # TFDS speaks of downloads, of which there are none
        builder.download_and_prepare(download_dir=str(staging / "downloads"))


def _sweep(out: Path) -> None:
    """Clears what a killed build left half-written."""
    for partial in (out / STAGING).glob("*.part"):
        partial.unlink(missing_ok=True)
    for folder in (out / NAME).glob(f"incomplete.*{VERSION}*"):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = open(out / ".lock", "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise DataError(f"{out}: no folder to build in ({error.strerror}); choose another --out") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"{out}: another build is at work in it") from None
        yield
