"""The scale of spectrogram magnitudes, and their normalization statistics, accumulated in float64."""

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from selfpab_jax.errors import DataError

Scale = Literal["linear", "log", "power"]
"""Of magnitudes before they are normalized: as they are, log(x + 0.01), or x to the power of 0.3."""
LOG_FLOOR = 0.01
"""In g * samples; about what the noise of a sensor at rest (3 mg) has in a bin of a one-second window at 50 Hz."""
POWER = 0.3
HOURS = 24
UNKNOWN_HOUR = HOURS
"""Row of windows without a known start."""
SMALLEST_STD = 1e-10


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares per hour of the day (25 rows: 0..23 and unknown), of frames and of window means.

    A window that is not whole, or that is moved back onto the one before it, counts as a part of a window. Sums are
    float64: 1.2 million windows of 599 frames lose no more than 1e-10 of the variance to rounding.
    `merge` adds in a fixed order, which gives the same bits every time.
    """

    windows: Int64[np.ndarray, " H"] | Float64[np.ndarray, " H"]
    frames: Int64[np.ndarray, " H"]
    sums: Float64[np.ndarray, "H X"]
    squares: Float64[np.ndarray, "H X"]
    mean_sums: Float64[np.ndarray, "H X"]
    mean_squares: Float64[np.ndarray, "H X"]

    @classmethod
    def empty(cls, features: int) -> "Moments":
        """Zeros."""
        rows = HOURS + 1
        sums = (np.zeros((rows, features)) for _ in range(4))
        return cls(np.zeros(rows), np.zeros(rows, np.int64), *sums)

    def add(self, spectrogram_TxX: Float32[np.ndarray, "T X"], hour: int, *, share: float = 1.0, new: int = 0) -> None:
        """Add one window in place.

        Args:
            spectrogram_TxX: its valid frames.
            hour: of the day, or `UNKNOWN_HOUR`.
            share: of a whole window that it counts as: that its new frames are.
            new: frames at its end that were not added before; 0 for all.
        """
        new_TxX = spectrogram_TxX[-new:]
        self.windows[hour] += share
        self.frames[hour] += len(new_TxX)
        self.sums[hour] += new_TxX.sum(axis=0, dtype=np.float64)
        self.squares[hour] += np.einsum("tx,tx->x", new_TxX, new_TxX, dtype=np.float64)
        mean_X = spectrogram_TxX.sum(axis=0, dtype=np.float64) / len(spectrogram_TxX)
        self.mean_sums[hour] += share * mean_X
        self.mean_squares[hour] += share * mean_X**2

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The fields by name, for a file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def merge(moments: Iterable[Moments], features: int) -> Moments:
    """The sum of several moments, added in the given order."""
    total = Moments.empty(features)
    for each in moments:
        total = Moments(**{name: array + getattr(each, name) for name, array in total.to_arrays().items()})
    return total


def to_scale(magnitudes: Float[Any, "..."], scale: Scale) -> Float[Any, "..."]:
    """Magnitudes on a scale on which they are less heavy-tailed; for arrays of NumPy and of JAX, of any shape.

    Args:
        magnitudes: in g * samples, not negative.
        scale: `linear` returns them as they are.
    """
    if scale == "linear":
        return magnitudes
    numeric = magnitudes.__array_namespace__()
    return numeric.log(magnitudes + LOG_FLOOR) if scale == "log" else magnitudes**POWER


def log_magnitudes(scaled: Float[Any, "..."], scale: Scale) -> Float[Any, "..."]:
    """log(x + 0.01) of magnitudes on any scale; below 0, where only a reconstruction can be, it is that of 0.

    Args:
        scaled: what `to_scale` returned.
        scale: of them.
    """
    if scale == "log":
        return scaled
    numeric = scaled.__array_namespace__()
    positive = numeric.maximum(scaled, 0 * scaled)
    return numeric.log((positive if scale == "linear" else positive ** (1 / POWER)) + LOG_FLOOR)


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation per feature, of magnitudes on a scale; `kind` is how they were computed."""

    mean: Float32[np.ndarray, " X"]
    std: Float32[np.ndarray, " X"]
    kind: str
    scale: Scale = "linear"

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise DataError(f"statistics: scale {self.scale!r} is none of {', '.join(get_args(Scale))}")
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape:
            raise DataError(f"statistics: mean has shape {self.mean.shape} and std {self.std.shape}; both must be (X,)")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise DataError("statistics: mean and std must be finite and std above 0; build the records again")

    def save(self, path: Path) -> None:
        """Write an npz with mean, std and kind, and the scale unless it is linear."""
        arrays: dict[str, Any] = {"mean": self.mean, "std": self.std, "kind": np.array(self.kind)}
        if self.scale != "linear":
            arrays["scale"] = np.array(self.scale)
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON holds them; every float32 comes back as it was."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "kind": self.kind, "scale": self.scale}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Statistics":
        """What `as_json` returned, perhaps of a version without scales."""
        mean, std = (np.asarray(stored[name], np.float32) for name in ("mean", "std"))
        return cls(mean, std, stored["kind"], stored.get("scale", "linear"))

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read what `save` wrote; an npz with mean and std alone (as published) has kind 'given'.

        Raises:
            DataError: not such a file.
        """
        try:
            if not zipfile.is_zipfile(path) and path.is_file():
                raise ValueError("it is of another format")
            with np.load(path, allow_pickle=False) as archive:
                mean, std = (np.asarray(archive[name], np.float32) for name in ("mean", "std"))
                kind = str(archive["kind"]) if "kind" in archive else "given"
                scale = str(archive["scale"]) if "scale" in archive else "linear"
            if mean.ndim != 1 or mean.shape != std.shape:
                raise ValueError(
                    f"mean has shape {mean.shape} and std {std.shape}; both must have one number a feature"
                )
            return cls(mean, std, kind, scale)  # type: ignore[arg-type]
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: no readable statistics (an npz with mean and std): {error}") from None


def normalize(spectrogram: Float32[np.ndarray, "*B T X"], statistics: Statistics) -> Float32[np.ndarray, "*B T X"]:
    """(x - mean) / std per feature, x on the statistics' scale.

    Raises:
        DataError: the statistics have another number of features.
    """
    if spectrogram.shape[-1] != statistics.mean.shape[0]:
        raise DataError(
            f"statistics of {statistics.mean.shape[0]} features do not fit a spectrogram of {spectrogram.shape[-1]}"
        )
    return (to_scale(spectrogram, statistics.scale) - statistics.mean) / statistics.std


def plain_statistics(moments: Moments, scale: Scale = "linear") -> Statistics:
    """Mean and population standard deviation over all frames, all frames with equal weight."""
    return _statistics(moments.frames, moments.sums, moments.squares, "plain", scale)


def hour_weighted_statistics(moments: Moments, scale: Scale = "linear") -> Statistics:
    """The original's statistics: merged over the hours of the day, each hour weighted by its number of windows.

    The original first reduces every recording to its mean over time and keeps the first and second moment of those
    means per hour. So the mean equals the plain one (of windows of equal lengths), while std is that **between
    windows**, which is below that between frames wherever a window is not constant.
    """
    return _statistics(moments.windows, moments.mean_sums, moments.mean_squares, "hour_weighted", scale)


def _statistics(
    counts_H: Int64[np.ndarray, " H"] | Float64[np.ndarray, " H"],
    sums_HxX: Float64[np.ndarray, "H X"],
    squares_HxX: Float64[np.ndarray, "H X"],
    kind: str,
    scale: Scale,
) -> Statistics:
    mean_X, std_X = merged(counts_H, sums_HxX, squares_HxX)
    std_X = np.where(std_X > 0, std_X, SMALLEST_STD)
    return Statistics(mean_X.astype(np.float32), std_X.astype(np.float32), kind, scale)


def merged(
    counts_H: Int64[np.ndarray, " H"] | Float64[np.ndarray, " H"],
    sums_HxX: Float64[np.ndarray, "H X"],
    squares_HxX: Float64[np.ndarray, "H X"],
) -> tuple[Float64[np.ndarray, " X"], Float64[np.ndarray, " X"]]:
    """Mean and population standard deviation, merged over the hours and weighted by count.

    Args:
        counts_H: per hour.
        sums_HxX: of the values, per hour and feature.
        squares_HxX: of the squared values.

    Raises:
        DataError: all counts are 0.
    """
    seen_h = counts_H > 0
    if not seen_h.any():
        raise DataError("no windows to compute statistics from: the training split is empty")
    weights_h = counts_H[seen_h] / counts_H.sum()
    first_hxX = sums_HxX[seen_h] / counts_H[seen_h, None]
    second_hxX = squares_HxX[seen_h] / counts_H[seen_h, None]
    mean_X = (weights_h[:, None] * first_hxX).sum(axis=0)
    variance_X = (weights_h[:, None] * second_hxX).sum(axis=0) - mean_X**2
    return mean_X, np.sqrt(np.maximum(variance_X, 0.0))
