"""Labeled data sets that their TFDS builders have prepared: what the builders store, and its reader."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from selfpab_jax.data.har.axes import AXES
from selfpab_jax.data.har.card import DatasetCard, card_from_json, card_to_json
from selfpab_jax.data.sources.base import EPOCH, Recording, Skipped, SourceFile, UnusableError, sensors_of
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.signal.calendar import UNKNOWN_START

SPLIT = "train"
"""The only split: these data sets are for cross-validation over subjects."""
INFO_FILE, METADATA_FILE = "dataset_info.json", "metadata.json"
"""Files that TFDS writes."""
SKIPPED = "skipped: "
"""Before the reason, in the path of a file that was skipped when the data set was prepared."""


@dataclass(frozen=True)
class PreparedMetadata:
    """What a builder stores beside the recordings.

    Attributes:
        card: card of the data set.
        channels: names of the signals' columns.
        index: subject, name and number of samples of each recording, in order.
        skipped: subject, name and reason of each file that could not be used.
    """

    card: DatasetCard
    channels: tuple[str, ...]
    index: Sequence[tuple[str, str, int]] = ()
    skipped: Sequence[tuple[str, str, str]] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON types, with the names of the classes for other readers."""
        return {
            "card": card_to_json(self.card),
            "classes": list(self.card.class_names),
            "channels": list(self.channels),
            "index": [list(entry) for entry in self.index],
            "skipped": [list(entry) for entry in self.skipped],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "PreparedMetadata":
        """What `to_json` stored, also in version 0.1.

        Raises:
            KeyError: an entry is missing.
            TypeError, ValueError: an entry has the wrong type.
        """
        skipped = content["skipped"] if "skipped" in content else content["set_aside"]
        return cls(
            card=card_from_json(content["card"]),
            channels=tuple(content["channels"]),
            index=tuple((subject, name, samples) for subject, name, samples in content["index"]),
            skipped=tuple((subject, name, reason) for subject, name, reason in skipped),
        )


@dataclass(frozen=True)
class PreparedDataset:
    """A folder that `download_and_prepare` wrote; each of its files is a recording.

    Attributes:
        path: the folder of the version, with dataset_info.json.
        sensors: names of the sensors to read, in order; empty: all that were prepared.

    Raises:
        ConfigError: a sensor that was not prepared.
        DataError: the folder is damaged.
    """

    path: str
    sensors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        prepared = sensors_of(_metadata(self.path).channels)
        if unknown := [name for name in self.sensors if name not in prepared]:
            raise ConfigError(
                f"{self.path} has no sensor {', '.join(unknown)}, only {', '.join(prepared)}; "
                "give sensors= to the builder to prepare others"
            )

    @property
    def card(self) -> DatasetCard:
        """Card of the data set when it was prepared."""
        return _metadata(self.path).card

    @property
    def name(self) -> str:
        """The data set's name in records and reports."""
        return self.card.name

    @property
    def channels(self) -> tuple[str, ...]:
        """x, y and z of each selected sensor."""
        selected = tuple(f"{sensor}_{axis}" for sensor in self.sensors for axis in AXES)
        return selected or _metadata(self.path).channels

    def files(self) -> Iterator[SourceFile]:
        """Every recording, and every file that was skipped when the data set was prepared, by subject."""
        metadata = _metadata(self.path)
        files = [SourceFile(subject, name, str(i), n) for i, (subject, name, n) in enumerate(metadata.index)]
        files += [SourceFile(subject, name, f"{SKIPPED}{reason}", 0) for subject, name, reason in metadata.skipped]
        yield from sorted(files, key=lambda file: file.subject)

    def passed_over(self) -> list[Skipped]:
        """Nothing: what was skipped when the data set was prepared is among its files."""
        return []

    def read(self, file: SourceFile) -> list[Recording]:
        """The recording.

        Raises:
            UnusableError: the file was skipped when the data set was prepared.
        """
        if not file.path.isdecimal():
            raise UnusableError(file.path.removeprefix(SKIPPED))
        example = _examples(self.path)[int(file.path)]
        prepared = _metadata(self.path).channels
        start, notes = int(example["start_ms"]), _text(example["notes"])
        return [
            Recording(
                subject=_text(example["subject"]),
                name=_text(example["recording"]),
                start=None if start == UNKNOWN_START else EPOCH + timedelta(milliseconds=start),
                rate_hz=float(example["rate_hz"]),
                signal_NxC=np.ascontiguousarray(
                    example["signal"][:, [prepared.index(channel) for channel in self.channels]]
                ),
                labels_N=np.array(example["label"]),
                notes=tuple(notes.split("\n")) if notes else (),
            )
        ]


def find_prepared_folder(name: str, path: str, version: str | None, sensors: tuple[str, ...]) -> str | None:
    """The folder of a prepared data set: the given one, or the one that TFDS makes in it; None where there is none.

    Args:
        name: name of the data set.
        path: folder of the version, or `data_dir` of the builder.
        version: version of the data set, or None for the latest.
        sensors: names of the sensors to read; a data set prepared for just these goes first.

    Raises:
        DataError: the folder is damaged, or holds another data set or version.
    """
    if (Path(path) / INFO_FILE).is_file():
        found = [Path(path)]
    else:
        roots = [Path(path), Path(path) / name]
        configs = ["-".join(sensors), ""] if sensors else [""]
        found = [
            info.parent
            for config in configs
            for root in roots
            for info in sorted((root / config).glob(f"[0-9]*.[0-9]*.[0-9]*/{INFO_FILE}"), reverse=True)
            if version is None or info.parent.name == version or info.parent.name.startswith(f"{version}.")
        ]
    if not found:
        return None
    card = _metadata(str(found[0])).card
    if card.name != name or (version is not None and not f"{card.version}.".startswith(f"{version}.")):
        raise DataError(f"{found[0]} holds {card.name} {card.version}, not {name} {version or ''}".rstrip())
    return str(found[0])


@lru_cache(maxsize=8)
def _metadata(path: str) -> PreparedMetadata:
    try:
        return PreparedMetadata.from_json(json.loads((Path(path) / METADATA_FILE).read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a labeled data set that this package prepared ({error})") from None


@lru_cache(maxsize=8)
def _examples(path: str) -> Any:
    import tensorflow_datasets as tfds  # heavy: not for readers of published files

    builder: Any = tfds.builder_from_directory(path)
    return builder.as_data_source(split=SPLIT)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
