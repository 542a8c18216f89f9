"""Recordings of users: tables, exports of ActiGraph's software, device files, one file per sensor."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from selfpab_jax.data.sources.base import EPOCH, Recording, SourceFile, UnusableError, sensors_of
from selfpab_jax.data.sources.blocks import BLOCK_ROWS, Rows, SignalBlock
from selfpab_jax.data.sources.continuous import continuous_blocks
from selfpab_jax.data.sources.devices.actigraph import actigraph_preamble
from selfpab_jax.data.sources.devices.read import READERS, read_device
from selfpab_jax.data.sources.devices.samples import DeviceSamples
from selfpab_jax.data.sources.files import find_recordings, stem_of
from selfpab_jax.data.sources.pairing import SensorFiles, align, find_sensor_files
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.survey import read_twice
from selfpab_jax.data.tables.columns import labels
from selfpab_jax.data.tables.format import ReadLabels, TableFormat
from selfpab_jax.data.tables.text import find_layout, first_lines, is_text_table

RecordingPath = Path | SensorFiles
"""A file, or one file per sensor of one subject."""
EXPORTED = ("Accelerometer X", "Accelerometer Y", "Accelerometer Z")
"""Columns of ActiGraph's exports."""
RATE_TOLERANCE = 0.05
BYTES_PER_DEVICE_ROW = 6
"""Of a device file, for estimates."""


class OpenedRows(NamedTuple):
    """The rows of a recording.

    Attributes:
        rows: in blocks.
        rate_hz: sampling rate.
        start_of: date and time of seconds of the rows' times.
    """

    rows: Iterator[Rows]
    rate_hz: float
    start_of: Callable[[float], datetime | None]


def is_device_file(path: Path) -> bool:
    """Whether the file's name is that of a device file: .cwa, .gt3x or .bin, in any case."""
    return path.suffix.lower() in READERS


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
        path: a table, a device file, or one device file per sensor.
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
        opened = open_rows(layout, path, report, read_labels, size)
        blocks = continuous_blocks(
            opened.rows, layout.channels, opened.rate_hz, layout.gap_limit, report, name, opened.start_of
        )
        return as_far_as_possible(blocks, report)

    return read_twice(read, layout.channels, report, non_wear=layout.non_wear, calibrates=layout.calibrate)


def as_far_as_possible(blocks: Iterator[SignalBlock], report: FileReport) -> Iterator[SignalBlock]:
    """The blocks up to the first fault: what was read before it is kept, and the report says where it ended.

    Args:
        blocks: of a file.
        report: of the file.

    Raises:
        UnusableError: there is a fault before the first block, or the report is strict.
    """
    given = False
    try:
        for block in blocks:
            given = True
            yield block
    except UnusableError as reason:
        if report.strict or not given:
            raise
        report.stopped = True
        report.notes.append(f"stopped after {report.used_s:.6g} s, the rest is not used: {reason}")


def open_rows(
    layout: TableFormat, path: RecordingPath, report: FileReport, read_labels: ReadLabels | None, size: int
) -> OpenedRows:
    """Open a recording.

    Args:
        layout: how tables are read; its channels are those of the rows.
        path: of the file or files.
        report: gets what could not be read.
        read_labels: the label of each row of a block of a table; device files have none.
        size: rows of a block of a table.

    Raises:
        UnusableError: it cannot be read, or has other channels.
        DataError: the library that reads it is not installed.
    """
    if isinstance(path, SensorFiles):
        return _sensor_files(layout, path, report)
    if is_device_file(path):
        if len(layout.channels) != 3:
            raise UnusableError(
                f"one sensor: a {path.suffix} file has x, y and z, not {', '.join(layout.channels)}; give --sensors "
                "one name, or --sensor_files where each sensor has a file"
            )
        samples = read_device(path)
        report.notes += samples.notes
        for begin, end in samples.idle:
            report.span(begin, end, "idle sleep")
        return OpenedRows(_once(Rows(samples.signal_Nx3, samples.times_N)), samples.rate_hz, _since_1970)
    if is_text_table(path) and (export := actigraph_preamble(first_lines(path, 14))) is not None:
        if abs(export.rate_hz / layout.rate_hz - 1) > RATE_TOLERANCE:
            raise UnusableError(
                f"wrong rate: the export says {export.rate_hz:g} Hz, not {layout.rate_hz:g} Hz (--rate)"
            )
        layout = replace(layout, columns=_exported_columns(layout, path, export.has_names))
        layout = _with_export_times(layout, path, report)
        if layout.timestamp_column is None:
            start = export.start
            return OpenedRows(
                layout.rows(path, report, read_labels, size),
                layout.rate_hz,
                lambda time: start + timedelta(seconds=time),
            )
    return OpenedRows(layout.rows(path, report, read_labels, size), layout.rate_hz, layout.to_datetime)


def _with_export_times(layout: TableFormat, path: Path, report: FileReport) -> TableFormat:
    """The layout with the export's column of times, or without one, as in older exports."""
    if layout.timestamp_column is None:
        return layout
    defaults = (layout.timestamp_column, *(["Timestamp"] if layout.timestamp_column == "timestamp" else []))
    for name in defaults:
        try:
            find_layout(path, replace(layout, timestamp_column=name).all_columns)
        except UnusableError:
            if layout.timestamp_column != "timestamp":
                raise
        else:
            return replace(layout, timestamp_column=name)
    report.notes.append("gaps not checked: the export has no timestamps; time is counted from its start by its rate")
    return replace(layout, timestamp_column=None)


def _exported_columns(layout: TableFormat, path: Path, has_names: bool) -> tuple[tuple[str, str], ...]:
    """The user's columns where the export has them, else the three that it always has."""
    try:
        find_layout(path, [column for _, column in layout.columns])
    except UnusableError:
        if len(layout.columns) != 3:
            raise
    else:
        return layout.columns
    names = EXPORTED if has_names else ("1", "2", "3")
    return tuple((channel, name) for (channel, _), name in zip(layout.columns, names, strict=True))


def _sensor_files(layout: TableFormat, files: SensorFiles, report: FileReport) -> OpenedRows:
    samples: dict[str, DeviceSamples] = {}
    for sensor, path in files.paths.items():
        if not is_device_file(path):
            raise UnusableError(f"{path}: one file per sensor is read of device files only ({', '.join(READERS)})")
        samples[sensor] = read_device(path)
        report.notes += [f"{sensor}: {note}" for note in samples[sensor].notes]
    rate_hz = max(each.rate_hz for each in samples.values())
    aligned = align(samples, rate_hz, layout.gap_limit)
    report.notes += aligned.report.notes
    start = aligned.start
    return OpenedRows(_once(Rows(aligned.signal_NxC)), rate_hz, lambda time: start + timedelta(seconds=time))


def _once(rows: Rows) -> Iterator[Rows]:
    yield rows


def _since_1970(time: float) -> datetime:
    return EPOCH + np.timedelta64(round(time * 1e3), "ms").astype(object)


# From blocks to whole recordings.


def whole_recordings(blocks: Iterable[SignalBlock], subject: str) -> list[Recording]:
    """The recordings that come in blocks, as wholes.

    Args:
        blocks: of one file.
        subject: whose they are.
    """
    grouped: list[list[SignalBlock]] = []
    for block in blocks:
        grouped.append([block]) if block.begins else grouped[-1].append(block)
    return [
        Recording(
            subject=subject,
            name=group[0].recording,
            start=group[0].start,
            rate_hz=group[0].rate_hz,
            signal_NxC=np.concatenate([block.signal_NxC for block in group]),
            labels_N=None
            if group[0].labels_N is None
            else np.concatenate([block.labels_N for block in group if block.labels_N is not None]),
        )
        for group in grouped
    ]


@dataclass(frozen=True)
class Tables(TableFormat):
    """Folders of tables and device files as a source of recordings.

    Attributes:
        paths: folders; see `find_recordings` for the files that count.
        subject: what names the subject of a file, see `find_recordings`.
        sensor_files: where each sensor has a file of its own, a pattern of their names such as
            `{subject}_{sensor}.cwa`, or a CSV table with the columns subject, sensor and file.
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
        if self.sensor_files is None:
            yield from find_recordings(self.paths, self.subject).files
            return
        for files in find_sensor_files(self.paths, self.sensor_files, sensors_of(self.channels)).subjects:
            size = sum(path.stat().st_size for path in files.paths.values())
            yield SourceFile(files.subject, files.subject, files.as_text(), size // BYTES_PER_DEVICE_ROW)

    def passed_over(self) -> list[str]:
        """Files in the folders that are not used, one line each.

        Raises:
            DataError: see `files`.
        """
        if self.sensor_files is None:
            return find_recordings(self.paths, self.subject).notes()
        pairs = find_sensor_files(self.paths, self.sensor_files, sensors_of(self.channels))
        return [f"{each.what}: {each.reason}" for each in pairs.skipped]

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
        path = Path(file.path) if self.sensor_files is None else SensorFiles.from_text(file.path)
        return signal_blocks(self, path, report, read_labels)
