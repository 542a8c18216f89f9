"""The rows of one file: a table, an export of ActiGraph's software, or a device file."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from selfpab_jax.data.sources.base import EPOCH, UnusableError
from selfpab_jax.data.sources.blocks import Rows
from selfpab_jax.data.sources.devices.actigraph import actigraph_preamble
from selfpab_jax.data.sources.devices.read import READERS, read_device
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.tables.format import ReadLabels, TableFormat
from selfpab_jax.data.tables.text import find_layout, first_lines, is_text_table

EXPORTED = ("Accelerometer X", "Accelerometer Y", "Accelerometer Z")
"""Columns of ActiGraph's exports."""
RATE_TOLERANCE = 0.05


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


def open_rows(
    layout: TableFormat, path: Path, report: FileReport, read_labels: ReadLabels | None, size: int
) -> OpenedRows:
    """Open a recording.

    Args:
        layout: how tables are read; its channels are those of the rows.
        path: of the file.
        report: gets what could not be read.
        read_labels: the label of each row of a block of a table; device files have none.
        size: rows of a block of a table.

    Raises:
        UnusableError: it cannot be read, or has other channels.
        DataError: the library that reads it is not installed.
    """
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
        return OpenedRows(iter([Rows(samples.signal_Nx3, samples.times_N)]), samples.rate_hz, _since_1970)
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


def _since_1970(time: float) -> datetime:
    return EPOCH + np.timedelta64(round(time * 1e3), "ms").astype(object)
