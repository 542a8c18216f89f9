"""The settings of `records build`, for the command line and for Python."""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

from selfpab_jax.data.har.base import LabeledRecordsSource
from selfpab_jax.data.har.registry import open_dataset, public_dataset_names
from selfpab_jax.data.records.spec import SHARD_BYTES, BuildSpec, RecordSettings
from selfpab_jax.data.sources.base import Skipped, Source
from selfpab_jax.data.sources.hunt4 import Hunt4
from selfpab_jax.data.sources.survey import NonWear
from selfpab_jax.data.splits import SplitSettings
from selfpab_jax.data.tables.format import HARTH_SENSORS, given_columns, sensor_columns
from selfpab_jax.data.tables.recordings import Tables
from selfpab_jax.data.tables.timestamps import TimestampUnit
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.signal.resample import Unit
from selfpab_jax.signal.stft import SpectrogramSettings

Names = tuple[str, ...] | str | None
"""Several names; a text has them separated by commas."""

SOURCES = ("hunt4", "recordings", *public_dataset_names())
"""Kinds of sources; `recordings` are a user's own tables."""
HUNT4_OPTIONS = ("first_seconds", "skip_night")
TABLE_OPTIONS = (
    "columns",
    "unit",
    "rate",
    "timestamp_column",
    "timestamp_unit",
    "day_first",
    "first_date",
    "subject",
    "segment_column",
    "label_column",
    "gap_limit",
    "sensor_files",
    "non_wear",
    "calibrate",
)


@dataclass(frozen=True)
class BuildSettings:
    """What to build records from, and how.

    Attributes:
        paths: folders of recordings.
        source: hunt4 is <folder>/<subject>/<YYYY-MM-DD_HH>.npz; recordings is <folder>/<subject>.csv or .parquet; the
            name of a public data set (harth, har70plus, pamap2, opportunity, realworld, uschad, mobiact, dualsleep,
            selfback) is one folder as published.
        window_seconds: length of a record.
        shift_seconds: from the start of one window to the start of the next; the window's length if not set.
        shortest_seconds: a continuous segment shorter than a window becomes a padded record if it is at least so long;
            the end of a longer one is in a window that is moved back. null: both are left out.
        start_hour: windows start when the recorder's clock shows this full hour, 0 to 23, with shift_seconds in whole
            days; null: windows start at any time. Ends of segments are left out then.
        record_rate: sampling rate in Hz of the signal that records are computed from; others are resampled to it.
        fft_window: samples of a frame.
        fft_hop: samples from one frame to the next.
        sensors: not for hunt4. Sensors in order, e.g. back,thigh for the columns back_x .. thigh_z.
        dataset_version: public data sets only. Which version, e.g. 1.2 or 2.0 of harth.
        columns: recordings only. Columns in order, e.g. hip_x=acc_x,hip_y=acc_y,hip_z=acc_z, instead of sensors; with
            sensor_files also x=acc_x,y=acc_y,z=acc_z, the columns of every file.
        unit: recordings only. Unit of the acceleration columns.
        rate: recordings only. Sampling rate in Hz.
        timestamp_column: recordings only. Time of every row; null if there is none.
        timestamp_unit: recordings only. Unit of timestamps that are numbers; text is a date and time, excel the days of
            spreadsheets.
        day_first: recordings only. Whether 03/04/2020 is the third of April, where the files leave it open.
        first_date: recordings only. Date of the first row, YYYY-MM-DD, where timestamps are times of day only.
        subject: recordings only. What names the subject of a file: file (its name), folder (that of its folder),
            folder/file, or a pattern such as sub-{subject}_*.
        segment_column: recordings only. Windows never cross a change of its value.
        label_column: recordings only. Whole numbers that become the label of every frame.
        gap_limit: recordings only. Longest gap, in seconds, that is bridged; windows never cross a longer one.
        sensor_files: recordings only. Where each sensor has a file of its own, a pattern of their names such as
            {subject}_{sensor}.csv, or a CSV table with the columns subject, sensor and file.
        non_wear: recordings only. Keep or cut times in which a sensor lay still for 30 minutes; they are reported.
        calibrate: recordings only. Calibrate each sensor by gravity (van Hees et al. 2014) where possible.
        first_seconds: hunt4 only. Seconds used of each file, from its start.
        skip_night: hunt4 only. Leave out recordings that start in the hours 0 to 6.
        split_by: subject puts no subject into two splits; recording draws files, as the original did.
        validation: fraction of the subjects or files for validation.
        test: fraction for test.
        validation_subjects: these subjects instead of a fraction, e.g. S001,S002.
        test_subjects: these subjects instead of a fraction.
        seed: seed of the draw.
        shard_mb: size in MB of a shard to aim at.

    Raises:
        ConfigError: a value is wrong, or has no effect on this source.
    """

    paths: tuple[str, ...]
    source: str
    window_seconds: float = 300.0
    shift_seconds: float | None = None
    shortest_seconds: float | None = 20.0
    start_hour: int | None = None
    record_rate: float = 50.0
    fft_window: int = 50
    fft_hop: int = 25
    sensors: Names = None
    dataset_version: str | None = None
    columns: str | None = None
    unit: Unit = "g"
    rate: float = 50.0
    timestamp_column: str | None = "timestamp"
    timestamp_unit: TimestampUnit = "text"
    day_first: bool | None = None
    first_date: str | None = None
    subject: str = "file"
    segment_column: str | None = None
    label_column: str | None = None
    gap_limit: float = 1.0
    sensor_files: str | None = None
    non_wear: NonWear = "keep"
    calibrate: bool = False
    first_seconds: float = 300.0
    skip_night: bool = False
    split_by: Literal["subject", "recording"] = "subject"
    validation: float = 0.1
    test: float = 0.1
    validation_subjects: Names = None
    test_subjects: Names = None
    seed: int = 0
    shard_mb: int = SHARD_BYTES // 2**20

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ConfigError(f"source is {self.source!r}: give one of {', '.join(SOURCES)}")
        positive = ("window_seconds", "shift_seconds", "shortest_seconds", "record_rate", "rate", "gap_limit")
        positive += ("first_seconds", "shard_mb")
        require_positive(**{name: getattr(self, name) for name in positive})
        if self.source != "hunt4":
            self._refuse(HUNT4_OPTIONS, "hunt4")
        if self.source != "recordings":
            self._refuse((*TABLE_OPTIONS, *(["sensors"] if self.source == "hunt4" else [])), "recordings")
        if self.source == "recordings":
            _ = self._columns  # raises where they are wrong
        if self.source in ("hunt4", "recordings"):
            if self.dataset_version is not None:
                raise ConfigError(f"dataset_version: {self.source} has no versions")
        elif len(self.paths) != 1:
            raise ConfigError(f"there are {len(self.paths)} folders: source {self.source} takes one")

    def spec(self) -> BuildSpec:
        """The specification that these settings describe.

        Raises:
            ConfigError: values that do not fit together, or an unknown sensor or version of a data set.
            DataError: a prepared data set is damaged.
        """
        shift = self.window_seconds if self.shift_seconds is None else self.shift_seconds
        try:
            spectrogram = SpectrogramSettings(self.record_rate, self.fft_window, self.fft_hop)
        except DataError as error:
            raise ConfigError(str(error)) from None
        source = self._open_source()
        records = RecordSettings(
            spectrogram=spectrogram,
            window_samples=round(self.window_seconds * self.record_rate),
            shift_samples=round(shift * self.record_rate),
            start_hour=self.start_hour,
        )
        if self.shortest_seconds is not None and not _is_filled(source, records):
            records = replace(records, shortest_samples=round(self.shortest_seconds * self.record_rate))
        return BuildSpec(
            source=source,
            records=records,
            splits=SplitSettings(
                by=self.split_by,
                validation=self.validation,
                test=self.test,
                seed=self.seed,
                validation_subjects=_names(self.validation_subjects),
                test_subjects=_names(self.test_subjects),
            ),
            shard_bytes=self.shard_mb * 2**20,
        )

    def passed_over(self) -> list[Skipped]:
        """Files and subjects in the folders of recordings that the build will not use, and why.

        Raises:
            DataError: see `Tables.files`.
        """
        source = self._open_source()
        return source.passed_over() if isinstance(source, Tables) else []

    def _open_source(self) -> Source:
        paths, sensors = tuple(map(str, self.paths)), _names(self.sensors)
        if self.source == "hunt4":
            return Hunt4(paths, seconds=self.first_seconds, skip_night=self.skip_night)
        if self.source != "recordings":
            return LabeledRecordsSource(
                open_dataset(self.source, paths[0], sensors=sensors, version=self.dataset_version)
            )
        return Tables(
            paths,
            columns=self._columns,
            unit=self.unit,
            rate_hz=self.rate,
            timestamp_column=self.timestamp_column,
            timestamp_unit=self.timestamp_unit,
            day_first=self.day_first,
            first_date=self.first_date,
            subject=self.subject,
            segment_column=self.segment_column,
            label_column=self.label_column,
            gap_limit=self.gap_limit,
            sensor_files=self.sensor_files,
            non_wear=self.non_wear,
            calibrate=self.calibrate,
        )

    @property
    def _columns(self) -> tuple[tuple[str, str], ...]:
        """(channel, column) pairs of recordings."""
        default, has_several = sensor_columns(HARTH_SENSORS), self.sensor_files is not None
        return given_columns(self.columns, _names(self.sensors), default, file_per_sensor=has_several)

    def _refuse(self, names: tuple[str, ...], source: str) -> None:
        """Options of another source must have their defaults, so that none is silently without effect."""
        defaults = {field.name: field.default for field in fields(self)}
        if given := [name for name in names if getattr(self, name) != defaults[name]]:
            raise ConfigError(f"{', '.join(given)}: only for --source {source}")


def require_positive(**options: float | None) -> None:
    """Check that numbers are finite and above 0; None is not checked.

    Raises:
        ConfigError: one is not.
    """
    for option, value in options.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{option} is {value}: it must be above 0")


def _is_filled(source: Source, records: RecordSettings) -> bool:
    """Whether every recording is a whole number of windows: HUNT4's files, whose first seconds alone are read.

    Their records then are those of version 0.1, byte for byte.
    """
    if not isinstance(source, Hunt4):
        return False
    rest = round(source.seconds * records.spectrogram.rate_hz) - records.window_samples
    return rest >= 0 and rest % records.shift_samples == 0


def _names(names: Names) -> tuple[str, ...]:
    given = (names or "").split(",") if isinstance(names, str | None) else names
    return tuple(name.strip() for name in given if name.strip())
