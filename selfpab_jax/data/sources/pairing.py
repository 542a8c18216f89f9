"""Sensors in files of their own: which files belong to one subject, and their samples on one clock."""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int, Int32

from selfpab_jax.data.sources.base import EPOCH, Skipped, UnusableError
from selfpab_jax.data.sources.clock import to_even_clock
from selfpab_jax.data.sources.files import visible_files
from selfpab_jax.errors import ConfigError, DataError

TABLE_COLUMNS = ("subject", "sensor", "file")


@dataclass(frozen=True)
class SensorFiles:
    """The files of one subject, one per sensor, in the order of the sensors."""

    subject: str
    paths: dict[str, Path]

    def as_text(self) -> str:
        """As one text, for plans of builds."""
        return json.dumps([self.subject, {sensor: str(path) for sensor, path in self.paths.items()}])

    @classmethod
    def from_text(cls, text: str) -> "SensorFiles":
        """From the text of `as_text`."""
        subject, paths = json.loads(text)
        return cls(subject, {sensor: Path(path) for sensor, path in paths.items()})

    def __str__(self) -> str:
        return f"{self.subject} ({', '.join(path.name for path in self.paths.values())})"


def shown_path(text: str) -> str:
    """A file's path, or the text of `SensorFiles.as_text`, as a user reads it."""
    return str(SensorFiles.from_text(text)) if text.startswith('["') else text


class Pairs(NamedTuple):
    """Subjects that have a file of every sensor, and what else was found.

    Attributes:
        subjects: by name.
        skipped: subjects without a file of every sensor or with two of one, and files that fit no sensor.
    """

    subjects: list[SensorFiles]
    skipped: list[Skipped]


def find_sensor_files(paths: tuple[str, ...], rule: str, sensors: tuple[str, ...]) -> Pairs:
    """The files of each subject where every sensor has a file of its own.

    Args:
        paths: folders; of a table of files, they are not searched.
        rule: a pattern of names with `{subject}` and `{sensor}`, or a CSV table with subject, sensor and file.
        sensors: names of the sensors.

    Raises:
        ConfigError: the pattern lacks a field.
        DataError: a folder is missing, the table cannot be read, or no subject has a file of every sensor.
    """
    if "{" not in rule:
        pairs = pair_by_table(Path(rule), sensors)
    else:
        found = [pair_by_name(Path(path), rule, sensors) for path in paths]
        pairs = Pairs([each for one in found for each in one.subjects], [each for one in found for each in one.skipped])
    if not pairs.subjects:
        why = "; ".join(f"{each.what}: {each.reason}" for each in pairs.skipped[:3]) or "no file fits"
        raise DataError(f"{rule}: no subject has a file of each of {', '.join(sensors)} ({why})")
    names = [each.subject for each in pairs.subjects]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{rule}: {', '.join(twice)} is in several of {', '.join(paths)}; give one of them")
    return pairs


def pair_by_name(folder: Path, pattern: str, sensors: tuple[str, ...]) -> Pairs:
    """The files below a folder by a pattern of their names.

    Args:
        folder: where the files are.
        pattern: path below the folder, or name anywhere below it, with `{subject}` and `{sensor}`; `*` stands for any
            characters. `{subject}_{sensor}.cwa`, `{subject}/*_{sensor}.gt3x`.
        sensors: names of the sensors, as in the files.

    Raises:
        ConfigError: the pattern has no `{subject}` or no `{sensor}`.
        DataError: no such folder.
    """
    if missing := [field for field in ("{subject}", "{sensor}") if pattern.count(field) != 1]:
        raise ConfigError(
            f"pattern {pattern!r}: it needs {' and '.join(missing)} once, as in {{subject}}_{{sensor}}.cwa"
        )
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of recordings")
    expression = re.escape(pattern).replace(r"\*", "[^/]*")
    expression = expression.replace(re.escape("{subject}"), "(?P<subject>[^/]+)")
    names = "|".join(re.escape(name) for name in sorted(sensors, key=len, reverse=True))
    compiled = re.compile(expression.replace(re.escape("{sensor}"), f"(?P<sensor>{names})"), re.IGNORECASE)
    spelled = {name.lower(): name for name in sensors}
    rows: list[tuple[str, str, Path]] = []
    unmatched: list[Skipped] = []
    ending = Path(pattern).suffix
    for path in visible_files(folder):
        text = path.relative_to(folder).as_posix() if "/" in pattern else path.name
        if found := compiled.fullmatch(text):
            rows.append((found["subject"], spelled[found["sensor"].lower()], path))
        elif path.suffix.lower() == ending.lower():
            unmatched.append(Skipped(str(path), f"its name does not fit {pattern} with {', '.join(sensors)}"))
    pairs = _pairs(rows, sensors)
    return Pairs(pairs.subjects, pairs.skipped + unmatched)


def pair_by_table(table: Path, sensors: tuple[str, ...]) -> Pairs:
    """The files that a CSV table lists.

    Args:
        table: with the columns `subject`, `sensor` and `file`; files are relative to the table's folder.
        sensors: names of the sensors; rows of others are skipped.

    Raises:
        DataError: the table cannot be read, or lacks a column.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file))
            columns = lines[0].keys() if lines else ()
    except (OSError, UnicodeDecodeError, csv.Error) as reason:
        raise DataError(f"{table}: {reason}") from None
    if missing := [column for column in TABLE_COLUMNS if column not in columns]:
        raise DataError(
            f"{table}: no column {', '.join(missing)}; it needs {', '.join(TABLE_COLUMNS)} and a row per file"
        )
    rows: list[tuple[str, str, Path]] = []
    skipped: list[Skipped] = []
    for number, line in enumerate(lines, start=2):
        subject, sensor, file = ((line[column] or "").strip() for column in TABLE_COLUMNS)
        path = table.parent / file
        if not subject or sensor not in sensors:
            skipped.append(Skipped(f"{table}, line {number}", f"sensor {sensor!r} is none of {', '.join(sensors)}"))
        elif not path.is_file():
            skipped.append(Skipped(f"{table}, line {number}", f"{path}: no such file"))
        else:
            rows.append((subject, sensor, path))
    pairs = _pairs(rows, sensors)
    return Pairs(pairs.subjects, skipped + pairs.skipped)


def _pairs(rows: list[tuple[str, str, Path]], sensors: tuple[str, ...]) -> Pairs:
    found: dict[str, dict[str, list[Path]]] = {}
    for subject, sensor, path in rows:
        found.setdefault(subject, {}).setdefault(sensor, []).append(path)
    subjects: list[SensorFiles] = []
    skipped: list[Skipped] = []
    for subject, paths in sorted(found.items()):
        faults = [f"no file of {sensor}" for sensor in sensors if sensor not in paths]
        faults += [
            f"{len(paths[sensor])} files of {sensor}: {', '.join(map(str, paths[sensor]))}"
            for sensor in sensors
            if len(paths.get(sensor, [])) > 1
        ]
        if faults:
            skipped.append(Skipped(subject, "; ".join(faults)))
        else:
            subjects.append(SensorFiles(subject, {sensor: paths[sensor][0] for sensor in sensors}))
    return Pairs(subjects, skipped)


@dataclass(frozen=True)
class AlignmentReport:
    """What aligning the sensors cost.

    Attributes:
        cut_s: for each sensor, seconds before and after the common time that were cut.
        missing_s: for each sensor, seconds of the common time in which it recorded nothing.
        hours: length of the common time.
    """

    cut_s: dict[str, tuple[float, float]]
    missing_s: dict[str, float]
    hours: float

    @property
    def notes(self) -> tuple[str, ...]:
        """One line per sensor that lost something."""
        return tuple(
            f"{sensor}: {self.cut_s[sensor][0]:.1f} s cut before and {self.cut_s[sensor][1]:.1f} s after the common "
            f"{self.hours:.2f} h, {self.missing_s[sensor]:.1f} s of it missing"
            for sensor in self.cut_s
            if max(*self.cut_s[sensor], self.missing_s[sensor]) >= 1
        )


class SensorSamples(NamedTuple):
    """The samples of one sensor.

    Attributes:
        times_N: seconds since 1970 on the recorder's clock, never decreasing.
        signal_Nx3: acceleration in g.
        codes_N: a number that changes where a recording ends, or None.
        labels_N: a label per sample, -1 where there is none; or None.
    """

    times_N: Float64[np.ndarray, " N"]
    signal_Nx3: Float32[np.ndarray, "N 3"]
    codes_N: Int[np.ndarray, " N"] | None = None
    labels_N: Int32[np.ndarray, " N"] | None = None


class AlignedSensors(NamedTuple):
    """All sensors on one even clock.

    Attributes:
        start: time of the first row.
        signal_NxC: x, y, z of each sensor, in the order given; NaN where a sensor recorded nothing.
        report: what was cut and is missing.
        codes_N: of the sensor that has some, or None.
        labels_N: of the sensor that has some, or None; -1 where it recorded nothing.
    """

    start: datetime
    signal_NxC: Float32[np.ndarray, "N C"]
    report: AlignmentReport
    codes_N: Int[np.ndarray, " N"] | None = None
    labels_N: Int32[np.ndarray, " N"] | None = None


def align(samples_by_sensor: Mapping[str, SensorSamples], rate_hz: float, gap_limit: float) -> AlignedSensors:
    """Sensors that recorded at the same time, each moved onto one even clock by its own timestamps.

    The sensors' clocks are taken to agree (they are set by one computer); that they drift apart later is not visible in
    the files. Only the time that all sensors cover is kept.

    Args:
        samples_by_sensor: samples of each sensor, in the order of the channels; one of them may have codes, and one
            labels.
        rate_hz: rate of the common clock.
        gap_limit: seconds; longer gaps of a sensor stay NaN.

    Raises:
        UnusableError: the sensors did not record at the same time.
    """
    spans = {sensor: (float(one.times_N[0]), float(one.times_N[-1])) for sensor, one in samples_by_sensor.items()}
    start_s, end_s = max(span[0] for span in spans.values()), min(span[1] for span in spans.values())
    rows = int((end_s - start_s) * rate_hz) + 1
    if end_s <= start_s:
        times = ", ".join(f"{sensor} from {_time(first)} to {_time(last)}" for sensor, (first, last) in spans.items())
        raise UnusableError(f"no common time: {times}; were the clocks set, and are these files of one recording?")
    parts: list[np.ndarray] = []
    missing_s: dict[str, float] = {}
    for sensor, samples in samples_by_sensor.items():
        even = to_even_clock(samples.times_N, samples.signal_Nx3, rate_hz, gap_limit, start_s)
        parts.append(even.signal_MxC[:rows])
        missing_s[sensor] = float(even.is_missing_M[:rows].sum()) / rate_hz
    rows = min(len(part) for part in parts)
    at_M = start_s + np.arange(rows) / rate_hz
    codes, labels = [], []
    for part, samples in zip(parts, samples_by_sensor.values(), strict=True):
        nearest_M = _nearest(samples.times_N, at_M)
        if samples.codes_N is not None:
            codes.append(samples.codes_N[nearest_M])
        if samples.labels_N is not None:
            is_missing_M = np.isnan(part[:rows, 0])
            labels.append(np.where(is_missing_M, np.int32(-1), samples.labels_N[nearest_M]))
    return AlignedSensors(
        start=EPOCH + timedelta(seconds=start_s),
        signal_NxC=np.concatenate([part[:rows] for part in parts], axis=1),
        report=AlignmentReport(
            cut_s={sensor: (start_s - first, last - end_s) for sensor, (first, last) in spans.items()},
            missing_s=missing_s,
            hours=(end_s - start_s) / 3600,
        ),
        codes_N=codes[0] if codes else None,
        labels_N=labels[0] if labels else None,
    )


def _nearest(times_N: Float64[np.ndarray, " N"], at_M: Float64[np.ndarray, " M"]) -> Int[np.ndarray, " M"]:
    """The sample nearest in time."""
    after_M = np.searchsorted(times_N, at_M).clip(1, max(len(times_N) - 1, 1))
    after_M = np.minimum(after_M, len(times_N) - 1)
    before_M = np.maximum(after_M - 1, 0)
    return np.where(at_M - times_N[before_M] <= times_N[after_M] - at_M, before_M, after_M)


def _time(seconds: float) -> str:
    return f"{EPOCH + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}"
