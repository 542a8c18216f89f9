"""Tables of recordings: CSV or Parquet, one file a subject; HARTH's columns by default."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from selfpab_jax.data.checks import check_signal
from selfpab_jax.data.columns import TimestampUnit, labels, moment, numbers, read_table, seconds, segment_codes
from selfpab_jax.data.recording import Recording
from selfpab_jax.data.source import Rejected, SourceFile, existing_folders
from selfpab_jax.data.stretches import check_rate, stretches
from selfpab_jax.errors import DataError
from selfpab_jax.signal.units import Unit, to_g

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
            Rejected: unreadable, a column missing or not numeric, timestamps out of order or of another rate, or a
                signal that cannot be believed.
        """
        wanted = [column for _, column in self.columns]
        extra = [name for name in (self.timestamp_column, self.segment_column, self.label_column) if name]
        table = read_table(Path(file.path), wanted + extra)
        if not table.num_rows:
            raise Rejected("too short: the table has no rows")
        signal_NxC = np.stack([numbers(table, column) for column in wanted], axis=1)
        signal_NxC = to_g(signal_NxC, self.unit)
        check_signal(signal_NxC, self.channels, self.rate_hz)
        times_N = None if self.timestamp_column is None else seconds(table, self.timestamp_column, self.timestamp_unit)
        segments_N = None if self.segment_column is None else segment_codes(table, self.segment_column)
        pieces = stretches(table.num_rows, times_N, segments_N, self.gap_limit)
        if times_N is not None:
            check_rate(times_N, pieces, self.rate_hz)
        labels_N = None if self.label_column is None else labels(table, self.label_column)
        return [
            Recording(
                subject=file.subject,
                name=f"{file.name}:{first}",
                start=None if times_N is None else moment(float(times_N[first]), self.timestamp_unit),
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
