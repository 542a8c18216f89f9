"""Scores from confusion matrices, one per subject, with intervals by bootstrap over subjects.

scikit-learn computes the same figures for one list of predictions. Here they are computed from stacks of confusion
matrices at once: every subject, every bootstrap sample, every candidate of a head.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from selfpab_jax.errors import DataError

CONFIDENCE = 0.95

Interval = tuple[float, float]
Matrices = Float[np.ndarray, "*S Y Y"] | Int[np.ndarray, "*S Y Y"]
"""Confusion matrices: rows are true classes, columns predicted ones."""
Confusions = Mapping[str, Int64[np.ndarray, "Y Y"]]
"""The confusion matrix of each subject."""


# Figures of confusion matrices.


def confusion(
    truth_N: Int[np.ndarray, " N"], predicted_N: Int[np.ndarray, " M"], classes: int
) -> Int64[np.ndarray, "Y Y"]:
    """How often each class (row) was predicted as each class (column); samples whose truth is -1 are ignored.

    Args:
        truth_N: class indices, or -1.
        predicted_N: class indices.
        classes: number of classes Y.

    Raises:
        DataError: the lengths differ, or an index is not that of a class.
    """
    if len(truth_N) != len(predicted_N):
        raise DataError(f"{len(predicted_N)} predictions for {len(truth_N)} samples")
    known_N = truth_N >= 0
    truth_n, predicted_n = truth_N[known_N].astype(np.int64), predicted_N[known_N].astype(np.int64)
    if len(truth_n) and not (truth_n.max() < classes and predicted_n.min() >= 0 and predicted_n.max() < classes):
        raise DataError(f"a true or predicted class is not among the {classes} classes")
    return np.bincount(truth_n * classes + predicted_n, minlength=classes**2).reshape(classes, classes)


def class_f1(confusions: Matrices) -> Float64[np.ndarray, "*S Y"]:
    """F1 of each class: NaN if it is in neither truth nor prediction, 0 if it is in only one of them."""
    hits, true, predicted = _sums(confusions)
    return _ratio(2 * hits, true + predicted)


def class_precision(confusions: Matrices) -> Float64[np.ndarray, "*S Y"]:
    """Precision of each class; NaN if it was never predicted."""
    hits, _, predicted = _sums(confusions)
    return _ratio(hits, predicted)


def class_recall(confusions: Matrices) -> Float64[np.ndarray, "*S Y"]:
    """Recall of each class; NaN if it is not in the truth."""
    hits, true, _ = _sums(confusions)
    return _ratio(hits, true)


def macro_f1(confusions: Matrices) -> Float64[np.ndarray, "*S"]:
    """The mean of `class_f1` over the classes that have one, as the original scores a subject; NaN for no samples."""
    return _nan_mean(class_f1(confusions))


def balanced_accuracy(confusions: Matrices) -> Float64[np.ndarray, "*S"]:
    """The mean recall of the classes that are in the truth."""
    return _nan_mean(class_recall(confusions))


def accuracy(confusions: Matrices) -> Float64[np.ndarray, "*S"]:
    """The fraction of samples that are right."""
    hits, true, _ = _sums(confusions)
    return _ratio(hits.sum(-1), true.sum(-1))


def kappa(confusions: Matrices) -> Float64[np.ndarray, "*S"]:
    """Cohen's kappa: agreement beyond what chance gives; NaN if chance gives certainty."""
    hits, true, predicted = _sums(confusions)
    total = true.sum(-1)
    chance = (true * predicted).sum(-1)
    return _ratio(hits.sum(-1) * total - chance, total**2 - chance)


def _sums(confusions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per class: correct, true and predicted counts, in float64 (squares of counts exceed int32)."""
    matrices = np.asarray(confusions, np.float64)
    return np.diagonal(matrices, axis1=-2, axis2=-1), matrices.sum(-1), matrices.sum(-2)


def _ratio(above: np.ndarray | np.float64, below: np.ndarray | np.float64) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below != 0)


def _nan_mean(values_Y: np.ndarray) -> np.ndarray:
    """Over the last axis, without NaN; NaN where nothing else is left."""
    known_Y = ~np.isnan(values_Y)
    return _ratio(np.where(known_Y, values_Y, 0).sum(-1), known_Y.sum(-1).astype(np.float64))


# Durations, for tasks that ask how long something was done (sleep), not when.


def class_fractions(labels_N: Int[np.ndarray, " N"], classes: int, length: int) -> Float64[np.ndarray, "M Y"]:
    """The fraction of each class among the labeled samples of each segment; NaN in segments without labels.

    Args:
        labels_N: class indices, or -1.
        classes: number of classes Y.
        length: samples per segment; the last segment may be shorter.
    """
    labeled_n = np.flatnonzero(labels_N >= 0)
    entry_n = labeled_n // length * classes + labels_N[labeled_n]
    segments = -(-len(labels_N) // length)
    counts_MxY = np.bincount(entry_n, minlength=segments * classes).reshape(segments, classes)
    return _ratio(counts_MxY, np.broadcast_to(counts_MxY.sum(axis=1, keepdims=True), counts_MxY.shape))


@dataclass(frozen=True)
class SegmentFractions:
    """The fraction that each class takes of each segment of a recording; NaN in segments without labels.

    Attributes:
        true_MxY: of the labeled samples.
        predicted_MxY: the mean probability over the same samples.
        length: samples per segment; the last one may be shorter.
    """

    true_MxY: Float64[np.ndarray, "M Y"]
    predicted_MxY: Float64[np.ndarray, "M Y"]
    length: int

    @property
    def error_Y(self) -> Float64[np.ndarray, " Y"]:
        """The mean absolute error of each class; the original's figure is the mean over classes."""
        return np.nanmean(np.abs(self.true_MxY - self.predicted_MxY), axis=0)

    @property
    def labeled(self) -> int:
        """Number of segments with a label."""
        return int((~np.isnan(self.true_MxY[:, 0])).sum())


def segment_fractions(
    truth_N: Int[np.ndarray, " N"], probabilities_NxY: Float[np.ndarray, "M Y"], length: int
) -> SegmentFractions:
    """True and predicted fractions of a recording.

    Args:
        truth_N: class indices, or -1.
        probabilities_NxY: from `sample_probabilities`; to score decisions instead, their one-hot rows.
        length: samples per segment: 3,000 are a minute at 50 Hz.

    Raises:
        DataError: no sample is labeled, or the lengths differ.
    """
    if len(truth_N) != len(probabilities_NxY):
        raise DataError(f"{len(probabilities_NxY)} predictions for {len(truth_N)} samples")
    labeled_n = np.flatnonzero(truth_N >= 0)
    if not len(labeled_n):
        raise DataError("no sample has a label: there are no durations to compare with")
    true_MxY = class_fractions(truth_N, probabilities_NxY.shape[1], length)
    segment_n = labeled_n // length
    counts_M = np.bincount(segment_n, minlength=len(true_MxY)).astype(np.float64)
    sums = [np.bincount(segment_n, column_n, len(true_MxY)) for column_n in probabilities_NxY[labeled_n].T]
    sums_MxY = np.stack(sums, axis=1)
    return SegmentFractions(true_MxY, _ratio(sums_MxY, np.broadcast_to(counts_M[:, None], sums_MxY.shape)), length)


# Bootstrap over subjects.


def bootstrap_counts(subjects: int, *, seed: int = 0, draws: int = 2000) -> Float64[np.ndarray, "D S"]:
    """How often each subject is in each bootstrap sample: as many subjects, drawn with replacement.

    A sample is nothing but these counts, so that a sum or mean over each sample is one matrix product.

    Args:
        subjects: number of subjects S.
        seed: of the draw; the same samples for the same number of subjects.
        draws: number of bootstrap samples D; none for fewer than two subjects.
    """
    if subjects < 2:
        return np.zeros((0, subjects))
    chances = np.full(subjects, 1 / subjects)
    return np.random.default_rng(seed).multinomial(subjects, chances, draws).astype(np.float64)


def bootstrap_means(
    values_S: Float64[np.ndarray, " S"], *, seed: int = 0, draws: int = 2000
) -> Float64[np.ndarray, " D"]:
    """The mean over subjects in each bootstrap sample; empty for fewer than two subjects.

    Args:
        values_S: a figure of each subject.
        seed: see `bootstrap_counts`.
        draws: see `bootstrap_counts`.
    """
    return bootstrap_counts(len(values_S), seed=seed, draws=draws) @ values_S / max(len(values_S), 1)


def bootstrap_sums(
    matrices_SxYxY: Int64[np.ndarray, "*E S Y Y"], *, seed: int = 0, draws: int = 2000
) -> Float64[np.ndarray, "*E D Y Y"]:
    """The sum of the subjects' confusion matrices in each bootstrap sample; empty for fewer than two subjects.

    Args:
        matrices_SxYxY: of each subject; leading axes share the samples.
        seed: see `bootstrap_counts`.
        draws: see `bootstrap_counts`.
    """
    *outer, subjects, classes, _ = matrices_SxYxY.shape
    counts_DxS = bootstrap_counts(subjects, seed=seed, draws=draws)
    sums = counts_DxS @ matrices_SxYxY.reshape(*outer, subjects, classes**2).astype(np.float64)
    return sums.reshape(*outer, len(counts_DxS), classes, classes)


def percentile_interval(values_D: Float64[np.ndarray, " D"]) -> Interval:
    """The middle 95% of the values that are not NaN; NaN where there is none."""
    values_d = values_D[~np.isnan(values_D)]
    if not len(values_d):
        return (float("nan"), float("nan"))
    low, high = np.quantile(values_d, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return (float(low), float(high))


# Scores of one set of predictions, for JSON and CSV; `report.summary` has them over seeds.


@dataclass(frozen=True)
class SubjectScores:
    """Scores of one subject; those of classes by class index, NaN where there is none."""

    macro_f1: float
    accuracy: float
    balanced_accuracy: float
    f1: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """Scores of a set of subjects.

    Attributes:
        classes: names by index.
        subjects: scores of each subject.
        macro_f1_mean: mean over subjects of each one's macro-F1, the original's figure.
        macro_f1_std: their standard deviation (over n, as the original).
        macro_f1_interval: 95% interval of the mean, percentiles of a bootstrap over subjects; NaN for a single subject.
        pooled_macro_f1: of the sum of all subjects' confusion matrices.
        pooled_macro_f1_interval: 95% interval, in the same way.
        accuracy: pooled, as are the following.
        balanced_accuracy: mean recall.
        kappa: Cohen's.
        f1: of each class.
        f1_interval: of each class.
        precision: of each class.
        recall: of each class.
        samples: of each class, in the truth.
    """

    classes: tuple[str, ...]
    subjects: dict[str, SubjectScores]
    macro_f1_mean: float
    macro_f1_std: float
    macro_f1_interval: Interval
    pooled_macro_f1: float
    pooled_macro_f1_interval: Interval
    accuracy: float
    balanced_accuracy: float
    kappa: float
    f1: tuple[float, ...]
    f1_interval: tuple[Interval, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    samples: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: NaN is None, tuples are lists."""
        return _plain(asdict(self))


def score_subjects(
    confusions: Mapping[str, Int[np.ndarray, "Y Y"]], classes: tuple[str, ...], *, seed: int = 0, draws: int = 2000
) -> Scores:
    """All scores of a set of subjects.

    Args:
        confusions: matrix of each subject; a subject without labeled samples counts in no mean.
        classes: names by index.
        seed: of the bootstrap.
        draws: number of bootstrap samples.

    Raises:
        DataError: there is no subject, or a matrix has another number of classes.
    """
    if not confusions:
        raise DataError("no subject was predicted, so nothing can be scored")
    size = len(classes)
    for subject, matrix in confusions.items():
        if np.shape(matrix) != (size, size):
            raise DataError(f"{subject}: a confusion matrix of shape {np.shape(matrix)} does not fit {size} classes")
    matrices_SxYxY = np.stack([np.asarray(matrix, np.int64) for matrix in confusions.values()])
    pooled_YxY = matrices_SxYxY.sum(axis=0)
    macro_f1_S, accuracy_S, balanced_S = (figure(matrices_SxYxY) for figure in (macro_f1, accuracy, balanced_accuracy))
    f1_SxY, precision_SxY, recall_SxY = (figure(matrices_SxYxY) for figure in (class_f1, class_precision, class_recall))
    scored_S = matrices_SxYxY.sum(axis=(1, 2)) > 0
    known_s = macro_f1_S[scored_S]
    drawn_DxYxY = bootstrap_sums(matrices_SxYxY[scored_S], seed=seed, draws=draws)
    drawn_f1_DxY = class_f1(drawn_DxYxY)
    return Scores(
        classes=tuple(classes),
        subjects={
            subject: SubjectScores(
                macro_f1=float(macro_f1_S[s]),
                accuracy=float(accuracy_S[s]),
                balanced_accuracy=float(balanced_S[s]),
                f1=tuple(f1_SxY[s].tolist()),
                precision=tuple(precision_SxY[s].tolist()),
                recall=tuple(recall_SxY[s].tolist()),
                samples=tuple(matrices_SxYxY[s].sum(axis=1).tolist()),
            )
            for s, subject in enumerate(confusions)
        },
        macro_f1_mean=float(known_s.mean()) if len(known_s) else float("nan"),
        macro_f1_std=float(known_s.std()) if len(known_s) else float("nan"),
        macro_f1_interval=percentile_interval(bootstrap_means(known_s, seed=seed, draws=draws)),
        pooled_macro_f1=float(macro_f1(pooled_YxY)),
        pooled_macro_f1_interval=percentile_interval(_nan_mean(drawn_f1_DxY)),
        accuracy=float(accuracy(pooled_YxY)),
        balanced_accuracy=float(balanced_accuracy(pooled_YxY)),
        kappa=float(kappa(pooled_YxY)),
        f1=tuple(class_f1(pooled_YxY).tolist()),
        f1_interval=tuple(percentile_interval(drawn_f1_DxY[:, y]) for y in range(size)),
        precision=tuple(class_precision(pooled_YxY).tolist()),
        recall=tuple(class_recall(pooled_YxY).tolist()),
        samples=tuple(pooled_YxY.sum(axis=1).tolist()),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
