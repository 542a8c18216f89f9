"""Recordings, the sources that they come from, and what was skipped."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int32

from selfpab_jax.errors import DataError
from selfpab_jax.signal.calendar import UNKNOWN_START


@dataclass(frozen=True)
class Skipped:
    """Something that was not used.

    Attributes:
        what: a file, rows of a file, a recording or a subject.
        reason: why, and what to do about it.
    """

    what: str
    reason: str


@dataclass
class SkippedLog:
    """Collects what is skipped; readers in several threads may add to it.

    Args:
        strict: raise an error instead.
        entries: what was skipped so far.
    """

    strict: bool = False
    entries: list[Skipped] = field(default_factory=list)

    def add(self, what: str, reason: str) -> None:
        """Record one.

        Raises:
            DataError: `strict` is set.
        """
        if self.strict:
            raise DataError(f"{what}: {reason}")
        self.entries.append(Skipped(what, reason))


EPOCH = datetime(1970, 1, 1)


class UnusableError(Exception):
    """A file, or a part of it, cannot be used; the message is the reason, as `<kind>: <details>`."""


@dataclass(frozen=True)
class Recording:
    """One subject's acceleration without a gap.

    Attributes:
        subject: name of the subject.
        name: name of the file, and of the segment in it.
        start: time of the first sample on the recorder's clock (no time zone), or None.
        rate_hz: sampling rate.
        signal_NxC: acceleration in g.
        labels_N: an integer label per sample (-1 where there is none), or None.
        notes: remarks on the file that a user should read (e.g. labels without a class), one line each; on the first
            recording of a file only.
    """

    subject: str
    name: str
    start: datetime | None
    rate_hz: float
    signal_NxC: Float32[np.ndarray, "N C"]
    labels_N: Int32[np.ndarray, " N"] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceFile:
    """A file of one subject; `samples` is an estimate that only balances the shards."""

    subject: str
    name: str
    path: str
    samples: int


@runtime_checkable
class Source(Protocol):
    """Where recordings come from: a frozen, picklable dataclass."""

    @property
    def name(self) -> str:
        """The source's name in the records."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the signal's columns, in order, as `<sensor>_<axis>`."""
        ...

    def files(self) -> Iterator[SourceFile]:
        """All files in a fixed order (by subject, then name); at most their headers are read.

        Raises:
            DataError: the folder is missing or holds no recordings.
        """
        ...

    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a file, in g.

        Raises:
            UnusableError: the file cannot be used.
        """
        ...


def milliseconds(start: datetime | None) -> int:
    """Milliseconds since 1970 on the recorder's clock, -1 where unknown."""
    return UNKNOWN_START if start is None else round((start - EPOCH) / timedelta(milliseconds=1))


def existing_folders(paths: tuple[str, ...]) -> list[Path]:
    """The paths as folders.

    Raises:
        DataError: there is none, or one is not a folder.
    """
    if not paths:
        raise DataError("no folder of recordings was given")
    for path in paths:
        if not Path(path).is_dir():
            raise DataError(f"{path}: no such folder of recordings")
    return [Path(path) for path in paths]


def sensors_of(channels: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the sensors, in order: `('back_x', 'back_y', ...)` gives `('back', ...)`."""
    return tuple(dict.fromkeys(channel.rpartition("_")[0] or channel for channel in channels))
