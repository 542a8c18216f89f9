"""Recordings, the sources that they come from, the windows cut from them, and what was skipped."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int32

from selfpab_jax.errors import DataError
from selfpab_jax.signal.resample import resample, resample_labels


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


UNKNOWN_START = -1
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
class Window:
    """A window of a recording.

    Attributes:
        start: time of its first sample.
        signal_NxC: acceleration in g; of a recording shorter than a window, all of it.
        labels_N: a label per sample, or None.
        new_samples: how many samples it adds to those of the windows before it.
    """

    start: datetime | None
    signal_NxC: Float32[np.ndarray, "N C"]
    labels_N: Int32[np.ndarray, " N"] | None
    new_samples: int


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


def resample_recording(recording: Recording, rate_hz: float) -> Recording:
    """The recording at another sampling rate; labels follow the nearest sample."""
    if recording.rate_hz == rate_hz:
        return recording
    labels_N = recording.labels_N
    return replace(
        recording,
        rate_hz=rate_hz,
        signal_NxC=resample(recording.signal_NxC, recording.rate_hz, rate_hz),
        labels_N=None if labels_N is None else resample_labels(labels_N, recording.rate_hz, rate_hz),
    )


@dataclass(frozen=True)
class Windowing:
    """How recordings are cut into windows.

    Attributes:
        window_samples: length of a window.
        shift_samples: from the start of one window to the start of the next.
        shortest_samples: a recording shorter than a window is one short window if it has so many samples, and a window
            that is moved back holds the end of a longer one. None: both are left out.
        least_samples: an end with fewer new samples than these is left out.
    """

    window_samples: int
    shift_samples: int
    shortest_samples: int | None = None
    least_samples: int = 1

    def spans(self, samples: int) -> list[tuple[int, int]]:
        """First and last + 1 sample of every window of a recording, in order.

        Windows that are apart on purpose (a shift longer than a window) get none that holds the end.
        """
        shortest = self.shortest_samples
        if samples < self.window_samples:
            long_enough = shortest is not None and samples >= max(shortest, self.least_samples)
            return [(0, samples)] if long_enough else []
        firsts = list(range(0, samples - self.window_samples + 1, self.shift_samples))
        left = samples - firsts[-1] - self.window_samples
        if shortest is not None and self.shift_samples <= self.window_samples and left >= self.least_samples:
            firsts.append(samples - self.window_samples)
        return [(first, first + self.window_samples) for first in firsts]


def windows(recording: Recording, windowing: Windowing) -> Iterator[Window]:
    """The windows of a recording in order.

    Args:
        recording: any recording.
        windowing: how it is cut.
    """
    start, labels_N, end = recording.start, recording.labels_N, 0
    for first, last in windowing.spans(len(recording.signal_NxC)):
        yield Window(
            start=None if start is None else start + timedelta(seconds=first / recording.rate_hz),
            signal_NxC=recording.signal_NxC[first:last],
            labels_N=None if labels_N is None else labels_N[first:last],
            new_samples=last - max(first, end),
        )
        end = last


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
