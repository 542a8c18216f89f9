"""selfBACK: nine activities; wrist and right thigh."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from selfpab_jax.data.har.axes import AXES
from selfpab_jax.data.har.base import find_published_folder, with_notes
from selfpab_jax.data.har.card import DatasetCard, Download, Sensor
from selfpab_jax.data.har.labels import class_indices
from selfpab_jax.data.har.resync import (
    GAP_LIMIT,
    SampleStream,
    lost_time_notes,
    rate_notes,
    sample_stream,
    synced_segments,
)
from selfpab_jax.data.har.subject_tables import SubjectTables
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError
from selfpab_jax.data.tables.columns import numbers, read_table, seconds
from selfpab_jax.data.tables.timestamps import to_datetime
from selfpab_jax.errors import DataError

ACTIVITIES = (
    "walk_slow",
    "walk_mod",
    "walk_fast",
    "jogging",
    "upstairs",
    "downstairs",
    "standing",
    "sitting",
    "lying",
)
NAMES = ("walking slowly", "walking", "walking fast", "jogging", *ACTIVITIES[4:])
FOLDERS = {"wrist": ("w", "wrist34", "wrist50"), "thigh": ("t", "thigh34")}
"""Folders of each sensor, in the UCI archive and in the authors' repository."""
TABLES = "subject_*.parquet"
BYTES_PER_ROW = 52

CARD = DatasetCard(
    name="selfback",
    version="1.0.0",
    title="selfBACK",
    description=(
        "33 subjects did nine activities of about three minutes each, with Axivity AX3 accelerometers on the wrist and "
        "the right thigh, each sampled by its own clock at about 100 Hz. One file per activity, sensor and subject; "
        "both sensors are linearly interpolated onto one even clock of 100 Hz."
    ),
    citation="""@inproceedings{sani2017learning,
  author = {Sani, Sadiq and Massie, Stewart and Wiratunga, Nirmalie and Cooper, Kay},
  title = {Learning Deep and Shallow Features for Human Activity Recognition},
  booktitle = {Knowledge Science, Engineering and Management (KSEM)},
  year = {2017},
}""",
    license="CC BY 4.0",
    homepage="https://archive.ics.uci.edu/dataset/521/selfback",
    sensors=(
        Sensor("wrist", "wrist; no counterpart in HUNT4, axes as published"),
        Sensor("thigh", "right thigh; x down, y right, z backward, as in HUNT4"),
    ),
    default_sensors=("wrist", "thigh"),
    rate_hz=100.0,
    unit="g",
    classes=tuple(zip(ACTIVITIES, NAMES, strict=True)),
    downloads=(Download("https://archive.ics.uci.edu/static/public/521/selfback.zip", None),),
    manual=(
        "Download selfback.zip from https://archive.ics.uci.edu/dataset/521/selfback and unpack it: w/jogging/026.csv, "
        "t/jogging/026.csv and so on."
    ),
    subjects=33,
)
CARD_OF_TABLES = replace(
    CARD,
    version="1.1.0",
    description=CARD.description + " Here resampled to 50 Hz, as one table per subject.",
    rate_hz=50.0,
    classes=tuple(enumerate(NAMES, 1)),
    downloads=(),
    manual=f"One table per subject, {TABLES}: timestamp, wrist_x .. thigh_z in g, label 1 to 9, segment.",
)


@dataclass(frozen=True)
class SelfBack(SubjectTables):
    """The published files, or one table per subject.

    Version 1.0: the files as published, `w/<activity>/<subject>.csv` and `t/...` with time, x, y, z. The authors'
    repository (rgu-selfback/Datasets on GitHub) has them as `raw/9_class/wrist34/...` and `thigh34/...`, with 34
    subjects; the archive's folder `wt`, of both sensors, is not read.

    Version 1.1, derived from them and never published: `subject_<number>.parquet` at 50 Hz, continuous within a
    segment. Without a version, the one in the folder is detected.
    """

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (CARD, CARD_OF_TABLES)
    PATTERN: ClassVar[str] = TABLES
    SEGMENT_COLUMN: ClassVar[str | None] = "segment"

    @cached_property
    def card(self) -> DatasetCard:
        """Card of the selected version, or of the one in the folder."""
        if self.version is None and Path(self.path).is_dir() and next(Path(self.path).glob(TABLES), None):
            return CARD_OF_TABLES
        return super().card

    def files(self) -> Iterator[SourceFile]:
        """Every activity of every subject with a file of a selected sensor.

        Raises:
            DataError: not a folder of selfBACK.
        """
        if self.card.rate_hz == CARD_OF_TABLES.rate_hz:
            yield from super().files()
            return
        folders = self._folders()
        found: dict[tuple[str, str], Path] = {}
        for folder in folders.values():
            for path in sorted(folder.glob("*/[0-9]*.csv")):
                found.setdefault((path.stem, path.parent.name), path)
        for (number, activity), path in sorted(found.items()):
            yield SourceFile(f"subject_{number}", activity, str(path), path.stat().st_size // BYTES_PER_ROW)

    def read(self, file: SourceFile) -> list[Recording]:
        """An activity of a subject as one recording, or several where a sensor paused.

        Raises:
            UnusableError: unreadable, a column missing, a sensor's file missing, or no common time.
        """
        if self.card.rate_hz == CARD_OF_TABLES.rate_hz:
            return super().read(file)
        rate = self.card.rate_hz
        streams = self._streams(Path(file.path))
        notes = tuple(
            note
            for sensor, stream in zip(self.selected_sensors, streams, strict=True)
            for note in rate_notes(stream, rate, sensor.name)
        )
        segments = synced_segments(streams, rate)
        if not segments:
            raise UnusableError("no common time: the sensors did not record at the same time")
        begin, end = min(stream.span[0] for stream in streams), max(stream.span[1] for stream in streams)
        recordings, unknown = [], ()
        for segment in segments:
            signal_NxC = self.convert(segment.signals)
            notes += self.quality_notes(signal_NxC)
            labels_N, unknown = class_indices(np.full(len(signal_NxC), file.name), self.card.classes)
            name = file.name if len(segments) == 1 else f"{file.name}:{round((segment.times_N[0] - begin) * rate)}"
            start = to_datetime(float(segment.times_N[0]), "text")
            recordings.append(Recording(file.subject, name, start, rate, signal_NxC, labels_N))
        return with_notes(recordings, notes + unknown + lost_time_notes(segments, [(begin, end)], GAP_LIMIT))

    def _streams(self, path: Path) -> list[SampleStream]:
        """The samples of each selected sensor in an activity."""
        streams = []
        for name, folder in self._folders().items():
            of_sensor = folder / path.parent.name / path.name
            if not of_sensor.is_file():
                raise UnusableError(f"sensor missing: there is no {of_sensor.relative_to(folder.parent)} ({name})")
            streams.append(_read_stream(of_sensor))
        return streams

    def _folders(self) -> dict[str, Path]:
        """The folder of each selected sensor."""
        folders = {}
        for sensor in self.selected_sensors:
            for name in FOLDERS[sensor.name]:
                try:
                    folders[sensor.name] = find_published_folder(self.path, f"{name}/*/[0-9]*.csv", "selfBACK") / name
                    break
                except DataError:
                    continue
            else:
                names = " or ".join(f"{name}/<activity>/<subject>.csv" for name in FOLDERS[sensor.name])
                raise DataError(f"{self.path}: not a folder of selfBACK with {sensor.name} (no {names}, no {TABLES})")
        return folders


def _read_stream(path: Path) -> SampleStream:
    """The samples of a sensor's file."""
    table = read_table(path, ["time", *AXES])
    if not table.num_rows:
        raise UnusableError(f"too short: {path.name} has no rows")
    return sample_stream(seconds(table, "time", "text"), np.stack([numbers(table, axis) for axis in AXES], axis=1))
