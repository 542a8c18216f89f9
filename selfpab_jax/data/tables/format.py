"""Tables of recordings: one description of how a table is read, for every reader of user tables.

`TableFormat` holds which columns to take and how to decode them. Its `blocks` are the way of every command to the
continuous recordings of a table: `records build` (`Tables`), `embed` (`streaming`) and `probe` on own tables.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int, Int32

from selfpab_jax.data.sources.base import sensors_of
from selfpab_jax.data.sources.blocks import BLOCK_ROWS, Rows
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.survey import NonWear
from selfpab_jax.data.tables.columns import numbers, read_blocks, read_table, seconds, segment_codes
from selfpab_jax.data.tables.timestamps import TimeFormat, TimeReader, TimestampUnit, to_datetime
from selfpab_jax.errors import ConfigError
from selfpab_jax.signal.resample import UNITS_PER_G, Unit, to_g

HARTH_SENSORS = ("back", "thigh")
ReadLabels = Callable[[pa.Table], Int32[np.ndarray, " N"]]


def sensor_columns(sensors: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(channel, column) pairs of the columns `<sensor>_x`, `<sensor>_y`, `<sensor>_z`, as HARTH names them."""
    return tuple((f"{sensor}_{axis}", f"{sensor}_{axis}") for sensor in sensors for axis in "xyz")


def default_columns(
    model_sensors: tuple[str, ...], sensor_roles: Mapping[str, str] | None = None
) -> tuple[tuple[str, str], ...]:
    """Pairs of channel and column for tables whose columns are named after the model's sensors.

    Args:
        model_sensors: names of the model's sensors.
        sensor_roles: the model's name for a sensor of the data, where the two differ.
    """
    roles = dict(sensor_roles or {})
    others = (sensor for sensor in model_sensors if sensor not in roles.values())
    return sensor_columns(tuple(dict.fromkeys([*roles, *others])))


def parse_columns(text: str) -> tuple[tuple[str, str], ...]:
    """(channel, column) pairs of `hip_x=acc_x,hip_y=acc_y,...`; a name without `=` is both.

    Raises:
        ConfigError: an empty or repeated name.
    """
    pairs = []
    for item in text.split(","):
        channel, _, column = (part.strip() for part in item.partition("="))
        pairs.append((channel, column or channel))
    for names in zip(*pairs, strict=True):
        if not all(names) or len(set(names)) < len(names):
            raise ConfigError(
                f"columns: {text!r} has an empty or repeated name; give each channel a column of its own, e.g. "
                "hip_x=acc_x,hip_y=acc_y,hip_z=acc_z"
            )
    return tuple(pairs)


def given_columns(
    columns: str | None, sensors: tuple[str, ...], default: tuple[tuple[str, str], ...], *, file_per_sensor: bool
) -> tuple[tuple[str, str], ...]:
    """Pairs of channel and column by the options `columns` and `sensors`.

    Args:
        columns: see `parse_columns`. Where each sensor has a file of its own it may name the channels x, y and z alone,
            which are in every file.
        sensors: names, for columns named `<sensor>_x` and so on, or for those three columns.
        default: the pairs where neither is given; its sensors for those three columns.
        file_per_sensor: whether each sensor has a file of its own.

    Raises:
        ConfigError: an empty or repeated name, or both options where one of them has no effect.
    """
    if not columns:
        return sensor_columns(sensors) if sensors else default
    pairs = parse_columns(columns)
    if file_per_sensor and [channel for channel, _ in pairs] == ["x", "y", "z"]:
        sensors = sensors or sensors_of(tuple(channel for channel, _ in default))
        return tuple((f"{sensor}_{axis}", column) for sensor in sensors for axis, column in pairs)
    if sensors:
        raise ConfigError("give sensors or columns, not both")
    return pairs


@dataclass(frozen=True, kw_only=True)
class TableFormat:
    """How a table is read.

    Attributes:
        columns: (channel, column) pairs, in the order of the channels.
        unit: unit of the acceleration columns.
        rate_hz: sampling rate; compared with the timestamps where there are any.
        timestamp_column: time of each row, or None. Date and time as text or as a Parquet timestamp, or numbers in
            `timestamp_unit`.
        timestamp_unit: unit of timestamps that are numbers; `excel` for days as spreadsheets store them.
        day_first: whether 03/04/2020 is the third of April; None: it must be clear from the values.
        first_date: date of the first row (YYYY-MM-DD), where timestamps are times of day only.
        segment_column: a continuous recording ends where its value changes; None: the whole file is one.
        label_column: label of each row, or None.
        gap_limit: seconds; shorter gaps are bridged, a longer one ends a continuous recording.
        non_wear: keep or cut times in which a sensor lay still for 30 minutes; either way they are reported.
        calibrate: calibrate each sensor by gravity (van Hees et al. 2014) where its recording allows it.
    """

    columns: tuple[tuple[str, str], ...] = sensor_columns(HARTH_SENSORS)
    unit: Unit = "g"
    rate_hz: float = 50.0
    timestamp_column: str | None = "timestamp"
    timestamp_unit: TimestampUnit = "text"
    day_first: bool | None = None
    first_date: str | None = None
    segment_column: str | None = None
    label_column: str | None = None
    gap_limit: float = 1.0
    non_wear: NonWear = "keep"
    calibrate: bool = False

    def __post_init__(self) -> None:
        if self.unit not in UNITS_PER_G:
            raise ConfigError(f"unit is {self.unit!r}; give {', '.join(UNITS_PER_G)}")
        for option, value in (("rate", self.rate_hz), ("gap_limit", self.gap_limit)):
            if not 0 < value < np.inf:
                raise ConfigError(f"{option} is {value}; it must be above 0")
        if self.timestamp_unit not in get_args(TimestampUnit):
            raise ConfigError(f"timestamp_unit is {self.timestamp_unit!r}; give {', '.join(get_args(TimestampUnit))}")
        _ = self.time_format  # raises where `first_date` is not a date

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
        """Columns of a text table that are read as text: what is only compared, and dates."""
        dates = {self.timestamp_column} if self.timestamp_unit == "text" else set()
        decoded = {column for _, column in self.columns} | {self.label_column}
        return frozenset((({self.segment_column} | dates) - decoded) - {None})  # pyright: ignore[reportReturnType]

    @property
    def number_columns(self) -> frozenset[str]:
        """Columns in which anything but a number counts as missing."""
        return frozenset(column for _, column in self.columns) - {self.timestamp_column, self.label_column or ""}

    @property
    def time_format(self) -> TimeFormat:
        """How timestamps are read.

        Raises:
            ConfigError: `first_date` is not a date.
        """
        try:
            first = None if self.first_date is None else date.fromisoformat(self.first_date)
        except ValueError:
            raise ConfigError(f"first_date is {self.first_date!r}; give YYYY-MM-DD") from None
        return TimeFormat(self.timestamp_unit, self.day_first, first)

    def load(self, path: Path) -> pa.Table:
        """All rows of a file.

        Raises:
            UnusableError: unreadable, or a column is missing.
        """
        return read_table(path, self.all_columns, self.text_columns)

    def load_blocks(self, path: Path, rows: int = BLOCK_ROWS, report: FileReport | None = None) -> Iterator[pa.Table]:
        """The rows of a file in blocks of about `rows`.

        Args:
            path: of the file.
            rows: at most this many per block.
            report: gets what could not be read.

        Raises:
            UnusableError: unreadable, or a column is missing.
        """
        return read_blocks(path, self.all_columns, rows, self.text_columns, self.number_columns, report)

    def rows(
        self, path: Path, report: FileReport, read_labels: ReadLabels | None = None, size: int = BLOCK_ROWS
    ) -> Iterator[Rows]:
        """The decoded rows of a file in blocks.

        Args:
            path: of the file.
            report: gets what could not be read, and what was found.
            read_labels: the label of each row of a block; labels are not read without it.
            size: rows of a block.

        Raises:
            UnusableError: unreadable, a column is missing or of a wrong type, or timestamps cannot be read.
        """
        layout = self if read_labels else replace(self, label_column=None)
        times = None if self.timestamp_column is None else TimeReader(self.timestamp_column, self.time_format)
        codes: dict[object, int] = {}
        for table in layout.load_blocks(path, size, report):
            signal_NxC = to_g(self.values(table), self.unit)
            times_N = None if times is None else times.seconds(table.column(times.column))
            codes_N = None
            if self.segment_column is not None:
                encoded = table.column(self.segment_column).combine_chunks().dictionary_encode()
                known = [codes.setdefault(value, len(codes)) for value in [*encoded.dictionary.to_pylist(), None]]
                codes_N = np.array(known)[encoded.indices.fill_null(len(known) - 1).to_numpy()]
            yield Rows(signal_NxC, times_N, codes_N, read_labels(table) if read_labels else None)
        for note in times.notes() if times is not None else ():
            if note not in report.notes:
                report.notes.append(note)

    def to_datetime(self, time: float) -> datetime | None:
        """Date and time of seconds of the timestamps, where they are known."""
        return None if self.timestamp_column is None else to_datetime(time, self.timestamp_unit)

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
