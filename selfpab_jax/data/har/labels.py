"""Published labels as class indices."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
from jaxtyping import Int, Int32, Shaped

UNLABELED = -1
"""Class index of a sample without a label."""
Label = int | str
Classes = tuple[tuple[Label, str], ...]
"""(published label, name) pairs, in the order of the class indices."""


def class_indices(
    labels_N: Shaped[np.ndarray, " N"],
    classes: Classes,
    *,
    unlabeled: tuple[Label, ...] = (),
    merged: Mapping[Label, Label] | None = None,
) -> tuple[Int32[np.ndarray, " N"], tuple[str, ...]]:
    """The class index of each sample, and notes on labels without a class.

    Args:
        labels_N: published labels, numbers or text.
        classes: classes of the card.
        unlabeled: labels that mean no class; like NaN and empty text they become -1 without a note.
        merged: labels that count as another one.

    Returns:
        Class indices, -1 where there is none; and a note for each unknown label with its number of samples.
    """
    values, codes_N = np.unique(labels_N, return_inverse=True)
    return _indices(values.tolist(), codes_N.reshape(-1), classes, unlabeled, merged)


def column_class_indices(
    table: pa.Table,
    column: str,
    classes: Classes,
    *,
    unlabeled: tuple[Label, ...] = (),
    merged: Mapping[Label, Label] | None = None,
) -> tuple[Int32[np.ndarray, " N"], tuple[str, ...]]:
    """`class_indices` of a column of numbers or text; missing values become -1.

    Args:
        table: table with the column.
        column: name of the column.
        classes: see `class_indices`.
        unlabeled: see `class_indices`.
        merged: see `class_indices`.
    """
    values, codes_N = _encoded(table, column)
    return _indices(values, codes_N, classes, unlabeled, merged)


def labels_in(table: pa.Table, column: str) -> set[Label]:
    """The distinct labels of a column, without missing values."""
    values, _ = _encoded(table, column)
    return {label for value in values if (label := as_label(value)) is not None}


def as_label(value: object) -> Label | None:
    """A value as a label: whole numbers (also `1.0`) as int, other values as stripped text.

    NaN, None and empty text become None, text that is a whole number an int. A number with a fraction becomes text,
    which no class has.
    """
    if isinstance(value, float):
        return None if value != value else int(value) if value.is_integer() else str(value)
    if isinstance(value, str):
        text = value.strip()
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else text or None
    return None if value is None else int(value) if isinstance(value, int) else str(value)


def _encoded(table: pa.Table, column: str) -> tuple[list, Int[np.ndarray, " N"]]:
    """The distinct values of a column, None last, and the position of each row's value among them."""
    encoded = table.column(column).combine_chunks().dictionary_encode()
    values = [*encoded.dictionary.to_pylist(), None]
    return values, encoded.indices.fill_null(len(values) - 1).to_numpy()


def _indices(
    values: Iterable[object],
    codes_N: Int[np.ndarray, " N"],
    classes: Classes,
    unlabeled: tuple[Label, ...],
    merged: Mapping[Label, Label] | None,
) -> tuple[Int32[np.ndarray, " N"], tuple[str, ...]]:
    index: dict[Label, int] = {label: position for position, (label, _) in enumerate(classes)}
    index |= {label: index[target] for label, target in (merged or {}).items()}
    labels = [as_label(value) for value in values]
    counts = np.bincount(codes_N, minlength=len(labels)).tolist()
    notes = tuple(
        f"label {label!r} is not a class of the data set: its {count} samples are left unlabeled"
        for label, count in zip(labels, counts, strict=True)
        if count and label is not None and label not in index and label not in unlabeled
    )
    index_of_value = [UNLABELED if label is None else index.get(label, UNLABELED) for label in labels]
    return np.array(index_of_value, np.int32)[codes_N], notes
