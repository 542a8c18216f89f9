"""What a labelled data set declares of itself, and what reads it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from selfpab_jax.data.recording import Recording
from selfpab_jax.data.source import SourceFile

AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Sensor:
    """One accelerometer, and how it is brought to HUNT4's axes.

    Attributes:
        name: as channels carry it: `back`, `thigh`, `hip`, ...
        placement: where it was worn, and how it was fixed, in words.
        axes: for each of our x, y, z the published axis that it is, with its sign: `("-y", "+x", "+z")`.
            HUNT4: back x down, y left, z forward; thigh x down, y right, z backward (a sensor at rest upright
            shows about -1 g on x).
    """

    name: str
    placement: str
    axes: tuple[str, str, str] = ("+x", "+y", "+z")


@dataclass(frozen=True)
class Download:
    """A file of the data set as its publisher offers it.

    Attributes:
        url: where it is.
        sha256: of the file; None where no checksum is published or known.
        size: in bytes, where known.
        name: of the file, where the address doesn't end in it.
        inner: name of the archive or folder in this one that holds the data, where not all of it does.
    """

    url: str
    sha256: str | None
    size: int | None = None
    name: str | None = None
    inner: str | None = None


@dataclass(frozen=True)
class DatasetCard:
    """What a data set is, as its publishers describe it.

    Attributes:
        name: of the builder: `harth`.
        version: `1.2.0`.
        title: in words.
        description: a paragraph.
        citation: BibTeX.
        licence: as its source states it.
        homepage: where it is described.
        sensors: those that can be asked for, in the order of the channels.
        default_sensors: names of those that stand for lower back and thigh (or the one there is).
        rate_hz: of the published files.
        unit: of the published files: `g`, `mg` or `m/s2`.
        classes: (published label, name) pairs, in the order of our class indices.
        downloads: what can be fetched; empty where it must be asked for.
        manual: how to get it by hand and where to put it.
        cut_at_activity: whether the original's protocol cuts recordings at each change of activity.
        subjects: how many were published; 0 where unknown.
    """

    name: str
    version: str
    title: str
    description: str
    citation: str
    licence: str
    homepage: str
    sensors: tuple[Sensor, ...]
    default_sensors: tuple[str, ...]
    rate_hz: float
    unit: str
    classes: tuple[tuple[int | str, str], ...]
    downloads: tuple[Download, ...]
    manual: str
    cut_at_activity: bool = False
    subjects: int = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """By class index."""
        return tuple(name for _, name in self.classes)


def card_fields(card: DatasetCard) -> dict[str, Any]:
    """The card as JSON types."""
    return json.loads(json.dumps(asdict(card)))


def card_of_fields(fields: Mapping[str, Any]) -> DatasetCard:
    """The card that `card_fields` was made from."""
    nested = {
        "sensors": tuple(Sensor(**{**sensor, "axes": tuple(sensor["axes"])}) for sensor in fields["sensors"]),
        "default_sensors": tuple(fields["default_sensors"]),
        "classes": tuple((label, name) for label, name in fields["classes"]),
        "downloads": tuple(Download(**download) for download in fields["downloads"]),
    }
    return DatasetCard(**{**fields, **nested})


class LabelledSource(Protocol):
    """A `Source` with labels: its recordings' `labels_N` are class indices of the card, -1 where there is none."""

    @property
    def card(self) -> DatasetCard:
        """What it is."""
        ...

    @property
    def name(self) -> str:
        """As records carry it."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the columns of the signals: the chosen sensors' x, y and z."""
        ...

    def files(self) -> Iterator[SourceFile]:
        """All files in a fixed order (by subject, then name); raises DataError where there are none."""
        ...

    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a file, in g and on HUNT4's axes; raises Rejected where it is unusable."""
        ...
