"""Published labels as class indices."""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
from jaxtyping import Int32

UNLABELLED = -1
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
    of_value = np.array([UNLABELLED if label is None else index.get(label, UNLABELLED) for label in labels], np.int32)
    return of_value[codes_N], notes
