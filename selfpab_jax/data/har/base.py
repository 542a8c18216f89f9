"""Labeled data sets: what every one offers, the base class of the readers of published files, and a source of records.

A reader takes what was published, converts it to g and HUNT4's axes, and turns labels into class indices of the
data set's card. It removes and repairs nothing that the publishers kept; what looks wrong becomes a note.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Shaped

from selfpab_jax.data.har.axes import AXES, to_hunt4_axes
from selfpab_jax.data.har.card import DatasetCard, Sensor
from selfpab_jax.data.sources.base import Recording, Skipped, SourceFile, UnusableError
from selfpab_jax.data.sources.blocks import Rows, whole_recordings
from selfpab_jax.data.sources.checks import WRONG_UNIT_G, check_signal
from selfpab_jax.data.sources.continuous import continuous_blocks
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.segments import BRIDGED_SECONDS
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.signal.resample import UNITS_PER_G

FOLDER_LEVELS = 3
"""Levels of folders that are searched for published files, counting the one given."""


@runtime_checkable
class LabeledSource(Protocol):
    """A `Source` with labels: `labels_N` of its recordings are class indices of the card, -1 where there is none."""

    @property
    def card(self) -> DatasetCard:
        """Card of the data set."""
        ...

    @property
    def name(self) -> str:
        """The data set's name in records and reports."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the signal's columns: x, y and z of each selected sensor."""
        ...

    def files(self) -> Iterator[SourceFile]:
        """All files in a fixed order (by subject, then name).

        Raises:
            DataError: there are none.
        """
        ...

    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a file, in g and on HUNT4's axes.

        Raises:
            UnusableError: the file cannot be used.
        """
        ...

    def passed_over(self) -> list[Skipped]:
        """What of the folder is in no file of `files`, and why."""
        ...


@dataclass(frozen=True)
class PublishedDataset(ABC):
    """A folder with the files of a data set as published. A subclass sets `CARDS` and implements `files` and `read`.

    Attributes:
        path: the folder.
        sensors: names of the sensors to read, in order; empty: the card's `default_sensors`.
        version: version of the data set; None: the first of `CARDS`.

    Raises:
        ConfigError: an unknown version or sensor.
    """

    path: str
    sensors: tuple[str, ...] = ()
    version: str | None = None

    CARDS: ClassVar[tuple[DatasetCard, ...]] = ()
    """One card per version."""

    def __post_init__(self) -> None:
        names = [sensor.name for sensor in self.card.sensors]
        if unknown := [name for name in self.sensors if name not in names]:
            raise ConfigError(f"{self.name} has no sensor {', '.join(unknown)}; it has {', '.join(names)}")
        if len(set(self.sensors)) < len(self.sensors):
            raise ConfigError(f"sensors are {', '.join(self.sensors)}; give each once")

    @property
    def card(self) -> DatasetCard:
        """Card of the selected version."""
        for card in self.CARDS:
            if self.version is None or card.version.startswith(f"{self.version}.") or card.version == self.version:
                return card
        versions = ", ".join(card.version for card in self.CARDS)
        raise ConfigError(f"{self.CARDS[0].name} has no version {self.version}; it has {versions}")

    @property
    def name(self) -> str:
        """The data set's name in records and reports."""
        return self.card.name

    @property
    def selected_sensors(self) -> tuple[Sensor, ...]:
        """The sensors that are read, in order."""
        by_name = {sensor.name: sensor for sensor in self.card.sensors}
        return tuple(by_name[name] for name in self.sensors or self.card.default_sensors)

    @property
    def channels(self) -> tuple[str, ...]:
        """x, y and z of each selected sensor."""
        return tuple(f"{sensor.name}_{axis}" for sensor in self.selected_sensors for axis in AXES)

    def passed_over(self) -> list[Skipped]:
        """What of the folder is in no file of `files`, and why: nothing that the data set's readers do not expect."""
        return []

    @abstractmethod
    def files(self) -> Iterator[SourceFile]:
        """All files, by subject, then name.

        Raises:
            DataError: the folder is missing or holds no files of the data set.
        """

    @abstractmethod
    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a file, in g and on HUNT4's axes; missing samples are NaN.

        Raises:
            UnusableError: the file cannot be used.
        """

    def convert(self, signals: Iterable[Shaped[np.ndarray, "N 3"]]) -> Float32[np.ndarray, "N C"]:
        """Published x, y and z of each selected sensor, in order, as one signal in g and on HUNT4's axes."""
        scale = 1 / UNITS_PER_G[self.card.unit]
        converted = [
            to_hunt4_axes(np.asarray(signal_Nx3, np.float64) * scale, sensor.axes)
            for sensor, signal_Nx3 in zip(self.selected_sensors, signals, strict=True)
        ]
        with np.errstate(over="ignore"):
            return np.concatenate(converted, axis=1).astype(np.float32)

    def quality_notes(self, signal_NxC: Float32[np.ndarray, "N C"]) -> tuple[str, ...]:
        """Notes on a converted signal that is partly clipped, dead or out of range; it is kept as published.

        Raises:
            UnusableError: there are no samples, none has numbers in all channels, or the unit is not the declared one.
        """
        if not len(signal_NxC):
            raise UnusableError("too short: it has no samples")
        finite_N = np.asarray(np.isfinite(signal_NxC).all(axis=1))
        if not finite_N.any():
            empty = [name for c, name in enumerate(self.channels) if not np.isfinite(signal_NxC[:, c]).any()]
            missing = f" ({', '.join(empty)} have none)" if empty else ""
            raise UnusableError(f"sensor missing: no sample has numbers in all of {', '.join(self.channels)}{missing}")
        try:
            check_signal(signal_NxC[finite_N], self.channels, self.card.rate_hz)
        except UnusableError as error:
            if str(error).startswith("wrong unit"):
                raise UnusableError(
                    f"wrong unit: the median of a channel is beyond {WRONG_UNIT_G:g} g if the unit is {self.card.unit}"
                ) from None
            return (f"{error}; kept as published",)
        return ()


def find_published_folder(path: str, pattern: str, title: str) -> Path:
    """The folder with published files: the given one or, as archives unpack, the only one a little below it.

    Args:
        path: folder that the user gave.
        pattern: glob pattern of the files, relative to the folder, e.g. `S???.csv`.
        title: title of the data set, for messages.

    Raises:
        DataError: no such folder, or it holds no such files, or several folders in it do.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{path}: no such folder of {title} files")
    level = [root]
    for _ in range(FOLDER_LEVELS):
        found = [folder for folder in level if next(folder.glob(pattern), None) is not None]
        if len(found) > 1:
            names = ", ".join(folder.name for folder in found)
            raise DataError(f"{path}: several folders hold {title} files ({names}); give one of them")
        if found:
            return found[0]
        level = [below for folder in level for below in sorted(folder.iterdir()) if below.is_dir()]
    raise DataError(f"{path}: not a folder of {title} as published (no {pattern} in it)")


def with_notes(recordings: list[Recording], notes: Iterable[str]) -> list[Recording]:
    """The recordings of a file, with notes on the file added to the first one."""
    notes = tuple(notes)
    if not recordings or not notes:
        return recordings
    return [replace(recordings[0], notes=recordings[0].notes + notes), *recordings[1:]]


# Labeled data sets as sources of spectrogram records, for pre-training.


@dataclass(frozen=True)
class LabeledRecordsSource:
    """A data set's recordings, checked as every source of records; missing samples end a recording.

    Labels are class indices, -1 where there is none.

    Attributes:
        dataset: the data set, from `open_dataset`.
        label_column: set, so that the records carry the labels.
    """

    dataset: LabeledSource
    label_column: str = "label"

    @property
    def name(self) -> str:
        """The source's name in the records."""
        return self.dataset.name

    @property
    def channels(self) -> tuple[str, ...]:
        """x, y and z of each selected sensor."""
        return self.dataset.channels

    def files(self) -> Iterator[SourceFile]:
        """The files of the data set, in a fixed order."""
        return self.dataset.files()

    def read(self, file: SourceFile, report: FileReport | None = None) -> list[Recording]:
        """The continuous recordings of a file, cleaned by the same rules as a user's own tables.

        Args:
            file: of `files`.
            report: gets what is cut, bridged and doubted.

        Raises:
            UnusableError: the data set's reader cannot use the file, or no sample can be used.
        """
        report = report or FileReport(file.path, file.subject)
        recordings: list[Recording] = []
        reason = "sensor missing: no sample has numbers in all channels"
        for recording in self.dataset.read(file):
            report.notes += [note for note in recording.notes if note not in report.notes]
            try:
                recordings += _cleaned(recording, self.channels, report)
            except UnusableError as error:
                reason = str(error)
        if not recordings:
            raise UnusableError(reason)
        return recordings


def _cleaned(recording: Recording, channels: tuple[str, ...], report: FileReport) -> list[Recording]:
    start = recording.start

    def start_of(time: float) -> datetime | None:
        return None if start is None else start + timedelta(seconds=time)

    rows = Rows(recording.signal_NxC, labels_N=recording.labels_N)
    blocks = continuous_blocks([rows], channels, recording.rate_hz, BRIDGED_SECONDS, report, recording.name, start_of)
    pieces = whole_recordings(blocks, recording.subject)
    return [replace(piece, name=piece.name.replace(f"{recording.name}:0", recording.name, 1)) for piece in pieces]
