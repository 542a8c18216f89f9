"""Columns of a CSV or Parquet table as arrays."""

from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from selfpab_jax.data.recording import EPOCH
from selfpab_jax.data.source import Rejected

TimestampUnit = Literal["text", "s", "ms", "us", "ns"]
YEAR_1, YEAR_3000 = -62_135_596_800, 32_503_680_000
"""Seconds since 1970 that are believed; milliseconds taken for seconds lie far beyond."""
YEAR_1980 = 315_532_800
"""Seconds since 1970; clocks that show less count from their own start."""


def read_table(path: Path, columns: list[str]) -> pa.Table:
    """These columns of a table.

    Raises:
        Rejected: unreadable, or a column is missing.
    """
    kind = "Parquet" if path.suffix == ".parquet" else "CSV"
    try:
        if kind == "Parquet":
            present = pyarrow.parquet.read_schema(path).names
        else:
            with pyarrow.csv.open_csv(path, read_options=pyarrow.csv.ReadOptions(use_threads=False)) as reader:
                present = reader.schema.names
        missing = [column for column in columns if column not in present]
        if missing:
            raise Rejected(f"unknown column: {', '.join(missing)}; the table has {', '.join(present)}")
        if kind == "Parquet":
            return pyarrow.parquet.read_table(path, columns=columns, use_threads=False)
        return pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=columns),
        )
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise Rejected(f"unreadable {kind}: {str(error).splitlines()[0]}") from None


def numbers(table: pa.Table, column: str) -> np.ndarray:
    """A numeric column as float32, missing values as NaN.

    Raises:
        Rejected: it holds something else.
    """
    array = table.column(column)
    if pa.types.is_null(array.type):  # a column of a CSV file without a single value
        return np.full(len(array), np.nan, np.float32)
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_decimal(array.type)):
        raise Rejected(f"wrong type: column {column} holds {array.type}, not numbers")
    with np.errstate(over="ignore"):
        return array.cast(pa.float64(), safe=False).to_numpy().astype(np.float32)


def labels(table: pa.Table, column: str) -> np.ndarray:
    """A column of whole numbers as int32, missing values as -1.

    Raises:
        Rejected: it holds something else.
    """
    array = numbers(table, column)
    array = np.where(np.isnan(array), -1, array)
    if (array != np.round(array)).any():
        raise Rejected(f"wrong type: label column {column} must hold whole numbers")
    return array.astype(np.int32)


def segment_codes(table: pa.Table, column: str) -> np.ndarray:
    """A code per row that changes where the segment does, for a column of any type."""
    return table.column(column).combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()


def seconds(table: pa.Table, column: str, unit: TimestampUnit) -> np.ndarray:
    """Timestamps as float64 seconds since 1970 (exact to the microsecond).

    Raises:
        Rejected: missing, neither a time nor a number of the unit given, or not within the years 1 to 2999.
    """
    times_N = _seconds(table, column, unit)
    wrong_N = ~((times_N >= YEAR_1) & (times_N < YEAR_3000))
    if wrong_N.any():
        row = int(wrong_N.argmax())
        raise Rejected(
            f"timestamps: row {row} of column {column} is no time before the year 3000 ({times_N[row]:.6g} s since "
            f"1970 with --timestamp_unit {unit})"
        )
    return times_N


def _seconds(table: pa.Table, column: str, unit: TimestampUnit) -> np.ndarray:
    array = table.column(column)
    if array.null_count:
        raise Rejected(f"timestamps: {array.null_count} of {len(array)} are missing in column {column}")
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        scale = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}.get(unit)
        if scale is None:
            raise Rejected(f"timestamps: column {column} holds numbers; say their unit with --timestamp_unit")
        return array.cast(pa.float64(), safe=False).to_numpy() / scale
    try:
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            array = array.cast(pa.timestamp("ns"))
        return array.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy() / 1e6
    except pa.ArrowException:
        raise Rejected(f"timestamps: column {column} holds {array.type}, which reads as no date and time") from None


def moment(time: float, unit: TimestampUnit) -> datetime | None:
    """The date and time of seconds since 1970; None for numbers that count from elsewhere (before 1980)."""
    if unit != "text" and time < YEAR_1980:
        return None
    return EPOCH + np.timedelta64(round(time * 1e3), "ms").astype(object)
