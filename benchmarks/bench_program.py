"""For `bench.py`: the compiled step, and embedding from file to file against the forward pass alone."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from timing import Worker, median, seconds_a_turn

WINDOW_HOURS = 300 / 3600
FILES = 36
"""Of a window each; on a CPU a batch is one window."""


@dataclass(frozen=True)
class Compiled:
    """Seconds of compilation, and MB beside the arguments."""

    seconds: float
    memory_mb: float


@dataclass(frozen=True)
class Embedding:
    """Hours of recording a second, file to file and of the forward pass alone."""

    hours_s: float
    bare_hours_s: float


def compiled_step(batches: tuple[int, ...]) -> dict[int, Compiled]:
    """The published step in float32 at each batch size, compiled but not run."""
    worker = Worker(_compile)
    try:
        return {batch: worker.ask(batch) for batch in batches}
    finally:
        worker.close()


def _compile(batch: int) -> Compiled:
    from jax_side import lowered_step, settings_of

    lowered = lowered_step(settings_of(compute="float32"), batch)
    begin = time.perf_counter()
    memory = lowered.compile().memory_analysis()
    return Compiled(time.perf_counter() - begin, memory.temp_size_in_bytes / 1e6)  # type: ignore[union-attr]


def embedding(files: int = FILES, repeats: int = 5, changes: dict | None = None) -> Embedding:
    """Recordings in the HUNT4 layout to a table of every window's features, and the forward pass alone, in turn."""
    worker = Worker(_embed)
    try:
        return worker.ask((files, repeats, {"compute": "float32"} | (changes or {})))
    finally:
        worker.close()


def _embed(request: tuple[int, int, dict]) -> Embedding:
    import numpy as np
    from jax_side import embed as bare
    from jax_side import random_encoder, settings_of

    from selfpab_jax.data.sources.synthetic import recordings
    from selfpab_jax.features.extract import ExtractionSettings
    from selfpab_jax.features.streaming import embed

    files, repeats, changes = request
    settings = settings_of(**changes)
    encoder = random_encoder(settings)
    extraction = ExtractionSettings(compute=settings.compute)
    batch = extraction.windows_per_batch(599)
    forward = bare(settings, batch, "bare")
    turns = max(1, files // batch)
    both: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{i:03}.npz" for i in range(files)]
        for i, path in enumerate(paths):
            np.savez(path, arr_0=next(recordings(i % 8, 1, 0))[1])
        for turn in range(1 + repeats):
            out = folder / f"{turn}.parquet"
            done = embed(paths, encoder, out, level="window", extraction=extraction, readers=1)
            alone = seconds_a_turn(forward, 1, 0.0, warm_up=1)[0] * turns
            both.append((done.hours / done.seconds, turns * batch * WINDOW_HOURS / alone))
    rates = both[1:]  # the first compiles
    return Embedding(median([rate for rate, _ in rates]), median([rate for _, rate in rates]))
