"""Recordings of any length in blocks of samples, so that memory does not depend on how long they are."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from selfpab_jax.data.sources import hunt4
from selfpab_jax.data.sources.base import UnusableError, sensors_of
from selfpab_jax.data.sources.blocks import BLOCK_ROWS, Rows, SignalBlock, as_far_as_possible, whole_recordings
from selfpab_jax.data.sources.clock import LONGEST_GAP_DAYS
from selfpab_jax.data.sources.continuous import continuous_blocks
from selfpab_jax.data.sources.files import stem_of, visible_files, without_duplicates
from selfpab_jax.data.sources.pairing import SensorFiles, find_sensor_files
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.survey import NonWear
from selfpab_jax.data.tables.columns import COMPRESSION, estimated_rows, is_table
from selfpab_jax.data.tables.format import HARTH_SENSORS, TableFormat, given_columns, sensor_columns
from selfpab_jax.data.tables.opening import is_device_file
from selfpab_jax.data.tables.recordings import RecordingPath, signal_blocks
from selfpab_jax.data.tables.text import is_text_table, open_bytes
from selfpab_jax.data.tables.timestamps import TimestampUnit
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.signal.resample import Unit, ratio, resample, resample_labels

FILTER_HALF = 10
"""scipy's polyphase filter reaches this many samples of the lower rate to either side."""

OnSkip = Callable[[str, str], None]
"""Takes what is skipped and the reason; it may raise, to stop at the first."""


def is_recording(path: Path) -> bool:
    """Whether a file's name is that of a recording: a table, a device file, or an npz of the HUNT4 layout."""
    return is_table(path) or is_device_file(path) or path.suffix.lower() == ".npz"


def find_files(paths: list[Path], on_skip: OnSkip) -> list[Path]:
    """The files, and the recordings below the folders, in order; hidden files do not count.

    Args:
        paths: files and folders.
        on_skip: called with files in a folder that have the content of another.

    Raises:
        DataError: a path does not exist, or there is no recording at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            visible = [file for file in visible_files(path) if is_recording(file)]
            kept, duplicates = without_duplicates(visible)
            found += kept
            for file, other in duplicates:
                on_skip(file, f"the same content as {other}")
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder of recordings")
    if not found:
        raise DataError(
            f"{', '.join(map(str, paths))}: there is no *.csv, *.tsv, *.parquet, *.cwa, *.gt3x, *.bin or *.npz"
        )
    return list(dict.fromkeys(found))


def find_given(
    paths: list[Path], sensor_files: str | None, sensors: tuple[str, ...], on_skip: OnSkip
) -> list[RecordingPath]:
    """The recordings that a user gave.

    Args:
        paths: files and folders.
        sensor_files: where each sensor has a file of its own, see `find_sensor_files`; `paths` are folders then.
        sensors: names of the sensors.
        on_skip: called with files and subjects that do not fit `sensor_files`.

    Raises:
        ConfigError, DataError: see `find_files` and `find_sensor_files`.
    """
    if sensor_files is None:
        return [*find_files(paths, on_skip)]
    pairs = find_sensor_files(tuple(map(str, paths)), sensor_files, sensors)
    for each in pairs.skipped:
        on_skip(each.what, each.reason)
    return [*pairs.subjects]


def recording_name(path: RecordingPath) -> str:
    """The subject of several files, or a file's name without its ending."""
    return path.subject if isinstance(path, SensorFiles) else stem_of(path)


def estimated_hours(path: RecordingPath, rate_hz: float) -> float:
    """Hours of recording by a footer, or by the file's size and a table's first rows; 0 where it cannot be read."""
    if isinstance(path, SensorFiles):
        return max(estimated_hours(each, rate_hz) for each in path.paths.values())
    try:
        if not is_text_table(path):
            is_npz = path.suffix.lower() == ".npz"
            rows = estimated_rows(path) if not is_npz else path.stat().st_size / (len(hunt4.CHANNELS) * 8)
            return rows / rate_hz / 3600
        with open_bytes(path) as file:
            head = file.read(2**16)
        size = path.stat().st_size * (COMPRESSION if path.suffix.lower() == ".gz" else 1)
        return size * head.count(b"\n") / max(len(head), 1) / rate_hz / 3600
    except OSError:
        return 0.0


# From files to blocks.


def read_signal(
    path: RecordingPath,
    format: TableFormat,
    on_skip: OnSkip,
    rows: int = BLOCK_ROWS,
    report: FileReport | None = None,
) -> Iterator[SignalBlock]:
    """The continuous recordings of a file in blocks, cleaned, on an even clock (see `continuous`).

    Args:
        path: table, device file, one file per sensor, or an npz of the HUNT4 layout.
        format: how a table is read; channels of an npz are taken by name, its start from its file name
            `<YYYY-MM-DD_HH>.npz`.
        on_skip: called with the file and the reason if it cannot be used, and once with what was cut.
        rows: rows that are read at a time.
        report: gets what is cut, bridged and doubted.
    """
    report = report or FileReport(str(path))
    if isinstance(path, Path) and not is_recording(path):
        on_skip(str(path), "unknown kind of file: give .csv, .tsv (also .gz), .parquet, .cwa, .gt3x, .bin or .npz")
        return
    try:
        if isinstance(path, Path) and path.suffix.lower() == ".npz":
            yield from _npz_blocks(path, format, report, rows)
        else:
            yield from signal_blocks(format, path, report, size=rows)
    except UnusableError as reason:
        report.notes.append(f"skipped: {reason}")
        on_skip(str(path), str(reason))
    else:
        if report.cut_s or report.stopped:
            on_skip(str(path), report.summary())


def _npz_blocks(path: Path, format: TableFormat, report: FileReport, rows: int) -> Iterator[SignalBlock]:
    if missing := [channel for channel in format.channels if channel not in hunt4.CHANNELS]:
        raise UnusableError(f"an npz of the HUNT4 layout has {', '.join(hunt4.CHANNELS)}, not {', '.join(missing)}")
    columns = [hunt4.CHANNELS.index(channel) for channel in format.channels]
    start = hunt4.start_of(path.stem)

    def start_of(time: float) -> datetime | None:
        return None if start is None else start + timedelta(seconds=time)

    blocks = (Rows(hunt4.as_float32(block[:, columns])) for block in hunt4.read_blocks(path, rows))
    found = continuous_blocks(blocks, format.channels, format.rate_hz, format.gap_limit, report, path.stem, start_of)
    yield from as_far_as_possible(found, report)


class ReadSignal(NamedTuple):
    """A recording on one even clock.

    Attributes:
        signal: (N, C) acceleration in g; NaN where nothing could be used.
        rate_hz: sampling rate.
        start: time of the first sample on the recorder's clock, or None.
        report: what was used, cut, bridged and doubted.
    """

    signal: Float32[np.ndarray, "N C"]
    rate_hz: float
    start: datetime | None
    report: FileReport


def read_recording(
    path: Path | str | Mapping[str, Path | str],
    *,
    rate: float = 50.0,
    unit: Unit = "g",
    sensors: tuple[str, ...] = HARTH_SENSORS,
    columns: str | None = None,
    timestamp_column: str | None = "timestamp",
    timestamp_unit: TimestampUnit = "text",
    day_first: bool | None = None,
    first_date: str | None = None,
    gap_limit: float = 1.0,
    non_wear: NonWear = "keep",
    calibrate: bool = False,
    strict: bool = False,
) -> ReadSignal:
    """The acceleration in a file, as `records build`, `embed` and `probe` read it.

    Args:
        path: .csv or .tsv (also .gz), .parquet, .cwa, .gt3x, .bin, or an npz of the HUNT4 layout; where each sensor
            has a file of its own, sensors and their files: `{"back": "S01_back.csv", "thigh": ...}`.
        rate: sampling rate in Hz.
        unit: unit of the acceleration columns.
        sensors: for the columns `<sensor>_x`, `<sensor>_y`, `<sensor>_z`.
        columns: other columns instead, e.g. `hip_x=acc_x,hip_y=acc_y,hip_z=acc_z`; of a file per sensor also
            `x=acc_x,y=acc_y,z=acc_z`, which every file has.
        timestamp_column: time of each row, or None.
        timestamp_unit: unit of timestamps that are numbers.
        day_first: whether 03/04/2020 is the third of April, where the file leaves it open.
        first_date: date of the first row, YYYY-MM-DD, where timestamps are times of day only.
        gap_limit: seconds; shorter gaps are bridged, longer ones are NaN.
        non_wear: keep or cut times in which a sensor lay still for 30 minutes; either way they are reported.
        calibrate: calibrate each sensor by gravity where its recording allows it.
        strict: the first thing that would be cut or doubted is an error.

    Raises:
        ConfigError: an option makes no sense.
        DataError: the file cannot be used, or `strict` is set and something is cut or doubted.
    """
    layout = TableFormat(
        columns=given_columns(columns, (), sensor_columns(sensors), file_per_sensor=isinstance(path, Mapping)),
        unit=unit,
        rate_hz=rate,
        timestamp_column=timestamp_column,
        timestamp_unit=timestamp_unit,
        day_first=day_first,
        first_date=first_date,
        gap_limit=gap_limit,
        non_wear=non_wear,
        calibrate=calibrate,
    )
    given: RecordingPath
    if isinstance(path, Mapping):
        if unlike := set(path) ^ set(sensors_of(layout.channels)):
            raise ConfigError(
                f"path: {', '.join(sorted(unlike))} is not both a sensor with a file and one of `sensors`; give "
                f"{', '.join(sensors_of(layout.channels))} a file each"
            )
        given = SensorFiles("recording", {sensor: Path(path[sensor]) for sensor in sensors_of(layout.channels)})
    else:
        given = Path(path)
    report = FileReport(str(given), recording_name(given), strict)

    def refuse(what: str, reason: str) -> None:
        if not report.used_s or strict:
            raise DataError(f"{what}: {reason}")

    recordings = whole_recordings(read_signal(given, layout, refuse, report=report), report.subject)
    start = recordings[0].start
    places, end = [], 0
    for recording in recordings:
        place = end
        if start is not None and recording.start is not None:
            place = round((recording.start - start).total_seconds() * recording.rate_hz)
            if place < end:
                overlap_s = (end - place) / recording.rate_hz
                report.notes.append(
                    f"{recording.name} begins {overlap_s:.6g} s before the end of the recording before it (was the "
                    "clock set back?): its samples follow there, later than by its clock"
                )
                place = end
            if place - end > LONGEST_GAP_DAYS * 86_400 * recording.rate_hz:
                raise DataError(
                    f"{given}: {recording.name} begins {(place - end) / recording.rate_hz / 86_400:.0f} days after the "
                    "recording before it: is a timestamp wrong? Cut the file there, or read its parts one by one"
                )
        places.append(place)
        end = place + len(recording.signal_NxC)
    signal_NxC = np.full((end, len(layout.channels)), np.nan, np.float32)
    for place, recording in zip(places, recordings, strict=True):
        signal_NxC[place : place + len(recording.signal_NxC)] = recording.signal_NxC
    return ReadSignal(signal_NxC, recordings[0].rate_hz, start, report)


# Blocks at another sampling rate.


def resample_blocks(blocks: Iterator[SignalBlock], rate_hz: float) -> Iterator[SignalBlock]:
    """The blocks at another rate; at a seam of two blocks, each is filtered together with its neighborhood."""
    held: _BlockResampler | None = None
    for block in blocks:
        if ratio(block.rate_hz, rate_hz) == 1:
            yield block
            continue
        if block.begins:
            if held is not None:
                yield from held.rest()
            held = _BlockResampler(block, rate_hz)
        else:
            assert held is not None
            held.add(block)
        yield from held.ready()
    if held is not None:
        yield from held.rest()


class _BlockResampler:
    """Resamples one recording: `ready` gives what the samples so far determine, `rest` what remains."""

    def __init__(self, first: SignalBlock, rate_hz: float):
        factor = ratio(first.rate_hz, rate_hz)
        self.first, self.rate_hz = first, rate_hz
        self.up, self.down = factor.numerator, factor.denominator
        # A multiple of `down`, so that blocks begin on a sample of the new rate.
        self.margin = self.down * -(-FILTER_HALF * 2 * max(self.up, self.down) // (self.up * self.down))
        self.signal_NxC, self.labels_N, self.given, self.begins = first.signal_NxC, first.labels_N, 0, True

    def add(self, block: SignalBlock) -> None:
        self.signal_NxC = np.concatenate([self.signal_NxC, block.signal_NxC])
        if self.labels_N is not None and block.labels_N is not None:
            self.labels_N = np.concatenate([self.labels_N, block.labels_N])

    def ready(self) -> Iterator[SignalBlock]:
        """The samples that no later one changes."""
        upto = (len(self.signal_NxC) - self.margin) // self.down * self.down
        if upto > self.given:
            yield self._resampled(upto + self.margin, (upto - self.given) * self.up // self.down)
            kept = max(0, upto - self.margin)
            self.signal_NxC, self.given = self.signal_NxC[kept:], upto - kept
            self.labels_N = None if self.labels_N is None else self.labels_N[kept:]

    def rest(self) -> Iterator[SignalBlock]:
        """The samples up to the recording's end."""
        left = len(self.signal_NxC) - self.given
        if left > 0:
            yield self._resampled(len(self.signal_NxC), -(-left * self.up // self.down))

    def _resampled(self, upto: int, count: int) -> SignalBlock:
        first, rate_hz = self.given * self.up // self.down, self.first.rate_hz
        chosen = slice(first, first + count)
        begins, self.begins = self.begins, False
        return replace(
            self.first,
            begins=begins,
            rate_hz=self.rate_hz,
            signal_NxC=resample(self.signal_NxC[:upto], rate_hz, self.rate_hz)[chosen],
            labels_N=None
            if self.labels_N is None
            else resample_labels(self.labels_N[:upto], rate_hz, self.rate_hz)[chosen],
        )
