"""Which rows of a corpus a baseline trains on, validates with and predicts."""

import functools
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Int
from sklearn.metrics import f1_score

from selfpab_jax.errors import DataError
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold, inner_split

P = ParamSpec("P")
Result = TypeVar("Result")


def cached_per_corpus(function: Callable[Concatenate[Corpus, P], Result]) -> Callable[Concatenate[Corpus, P], Result]:
    """A decorator: results are computed once, and kept as long as the corpus is.

    Every fold, seed and label budget then shares them. Further arguments must be hashable.
    """
    cache: dict[int, dict[Any, Any]] = {}

    @functools.wraps(function)
    def cached(corpus: Corpus, *args: P.args, **kwargs: P.kwargs) -> Result:
        # By identity: a corpus is frozen, and its arrays cannot be hashed.
        if id(corpus) not in cache:
            cache[id(corpus)] = {}
            weakref.finalize(corpus, cache.pop, id(corpus), None)
        results = cache[id(corpus)]
        key = (args, tuple(sorted(kwargs.items())))
        if key not in results:
            results[key] = function(corpus, *args, **kwargs)
        return results[key]

    return cached


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a fold that may be trained on, and their split for stopping and for selection.

    Attributes:
        all_R: all of them.
        fit_R: inner training rows; None if there are too few labels to validate with.
        validation_R: rows of other subjects; None if there are too few labels to validate with.
        split: in words, for the description.
    """

    all_R: Bool[np.ndarray, " R"]
    fit_R: Bool[np.ndarray, " R"] | None
    validation_R: Bool[np.ndarray, " R"] | None
    split: str


def split_training_rows(
    corpus: Corpus, fold: Fold, fraction: float, seed: int, rows_mask_R: Bool[np.ndarray, " R"] | None
) -> TrainingRows:
    """The labeled rows of the fold's training subjects, split by subject.

    With a label budget, each class must be on both sides of the split; otherwise there is no validation.

    Args:
        corpus: the data set.
        fold: its training subjects.
        fraction: of them, for validation.
        seed: of the split.
        rows_mask_R: rows whose labels may be used; all if None.

    Raises:
        DataError: fewer than two classes to train on.
    """
    all_R = trainable_rows(corpus, fold, rows_mask_R)
    present = np.unique(corpus.label_R[all_R])
    if len(fold.train) < 2:
        return TrainingRows(all_R, None, None, "none: one training subject")
    fit, validation = inner_split(fold.train, fraction, seed)
    fit_R, validation_R = all_R & rows_of(corpus, fit), all_R & rows_of(corpus, validation)
    counts = [len(np.unique(corpus.label_R[part_R])) for part_R in (fit_R, validation_R)]
    enough = min(counts) == len(present) if rows_mask_R is not None else min(counts) > 1
    if not enough:
        return TrainingRows(all_R, None, None, "none: too few labels")
    return TrainingRows(all_R, fit_R, validation_R, f"inner subjects {', '.join(validation)}")


def trainable_rows(corpus: Corpus, fold: Fold, rows_mask_R: Bool[np.ndarray, " R"] | None) -> Bool[np.ndarray, " R"]:
    """The labeled rows of the fold's training subjects that are in the unpadded signal and in the mask.

    Args:
        corpus: the data set.
        fold: its training subjects.
        rows_mask_R: rows whose labels may be used; all if None.

    Raises:
        DataError: fewer than two classes to train on.
    """
    rows_R = rows_of(corpus, fold.train) & (corpus.label_R >= 0) & corpus.whole_R
    if rows_mask_R is not None:
        rows_R &= rows_mask_R
    present = np.unique(corpus.label_R[rows_R])
    if len(present) < 2:
        names = ", ".join(corpus.classes[i] for i in present) or "none"
        raise DataError(f"fold {fold.name}: the training rows have fewer than two classes ({names})")
    return rows_R


def rows_of(corpus: Corpus, subjects: Iterable[str]) -> Bool[np.ndarray, " R"]:
    """The rows of these subjects."""
    return np.isin(corpus.subject_R, [corpus.subjects.index(subject) for subject in subjects])


@cached_per_corpus
def first_frames(corpus: Corpus) -> Int[np.ndarray, " recordings"]:
    """Index of each recording's first frame among the frames of all recordings, one after another."""
    counts = corpus.frame_counts.astype(np.int64)
    return np.cumsum(counts) - counts


@cached_per_corpus
def frame_of_rows(corpus: Corpus) -> Int[np.ndarray, " R"]:
    """Index of each row's frame among the frames of all recordings, one after another."""
    return first_frames(corpus)[corpus.recording_R] + corpus.frame_R


def class_weights(labels: Int[np.ndarray, " N"], classes: int, balanced: bool) -> Float32[np.ndarray, " Y"]:
    """Weight of each class; 0 for classes without a label.

    Args:
        labels: class indices.
        classes: number of classes Y.
        balanced: inversely to how often a class occurs, with a mean of 1 over the labels; otherwise 1.
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    if not balanced:
        return present.astype(np.float32)
    return np.where(present, len(labels) / np.maximum(counts, 1) / present.sum(), 0).astype(np.float32)


def present_macro_f1(truth: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"]) -> float:
    """Mean F1 over the classes that occur in the truth: the score for stopping and selection."""
    return float(f1_score(truth, predicted, labels=np.unique(truth), average="macro"))
