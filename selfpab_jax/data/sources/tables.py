"""Tables of recordings: one description of how a table is read, for every reader of user tables.

`TableFormat` holds which columns to take and how to decode them. `records build` reads whole files with it (`Tables`),
`embed` reads them in blocks (`streaming`), and so do the labeled data sets (`data.har.subject_tables`).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int

from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError, existing_folders
from selfpab_jax.data.sources.checks import check_signal
from selfpab_jax.data.sources.segments import Segment, check_rate, continuous_segments
from selfpab_jax.data.sources.table_columns import (
    BLOCK_ROWS,
    ENDINGS,
    TimestampUnit,
    estimated_rows,
    labels,
    numbers,
    read_blocks,
    read_table,
    seconds,
    segment_codes,
    to_datetime,
)
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.signal.resample import Unit, to_g

HARTH_SENSORS = ("back", "thigh")


def sensor_columns(sensors: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(channel, column) pairs of the columns `<sensor>_x`, `<sensor>_y`, `<sensor>_z`, as HARTH names them."""
    return tuple((f"{sensor}_{axis}", f"{sensor}_{axis}") for sensor in sensors for axis in "xyz")


def parse_columns(text: str) -> tuple[tuple[str, str], ...]:
    """(channel, column) pairs of `hip_x=acc_x,hip_y=acc_y,...`; a name without `=` is both.

    Raises:
        ConfigError: an empty or repeated name.
    """
    pairs = []
    for item in text.split(","):
        channel, _, column = (part.strip() for part in item.partition("="))
        pairs.append((channel, column or channel))
    channels = [channel for channel, _ in pairs]
    if not all(channels) or len(set(channels)) < len(channels):
        raise ConfigError(
            f"columns: {text!r} has an empty or repeated name; give e.g. hip_x=acc_x,hip_y=acc_y,hip_z=acc_z"
        )
    return tuple(pairs)


@dataclass(frozen=True)
class TableRows:
    """Decoded rows of a table.

    Attributes:
        signal_NxC: acceleration in g.
        times_N: seconds since 1970, or None.
        segments: continuous segments of the rows.
    """

    signal_NxC: Float32[np.ndarray, "N C"]
    times_N: Float64[np.ndarray, " N"] | None
    segments: list[Segment]


@dataclass(frozen=True, kw_only=True)
class TableFormat:
    """How a table is read.

    Attributes:
        columns: (channel, column) pairs, in the order of the channels.
        unit: unit of the acceleration columns.
        rate_hz: sampling rate; compared with the timestamps where there are any.
        timestamp_column: time of each row, or None. Date and time as text or as a Parquet timestamp, or numbers in
            `timestamp_unit`.
        timestamp_unit: unit of timestamps that are numbers.
        segment_column: a continuous recording ends where its value changes; None: the whole file is one.
        label_column: label of each row, or None.
        gap_limit: seconds; a longer step between timestamps ends a continuous recording.
    """

    columns: tuple[tuple[str, str], ...] = sensor_columns(HARTH_SENSORS)
    unit: Unit = "g"
    rate_hz: float = 50.0
    timestamp_column: str | None = "timestamp"
    timestamp_unit: TimestampUnit = "text"
    segment_column: str | None = None
    label_column: str | None = None
    gap_limit: float = 1.0

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(channel for channel, _ in self.columns)

    @property
    def all_columns(self) -> list[str]:
        """Every column that is read, once."""
        others = (self.timestamp_column, self.segment_column, self.label_column)
        return list(dict.fromkeys([*(column for _, column in self.columns), *(name for name in others if name)]))

    @property
    def text_columns(self) -> frozenset[str]:
        """Columns whose values are only compared: blocks of a CSV file then agree on their type."""
        decoded = {column for _, column in self.columns} | {self.timestamp_column, self.label_column}
        return frozenset({self.segment_column} - decoded - {None})  # pyright: ignore[reportReturnType]

    def load(self, path: Path) -> pa.Table:
        """All rows of a file.

        Raises:
            UnusableError: unreadable, or a column is missing.
        """
        return read_table(path, self.all_columns, self.text_columns)

    def load_blocks(self, path: Path, rows: int = BLOCK_ROWS) -> Iterator[pa.Table]:
        """The rows of a file in blocks of about `rows`.

        Raises:
            UnusableError: unreadable, or a column is missing.
        """
        return read_blocks(path, self.all_columns, rows, self.text_columns)

    def values(self, table: pa.Table) -> Float32[np.ndarray, "N C"]:
        """The acceleration columns in their unit, missing values as NaN.

        Raises:
            UnusableError: a column does not hold numbers.
        """
        return np.stack([numbers(table, column) for _, column in self.columns], axis=1)

    def times(self, table: pa.Table) -> Float64[np.ndarray, " N"] | None:
        """Seconds since 1970 of each row, or None without a timestamp column.

        Raises:
            UnusableError: see `seconds`.
        """
        if self.timestamp_column is None:
            return None
        return seconds(table, self.timestamp_column, self.timestamp_unit)

    def codes(self, table: pa.Table) -> Int[np.ndarray, " N"] | None:
        """See `segment_codes`; None without a segment column."""
        return None if self.segment_column is None else segment_codes(table, self.segment_column)

    def start(self, rows: TableRows, row: int) -> datetime | None:
        """Date and time of a row, where known."""
        return None if rows.times_N is None else to_datetime(float(rows.times_N[row]), self.timestamp_unit)

    def decode(self, table: pa.Table) -> TableRows:
        """The rows in g, checked.

        Raises:
            UnusableError: a column has the wrong type, the signal is not plausible, or the timestamps are out of order
                or of another rate.
        """
        signal_NxC = to_g(self.values(table), self.unit)
        check_signal(signal_NxC, self.channels, self.rate_hz)
        times_N = self.times(table)
        segments = continuous_segments(table.num_rows, times_N, self.codes(table), self.gap_limit)
        if times_N is not None:
            check_rate(times_N, segments, self.rate_hz, option="--rate")
        return TableRows(signal_NxC, times_N, segments)


@dataclass(frozen=True)
class Tables(TableFormat):
    """Folders of CSV or Parquet files as a source of recordings.

    Attributes:
        paths: folders; every *.csv and *.parquet right inside is one subject, named as the file.
    """

    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        """The source's name in the records."""
        return "recordings"

    def files(self) -> Iterator[SourceFile]:
        """Every table, by folder and name; of Parquet only the footer is read.

        Raises:
            DataError: a folder is missing, or there is no table.
        """
        return table_files(self.paths)

    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a table: no change of segment, no gap in time.

        Raises:
            UnusableError: unreadable, a column missing or of the wrong type, timestamps out of order or of another
                rate, or an implausible signal.
        """
        table = self.load(Path(file.path))
        if not table.num_rows:
            raise UnusableError("too short: the table has no rows")
        rows = self.decode(table)
        labels_N = None if self.label_column is None else labels(table, self.label_column)
        return [
            Recording(
                subject=file.subject,
                name=f"{file.name}:{first}",
                start=self.start(rows, first),
                rate_hz=self.rate_hz,
                signal_NxC=rows.signal_NxC[first:last],
                labels_N=None if labels_N is None else labels_N[first:last],
            )
            for first, last in rows.segments
        ]


def table_files(paths: tuple[str, ...]) -> Iterator[SourceFile]:
    """Every table right inside the folders, by folder and name; of Parquet only the footer is read.

    Raises:
        DataError: a folder is missing, or there is no table.
    """
    found = False
    for root in existing_folders(paths):
        for name in sorted(entry for entry in os.listdir(root) if entry.endswith(ENDINGS)):
            found = True
            path = root / name
            yield SourceFile(path.stem, path.stem, str(path), estimated_rows(path))
    if not found:
        raise DataError(f"{', '.join(paths)}: there is no *.csv or *.parquet")
