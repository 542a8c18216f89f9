"""Shards built by several processes, or by an Apache Beam pipeline for Flink, Spark or Dataflow (extra `beam`)."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from selfpab_jax.data.records.shards import build_shard
from selfpab_jax.data.records.spec import BuildSpec, Shard
from selfpab_jax.errors import DataError

POLL_SECONDS = 0.5
THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class BuildCounts:
    """What the workers have done so far."""

    files: int
    samples: int
    skipped: int


OnProgress = Callable[[BuildCounts], None]


def build_shards(
    spec: BuildSpec, folder: Path, shards: list[Shard], workers: int, strict: bool, on_progress: OnProgress
) -> None:
    """Build shards in worker processes; which of them builds which shard changes nothing in the files.

    Processes are spawned, never forked (JAX and Grain run threads), and end when this one is killed.

    Args:
        spec: of the build, as in the plan of the folder.
        folder: the staging folder.
        shards: those to build.
        workers: number of processes.
        strict: stop at the first file that would be skipped.
        on_progress: called a few times per second.

    Raises:
        DataError: strict, and a file cannot be used; or a worker was killed.
        StorageError: the disk is full, or the folder cannot be written.
    """
    context = get_context("spawn")
    counters = [context.Value("q", 0) for _ in range(3)]
    with (
        _one_thread_per_child(),
        ProcessPoolExecutor(min(workers, len(shards)) or 1, context, _start_worker, (os.getpid(), counters)) as pool,
    ):
        with _children_ignore_interrupts():
            futures = [pool.submit(_build, spec, folder, shard, strict) for shard in shards]
        pending = set(futures)
        try:
            while pending:
                finished, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                # In the order of the shards: of two files that cannot be used, the first one is reported.
                for future in sorted(finished, key=futures.index):
                    future.result()
                on_progress(BuildCounts(*(counter.value for counter in counters)))
        except BrokenProcessPool:
            raise DataError("a worker process was killed (out of memory?); repeat the command to continue") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _children_ignore_interrupts() -> Iterator[None]:
    """Processes started in the block leave Ctrl-C to this one, which ends them without tracebacks of their own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _one_thread_per_child() -> Iterator[None]:
    """Processes started in the block use one BLAS thread each: there are as many processes as cores."""
    before = {name: os.environ.get(name) for name in THREAD_COUNTS}
    os.environ.update(dict.fromkeys(THREAD_COUNTS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


_counters: list[Any] = []
"""Shared counters of this worker process; they can only be passed through the pool's initializer."""


def _start_worker(parent: int, counters: list[Any]) -> None:
    _counters[:] = counters
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _build(spec: BuildSpec, folder: Path, shard: Shard, strict: bool) -> int:
    return build_shard(spec, folder, shard, strict, _count)


def _count(files: int, samples: int, skipped: int) -> None:
    for counter, amount in zip(_counters, (files, samples, skipped), strict=True):
        if amount:
            with counter.get_lock():
                counter.value += amount


# Shards built by an Apache Beam pipeline, for Flink, Spark or Dataflow (extra `beam`).


def build_shards_with_beam(
    spec: BuildSpec, folder: Path, shards: list[Shard], strict: bool, options: tuple[str, ...]
) -> None:
    """Build the shards with one Beam element each.

    Every Beam worker must see the recordings and the staging folder under the same path.

    Args:
        spec, folder, shards, strict: as `build_shard` takes them.
        options: options of Beam, e.g. `--runner=FlinkRunner`; without any, Beam's DirectRunner.

    Raises:
        DataError: apache-beam is not installed.
    """
    try:
        import apache_beam as beam  # type: ignore[import-not-found]
        from apache_beam.options.pipeline_options import PipelineOptions  # type: ignore[import-not-found]
    except ImportError:
        raise DataError("--beam needs Apache Beam: pip install 'selfpab-jax[beam]'") from None
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        _ = (
            pipeline
            | "shards" >> beam.Create(shards)
            | "spread" >> beam.Reshuffle()
            | "build" >> beam.Map(_build_element, spec, folder, strict)
        )


def _build_element(shard: Shard, spec: BuildSpec, folder: Path, strict: bool) -> int:
    return build_shard(spec, folder, shard, strict)
