"""One file per sensor: each is read by itself, with the rules of every file, and all are put on one clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from selfpab_jax.data.sources.base import EPOCH, Recording, UnusableError
from selfpab_jax.data.sources.blocks import Rows, as_far_as_possible, whole_recordings
from selfpab_jax.data.sources.continuous import continuous_blocks
from selfpab_jax.data.sources.devices.actigraph import actigraph_preamble
from selfpab_jax.data.sources.devices.read import READERS, read_device
from selfpab_jax.data.sources.files import stem_of
from selfpab_jax.data.sources.pairing import SensorFiles, SensorSamples, align
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.segments import RATE_TOLERANCE, measured_rate
from selfpab_jax.data.tables.columns import has_column, is_table
from selfpab_jax.data.tables.format import ReadLabels, TableFormat
from selfpab_jax.data.tables.opening import OpenedRows, is_device_file, open_rows
from selfpab_jax.data.tables.text import first_lines, is_text_table

MEASURED_ROWS = 2**15
"""First rows of a table, on which its rate is measured."""


def open_sensor_files(
    layout: TableFormat, files: SensorFiles, report: FileReport, read_labels: ReadLabels | None, size: int
) -> OpenedRows:
    """The rows of all sensors on one clock, at the rate of the fastest.

    A device file has its own rate. That of a table is measured by its timestamps, and the fastest table must have the
    layout's. Labels and segments are those of the first table that has such a column.

    Args:
        layout: how tables are read; its channels are those of the rows.
        files: of one subject.
        report: gets what could not be read, and what putting the sensors together cost.
        read_labels: the label of each row of a block of a table; labels are not read without it.
        size: rows of a block of a table.

    Raises:
        UnusableError: a file cannot be read, has another rate or no times, or the sensors have no time in common.
        DataError: the library that reads a device file is not installed.
    """
    layouts = _layouts(layout, files, needs_labels=read_labels is not None)
    samples: dict[str, SensorSamples] = {}
    rates: dict[str, float] = {}
    for sensor, path in files.paths.items():
        of_sensor = FileReport(str(path), files.subject, report.strict)
        with _named(sensor, path):
            if (own := layouts.get(sensor)) is None:
                device = read_device(path)
                of_sensor.notes += device.notes
                samples[sensor], rates[sensor] = SensorSamples(device.times_N, device.signal_Nx3), device.rate_hz
            else:
                read = read_labels if own.label_column else None
                samples[sensor], rates[sensor] = _of_table(own, path, of_sensor, read, size), own.rate_hz
        if said := of_sensor.summary():
            report.notes.append(f"{sensor}: {said}")
        report.stopped |= of_sensor.stopped
    rate_hz = max(rates.values())
    report.notes += [
        f"{sensor}: {rate:.4g} Hz, put on a clock of {rate_hz:g} Hz" for sensor, rate in rates.items() if rate < rate_hz
    ]
    aligned = align(samples, rate_hz, layout.gap_limit)
    report.notes += aligned.report.notes
    start = aligned.start
    is_dated = layout.timestamp_column is None or layout.to_datetime(_seconds(start)) is not None
    if not is_dated:
        report.note("timestamps count from a start of their own, which is taken to be the same for all sensors")
    rows = Rows(aligned.signal_NxC, None, aligned.codes_N, aligned.labels_N)
    return OpenedRows(iter([rows]), rate_hz, lambda time: start + timedelta(seconds=time) if is_dated else None)


def _layouts(layout: TableFormat, files: SensorFiles, *, needs_labels: bool) -> dict[str, TableFormat]:
    """How each sensor's table is read; device files have no layout."""
    layouts: dict[str, TableFormat] = {}
    for sensor, path in files.paths.items():
        if is_device_file(path):
            continue
        columns = tuple((channel, name) for channel, name in layout.columns if channel.rpartition("_")[0] == sensor)
        own = replace(layout, columns=columns, label_column=None, segment_column=None)
        with _named(sensor, path):
            layouts[sensor] = replace(own, rate_hz=_rate(own, path))
    rates = {sensor: own.rate_hz for sensor, own in layouts.items()}
    if rates and max(rates.values()) != layout.rate_hz:
        shown = ", ".join(f"{sensor} {rate:.4g} Hz" for sensor, rate in rates.items())
        raise UnusableError(f"wrong rate: {shown} by their times; the fastest must have {layout.rate_hz:g} Hz (--rate)")
    if needs_labels and layout.label_column:
        sensor = sensor_with(layout.label_column, files)
        layouts[sensor] = replace(layouts[sensor], label_column=layout.label_column)
    if layout.segment_column:
        sensor = sensor_with(layout.segment_column, files)
        layouts[sensor] = replace(layouts[sensor], segment_column=layout.segment_column)
    return layouts


def sensor_with(column: str, files: SensorFiles) -> str:
    """The first sensor whose table has a column.

    Args:
        column: its name.
        files: of one subject.

    Raises:
        UnusableError: no table has it.
    """
    for sensor, path in files.paths.items():
        if not is_device_file(path) and has_column(path, column):
            return sensor
    raise UnusableError(f"unknown column: none of them has {column}")


def _rate(layout: TableFormat, path: Path) -> float:
    """By the preamble of an export or the timestamps of the first rows; the layout's where they show about that."""
    if not is_table(path):
        raise UnusableError(f"unknown kind of file: give .csv, .tsv (also .gz), .parquet or {', '.join(READERS)}")
    if is_text_table(path) and (export := actigraph_preamble(first_lines(path, 14))) is not None:
        measured_hz = export.rate_hz
    else:
        if layout.timestamp_column is None:
            raise UnusableError("no timestamps: sensors are put on one clock by them; name their --timestamp_column")
        first = next(layout.rows(path, FileReport(str(path)), size=MEASURED_ROWS), None)
        if first is None or first.times_N is None:
            raise UnusableError("too short: it has no rows")
        times_n = np.sort(first.times_N[np.isfinite(first.times_N)])
        measured_hz = measured_rate(times_n, [(0, len(times_n))])[0]
    if measured_hz is None or abs(measured_hz / layout.rate_hz - 1) <= RATE_TOLERANCE:
        return layout.rate_hz
    return measured_hz


def _of_table(
    layout: TableFormat, path: Path, report: FileReport, read_labels: ReadLabels | None, size: int
) -> SensorSamples:
    """The usable samples of a table in order, with their times."""
    opened = open_rows(layout, path, report, read_labels, size)
    blocks = continuous_blocks(
        opened.rows,
        layout.channels,
        layout.rate_hz,
        layout.gap_limit,
        report,
        stem_of(path),
        lambda time: opened.start_of(time) or EPOCH + timedelta(seconds=time),
    )
    times, signals, codes, labels = [], [], [], []
    end_s = -np.inf
    recordings = whole_recordings(as_far_as_possible(blocks, report), stem_of(path))
    for number, recording in enumerate(sorted(recordings, key=_begin_s)):
        times_N = _begin_s(recording) + np.arange(len(recording.signal_NxC)) / recording.rate_hz
        first = int(np.searchsorted(times_N, end_s, side="right"))
        if first:
            report.cut("clock set back", first / recording.rate_hz, "another recording has the same times")
        times.append(times_N[first:])
        signals.append(recording.signal_NxC[first:])
        codes.append(np.full(len(times_N) - first, number))
        if recording.labels_N is not None:
            labels.append(recording.labels_N[first:])
        end_s = max(end_s, float(times_N[-1]))
    return SensorSamples(
        np.concatenate(times),
        np.concatenate(signals),
        np.concatenate(codes) if layout.segment_column else None,
        np.concatenate(labels) if labels else None,
    )


def _begin_s(recording: Recording) -> float:
    assert recording.start is not None
    return _seconds(recording.start)


def _seconds(moment: datetime) -> float:
    return (moment - EPOCH).total_seconds()


@contextmanager
def _named(sensor: str, path: Path) -> Iterator[None]:
    """Faults name the sensor and its file."""
    try:
        yield
    except UnusableError as reason:
        is_column = str(reason).startswith("unknown column")
        hint = "; --columns x=...,y=...,z=... names three columns that every file has" if is_column else ""
        raise UnusableError(f"{sensor} ({path.name}): {reason}{hint}") from None
