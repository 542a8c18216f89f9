"""A labeled data set that its TFDS builder has prepared, read again."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from selfpab_jax.data.har.card import AXES, DatasetCard, card_of_fields
from selfpab_jax.data.sources.base import EPOCH, UNKNOWN_START, Recording, SourceFile, UnusableError, sensors_of
from selfpab_jax.errors import ConfigError, DataError

INFO_FILE, METADATA_FILE = "dataset_info.json", "metadata.json"


@dataclass(frozen=True)
class Prepared:
    """A folder that `download_and_prepare` wrote; a file of it is a recording.

    Attributes:
        path: the versioned folder, with dataset_info.json.
        sensors: those wanted, in order; empty: all that were prepared.

    Raises:
        ConfigError: a sensor that was not prepared.
        DataError: the folder is damaged.
    """

    path: str
    sensors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        there = sensors_of(tuple(_metadata(self.path)["channels"]))
        if unknown := [name for name in self.sensors if name not in there]:
            raise ConfigError(
                f"{self.path} holds no sensor {', '.join(unknown)}, only {', '.join(there)}; prepare it with sensors="
            )

    @property
    def card(self) -> DatasetCard:
        """As it was when the data set was prepared."""
        return card_of_fields(_metadata(self.path)["card"])

    @property
    def name(self) -> str:
        """As records carry it."""
        return self.card.name

    @property
    def channels(self) -> tuple[str, ...]:
        """x, y and z of each chosen sensor."""
        prepared = tuple(_metadata(self.path)["channels"])
        return tuple(f"{sensor}_{axis}" for sensor in self.sensors for axis in AXES) or prepared

    def files(self) -> Iterator[SourceFile]:
        """Every recording by subject, and every file that was set aside when the data set was prepared."""
        metadata = _metadata(self.path)
        numbered = [(subject, name, str(i), samples) for i, (subject, name, samples) in enumerate(metadata["index"])]
        aside = [(subject, name, f"set aside: {reason}", 0) for subject, name, reason in metadata["set_aside"]]
        for subject, name, place, samples in sorted(numbered + aside, key=lambda entry: entry[0]):
            yield SourceFile(subject, name, place, samples)

    def read(self, file: SourceFile) -> list[Recording]:
        """The recording.

        Raises:
            UnusableError: it was, when the data set was prepared.
        """
        if not file.path.isdecimal():
            raise UnusableError(file.path.removeprefix("set aside: "))
        example = _examples(self.path)[int(file.path)]
        prepared = _metadata(self.path)["channels"]
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


def prepared_folder(name: str, path: str, version: str | None, sensors: tuple[str, ...]) -> str | None:
    """The folder of a prepared data set: the one given, or the one TFDS makes in it; None where there is none.

    Raises:
        DataError: it holds another data set or version.
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
    card = card_of_fields(_metadata(str(found[0]))["card"])
    if card.name != name or (version is not None and not f"{card.version}.".startswith(f"{version}.")):
        raise DataError(f"{found[0]} holds {card.name} {card.version}, not {name} {version or ''}".rstrip())
    return str(found[0])


@lru_cache(maxsize=8)
def _metadata(path: str) -> dict[str, Any]:
    try:
        metadata = json.loads((Path(path) / METADATA_FILE).read_text())
        return {name: metadata[name] for name in ("card", "channels", "index", "set_aside")}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a labeled data set that this package prepared ({error})") from None


@lru_cache(maxsize=8)
def _examples(path: str) -> Any:
    import tensorflow_datasets as tfds

    from selfpab_jax.data.har.tfds import SPLIT

    builder: Any = tfds.builder_from_directory(path)
    return builder.as_data_source(split=SPLIT)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
