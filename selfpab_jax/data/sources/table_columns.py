"""Columns of CSV and Parquet files: read in blocks of rows or whole, and decoded to arrays.

A new file type is one more function in `BLOCK_READERS`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float32, Float64, Int, Int32

from selfpab_jax.data.sources.base import EPOCH, UnusableError

TimestampUnit = Literal["text", "s", "ms", "us", "ns"]
TICKS_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
BLOCK_ROWS = 2**18
"""Rows read at a time: one and a half hours at 50 Hz."""
CSV_BYTES_PER_ROW = 70
YEAR_1, YEAR_3000 = -62_135_596_800, 32_503_680_000
"""Seconds since 1970 that are plausible; milliseconds taken for seconds are far beyond."""
YEAR_1980 = 315_532_800
"""Seconds since 1970; clocks that show less count from their own start."""


# From a file to its columns, in blocks of rows.

BlockReader = Callable[[Path, list[str], int, frozenset[str]], Iterator[pa.Table]]
"""Takes file, columns, rows per block, and columns to read as text; yields the columns of consecutive rows."""


class MixedColumnError(UnusableError):
    """A later block of a CSV file has values of another type than its first block."""

    def __init__(self, column: str, reason: str):
        super().__init__(f"mixed types: column {column}: {reason}")
        self.column = column


def read_blocks(
    path: Path, columns: Iterable[str], rows: int = BLOCK_ROWS, text_columns: Iterable[str] = ()
) -> Iterator[pa.Table]:
    """Columns of a table in blocks of about `rows` rows, so that memory does not depend on the table's length.

    Args:
        path: CSV or Parquet file.
        columns: names of the columns; one may be named twice.
        rows: at most so many rows per block (CSV: so many rows of `CSV_BYTES_PER_ROW`).
        text_columns: columns that are read as text from CSV, whatever they hold.

    Raises:
        UnusableError: unreadable, or a column is missing.
    """
    kind, reader = BLOCK_READERS.get(path.suffix, BLOCK_READERS[".csv"])
    try:
        blocks = reader(path, list(dict.fromkeys(columns)), rows, frozenset(text_columns))
        yield from (block for block in blocks if block.num_rows)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UnusableError(f"unreadable {kind}: {str(error).splitlines()[0]}") from None


def read_table(path: Path, columns: Iterable[str], text_columns: Iterable[str] = ()) -> pa.Table:
    """Columns of a whole table.

    Args:
        path: CSV or Parquet file.
        columns: names of the columns.
        text_columns: as in `read_blocks`; so are columns of a CSV file that mix numbers and text.

    Raises:
        UnusableError: unreadable, or a column is missing.
    """
    columns, text = list(dict.fromkeys(columns)), set(text_columns)
    while True:
        try:
            blocks = list(read_blocks(path, columns, text_columns=text))
        except MixedColumnError as mixed:
            text.add(mixed.column)
        else:
            return pa.concat_tables(blocks) if blocks else pa.table({column: pa.nulls(0) for column in columns})


def estimated_rows(path: Path) -> int:
    """Rows by Parquet's footer or a CSV's size; 0 where neither can be read (the reader gives the reason)."""
    try:
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_metadata(path).num_rows
        return path.stat().st_size // CSV_BYTES_PER_ROW
    except (OSError, pa.ArrowException):
        return 0


def _csv_blocks(path: Path, columns: list[str], rows: int, text_columns: frozenset[str]) -> Iterator[pa.Table]:
    with pyarrow.csv.open_csv(path, read_options=pyarrow.csv.ReadOptions(use_threads=False)) as reader:
        schema = reader.schema
    _require(columns, schema.names)
    types = {
        name: pa.string() if name in text_columns else _type_of_all_blocks(schema.types[schema.names.index(name)])
        for name in columns
    }
    try:
        with pyarrow.csv.open_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=rows * CSV_BYTES_PER_ROW),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=columns, column_types=types),
        ) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as error:
        failed = re.match(r"In CSV column #(\d+): (.*conversion error.*)", str(error))
        column = schema.names[int(failed[1])] if failed else None
        if failed is None or column is None or types[column] == pa.string():
            raise
        raise MixedColumnError(column, failed[2]) from None


def _type_of_all_blocks(first: pa.DataType) -> pa.DataType:
    """Of a CSV column, given the first block's type: later blocks may have 0.5 after 1, or 10.02 s after 10 s."""
    if pa.types.is_integer(first) or pa.types.is_null(first):
        return pa.float64()
    if pa.types.is_timestamp(first):
        return pa.timestamp("ns", first.tz)
    return first


def _parquet_blocks(path: Path, columns: list[str], rows: int, _: frozenset[str]) -> Iterator[pa.Table]:
    with pyarrow.parquet.ParquetFile(path) as file:
        _require(columns, file.schema_arrow.names)
        # A few row groups at a time: a reader of the whole file would keep everything that it has decoded.
        for groups in _row_groups(file.metadata, rows):
            for batch in file.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch])


def _row_groups(metadata: pyarrow.parquet.FileMetaData, rows: int) -> Iterator[list[int]]:
    """Row groups in order, at least one and as many together as have no more than so many rows."""
    together, count = [], 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).num_rows
        if together and count + size > rows:
            yield together
            together, count = [], 0
        together, count = [*together, group], count + size
    if together:
        yield together


def _require(columns: list[str], present: list[str]) -> None:
    if missing := [column for column in columns if column not in present]:
        raise UnusableError(f"unknown column: {', '.join(missing)}; the table has {', '.join(present)}")


BLOCK_READERS: dict[str, tuple[str, BlockReader]] = {
    ".csv": ("CSV", _csv_blocks),
    ".parquet": ("Parquet", _parquet_blocks),
}
"""Name and reader of each file type."""
ENDINGS = tuple(BLOCK_READERS)


# From a column to an array.


def numbers(table: pa.Table, column: str) -> Float32[np.ndarray, " N"]:
    """A numeric column, missing values as NaN.

    Raises:
        UnusableError: it holds something else.
    """
    array = table.column(column)
    if pa.types.is_null(array.type):  # a column without a single value
        return np.full(len(array), np.nan, np.float32)
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_decimal(array.type)):
        raise UnusableError(f"wrong type: column {column} holds {array.type}, not numbers")
    with np.errstate(over="ignore"):
        return array.cast(pa.float64(), safe=False).to_numpy().astype(np.float32)


def labels(table: pa.Table, column: str) -> Int32[np.ndarray, " N"]:
    """A column of whole numbers, missing values as -1.

    Raises:
        UnusableError: it holds something else.
    """
    array = numbers(table, column)
    array = np.where(np.isnan(array), -1, array)
    if (array != np.round(array)).any():
        raise UnusableError(f"wrong type: label column {column} must hold whole numbers")
    return array.astype(np.int32)


def segment_codes(table: pa.Table, column: str) -> Int[np.ndarray, " N"]:
    """A number per row that changes where the value of the column does; the column may have any type."""
    return table.column(column).combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()


def seconds(table: pa.Table, column: str, unit: TimestampUnit) -> Float64[np.ndarray, " N"]:
    """Timestamps as seconds since 1970 (exact to the microsecond).

    Args:
        table: with the column.
        column: dates and times (text or a timestamp type), or numbers in `unit`.
        unit: of numbers.

    Raises:
        UnusableError: missing, neither a time nor a number of the unit given, or not within the years 1 to 2999.
    """
    times_N = _seconds(table, column, unit)
    wrong_N = ~((times_N >= YEAR_1) & (times_N < YEAR_3000))
    if wrong_N.any():
        row = int(wrong_N.argmax())
        raise UnusableError(
            f"timestamps: row {row} of column {column} is no time before the year 3000 ({times_N[row]:.6g} s since "
            f"1970 with --timestamp_unit {unit})"
        )
    return times_N


def _seconds(table: pa.Table, column: str, unit: TimestampUnit) -> Float64[np.ndarray, " N"]:
    array = table.column(column)
    if array.null_count:
        raise UnusableError(f"timestamps: {array.null_count} of {len(array)} are missing in column {column}")
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        ticks = TICKS_PER_SECOND.get(unit)
        if ticks is None:
            raise UnusableError(f"timestamps: column {column} holds numbers; set their unit with --timestamp_unit")
        return array.cast(pa.float64(), safe=False).to_numpy() / ticks
    try:
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            array = array.cast(pa.timestamp("ns"))
        return array.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy() / 1e6
    except pa.ArrowException:
        raise UnusableError(f"timestamps: column {column} holds {array.type}, which is no date and time") from None


def to_datetime(time: float, unit: TimestampUnit) -> datetime | None:
    """Date and time of seconds since 1970; None for numbers that count from another start (before 1980)."""
    if unit != "text" and time < YEAR_1980:
        return None
    return EPOCH + np.timedelta64(round(time * 1e3), "ms").astype(object)
