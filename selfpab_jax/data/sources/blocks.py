"""Recordings on their way from files: blocks of rows as read, and blocks of continuous signal."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int, Int32

from selfpab_jax.data.sources.base import Recording, UnusableError
from selfpab_jax.data.sources.report import FileReport

BLOCK_ROWS = 2**18
"""Rows worked on at a time, an hour and a half at 50 Hz. What is found does not depend on how a file is stored."""


class Rows(NamedTuple):
    """Consecutive rows of a file, in g.

    Attributes:
        signal_NxC: acceleration, NaN where there is no number.
        times_N: seconds on the recorder's clock, NaN where unknown; None: the file has no timestamps.
        codes_N: a number that changes where a recording ends, or None.
        labels_N: a label per row, -1 where there is none; or None.
    """

    signal_NxC: Float32[np.ndarray, "N C"]
    times_N: Float64[np.ndarray, " N"] | None = None
    codes_N: Int[np.ndarray, " N"] | None = None
    labels_N: Int32[np.ndarray, " N"] | None = None

    def part(self, chosen: slice | np.ndarray) -> "Rows":
        """Some of the rows."""
        return Rows(*(None if array is None else array[chosen] for array in self))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class SignalBlock:
    """Consecutive samples of a continuous recording.

    Attributes:
        recording: name of the recording: that of the file, and its first row there.
        start: time of the recording's first sample (not the block's) on its clock, or None.
        begins: whether this is the recording's first block; others continue the block before.
        rate_hz: sampling rate.
        signal_NxC: acceleration in g.
        labels_N: a label per sample, -1 where there is none; or None.
    """

    recording: str
    start: datetime | None
    begins: bool
    rate_hz: float
    signal_NxC: Float32[np.ndarray, "N C"]
    labels_N: Int32[np.ndarray, " N"] | None = None


def as_far_as_possible(blocks: Iterator[SignalBlock], report: FileReport) -> Iterator[SignalBlock]:
    """The blocks up to the first fault: what was read before it is kept, and the report says where it ended.

    Args:
        blocks: of a file.
        report: of the file.

    Raises:
        UnusableError: there is a fault before the first block, or the report is strict.
    """
    given = False
    try:
        for block in blocks:
            given = True
            yield block
    except UnusableError as reason:
        if report.strict or not given:
            raise
        report.stopped = True
        report.notes.append(f"stopped after {report.used_s:.6g} s, the rest is not used: {reason}")


def equal_blocks(rows: Iterable[Rows], size: int = BLOCK_ROWS) -> Iterator[Rows]:
    """The rows in blocks of the same size, so that results do not depend on how the file was read."""
    held: list[Rows] = []
    for block in rows:
        held.append(block)
        while sum(len(each.signal_NxC) for each in held) >= size:
            joined = _joined(held)
            yield joined.part(slice(0, size))
            held = [joined.part(slice(size, None))]
    if sum(len(each.signal_NxC) for each in held):
        yield _joined(held)


def _joined(blocks: list[Rows]) -> Rows:
    if len(blocks) == 1:
        return blocks[0]
    columns = zip(*blocks, strict=True)
    return Rows(*(None if column[0] is None else np.concatenate(column) for column in columns))  # pyright: ignore


# From blocks to whole recordings.


def whole_recordings(blocks: Iterable[SignalBlock], subject: str) -> list[Recording]:
    """The recordings that come in blocks, as wholes.

    Args:
        blocks: of one file.
        subject: whose they are.
    """
    grouped: list[list[SignalBlock]] = []
    for block in blocks:
        grouped.append([block]) if block.begins else grouped[-1].append(block)
    return [
        Recording(
            subject=subject,
            name=group[0].recording,
            start=group[0].start,
            rate_hz=group[0].rate_hz,
            signal_NxC=np.concatenate([block.signal_NxC for block in group]),
            labels_N=None
            if group[0].labels_N is None
            else np.concatenate([block.labels_N for block in group if block.labels_N is not None]),
        )
        for group in grouped
    ]
