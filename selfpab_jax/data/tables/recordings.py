"""Recordings of users: tables, exports of ActiGraph's software, device files, one file per sensor."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfpab_jax.data.sources.base import Recording, Skipped, SourceFile, sensors_of
from selfpab_jax.data.sources.blocks import BLOCK_ROWS, SignalBlock, as_far_as_possible, whole_recordings
from selfpab_jax.data.sources.continuous import continuous_blocks
from selfpab_jax.data.sources.files import find_recordings, stem_of
from selfpab_jax.data.sources.pairing import SensorFiles, find_sensor_files
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.survey import read_twice
from selfpab_jax.data.tables.columns import estimated_rows, labels
from selfpab_jax.data.tables.format import ReadLabels, TableFormat
from selfpab_jax.data.tables.opening import open_rows
from selfpab_jax.data.tables.sensor_files import open_sensor_files

RecordingPath = Path | SensorFiles
"""A file, or one file per sensor of one subject."""


def signal_blocks(
    layout: TableFormat,
    path: RecordingPath,
    report: FileReport,
    read_labels: ReadLabels | None = None,
    size: int = BLOCK_ROWS,
) -> Iterator[SignalBlock]:
    """The continuous recordings of a file in blocks, cleaned, on an even clock: the way of every command.

    Args:
        layout: how tables are read, and what is done with doubtful signal.
        path: a table, a device file, or one file per sensor.
        report: gets what is cut, bridged and doubted.
        read_labels: the label of each row of a block of a table; labels are not read without it.
        size: rows that are read at a time.

    Raises:
        UnusableError: nothing can be used, or the report is strict and something is cut.
        DataError: the library that reads a device file is not installed.
    """
    name = path.subject if isinstance(path, SensorFiles) else stem_of(path)

    def read(report: FileReport) -> Iterator[SignalBlock]:
        report.rate_hz = layout.rate_hz
        if isinstance(path, SensorFiles):
            opened = open_sensor_files(layout, path, report, read_labels, size)
        else:
            opened = open_rows(layout, path, report, read_labels, size)
        blocks = continuous_blocks(
            opened.rows, layout.channels, opened.rate_hz, layout.gap_limit, report, name, opened.start_of
        )
        return as_far_as_possible(blocks, report)

    return read_twice(read, layout.channels, report, non_wear=layout.non_wear, calibrates=layout.calibrate)


def find_sources(
    paths: tuple[str, ...], subject: str, sensor_files: str | None, sensors: tuple[str, ...]
) -> Iterator[SourceFile]:
    """The recordings in folders, by subject and name.

    Args:
        paths: folders.
        subject: what names the subject of a file, see `find_recordings`.
        sensor_files: where each sensor has a file of its own, see `find_sensor_files`.
        sensors: names of the sensors.

    Raises:
        ConfigError, DataError: see `find_recordings` and `find_sensor_files`.
    """
    if sensor_files is None:
        yield from find_recordings(paths, subject).files
        return
    for files in find_sensor_files(paths, sensor_files, sensors).subjects:
        rows = max(estimated_rows(path) for path in files.paths.values())
        yield SourceFile(files.subject, files.subject, files.as_text(), rows)


def find_passed_over(
    paths: tuple[str, ...], subject: str, sensor_files: str | None, sensors: tuple[str, ...]
) -> list[Skipped]:
    """Files and subjects in folders that `find_sources` does not give, and why; with the same arguments."""
    if sensor_files is None:
        return find_recordings(paths, subject).skipped()
    return find_sensor_files(paths, sensor_files, sensors).skipped


def path_of(file: SourceFile, sensor_files: str | None) -> RecordingPath:
    """The file or files of one that `find_sources` gave."""
    return Path(file.path) if sensor_files is None else SensorFiles.from_text(file.path)


@dataclass(frozen=True)
class Tables(TableFormat):
    """Folders of tables and device files as a source of recordings.

    Attributes:
        paths: folders; see `find_recordings` for the files that count.
        subject: what names the subject of a file, see `find_recordings`.
        sensor_files: where each sensor has a file of its own, a pattern of their names such as
            `{subject}_{sensor}.csv`, or a CSV table with the columns subject, sensor and file.
    """

    paths: tuple[str, ...]
    subject: str = "file"
    sensor_files: str | None = None

    @property
    def name(self) -> str:
        """The source's name in the records."""
        return "recordings"

    def files(self) -> Iterator[SourceFile]:
        """Every recording, by subject and name.

        Raises:
            DataError: a folder is missing, there is no recording, or it is not clear whose a file is.
        """
        yield from find_sources(self.paths, self.subject, self.sensor_files, sensors_of(self.channels))

    def passed_over(self) -> list[Skipped]:
        """Files and subjects in the folders that are not used, and why.

        Raises:
            ConfigError, DataError: see `files`.
        """
        return find_passed_over(self.paths, self.subject, self.sensor_files, sensors_of(self.channels))

    def read(self, file: SourceFile, report: FileReport | None = None) -> list[Recording]:
        """The continuous recordings of a file: no change of segment, no gap in time.

        Args:
            file: of `files`.
            report: gets what is cut, bridged and doubted.

        Raises:
            UnusableError: unreadable, a column missing or of the wrong type, or nothing can be used.
        """
        return whole_recordings(self.blocks(file, report or FileReport(file.path, file.subject)), file.subject)

    def blocks(self, file: SourceFile, report: FileReport) -> Iterator[SignalBlock]:
        """The continuous recordings of a file in blocks, for files of any length.

        Args:
            file: of `files`.
            report: gets what is cut, bridged and doubted.

        Raises:
            UnusableError: see `read`; possibly after some blocks.
        """
        column = self.label_column
        read_labels = None if column is None else lambda table: labels(table, column)
        path = path_of(file, self.sensor_files)
        report.file = str(path)
        return signal_blocks(self, path, report, read_labels)
