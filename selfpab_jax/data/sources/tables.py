"""CSV and Parquet tables of recordings."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from selfpab_jax.data.sources.base import EPOCH, Recording, SourceFile, UnusableError, existing_folders
from selfpab_jax.data.sources.checks import check_signal
from selfpab_jax.data.sources.segments import check_rate, continuous_segments
from selfpab_jax.errors import DataError
from selfpab_jax.signal.resample import Unit, to_g

# Columns of a CSV or Parquet table as arrays.

TimestampUnit = Literal["text", "s", "ms", "us", "ns"]
YEAR_1, YEAR_3000 = -62_135_596_800, 32_503_680_000
"""Seconds since 1970 that are believed; milliseconds taken for seconds lie far beyond."""
YEAR_1980 = 315_532_800
"""Seconds since 1970; clocks that show less count from their own start."""


def read_table(path: Path, columns: list[str]) -> pa.Table:
    """These columns of a table.

    Raises:
        UnusableError: unreadable, or a column is missing.
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
            raise UnusableError(f"unknown column: {', '.join(missing)}; the table has {', '.join(present)}")
        if kind == "Parquet":
            return pyarrow.parquet.read_table(path, columns=columns, use_threads=False)
        return pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=columns),
        )
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UnusableError(f"unreadable {kind}: {str(error).splitlines()[0]}") from None


def numbers(table: pa.Table, column: str) -> np.ndarray:
    """A numeric column as float32, missing values as NaN.

    Raises:
        UnusableError: it holds something else.
    """
    array = table.column(column)
    if pa.types.is_null(array.type):  # a column of a CSV file without a single value
        return np.full(len(array), np.nan, np.float32)
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_decimal(array.type)):
        raise UnusableError(f"wrong type: column {column} holds {array.type}, not numbers")
    with np.errstate(over="ignore"):
        return array.cast(pa.float64(), safe=False).to_numpy().astype(np.float32)


def labels(table: pa.Table, column: str) -> np.ndarray:
    """A column of whole numbers as int32, missing values as -1.

    Raises:
        UnusableError: it holds something else.
    """
    array = numbers(table, column)
    array = np.where(np.isnan(array), -1, array)
    if (array != np.round(array)).any():
        raise UnusableError(f"wrong type: label column {column} must hold whole numbers")
    return array.astype(np.int32)


def segment_codes(table: pa.Table, column: str) -> np.ndarray:
    """A code per row that changes where the segment does, for a column of any type."""
    return table.column(column).combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()


def seconds(table: pa.Table, column: str, unit: TimestampUnit) -> np.ndarray:
    """Timestamps as float64 seconds since 1970 (exact to the microsecond).

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


def _seconds(table: pa.Table, column: str, unit: TimestampUnit) -> np.ndarray:
    array = table.column(column)
    if array.null_count:
        raise UnusableError(f"timestamps: {array.null_count} of {len(array)} are missing in column {column}")
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        scale = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}.get(unit)
        if scale is None:
            raise UnusableError(f"timestamps: column {column} holds numbers; say their unit with --timestamp_unit")
        return array.cast(pa.float64(), safe=False).to_numpy() / scale
    try:
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            array = array.cast(pa.timestamp("ns"))
        return array.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy() / 1e6
    except pa.ArrowException:
        raise UnusableError(f"timestamps: column {column} holds {array.type}, which reads as no date and time") from None


def to_datetime(time: float, unit: TimestampUnit) -> datetime | None:
    """The date and time of seconds since 1970; None for numbers that count from elsewhere (before 1980)."""
    if unit != "text" and time < YEAR_1980:
        return None
    return EPOCH + np.timedelta64(round(time * 1e3), "ms").astype(object)


# Tables of recordings: CSV or Parquet, one file a subject; HARTH's columns by default.

ENDINGS = (".csv", ".parquet")
CSV_BYTES_A_ROW = 70
HARTH_SENSORS = ("back", "thigh")


def sensor_columns(sensors: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(channel, column) of the schema `<sensor>_x, <sensor>_y, <sensor>_z`, as HARTH has it."""
    return tuple((f"{sensor}_{axis}", f"{sensor}_{axis}") for sensor in sensors for axis in "xyz")


def parse_columns(text: str) -> tuple[tuple[str, str], ...]:
    """(channel, column) of `hip_x=acc_x,hip_y=acc_y,...`; a name alone is both.

    Raises:
        DataError: an empty or repeated name.
    """
    pairs = []
    for item in text.split(","):
        channel, _, column = (part.strip() for part in item.partition("="))
        pairs.append((channel, column or channel))
    channels = [channel for channel, _ in pairs]
    if not all(channels) or len(set(channels)) < len(channels):
        raise DataError(
            f"columns: {text!r} has an empty or repeated name; give e.g. hip_x=acc_x,hip_y=acc_y,hip_z=acc_z"
        )
    return tuple(pairs)


@dataclass(frozen=True)
class Tables:
    """Folders of CSV or Parquet files.

    Attributes:
        paths: folders; every *.csv and *.parquet right inside is one subject, named as the file.
        columns: (channel, column) pairs, in the order of the record's channels.
        unit: of the acceleration columns.
        rate_hz: of the rows; checked against the timestamps where there are any.
        timestamp_column: time of each row, or None. Date and time as text or as a Parquet timestamp, or numbers in
            `timestamp_unit`.
        segment_column: rows of one value in a row are one continuous recording; None: the whole file is.
        label_column: integers carried along, or None.
        gap_limit: seconds; a longer step between timestamps ends a continuous recording.
    """

    paths: tuple[str, ...]
    columns: tuple[tuple[str, str], ...] = sensor_columns(HARTH_SENSORS)
    unit: Unit = "g"
    rate_hz: float = 50.0
    timestamp_column: str | None = "timestamp"
    timestamp_unit: TimestampUnit = "text"
    segment_column: str | None = None
    label_column: str | None = None
    gap_limit: float = 1.0

    @property
    def name(self) -> str:
        """As records carry it."""
        return "recordings"

    @property
    def channels(self) -> tuple[str, ...]:
        """As the mapping names them."""
        return tuple(channel for channel, _ in self.columns)

    def files(self) -> Iterator[SourceFile]:
        """Every table, by folder and name; of Parquet only the footer is read."""
        found = False
        for root in existing_folders(self.paths):
            for name in sorted(entry for entry in os.listdir(root) if entry.endswith(ENDINGS)):
                found = True
                path = root / name
                yield SourceFile(path.stem, path.stem, str(path), estimated_rows(path))
        if not found:
            raise DataError(f"{', '.join(self.paths)}: no *.csv or *.parquet in it")

    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a table: stretches without a change of segment or a gap in time.

        Raises:
            UnusableError: unreadable, a column missing or not numeric, timestamps out of order or of another rate, or a
                signal that cannot be believed.
        """
        wanted = [column for _, column in self.columns]
        extra = [name for name in (self.timestamp_column, self.segment_column, self.label_column) if name]
        table = read_table(Path(file.path), wanted + extra)
        if not table.num_rows:
            raise UnusableError("too short: the table has no rows")
        signal_NxC = np.stack([numbers(table, column) for column in wanted], axis=1)
        signal_NxC = to_g(signal_NxC, self.unit)
        check_signal(signal_NxC, self.channels, self.rate_hz)
        times_N = None if self.timestamp_column is None else seconds(table, self.timestamp_column, self.timestamp_unit)
        segments_N = None if self.segment_column is None else segment_codes(table, self.segment_column)
        pieces = continuous_segments(table.num_rows, times_N, segments_N, self.gap_limit)
        if times_N is not None:
            check_rate(times_N, pieces, self.rate_hz)
        labels_N = None if self.label_column is None else labels(table, self.label_column)
        return [
            Recording(
                subject=file.subject,
                name=f"{file.name}:{first}",
                start=None if times_N is None else to_datetime(float(times_N[first]), self.timestamp_unit),
                rate_hz=self.rate_hz,
                signal_NxC=signal_NxC[first:last],
                labels_N=None if labels_N is None else labels_N[first:last],
            )
            for first, last in pieces
        ]


def estimated_rows(path: Path) -> int:
    """Rows by Parquet's footer or a CSV's size; 0 where neither can be read (the reader says why)."""
    try:
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_metadata(path).num_rows
        return path.stat().st_size // CSV_BYTES_A_ROW
    except (OSError, pa.ArrowException):
        return 0
