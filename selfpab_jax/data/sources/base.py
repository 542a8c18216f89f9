"""Recordings and the sources that they come from."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int32

from selfpab_jax.errors import DataError
from selfpab_jax.signal.resample import resample, resample_labels

# One continuous stretch of one subject's acceleration, and the windows cut from it.

UNKNOWN_START = -1
EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True)
class Recording:
    """Samples in g without a gap, and where they come from.

    Attributes:
        subject: whose.
        name: file, and segment or stretch in it.
        start: time of the first sample as the recorder's clock showed it (no time zone), or None.
        rate_hz: sampling rate.
        signal_NxC: acceleration in g.
        labels_N: an integer label a sample (-1 where there is none), or None.
        notes: what a person should know of the file it comes from (labels that no class has, ...), a line each; on
            the first recording of a file only.
    """

    subject: str
    name: str
    start: datetime | None
    rate_hz: float
    signal_NxC: Float32[np.ndarray, "N C"]
    labels_N: Int32[np.ndarray, " N"] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Window:
    """A piece of a recording: start is that of its first sample."""

    start: datetime | None
    signal_NxC: Float32[np.ndarray, "N C"]
    labels_N: Int32[np.ndarray, " N"] | None


def at_rate(recording: Recording, rate_hz: float) -> Recording:
    """The recording at another sampling rate; labels follow the nearest sample."""
    if recording.rate_hz == rate_hz:
        return recording
    labels_N = recording.labels_N
    return Recording(
        subject=recording.subject,
        name=recording.name,
        start=recording.start,
        rate_hz=rate_hz,
        signal_NxC=resample(recording.signal_NxC, recording.rate_hz, rate_hz),
        labels_N=None if labels_N is None else resample_labels(labels_N, recording.rate_hz, rate_hz),
        notes=recording.notes,
    )


def windows(recording: Recording, window_samples: int, shift_samples: int) -> Iterator[Window]:
    """Whole windows in order, each shifted by so many samples; a rest shorter than a window is left out."""
    for first in range(0, len(recording.signal_NxC) - window_samples + 1, shift_samples):
        piece = slice(first, first + window_samples)
        start = recording.start
        yield Window(
            start=None if start is None else start + timedelta(seconds=first / recording.rate_hz),
            signal_NxC=recording.signal_NxC[piece],
            labels_N=None if recording.labels_N is None else recording.labels_N[piece],
        )


def milliseconds(start: datetime | None) -> int:
    """Milliseconds since 1970 on the recorder's clock, -1 where unknown."""
    return UNKNOWN_START if start is None else round((start - EPOCH) / timedelta(milliseconds=1))


# What a source of recordings is: a list of files, and a reader of one file.


class UnusableError(Exception):
    """This file cannot be used; the reason says why, for `rejected.jsonl`."""


@dataclass(frozen=True)
class SourceFile:
    """A file of one subject; samples is an estimate that only balances the shards."""

    subject: str
    name: str
    path: str
    samples: int


class Source(Protocol):
    """A frozen, picklable dataclass; a new kind of source is one file with such a class."""

    @property
    def name(self) -> str:
        """As records carry it."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the columns of the signals, in order, `<sensor>_<axis>`."""
        ...

    def files(self) -> Iterator[SourceFile]:
        """All files in a fixed order (by subject, then name), without opening more than headers.

        Raises:
            DataError: no such folder, or nothing in it.
        """
        ...

    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a file, in g.

        Raises:
            UnusableError: the file is not what it should be.
        """
        ...


def existing_folders(paths: tuple[str, ...]) -> list[Path]:
    """The paths as folders.

    Raises:
        DataError: one is no folder.
    """
    if not paths:
        raise DataError("no folder of recordings was given")
    for path in paths:
        if not Path(path).is_dir():
            raise DataError(f"{path}: no such folder of recordings")
    return [Path(path) for path in paths]


def sensors_of(channels: tuple[str, ...]) -> tuple[str, ...]:
    """The sensors' names in order: `('back_x', 'back_y', ...)` -> `('back', ...)`."""
    return tuple(dict.fromkeys(channel.rpartition("_")[0] or channel for channel in channels))
