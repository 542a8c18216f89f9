"""How much each window moves, for drawing windows in proportion to it; kept beside the records."""

import numpy as np
from jaxtyping import Float32, Float64

from selfpab_jax.data.records.dataset import Records
from selfpab_jax.errors import DataError, warn
from selfpab_jax.io import atomic_path
from selfpab_jax.progress import Progress

MOVEMENT_FILE = "movement-train.npy"
SMALLEST_SHARE = 0.1
"""Of the mean movement: a window at rest is drawn as if it moved this much, so that rest is rare but not unknown."""
FIRST_BIN = 2
"""Gravity is in bin 0, and the Hann window spreads half of it into bin 1."""


def movement(records: Records, *, report: bool = True) -> Float32[np.ndarray, " R"]:
    """Movement of each training window, in the unit of the magnitudes; the split is read the first time only.

    It is the mean magnitude over the valid frames, the channels and the bins from the second above 0 Hz on.

    Args:
        records: finished records.
        report: show progress.

    Raises:
        DataError: the records cannot be read, or the kept values are of other records.
    """
    index, info = records.index("train"), records.info
    path = records.folder / MOVEMENT_FILE
    if path.exists():
        kept_R = np.load(path)
        if kept_R.shape != (len(index),):
            raise DataError(f"{path}: these are the movements of {kept_R.size} windows, not of {len(index)}; delete it")
        return kept_R
    source, bins = records.source("train"), info.features // len(info.channels)
    if bins <= FIRST_BIN:
        raise DataError(f"{records.folder}: {bins} bins per channel are too few to tell movement from gravity")
    movement_R = np.zeros(len(index), np.float32)
    with Progress("movement of windows", len(index), "records", enabled=report) as progress:
        for row in range(len(index)):
            frames_TxX = source[row]["spectrogram"][: int(index.frames[row])].astype(np.float32)
            movement_R[row] = frames_TxX.reshape(len(frames_TxX), -1, bins)[:, :, FIRST_BIN:].mean()
            progress.update(row + 1)
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, movement_R)
    except OSError as error:
        warn(f"{path} cannot be written ({error.strerror}): the next run computes it again")
    return movement_R


def movement_shares(movement_R: Float32[np.ndarray, " R"]) -> Float64[np.ndarray, " R"]:
    """The probability of drawing each window: in proportion to its movement, but at least `SMALLEST_SHARE`.

    Windows that all lie still are drawn equally often.
    """
    if not movement_R.any():
        return np.full(len(movement_R), 1 / len(movement_R))
    weight_R = np.maximum(movement_R.astype(np.float64), SMALLEST_SHARE * movement_R.mean(dtype=np.float64))
    return weight_R / weight_R.sum()
