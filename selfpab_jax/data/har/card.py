"""The card of a labeled data set: source, license, sensors, axes, sampling rate, classes and downloads."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from selfpab_jax.data.har.axes import SignedAxes
from selfpab_jax.data.har.labels import Classes
from selfpab_jax.signal.resample import Unit

OLD_FIELDS = {"licence": "license"}
"""Names of fields in cards that version 0.1 stored."""


@dataclass(frozen=True)
class Sensor:
    """An accelerometer and its axes.

    Attributes:
        name: name in the channels: `back`, `thigh`, `hip`, ...
        placement: position on the body, how it was fixed, and its published axes.
        axes: for each of HUNT4's x, y and z the published axis that it is, with its sign: `("-y", "+x", "+z")`.
            See `selfpab_jax.data.har.axes`.
    """

    name: str
    placement: str
    axes: SignedAxes = ("+x", "+y", "+z")


@dataclass(frozen=True)
class Download:
    """A published file.

    Attributes:
        url: address of the file.
        sha256: checksum; None where it is unknown.
        size: bytes, where known.
        name: name of the file, where the URL does not end in it.
        inner: the archive or folder inside this archive that holds the data, where it is only a part.
    """

    url: str
    sha256: str | None
    size: int | None = None
    name: str | None = None
    inner: str | None = None


@dataclass(frozen=True)
class DatasetCard:
    """A data set as its publishers describe it.

    Attributes:
        name: name in the registry and in TFDS: `harth`.
        version: `1.2.0`.
        title: full name.
        description: a paragraph.
        citation: BibTeX.
        license: license, as the source states it.
        homepage: URL of the description.
        sensors: all sensors that can be selected, in the order of the channels.
        default_sensors: names of those that stand for lower back and thigh (or the only one).
        rate_hz: sampling rate of the published files.
        unit: unit of acceleration in the published files.
        classes: (published label, name) pairs, in the order of the class indices.
        downloads: published files; empty where they are available on request only.
        manual: how to obtain the files by hand, and their layout.
        cut_at_activity: whether the original protocol cuts recordings at each change of activity.
        subjects: number of published subjects; 0 where unknown.
    """

    name: str
    version: str
    title: str
    description: str
    citation: str
    license: str
    homepage: str
    sensors: tuple[Sensor, ...]
    default_sensors: tuple[str, ...]
    rate_hz: float
    unit: Unit
    classes: Classes
    downloads: tuple[Download, ...]
    manual: str
    cut_at_activity: bool = False
    subjects: int = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by class index."""
        return tuple(name for _, name in self.classes)


def card_to_json(card: DatasetCard) -> dict[str, Any]:
    """The card as JSON types."""
    return json.loads(json.dumps(asdict(card)))


def card_from_json(content: Mapping[str, Any]) -> DatasetCard:
    """The card that `card_to_json` stored, also by version 0.1.

    Raises:
        KeyError: a field is missing.
        TypeError: a field has the wrong type.
    """
    content = {OLD_FIELDS.get(name, name): value for name, value in content.items()}
    content |= {
        "sensors": tuple(Sensor(**{**sensor, "axes": tuple(sensor["axes"])}) for sensor in content["sensors"]),
        "default_sensors": tuple(content["default_sensors"]),
        "classes": tuple((label, name) for label, name in content["classes"]),
        "downloads": tuple(Download(**download) for download in content["downloads"]),
    }
    known = {field.name for field in fields(DatasetCard)}
    return DatasetCard(**{name: value for name, value in content.items() if name in known})
