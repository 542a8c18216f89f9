"""What a labeled data set is: its card, its recordings and its classes."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import Int32

from selfpab_jax.data.sources.base import Recording, SourceFile

# What a labeled data set declares of itself, and what reads it.

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
        license: as its source states it.
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
    license: str
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


class LabeledSource(Protocol):
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
        """The continuous recordings of a file, in g and on HUNT4's axes; raises UnusableError where it is unusable."""
        ...


# Published labels as class indices.

UNLABELED = -1
Label = int | str
Classes = tuple[tuple[Label, str], ...]


def class_indices(
    labels_N: np.ndarray,
    classes: Classes,
    *,
    none: tuple[Label, ...] = (),
    merged: Mapping[Label, Label] | None = None,
) -> tuple[Int32[np.ndarray, " N"], tuple[str, ...]]:
    """The class index of each sample, and notes on labels that no class has.

    Args:
        labels_N: published labels, numbers or text.
        classes: the card's.
        none: labels that stand for no class at the publisher's; they get -1 without a note, as do NaN and "".
        merged: labels that count as another one.

    Returns:
        Indices, -1 where there is none; a line for each unknown label with its number of samples.
    """
    values, codes_N = np.unique(labels_N, return_inverse=True)
    return _indices(values.tolist(), codes_N.reshape(-1), classes, none, merged)


def column_class_indices(
    table: pa.Table,
    column: str,
    classes: Classes,
    *,
    none: tuple[Label, ...] = (),
    merged: Mapping[Label, Label] | None = None,
) -> tuple[Int32[np.ndarray, " N"], tuple[str, ...]]:
    """`class_indices` of a table's column of numbers or text; missing values get -1."""
    values, codes_N = _encoded(table, column)
    return _indices(values, codes_N, classes, none, merged)


def labels_in(table: pa.Table, column: str) -> set[Label]:
    """The different labels of a column, without missing values."""
    values, _ = _encoded(table, column)
    return {label for value in values if (label := as_label(value)) is not None}


def as_label(value: object) -> Label | None:
    """A value as a label: whole numbers as int (also `1.0`), text without spaces round it; None for NaN, None and "".

    A number with a fraction stays what it is, as text, and is no class.
    """
    if isinstance(value, float):
        return None if value != value else int(value) if value.is_integer() else str(value)
    if isinstance(value, str):
        return value.strip() or None
    return None if value is None else int(value) if isinstance(value, int) else str(value)


def _encoded(table: pa.Table, column: str) -> tuple[list, np.ndarray]:
    encoded = table.column(column).combine_chunks().dictionary_encode()
    values = [*encoded.dictionary.to_pylist(), None]
    return values, encoded.indices.fill_null(len(values) - 1).to_numpy()


def _indices(
    values: Iterable[object],
    codes_N: np.ndarray,
    classes: Classes,
    none: tuple[Label, ...],
    merged: Mapping[Label, Label] | None,
) -> tuple[Int32[np.ndarray, " N"], tuple[str, ...]]:
    index: dict[Label, int] = {label: position for position, (label, _) in enumerate(classes)}
    index |= {label: index[target] for label, target in (merged or {}).items()}
    labels = [as_label(value) for value in values]
    counts = np.bincount(codes_N, minlength=len(labels)).tolist()
    notes = tuple(
        f"label {label!r} is no class of the data set: its {count} samples are left without a label"
        for label, count in zip(labels, counts, strict=True)
        if count and label is not None and label not in index and label not in none
    )
    of_value = np.array([UNLABELED if label is None else index.get(label, UNLABELED) for label in labels], np.int32)
    return of_value[codes_N], notes
