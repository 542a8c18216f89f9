"""What a second pass over finished records finds, kept beside them.

It finds the statistics of magnitudes on another scale, and how much each window moves.
"""

from datetime import UTC, datetime
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from selfpab_jax.data.records.dataset import Records
from selfpab_jax.data.records.format import statistics_file
from selfpab_jax.errors import DataError, warn
from selfpab_jax.io import atomic_path
from selfpab_jax.progress import Progress
from selfpab_jax.signal.calendar import UNKNOWN_START
from selfpab_jax.signal.normalization import (
    UNKNOWN_HOUR,
    Moments,
    Scale,
    Statistics,
    hour_weighted_statistics,
    plain_statistics,
    to_scale,
)

Kind = Literal["hour_weighted", "plain"]
MOVEMENT_FILE = "movement-train.npy"
SMALLEST_SHARE = 0.1
"""Of the mean movement: a window at rest is drawn as if it moved this much, so that rest is rare but not unknown."""
FIRST_BIN = 2
"""Gravity is in bin 0, and the Hann window spreads half of it into bin 1."""


def scaled_statistics(records: Records, kind: Kind, scale: Scale, *, report: bool = True) -> Statistics:
    """Statistics of the training split on a scale; all of it is read the first time, whatever subset is trained on.

    Every process of a run may call this at once: they compute the same numbers.

    Args:
        records: finished records.
        kind: `hour_weighted` or `plain`.
        scale: of the magnitudes.
        report: show progress.

    Raises:
        DataError: the records cannot be read, or kept statistics are of other records.
    """
    if scale == "linear":
        return records.statistics(kind)
    path = records.folder / statistics_file(kind, scale)
    if path.exists():
        kept = Statistics.load(path)
        if kept.scale != scale or len(kept.mean) != records.info.features:
            raise DataError(f"{path}: these are not the statistics of these records on the scale {scale}; delete it")
        return kept
    moments = _moments(records, scale, report=report)
    statistics = (plain_statistics if kind == "plain" else hour_weighted_statistics)(moments, scale)
    try:
        with atomic_path(path) as temporary:
            statistics.save(temporary)
    except OSError as error:
        warn(f"{path} cannot be written ({error.strerror}): the next run computes these statistics again")
    return statistics


def _moments(records: Records, scale: Scale, *, report: bool) -> Moments:
    """Sums over the training split, as the build adds them up: a window that is moved back adds its new frames."""
    index, source, info = records.index("train"), records.source("train"), records.info
    hour_R, rate_hz = _hours(index.start_ms), info.settings.rate_hz
    new_samples_R = np.rint(index.seconds.astype(np.float64) * rate_hz).astype(np.int64)
    moments = Moments.empty(info.features)
    with Progress(f"statistics on the scale {scale}", len(source), "records", enabled=report) as progress:
        for row in range(len(source)):
            valid = int(index.frames[row])
            frames_TxX = to_scale(source[row]["spectrogram"][:valid].astype(np.float32), scale)
            is_moved = valid == info.frames and new_samples_R[row] < info.shift_samples
            new = info.settings.frame_count(int(new_samples_R[row])) if is_moved else valid
            if new:
                moments.add(frames_TxX, int(hour_R[row]), share=new / info.frames, new=new)
            progress.update(row + 1)
    return moments


def _hours(start_ms: Int64[np.ndarray, " R"]) -> Int64[np.ndarray, " R"]:
    known = start_ms != UNKNOWN_START
    hours = [datetime.fromtimestamp(ms / 1000, UTC).hour for ms in start_ms[known].tolist()]
    result = np.full(len(start_ms), UNKNOWN_HOUR, np.int64)
    result[known] = hours
    return result


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
