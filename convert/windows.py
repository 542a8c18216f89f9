"""Windows to compare two models on: random ones, and real ones from records."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from selfpab_jax.convert.verify import Network
from selfpab_jax.errors import ModelError
from selfpab_jax.model.positions import CALENDAR


def random_windows(network: Network, windows: int, frames: int, seed: int) -> Float32[np.ndarray, "B T X"]:
    """Standard normal frames, which is what normalised ones are in mean and deviation."""
    return np.random.default_rng(seed).standard_normal((windows, frames, network.features), np.float32)


def random_timestamps(network: Network, windows: int, frames: int, seed: int) -> Int32[np.ndarray, "B T 5"] | None:
    """Month, day, weekday, hour and minute at random; None for a model that takes none."""
    if not network.settings.temporal_positions:
        return None
    generator = np.random.default_rng(seed)
    columns = [generator.integers(rows, size=(windows, frames), dtype=np.int32) for rows in CALENDAR.values()]
    return np.stack(columns, -1)


def real_windows(
    first: Network, second: Network, path: Path, windows: int, frames: int
) -> Float32[np.ndarray, "B T X"]:
    """Windows of records, evenly spaced over their held-out split (or the training one), normalised.

    With the statistics of whichever model brings them, else of the records. A model of one sensor gets the first's.

    Raises:
        ModelError: the records have other features than the models.
        DataError: they cannot be read.
    """
    from selfpab_jax.data.records import open_records

    records = open_records(path)
    split = "validation" if "validation" in records.info.splits else "train"
    source = records.source(split)
    features = first.features
    if records.info.features < features or records.info.features % features:
        raise ModelError(f"{path} has frames of {records.info.features} features, the models take {features}")
    rows = np.linspace(0, len(source), min(windows, len(source)), endpoint=False).astype(int)
    spectrograms = np.stack([source[int(row)]["spectrogram"][:frames] for row in rows]).astype(np.float32)
    brought = [each.statistics for each in (first, second) if each.statistics is not None]
    statistics = next((s for s in brought if len(s.mean) == records.info.features), records.statistics())
    return np.ascontiguousarray(((spectrograms - statistics.mean) / statistics.std)[..., :features])
