"""For `bench.py`: records from files and batches from records, at the rate that a fast accelerator would ask for."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ingest import WINDOW_HOURS, in_own_process, make_files

BATCH = 64
WINDOW_MB = 599 * 156 * 2 / 1e6
H100_STEP_S = BATCH * 245e9 / (0.6 * 700e12)
"""245 GFLOP a window at 60% of the 700 TFLOP/s that large bf16 products reach on an H100."""


@dataclass(frozen=True)
class DataRates:
    """Recorded hours a core-hour of ingest, MB/s of the loader, MB/s asked for, and the share of time waited then."""

    ingest_hours: float
    loader_mb_s: float
    needed_mb_s: float
    waiting_share: float


def measure(files: int = 1000, steps: int = 200, batch: int = BATCH, step_s: float = H100_STEP_S) -> DataRates:
    """Ingest, loader and waiting on this many HUNT4 files."""
    from selfpab_jax.data.records.build import Runner, build_spec
    from selfpab_jax.data.records.spec import BuildSpec
    from selfpab_jax.data.sources.hunt4 import Hunt4
    from selfpab_jax.data.splits import SplitSettings

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = make_files(folder, files)
        done = in_own_process("ingest", root, folder / "staging")
        out = folder / "records"
        build_spec(BuildSpec(Hunt4((str(root),)), splits=SplitSettings(by="recording")), out, Runner(workers=2))
        loaded = in_own_process("load", out)
        return DataRates(
            done["windows"] / done["cpu_seconds"] * WINDOW_HOURS * 3600,
            loaded["mb_per_second"],
            batch * WINDOW_MB / step_s,
            waiting_share(out, steps, batch, step_s),
        )


def waiting_share(out: Path, steps: int, batch: int, step_s: float) -> float:
    """The share of the time that a loop waits whose device takes so long a step and leaves the host its cores.

    As in training, the next batch is asked for when a step is under way: waiting is what goes beyond the step.
    """
    import numpy as np

    from selfpab_jax.data.loader import batches
    from selfpab_jax.data.records.dataset import open_records

    source = open_records(out).source("train")
    stream = batches(
        source, np.arange(len(source)), seed=0, batch_size=batch, first_step=0, last_step=steps + 1, threads=4
    )
    next(stream)
    begin = ready = time.perf_counter()
    waited = 0.0
    for _ in stream:
        now = time.perf_counter()
        waited += max(0.0, now - ready)  # the device had nothing to do
        ready = max(ready, now) + step_s
        # One step is under way and one is queued: the host reads the earlier one, then asks for the next batch.
        time.sleep(max(0.0, ready - step_s - time.perf_counter()))
    return waited / (max(ready, time.perf_counter()) - begin)
