"""A user's own labeled tables: CSV or Parquet, one file per subject."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32

from selfpab_jax.data.har.axes import AXES, axis_matrix, to_hunt4_axes
from selfpab_jax.data.har.base import with_notes
from selfpab_jax.data.har.card import DatasetCard, Sensor
from selfpab_jax.data.har.labels import Classes, Label, column_class_indices, labels_in
from selfpab_jax.data.har.subject_tables import SubjectTables
from selfpab_jax.data.sources.base import Recording, Skipped, SourceFile, UnusableError, sensors_of
from selfpab_jax.data.sources.blocks import whole_recordings
from selfpab_jax.data.sources.pairing import SensorFiles
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.survey import NonWear
from selfpab_jax.data.tables.columns import read_table
from selfpab_jax.data.tables.format import HARTH_SENSORS, TableFormat, given_columns, sensor_columns
from selfpab_jax.data.tables.recordings import find_passed_over, find_sources, path_of, signal_blocks
from selfpab_jax.data.tables.sensor_files import sensor_with
from selfpab_jax.data.tables.timestamps import TimestampUnit
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.signal.resample import UNITS_PER_G, Unit

AS_IT_IS = ("+x", "+y", "+z")


@dataclass(frozen=True)
class OwnTables(SubjectTables):
    """Every table below a folder is one subject's, read as `records build` reads it.

    Attributes:
        sensors: names of the sensors to read, in order, from the columns `<sensor>_x`, `_y`, `_z`; empty: back and
            thigh, or all that `columns` names.
        columns: other names of the columns, e.g. `hip_x=acc_x,hip_y=acc_y,hip_z=acc_z`; with `sensor_files` also
            `x=acc_x,y=acc_y,z=acc_z`, the columns of every file.
        axes: by sensor, which of its axes become x (down), y and z, e.g. `("-y", "+x", "+z")`; other sensors keep
            theirs.
        unit: unit of the acceleration columns: g, mg or m/s2.
        rate: sampling rate in Hz; compared with the timestamps where there are any.
        timestamp_column: time of each row, or None. Text, a Parquet timestamp, or numbers in `timestamp_unit`.
        timestamp_unit: unit of timestamps that are numbers.
        day_first: whether 03/04/2020 is the third of April, where the files leave it open.
        first_date: date of the first row, YYYY-MM-DD, where timestamps are times of day only.
        subject: what names the subject of a file: `file`, `folder`, `folder/file`, or a pattern such as
            `sub-{subject}_*`.
        sensor_files: where each sensor has a file of its own, a pattern of their names such as
            `{subject}_{sensor}.csv`, or a CSV table with the columns subject, sensor and file.
        segment_column: a continuous recording ends where its value changes; None: the whole file is one.
        label_column: whole numbers or text; missing values are not a label.
        classes: labels in the order of the class indices, as `1=walking,2=running` or `walking,running`; others count
            as none. None: every label that the files have, in order.
        non_wear: keep or cut times in which a sensor lay still for 30 minutes.
        calibrate: calibrate each sensor by gravity where its recording allows it.

    Raises:
        ConfigError: an option is wrong, or does not fit another.
    """

    columns: str | None = None
    axes: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    unit: str = "g"
    rate: float = 50.0
    timestamp_column: str | None = "timestamp"
    timestamp_unit: TimestampUnit = "text"
    day_first: bool | None = None
    first_date: str | None = None
    subject: str = "file"
    sensor_files: str | None = None
    segment_column: str | None = None
    label_column: str = "label"
    classes: str | None = None
    non_wear: NonWear = "keep"
    calibrate: bool = False

    def __post_init__(self) -> None:
        if self.version is not None:
            raise ConfigError("tables have no versions")
        if not self.rate > 0:
            raise ConfigError(f"rate is {self.rate}: it must be above 0")
        if self.unit not in UNITS_PER_G:
            raise ConfigError(f"unit is {self.unit!r}: give {', '.join(UNITS_PER_G)}")
        known = sensors_of(tuple(self._columns))
        for channel in (f"{sensor}_{axis}" for sensor in known for axis in AXES):
            if channel not in self._columns:
                raise ConfigError(f"columns: {channel} is missing; each sensor has x, y and z")
        for option, names in (("sensors", self.sensors), ("axes", tuple(self.axes))):
            if unknown := [name for name in names if name not in known]:
                raise ConfigError(f"{option}: no sensor {', '.join(unknown)}; there are {', '.join(known)}")
        for axes in self.axes.values():
            axis_matrix(axes)
        given_classes(self.classes)

    @property
    def name(self) -> str:
        """The source's name in the records."""
        return "tables"

    @cached_property
    def card(self) -> DatasetCard:
        """Card made of the options; where they name no classes, the files are read for their labels.

        Raises:
            DataError: the folder is missing, or there is no table or no label.
        """
        return DatasetCard(
            name=self.name,
            version="1.0.0",
            title="own tables",
            description=f"The tables in {self.path}.",
            citation="",
            license="",
            homepage="",
            sensors=tuple(self._sensors.values()),
            default_sensors=tuple(self._sensors),
            rate_hz=self.rate,
            unit=cast(Unit, self.unit),
            classes=given_classes(self.classes) or self._classes_in_files(),
            downloads=(),
            manual="One CSV or Parquet file per subject, or per subject and sensor.",
        )

    @property
    def selected_sensors(self) -> tuple[Sensor, ...]:
        """The sensors that are read, in order."""
        return tuple(self._sensors[name] for name in self.sensors or self._sensors)

    @property
    def table_columns(self) -> tuple[tuple[str, str], ...]:
        """(channel, column) of the selected sensors' x, y and z."""
        return tuple((channel, self._columns[channel]) for channel in self.channels)

    @property
    def table_format(self) -> TableFormat:
        """How the tables are read."""
        return TableFormat(
            columns=self.table_columns,
            unit=cast(Unit, self.unit),
            rate_hz=self.rate,
            timestamp_column=self.timestamp_column,
            timestamp_unit=self.timestamp_unit,
            day_first=self.day_first,
            first_date=self.first_date,
            segment_column=self.segment_column,
            label_column=self.label_column,
            gap_limit=self.gap_limit,
            non_wear=self.non_wear,
            calibrate=self.calibrate,
        )

    def files(self) -> Iterator[SourceFile]:
        """Every table, by subject and name.

        Raises:
            DataError: the folder is missing, there is no table, or it is not clear whose a file is.
        """
        yield from find_sources((self.path,), self.subject, self.sensor_files, sensors_of(self.channels))

    def passed_over(self) -> list[Skipped]:
        """Files and subjects in the folder that are not used, and why.

        Raises:
            ConfigError, DataError: see `files`.
        """
        return find_passed_over((self.path,), self.subject, self.sensor_files, sensors_of(self.channels))

    def read(self, file: SourceFile, report: FileReport | None = None) -> list[Recording]:
        """The continuous recordings of a table, cleaned and on an even clock.

        Args:
            file: of `files`.
            report: gets what is cut, bridged and doubted; the first recording's notes have it, too.

        Raises:
            UnusableError: unreadable, a column missing or of a wrong type, or nothing can be used.
        """
        report = report or FileReport(file.path, file.subject)
        unknown: dict[str, None] = {}

        def class_of(table: pa.Table) -> Int32[np.ndarray, " N"]:
            indices_N, notes = column_class_indices(table, self.label_column, self.card.classes)
            unknown.update(dict.fromkeys(notes))
            return indices_N

        blocks = signal_blocks(self.table_format, path_of(file, self.sensor_files), report, class_of)
        recordings = whole_recordings(blocks, file.subject)
        if self.axes:
            sensors = len(self.selected_sensors)
            recordings = [
                replace(each, signal_NxC=self._turned(np.split(each.signal_NxC, sensors, axis=1)))
                for each in recordings
            ]
        return with_notes(recordings, [*([report.summary()] if report.summary() else []), *unknown])

    def _turned(self, signals: list[Float32[np.ndarray, "N 3"]]) -> Float32[np.ndarray, "N C"]:
        turned = [to_hunt4_axes(xyz, sensor.axes) for sensor, xyz in zip(self.selected_sensors, signals, strict=True)]
        return np.concatenate(turned, axis=1).astype(np.float32)

    @property
    def _columns(self) -> dict[str, str]:
        """The column of each channel."""
        default = sensor_columns(self.sensors or HARTH_SENSORS)
        return dict(given_columns(self.columns, (), default, file_per_sensor=self.sensor_files is not None))

    @property
    def _sensors(self) -> dict[str, Sensor]:
        names = sensors_of(tuple(self._columns))
        return {name: Sensor(name, "not declared", self.axes.get(name, AS_IT_IS)) for name in names}

    def _classes_in_files(self) -> Classes:
        found: set[Label] = set()
        reasons: list[str] = []
        for file in self.files():
            try:
                path = path_of(file, self.sensor_files)
                if isinstance(path, SensorFiles):
                    path = path.paths[sensor_with(self.label_column, path)]
                found |= labels_in(read_table(path, [self.label_column]), self.label_column)
            except UnusableError as error:
                reasons.append(f"{file.name}: {error}")  # `read` raises it again, for this file alone
        if not found:
            why = f" ({reasons[0]}; dataset.options.label_column names another)" if reasons else ""
            raise DataError(f"{self.path}: no file has a label in column {self.label_column}{why}")
        ordered = sorted(found, key=lambda label: (isinstance(label, str), label))
        return tuple((label, str(label)) for label in ordered)


def given_classes(text: str | None) -> Classes:
    """`1=walking,2=running` or `walking,running` as (label, name) pairs; none for None.

    Within parentheses names may have commas: `130=cycling (sit, inactive),140=...`.

    Raises:
        ConfigError: an empty or repeated label.
    """
    if text is None:
        return ()
    pairs = []
    for item in re.split(r",(?![^(]*\))", text):
        label, _, name = (part.strip() for part in item.partition("="))
        number = label.removeprefix("-").isdecimal()
        pairs.append((int(label) if number else label, name or label))
    if "" in dict(pairs) or len(dict(pairs)) < len(pairs):
        raise ConfigError(f"classes: {text!r} has an empty or repeated label; give e.g. 1=walking,2=running")
    return tuple(pairs)
