"""Readers of data sets as published: versions, sensors, axes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Float, Float32

from selfpab_jax.data.har.card import (
    AXES,
    DatasetCard,
    Sensor,  # readers take it from here
)
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError
from selfpab_jax.data.sources.checks import check_signal
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.signal.resample import UNITS_PER_G

# Axes that are permuted and turned round, so that a sensor's x, y, z become HUNT4's.


def axis_matrix(axes: tuple[str, str, str]) -> Float32[np.ndarray, "3 3"]:
    """The matrix that brings published x, y, z (columns) to ours (rows): `("-y", "+x", "+z")` -> signed permutation.

    Raises:
        ConfigError: something else than a sign and an axis, each axis once.
    """
    if len(axes) != len(AXES) or sorted(axis[1:] for axis in axes) != list(AXES) or {a[0] for a in axes} - {"+", "-"}:
        raise ConfigError(f"axes {axes}: give x, y and z once each with a sign, e.g. ('-y', '+x', '+z')")
    matrix = np.zeros((3, 3), np.float32)
    for ours, axis in enumerate(axes):
        matrix[ours, AXES.index(axis[1:])] = -1.0 if axis[0] == "-" else 1.0
    return matrix


def to_hunt4_axes(signal_Nx3: Float[np.ndarray, "N 3"], axes: tuple[str, str, str]) -> Float[np.ndarray, "N 3"]:
    """The signal with its axes permuted and turned round as declared, of the same dtype; no value is changed otherwise.

    Raises:
        ConfigError: see `axis_matrix`.
    """
    matrix = axis_matrix(axes)
    order, signs = np.abs(matrix).argmax(axis=1), matrix.sum(axis=1)
    # `+ 0` turns the -0.0 that a change of sign makes into 0.0, so that equal signals have equal bytes.
    return signal_Nx3[:, order] * signs.astype(signal_Nx3.dtype) + signal_Nx3.dtype.type(0)


# What the readers of published data sets have in common.

DEPTH = 3
"""Levels of folders in which published files are looked for, the one given included."""


@dataclass(frozen=True)
class Published:
    """A folder of a data set's files as published; a subclass declares `CARDS` and has `files` and `read`.

    Attributes:
        path: the folder.
        sensors: names of those wanted, in order; empty: the card's `default_sensors`.
        version: of the data set; None: the first of `CARDS`.

    Raises:
        ConfigError: a version or sensor that is not there; names those that are.
    """

    path: str
    sensors: tuple[str, ...] = ()
    version: str | None = None

    CARDS: ClassVar[tuple[DatasetCard, ...]] = ()

    def __post_init__(self) -> None:
        names = [sensor.name for sensor in self.card.sensors]
        if unknown := [name for name in self.sensors if name not in names]:
            raise ConfigError(f"{self.name} has no sensor {', '.join(unknown)}; there are {', '.join(names)}")
        if len(set(self.sensors)) < len(self.sensors):
            raise ConfigError(f"sensors: {', '.join(self.sensors)} names one twice")

    @property
    def card(self) -> DatasetCard:
        """What the data set is, in the version asked for."""
        for card in self.CARDS:
            if self.version is None or card.version.startswith(f"{self.version}.") or card.version == self.version:
                return card
        versions = ", ".join(card.version for card in self.CARDS)
        raise ConfigError(f"{self.CARDS[0].name} has no version {self.version}; there are {versions}")

    @property
    def name(self) -> str:
        """As records carry it."""
        return self.card.name

    @property
    def chosen(self) -> tuple[Sensor, ...]:
        """The sensors read, in order."""
        by_name = {sensor.name: sensor for sensor in self.card.sensors}
        return tuple(by_name[name] for name in self.sensors or self.card.default_sensors)

    @property
    def channels(self) -> tuple[str, ...]:
        """x, y and z of each chosen sensor."""
        return tuple(f"{sensor.name}_{axis}" for sensor in self.chosen for axis in AXES)

    def files(self) -> Iterator[SourceFile]:
        """All files by subject, then name; raises DataError where there are none."""
        raise NotImplementedError

    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a file, in g and on HUNT4's axes; raises UnusableError where it is unusable.

        Samples that are missing stay NaN: whoever uses them bridges or cuts.
        """
        raise NotImplementedError

    def converted(self, signals: Iterable[Float[np.ndarray, "N 3"]]) -> Float32[np.ndarray, "N C"]:
        """The chosen sensors' published x, y, z, in order, as one signal in g and on HUNT4's axes."""
        scale = 1 / UNITS_PER_G[self.card.unit]
        turned = [
            to_hunt4_axes(np.asarray(signal_Nx3, np.float64) * scale, sensor.axes)
            for sensor, signal_Nx3 in zip(self.chosen, signals, strict=True)
        ]
        with np.errstate(over="ignore"):
            return np.concatenate(turned, axis=1).astype(np.float32)

    def doubts(self, signal_NxC: Float32[np.ndarray, "N C"], rate_hz: float | None = None) -> tuple[str, ...]:
        """Notes on a converted signal. What was published is kept, even clipped, dead or out of range in parts.

        Raises:
            UnusableError: no sample at all, none with numbers in all channels, or in another unit than declared.
        """
        if not len(signal_NxC):
            raise UnusableError("too short: it has no samples")
        finite_N = np.asarray(np.isfinite(signal_NxC).all(axis=1))
        if not finite_N.any():
            empty = [name for c, name in enumerate(self.channels) if not np.isfinite(signal_NxC[:, c]).any()]
            missing = f" ({', '.join(empty)} have none)" if empty else ""
            raise UnusableError(f"sensor missing: no sample has numbers in all of {', '.join(self.channels)}{missing}")
        try:
            check_signal(signal_NxC[finite_N], self.channels, rate_hz or self.card.rate_hz)
        except UnusableError as doubt:
            if str(doubt).startswith("wrong unit"):
                raise UnusableError(f"wrong unit: the median of a channel is beyond 4 g if it is {self.card.unit}") from None
            return (f"{doubt}; kept as published",)
        return ()


def published_folder(path: str, pattern: str, what: str) -> Path:
    """The folder that holds files of a pattern: the one given or, as archives unpack, the only one a little below it.

    Args:
        path: given by the user.
        pattern: glob below the folder, e.g. `S???.csv`.
        what: of the data set, for the message.

    Raises:
        DataError: no folder, nothing of the kind in it, or in several of its folders.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{path}: no such folder of {what} files")
    level = [root]
    for _ in range(DEPTH):
        found = [folder for folder in level if next(folder.glob(pattern), None) is not None]
        if len(found) > 1:
            names = ", ".join(folder.name for folder in found)
            raise DataError(f"{path}: {what} files lie in several folders ({names}); give one of them")
        if found:
            return found[0]
        level = [below for folder in level for below in sorted(folder.iterdir()) if below.is_dir()]
    raise DataError(f"{path}: not a folder of {what} as published (no {pattern} in it)")


def with_notes(recordings: list[Recording], notes: Iterable[str]) -> list[Recording]:
    """The recordings of a file, the first one carrying what is to be said about the file."""
    notes = tuple(notes)
    if not recordings or not notes:
        return recordings
    return [replace(recordings[0], notes=recordings[0].notes + notes), *recordings[1:]]


# Which way is down: axes of sensors whose mounting differs between people, found from gravity.
#
# An accelerometer at rest shows 1 g upwards. Where each person fixed a sensor or phone in their own way, no one
# permutation fits all. The original swaps MobiAct's x with the axis whose mean is nearest to 1 g; here it is the axis
# with the largest mean, and the sign counts too. Turns are by 90 degrees, so that no value is changed otherwise.

Orientation = Literal["gravity", "declared"]
TURNS = {
    "-x": ("+x", "+y", "+z"),
    "+x": ("-x", "-y", "+z"),
    "-y": ("+y", "-x", "+z"),
    "+y": ("-y", "+x", "+z"),
    "-z": ("+z", "+y", "-x"),
    "+z": ("-z", "+y", "+x"),
}
"""For the axis that gravity shows on, with the sign of its reading: the rotation after which x reads -1 g, as HUNT4's
does upright. Each is a proper rotation that moves as few axes as it can; about the vertical it cannot decide."""


def check_orientation(orientation: str) -> None:
    """Raises ConfigError for what is no orientation."""
    if orientation not in get_args(Orientation):
        raise ConfigError(f"orientation is {orientation!r}: give {' or '.join(get_args(Orientation))}")


def gravity_axis(gravity_3: Float[np.ndarray, " 3"]) -> str:
    """The axis with the largest reading, and its sign: `-x` where the sensor is upright already."""
    axis = int(np.abs(gravity_3).argmax())
    return ("-" if gravity_3[axis] < 0 else "+") + AXES[axis]


def turned_upright(
    signal_NxC: Float[np.ndarray, "N C"], gravity_C: Float[np.ndarray, " C"]
) -> Float[np.ndarray, "N C"]:
    """The signal with each sensor turned by quarter turns so that x reads about -1 g where gravity was measured.

    Args:
        signal_NxC: x, y, z of each sensor.
        gravity_C: what the same channels show upright, on average.
    """
    turned = [
        to_hunt4_axes(signal_NxC[:, first : first + 3], TURNS[gravity_axis(gravity_C[first : first + 3])])
        for first in range(0, signal_NxC.shape[1], 3)
    ]
    return np.concatenate(turned, axis=1)
