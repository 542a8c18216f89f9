"""Recordings of any length in blocks of samples, so that memory does not depend on how long they are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float32

from selfpab_jax.data.sources import hunt4
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.checks import check_signal
from selfpab_jax.data.sources.segments import Segment
from selfpab_jax.data.sources.table_columns import BLOCK_ROWS, estimated_rows
from selfpab_jax.data.sources.tables import TableFormat
from selfpab_jax.errors import DataError
from selfpab_jax.signal.resample import ratio, resample

FILTER_HALF = 10
"""scipy's polyphase filter reaches this many samples of the lower rate to either side."""

T = TypeVar("T")
OnSkip = Callable[[str, str], None]
"""Takes what is skipped and the reason; it may raise, to stop at the first."""


@dataclass(frozen=True)
class SignalBlock:
    """Consecutive samples of a continuous recording.

    Attributes:
        recording: name of the recording: that of the file, and its first row there.
        start: time of the recording's first sample (not the block's) on its clock, or None.
        begins: whether this is the recording's first block; others continue the block before.
        rate_hz: sampling rate.
        signal_NxC: acceleration in g.
    """

    recording: str
    start: datetime | None
    begins: bool
    rate_hz: float
    signal_NxC: Float32[np.ndarray, "N C"]


def find_files(paths: list[Path]) -> list[Path]:
    """The files, and those below the folders, in order.

    Raises:
        DataError: a path does not exist, or there is no recording at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix in READERS and file.is_file())
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder of recordings")
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: there is no {', '.join('*' + ending for ending in READERS)}")
    return list(dict.fromkeys(found))


def estimated_hours(path: Path, rate_hz: float) -> float:
    """Hours of recording by a footer, or by the file's size and a table's first rows; 0 where it cannot be read."""
    if path.suffix == ".parquet":
        return estimated_rows(path) / rate_hz / 3600
    try:
        if path.suffix == ".csv":
            with path.open("rb") as file:
                head = file.read(2**16)
            return path.stat().st_size * head.count(b"\n") / max(len(head), 1) / rate_hz / 3600
        return path.stat().st_size / (len(hunt4.CHANNELS) * 8) / rate_hz / 3600
    except OSError:
        return 0.0


# From files to blocks.


def read_signal(path: Path, format: TableFormat, on_skip: OnSkip, rows: int = BLOCK_ROWS) -> Iterator[SignalBlock]:
    """The continuous recordings of a file in blocks.

    A block that cannot be used (NaN, timestamps out of order, ...) is skipped, and the recording ends before it; the
    rest of the file is still read.

    Args:
        path: CSV or Parquet table, or an npz of the HUNT4 layout.
        format: how a table is read; channels of an npz are taken by name, its start from its file name
            `<YYYY-MM-DD_HH>.npz`.
        on_skip: called with what cannot be used, and why.
        rows: rows of a block.
    """
    if path.suffix not in READERS:
        on_skip(str(path), f"unknown kind of file: give {', '.join(READERS)}")
        return
    first, name, start = 0, "", None
    previous: _Decoded | None = None
    try:
        reader = READERS[path.suffix](path, format)
        for block, is_last in _mark_last(reader.blocks(rows)):
            try:
                decoded = reader.decode(block, first, previous)
            except UnusableError as reason:
                on_skip(_rows_of(path, first, len(block), is_last), str(reason))
                previous = None
            else:
                for begin, end in decoded.segments:
                    begins = begin > 0 or not decoded.continues
                    if begins:
                        name, start = f"{path.stem}:{first + begin}", decoded.start_of(begin)
                    yield SignalBlock(name, start, begins, format.rate_hz, decoded.signal_NxC[begin:end])
                previous = decoded
            first += len(block)
        if not first:
            raise UnusableError("too short: it has no rows")
    except UnusableError as reason:
        on_skip(f"{path}, from row {first} on" if first else str(path), str(reason))


@dataclass(frozen=True)
class _Decoded:
    """A block in g, checked.

    Attributes:
        segments: continuous segments of its rows.
        continues: whether its first segment continues the last one of the block before.
        start_of: date and time of a row.
        end: what the next block is compared with.
    """

    signal_NxC: Float32[np.ndarray, "N C"]
    segments: list[Segment]
    continues: bool
    start_of: Callable[[int], datetime | None]
    end: Any = None


@runtime_checkable
class _Reader(Protocol):
    """Reads one kind of file; a new kind is one more such class in `READERS`."""

    def __init__(self, path: Path, format: TableFormat) -> None: ...

    def blocks(self, rows: int) -> Iterator[Any]:
        """Consecutive rows, as stored; raises UnusableError where the rest of the file cannot be read."""
        ...

    def decode(self, block: Any, first: int, previous: _Decoded | None) -> _Decoded:
        """A block whose first row has this number in the file; raises UnusableError where it cannot be used."""
        ...


class _TableReader:
    def __init__(self, path: Path, format: TableFormat):
        self.path, self.format = path, replace(format, label_column=None)

    def blocks(self, rows: int) -> Iterator[Any]:
        return self.format.load_blocks(self.path, rows)

    def decode(self, block: Any, first: int, previous: _Decoded | None) -> _Decoded:
        rows, column = self.format.decode(block), self.format.segment_column
        values = block.column(column) if column else None
        begin, end = (None, None) if values is None else (values[place].as_py() for place in (0, -1))
        return _Decoded(
            signal_NxC=rows.signal_NxC,
            segments=rows.segments,
            continues=self._continues(None if previous is None else previous.end, rows.times_N, begin),
            start_of=lambda row: self.format.start(rows, row),
            end=(None if rows.times_N is None else float(rows.times_N[-1]), end),
        )

    def _continues(self, before: tuple[float, object] | None, times_N: np.ndarray | None, segment: object) -> bool:
        if before is None or segment != before[1]:
            return False
        if times_N is None:
            return True
        if times_N[0] < before[0]:
            raise UnusableError("timestamps out of order: its first row is earlier than the one before")
        return bool(times_N[0] - before[0] <= self.format.gap_limit)


class _NpzReader:
    def __init__(self, path: Path, format: TableFormat):
        if missing := [channel for channel in format.channels if channel not in hunt4.CHANNELS]:
            raise UnusableError(f"an npz of the HUNT4 layout has {', '.join(hunt4.CHANNELS)}, not {', '.join(missing)}")
        self.path, self.format = path, format
        self.columns = [hunt4.CHANNELS.index(channel) for channel in format.channels]
        self.start = hunt4.start_of(path.stem)

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        return hunt4.read_blocks(self.path, rows)

    def decode(self, block: np.ndarray, first: int, previous: _Decoded | None) -> _Decoded:
        signal_NxC = hunt4.as_float32(block[:, self.columns])
        check_signal(signal_NxC, self.format.channels, self.format.rate_hz)
        whole = [(0, len(signal_NxC))]
        return _Decoded(signal_NxC, whole, previous is not None, lambda row: self._start_of(first + row))

    def _start_of(self, row: int) -> datetime | None:
        return None if self.start is None else self.start + timedelta(seconds=row / self.format.rate_hz)


READERS: dict[str, type[_Reader]] = {".csv": _TableReader, ".parquet": _TableReader, ".npz": _NpzReader}


def _rows_of(path: Path, first: int, count: int, is_last: bool) -> str:
    return str(path) if is_last and not first else f"{path}, rows {first} to {first + count - 1}"


def _mark_last(blocks: Iterator[T]) -> Iterator[tuple[T, bool]]:
    """Each block, and whether it is the last one; an error comes after the blocks before it."""
    held = None
    try:
        for block in blocks:
            if held is not None:
                yield held, False
            held = block
    except UnusableError:
        if held is not None:
            yield held, False
        raise
    if held is not None:
        yield held, True


# Blocks at another sampling rate.


def resample_blocks(blocks: Iterator[SignalBlock], rate_hz: float) -> Iterator[SignalBlock]:
    """The blocks at another rate; at a seam of two blocks, each is filtered together with its neighborhood."""
    held: _BlockResampler | None = None
    for block in blocks:
        if ratio(block.rate_hz, rate_hz) == 1:
            yield block
            continue
        if block.begins:
            if held is not None:
                yield from held.rest()
            held = _BlockResampler(block, rate_hz)
        else:
            assert held is not None
            held.add(block.signal_NxC)
        yield from held.ready()
    if held is not None:
        yield from held.rest()


class _BlockResampler:
    """Resamples one recording: `ready` gives what the samples so far determine, `rest` what remains."""

    def __init__(self, first: SignalBlock, rate_hz: float):
        factor = ratio(first.rate_hz, rate_hz)
        self.first, self.rate_hz = first, rate_hz
        self.up, self.down = factor.numerator, factor.denominator
        # A multiple of `down`, so that blocks begin on a sample of the new rate.
        self.margin = self.down * -(-FILTER_HALF * 2 * max(self.up, self.down) // (self.up * self.down))
        self.signal_NxC, self.given, self.begins = first.signal_NxC, 0, True

    def add(self, signal_NxC: Float32[np.ndarray, "N C"]) -> None:
        self.signal_NxC = np.concatenate([self.signal_NxC, signal_NxC])

    def ready(self) -> Iterator[SignalBlock]:
        """The samples that no later one changes."""
        upto = (len(self.signal_NxC) - self.margin) // self.down * self.down
        if upto > self.given:
            yield self._resampled(self.signal_NxC[: upto + self.margin], (upto - self.given) * self.up // self.down)
            kept = max(0, upto - self.margin)
            self.signal_NxC, self.given = self.signal_NxC[kept:], upto - kept

    def rest(self) -> Iterator[SignalBlock]:
        """The samples up to the recording's end."""
        left = len(self.signal_NxC) - self.given
        if left > 0:
            yield self._resampled(self.signal_NxC, -(-left * self.up // self.down))

    def _resampled(self, signal_NxC: Float32[np.ndarray, "N C"], count: int) -> SignalBlock:
        first = self.given * self.up // self.down
        whole = resample(signal_NxC, self.first.rate_hz, self.rate_hz)
        begins, self.begins = self.begins, False
        return SignalBlock(self.first.recording, self.first.start, begins, self.rate_hz, whole[first : first + count])
