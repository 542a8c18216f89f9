"""Recordings of any length from files, a part at a time, so that memory does not depend on how long they are."""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float32

from selfpab_jax.data.sources import hunt4
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.checks import check_signal
from selfpab_jax.data.sources.segments import check_rate, continuous_segments
from selfpab_jax.data.sources.tables import (
    CSV_BYTES_A_ROW,
    Tables,
    estimated_rows,
    numbers,
    seconds,
    segment_codes,
    to_datetime,
)
from selfpab_jax.errors import DataError
from selfpab_jax.signal.resample import ratio, resample, to_g

# Recordings of any length from files, a part at a time, so that memory does not depend on how long they are.

ENDINGS = (".csv", ".parquet", ".npz")
PART_ROWS = 2**18
"""Rows read at a time: one and a half hours at 50 Hz."""
Block = TypeVar("Block")
SetAsideLine = Callable[[str, str], None]
"""Takes what cannot be used and why; it may raise, to stop at the first."""


@dataclass(frozen=True)
class Part:
    """Consecutive samples of a continuous recording.

    Attributes:
        recording: its name: the file's, and its first row there.
        start: time of the recording's first sample (not the part's) as its clock showed it, or None.
        begins: whether this is the recording's first part; others continue the part before.
        rate_hz: of the samples.
        signal_NxC: in g.
    """

    recording: str
    start: datetime | None
    begins: bool
    rate_hz: float
    signal_NxC: Float32[np.ndarray, "N C"]


def find_files(paths: list[Path]) -> list[Path]:
    """The files, and those below the folders, in order.

    Raises:
        DataError: a path is not there, or there is no recording at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix in ENDINGS and file.is_file())
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder of recordings")
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no {', '.join('*' + ending for ending in ENDINGS)} in it")
    return list(dict.fromkeys(found))


def estimated_hours(path: Path, rate_hz: float) -> float:
    """Of recording, from a footer, or the file's size and a table's first rows; 0 where it cannot be read."""
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


def read_parts(path: Path, how: Tables, set_aside: SetAsideLine, rows: int = PART_ROWS) -> Iterator[Part]:
    """The continuous recordings of a file, `rows` rows at a time.

    A part that cannot be used (NaN, timestamps out of order, ...) is set aside with its rows, and the recording ends
    before it; the rest of the file goes on.

    Args:
        path: CSV or Parquet table, or an npz of the HUNT4 layout.
        how: columns, unit, rate, timestamps, segments; of an npz its channels are taken by name, its start from its
            name `<YYYY-MM-DD_HH>.npz`.
        set_aside: told what cannot be used.
        rows: of a part.
    """
    read = {".csv": _table_parts, ".parquet": _table_parts, ".npz": _npz_parts}.get(path.suffix)
    if read is None:
        set_aside(str(path), f"unknown kind of file: give {', '.join(ENDINGS)}")
    else:
        yield from read(path, how, set_aside, rows)


def _table_parts(path: Path, how: Tables, set_aside: SetAsideLine, rows: int) -> Iterator[Part]:
    first, before, name, start = 0, None, "", None
    try:
        for block, is_last in _with_last(_table_blocks(path, how, rows)):
            try:
                signal_NxC, times_N, pieces = _checked(block, how)
                goes_on = _goes_on(before, block, times_N, how)
            except UnusableError as reason:
                set_aside(_rows(path, first, block.num_rows, is_last), str(reason))
                before = None
            else:
                for begin, end in pieces:
                    begins = begin > 0 or not goes_on
                    if begins:
                        name = f"{path.stem}:{first + begin}"
                        start = None if times_N is None else to_datetime(float(times_N[begin]), how.timestamp_unit)
                    yield Part(name, start, begins, how.rate_hz, signal_NxC[begin:end])
                segment = block.column(how.segment_column)[-1].as_py() if how.segment_column else None
                before = (None if times_N is None else float(times_N[-1]), segment)
            first += block.num_rows
        if not first:
            raise UnusableError("too short: the table has no rows")
    except UnusableError as reason:
        set_aside(f"{path}, from row {first} on" if first else str(path), str(reason))


def _checked(block: pa.Table, how: Tables) -> tuple[np.ndarray, np.ndarray | None, list[tuple[int, int]]]:
    """Signal, times and stretches of a block, checked as `records build` checks a file."""
    signal_NxC = to_g(np.stack([numbers(block, column) for _, column in how.columns], axis=1), how.unit)
    check_signal(signal_NxC, how.channels, how.rate_hz)
    times_N = None if how.timestamp_column is None else seconds(block, how.timestamp_column, how.timestamp_unit)
    codes_N = None if how.segment_column is None else segment_codes(block, how.segment_column)
    pieces = continuous_segments(block.num_rows, times_N, codes_N, how.gap_limit)
    if times_N is not None:
        check_rate(times_N, pieces, how.rate_hz)
    return signal_NxC, times_N, pieces


def _rows(path: Path, first: int, count: int, is_last: bool) -> str:
    return str(path) if is_last and not first else f"{path}, rows {first} to {first + count - 1}"


def _goes_on(before: tuple | None, block: pa.Table, times_N: np.ndarray | None, how: Tables) -> bool:
    """Whether a block continues the last recording of the block before."""
    if before is None:
        return False
    if how.segment_column is not None and block.column(how.segment_column)[0].as_py() != before[1]:
        return False
    if times_N is None:
        return True
    if times_N[0] < before[0]:
        raise UnusableError("timestamps out of order: its first row is earlier than the one before")
    return bool(times_N[0] - before[0] <= how.gap_limit)


def _with_last(blocks: Iterator[Block]) -> Iterator[tuple[Block, bool]]:
    """Each block, and whether it is the last one; what cannot be read comes after what could."""
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


def _table_blocks(path: Path, how: Tables, rows: int) -> Iterator[pa.Table]:
    kind = "Parquet" if path.suffix == ".parquet" else "CSV"
    extra = [name for name in (how.timestamp_column, how.segment_column) if name]
    columns = list(dict.fromkeys([column for _, column in how.columns] + extra))
    try:
        reading = _parquet_blocks(path, columns, rows) if kind == "Parquet" else _csv_blocks(path, how, columns, rows)
        yield from (block for block in reading if block.num_rows)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UnusableError(f"unreadable {kind}: {str(error).splitlines()[0]}") from None


def _parquet_blocks(path: Path, columns: list[str], rows: int) -> Iterator[pa.Table]:
    with pyarrow.parquet.ParquetFile(path) as file:
        _check_present(columns, file.schema_arrow.names)
        # Some row groups at a time: a reader of the whole file keeps all that it has decoded.
        for groups in _row_groups(file.metadata, rows):
            for batch in file.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch])


def _row_groups(metadata: pyarrow.parquet.FileMetaData, rows: int) -> Iterator[list[int]]:
    """Row groups in order, as many together as have no more than so many rows, but one at least."""
    together, count = [], 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).num_rows
        if together and count + size > rows:
            yield together
            together, count = [], 0
        together, count = [*together, group], count + size
    if together:
        yield together


def _csv_blocks(path: Path, how: Tables, columns: list[str], rows: int) -> Iterator[pa.Table]:
    with pyarrow.csv.open_csv(path, read_options=pyarrow.csv.ReadOptions(use_threads=False)) as reader:
        _check_present(columns, reader.schema.names)
        found = {name: reader.schema.field(name).type for name in columns}
    # Types are said beforehand: a later block may hold what the first one does not, 0.5 after 1 or 10.02 s after 10 s.
    types: dict[str, pa.DataType] = {}
    for name, kind in found.items():
        if pa.types.is_integer(kind) or pa.types.is_null(kind):
            types[name] = pa.float64()
        elif pa.types.is_timestamp(kind):
            types[name] = pa.timestamp("ns")
        else:
            types[name] = kind
    if how.segment_column in types:
        types[how.segment_column] = pa.string()
    with pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=rows * CSV_BYTES_A_ROW),
        convert_options=pyarrow.csv.ConvertOptions(include_columns=columns, column_types=types),
    ) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _check_present(columns: list[str], present: list[str]) -> None:
    if missing := [column for column in columns if column not in present]:
        raise UnusableError(f"unknown column: {', '.join(missing)}; the table has {', '.join(present)}")


def _npz_parts(path: Path, how: Tables, set_aside: SetAsideLine, rows: int) -> Iterator[Part]:
    first, begins, name, start = 0, True, "", None
    try:
        if missing := [channel for channel in how.channels if channel not in hunt4.CHANNELS]:
            raise UnusableError(f"an npz of the HUNT4 layout has {', '.join(hunt4.CHANNELS)}, not {', '.join(missing)}")
        columns, began = [hunt4.CHANNELS.index(channel) for channel in how.channels], hunt4.start_of(path.stem)
        for block_NxC, is_last in _with_last(_npz_blocks(path, rows)):
            signal_NxC = np.ascontiguousarray(block_NxC[:, columns], np.float32)
            try:
                check_signal(signal_NxC, how.channels, how.rate_hz)
            except UnusableError as reason:
                set_aside(_rows(path, first, len(signal_NxC), is_last), str(reason))
                begins = True
            else:
                if begins:
                    name = f"{path.stem}:{first}"
                    start = None if began is None else began + timedelta(seconds=first / how.rate_hz)
                yield Part(name, start, begins, how.rate_hz, signal_NxC)
                begins = False
            first += len(signal_NxC)
        if not first:
            raise UnusableError("too short: no samples")
    except UnusableError as reason:
        set_aside(f"{path}, from row {first} on" if first else str(path), str(reason))


def _npz_blocks(path: Path, rows: int) -> Iterator[np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{hunt4.KEY}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(stream)
            if len(shape) != 2 or shape[1] != len(hunt4.CHANNELS) or dtype.kind not in "fiu":
                raise UnusableError(f"wrong shape: {hunt4.KEY} is {dtype} {shape}, not (samples, {len(hunt4.CHANNELS)})")
            rows = shape[0] if fortran_order else rows
            for first in range(0, shape[0], max(rows, 1)):
                count = min(rows, shape[0] - first)
                data = stream.read(count * shape[1] * dtype.itemsize)
                if len(data) < count * shape[1] * dtype.itemsize:
                    raise UnusableError("not a readable npz: it ends too early")
                flat = np.frombuffer(data, dtype)
                yield flat.reshape(shape[1], count).T if fortran_order else flat.reshape(count, shape[1])
    except KeyError:
        raise UnusableError(f"wrong key: the npz holds no {hunt4.KEY}") from None
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UnusableError(f"not a readable npz: {error}") from None


# Parts of recordings at another sampling rate.

FILTER_HALF = 10
"""scipy's polyphase filter reaches this many samples of the lower rate to either side."""


def at_rate(parts: Iterator[Part], rate_hz: float) -> Iterator[Part]:
    """The parts at another rate; where parts of one recording meet, each is filtered with what lies around it."""
    held: Resampled | None = None
    for part in parts:
        if ratio(part.rate_hz, rate_hz) == 1:
            yield part
            continue
        if part.begins:
            if held is not None:
                yield from held.rest()
            held = Resampled(part, rate_hz)
        else:
            assert held is not None
            held.add(part.signal_NxC)
        yield from held.ready()
    if held is not None:
        yield from held.rest()


class Resampled:
    """One recording on its way to another rate: `ready` gives what the samples so far decide, `rest` what remains."""

    def __init__(self, part: Part, rate_hz: float):
        factor = ratio(part.rate_hz, rate_hz)
        self.part, self.rate_hz = part, rate_hz
        self.up, self.down = factor.numerator, factor.denominator
        # A multiple of `down`, so that parts begin on a sample of the new rate.
        self.margin = self.down * -(-FILTER_HALF * 2 * max(self.up, self.down) // (self.up * self.down))
        self.signal_NxC, self.given, self.begins = part.signal_NxC, 0, True

    def add(self, signal_NxC: Float32[np.ndarray, "N C"]) -> None:
        """More samples."""
        self.signal_NxC = np.concatenate([self.signal_NxC, signal_NxC])

    def ready(self) -> Iterator[Part]:
        """The samples that no later one changes."""
        upto = (len(self.signal_NxC) - self.margin) // self.down * self.down
        if upto > self.given:
            yield self._resampled(self.signal_NxC[: upto + self.margin], (upto - self.given) * self.up // self.down)
            kept = max(0, upto - self.margin)
            self.signal_NxC, self.given = self.signal_NxC[kept:], upto - kept

    def rest(self) -> Iterator[Part]:
        """Up to the end."""
        left = len(self.signal_NxC) - self.given
        if left > 0:
            yield self._resampled(self.signal_NxC, -(-left * self.up // self.down))

    def _resampled(self, signal_NxC: np.ndarray, count: int) -> Part:
        first = self.given * self.up // self.down
        whole = resample(signal_NxC, self.part.rate_hz, self.rate_hz)
        begins, self.begins = self.begins, False
        return Part(self.part.recording, self.part.start, begins, self.rate_hz, whole[first : first + count])
