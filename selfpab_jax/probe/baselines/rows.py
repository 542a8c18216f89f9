"""Which rows a baseline trains on, validates with and predicts."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int

from selfpab_jax.errors import DataError
from selfpab_jax.probe.baselines.memo import once_per_corpus
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.folds import Fold, inner_split


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a fold that may be trained on, and how they are split to stop and to choose.

    Attributes:
        all_R: every one of them.
        fit_R, validation_R: of other subjects each; None where the labels are too few to validate with.
        split: in words, for the description.
    """

    all_R: Bool[np.ndarray, " R"]
    fit_R: Bool[np.ndarray, " R"] | None
    validation_R: Bool[np.ndarray, " R"] | None
    split: str


def training_rows(
    corpus: Corpus, fold: Fold, share: float, seed: int, rows_mask_R: Bool[np.ndarray, " R"] | None
) -> TrainingRows:
    """The labelled rows of the fold's training subjects, split by subject.

    With a label budget each class must be on both sides of the split; where it is not, there is no validation.

    Args:
        corpus: the data set.
        fold: its training subjects.
        share: of them, for validation.
        seed: of the split.
        rows_mask_R: rows whose labels may be used; all where None.

    Raises:
        DataError: fewer than two classes to train on.
    """
    all_R = trainable_rows(corpus, fold, rows_mask_R)
    present = np.unique(corpus.label_R[all_R])
    if len(fold.train) < 2:
        return TrainingRows(all_R, None, None, "none: one training subject")
    fit, validation = inner_split(fold.train, share, seed)
    fit_R, validation_R = all_R & rows_of(corpus, fit), all_R & rows_of(corpus, validation)
    parts = [np.unique(corpus.label_R[part_R]) for part_R in (fit_R, validation_R)]
    enough = all(len(part) == len(present) for part in parts) if rows_mask_R is not None else min(map(len, parts)) > 1
    if not enough:
        return TrainingRows(all_R, None, None, "none: too few labels")
    return TrainingRows(all_R, fit_R, validation_R, f"inner subjects {', '.join(validation)}")


def trainable_rows(corpus: Corpus, fold: Fold, rows_mask_R: Bool[np.ndarray, " R"] | None) -> Bool[np.ndarray, " R"]:
    """The labelled rows of the fold's training subjects, in the unpadded signal and in the mask where there is one.

    Raises:
        DataError: fewer than two classes to train on.
    """
    rows_R = rows_of(corpus, fold.train) & (corpus.label_R >= 0) & corpus.whole_R
    if rows_mask_R is not None:
        rows_R &= rows_mask_R
    present = np.unique(corpus.label_R[rows_R])
    if len(present) < 2:
        names = ", ".join(corpus.classes[i] for i in present) or "none"
        raise DataError(f"fold {fold.name}: the training rows hold fewer than two classes ({names})")
    return rows_R


def rows_of(corpus: Corpus, subjects: Iterable[str]) -> Bool[np.ndarray, " R"]:
    """The rows of these subjects."""
    wanted = [corpus.subjects.index(subject) for subject in subjects]
    return np.isin(corpus.subject_R, wanted)


@once_per_corpus
def first_frames(corpus: Corpus) -> Int[np.ndarray, " recordings"]:
    """Where each recording begins among the frames of all recordings, one after another."""
    counts = corpus.frame_counts.astype(np.int64)
    return np.cumsum(counts) - counts


@once_per_corpus
def frame_of_rows(corpus: Corpus) -> Int[np.ndarray, " R"]:
    """Each row's place among the frames of all recordings, one after another."""
    return first_frames(corpus)[corpus.recording_R] + corpus.frame_R


def class_weights(labels: Int[np.ndarray, " N"], classes: int, balanced: bool) -> Float32[np.ndarray, " Y"]:
    """Weight of each class: 1, or inverse to how often it occurs (mean 1 over the labels); 0 where it does not."""
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    if not balanced:
        return present.astype(np.float32)
    return np.where(present, len(labels) / np.maximum(counts, 1) / present.sum(), 0).astype(np.float32)


def macro_f1(truth: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"]) -> float:
    """Mean F1 over the classes that occur in the truth: what stopping and choosing go by."""
    scores = []
    for label in np.unique(truth):
        hits = np.sum((truth == label) & (predicted == label))
        scores.append(2 * hits / (np.sum(truth == label) + np.sum(predicted == label)))
    return float(np.mean(scores))
