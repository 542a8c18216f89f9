"""Scores from confusion matrices, one a subject, with intervals by bootstrap over subjects."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from selfpab_jax.errors import DataError
from selfpab_jax.probe.dataset import Corpus

CONFIDENCE = 0.95


def confusion(
    truth_N: Int[np.ndarray, " N"], predicted_N: Int[np.ndarray, " N"], classes: int
) -> Int64[np.ndarray, "Y Y"]:
    """How often each class (row) was taken for each (column); samples whose truth is -1 are left out.

    Raises:
        DataError: unequal lengths, or a class beyond the last.
    """
    if len(truth_N) != len(predicted_N):
        raise DataError(f"{len(predicted_N)} predictions for {len(truth_N)} samples")
    known_N = truth_N >= 0
    truth_n, predicted_n = truth_N[known_N].astype(np.int64), predicted_N[known_N].astype(np.int64)
    if len(truth_n) and not (truth_n.max() < classes and predicted_n.min() >= 0 and predicted_n.max() < classes):
        raise DataError(f"a truth or prediction lies beyond the {classes} classes")
    return np.bincount(truth_n * classes + predicted_n, minlength=classes**2).reshape(classes, classes)


def subject_confusions(
    corpus: Corpus, predictions: Mapping[int, Int[np.ndarray, " N"]]
) -> dict[str, Int64[np.ndarray, "Y Y"]]:
    """A matrix for each subject with a predicted recording, over samples.

    Args:
        corpus: with the truth.
        predictions: each sample's class by index of recording, as `predict_recordings` gives them.
    """
    classes, matrices = len(corpus.classes), {}
    for index in sorted(predictions):
        recording = corpus.recordings[index]
        matrix = confusion(recording.labels_N, predictions[index], classes)
        matrices[recording.subject] = matrices.get(recording.subject, 0) + matrix
    return matrices


def class_f1(confusions: Float[np.ndarray, "*S Y Y"] | Int[np.ndarray, "*S Y Y"]) -> Float64[np.ndarray, "*S Y"]:
    """F1 of each class: NaN where it is in neither truth nor prediction, 0 where it is in one of them only."""
    hits, true, predicted = _sums(confusions)
    return _ratio(2 * hits, true + predicted)


def macro_f1(confusions: Float[np.ndarray, "*S Y Y"] | Int[np.ndarray, "*S Y Y"]) -> Float64[np.ndarray, "*S"]:
    """The mean of `class_f1` over the classes that have one, as the original scores a subject; NaN for no samples."""
    return _mean(class_f1(confusions))


def balanced_accuracy(confusions: Float[np.ndarray, "*S Y Y"] | Int[np.ndarray, "*S Y Y"]) -> Float64[np.ndarray, "*S"]:
    """The mean recall of the classes that are in the truth."""
    hits, true, _ = _sums(confusions)
    return _mean(_ratio(hits, true))


def accuracy(confusions: Float[np.ndarray, "*S Y Y"] | Int[np.ndarray, "*S Y Y"]) -> Float64[np.ndarray, "*S"]:
    """The share of samples that are right."""
    hits, true, _ = _sums(confusions)
    return _ratio(hits.sum(-1), true.sum(-1))


def kappa(confusions: Float[np.ndarray, "*S Y Y"] | Int[np.ndarray, "*S Y Y"]) -> Float64[np.ndarray, "*S"]:
    """Cohen's kappa: accuracy beyond what truth and prediction would share by chance; NaN where chance is certain."""
    hits, true, predicted = _sums(confusions)
    total = true.sum(-1)
    chance = (true * predicted).sum(-1)
    return _ratio(hits.sum(-1) * total - chance, total**2 - chance)


def _sums(confusions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per class: right ones, those in the truth, those predicted, in float64 (squares of counts pass int32's range)."""
    matrices = np.asarray(confusions, np.float64)
    return np.diagonal(matrices, axis1=-2, axis2=-1), matrices.sum(-1), matrices.sum(-2)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below != 0)


def _mean(values_Y: np.ndarray) -> np.ndarray:
    """Over the last axis, without NaN; NaN where there is nothing else."""
    there_Y = ~np.isnan(values_Y)
    return _ratio(np.where(there_Y, values_Y, 0).sum(-1), there_Y.sum(-1).astype(np.float64))


Interval = tuple[float, float]


@dataclass(frozen=True)
class SubjectScores:
    """Of one subject; each class' figures by class index, NaN where there are none."""

    macro_f1: float
    accuracy: float
    balanced_accuracy: float
    f1: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """Of a set of subjects.

    Attributes:
        classes: names by index.
        subjects: each one's scores.
        macro_f1_mean: mean over subjects of each one's macro-F1, the original's figure.
        macro_f1_std: their standard deviation (over n, as the original's).
        macro_f1_interval: of the mean: 95%, percentiles of a bootstrap over subjects; NaN for a single subject.
        pooled_macro_f1: of the sum of all subjects' confusion matrices.
        pooled_macro_f1_interval: likewise.
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
        """For JSON: NaN is None, tuples are lists."""
        return _json(asdict(self))


def score_subjects(
    confusions: Mapping[str, Int[np.ndarray, "Y Y"]], classes: tuple[str, ...], *, seed: int = 0, draws: int = 2000
) -> Scores:
    """All scores of a set of subjects.

    Args:
        confusions: each subject's matrix; a subject without labeled samples counts in no mean.
        classes: names by index.
        seed: of the bootstrap.
        draws: of the bootstrap: so many sets of as many subjects, with replacement.

    Raises:
        DataError: no subject, or a matrix of another number of classes.
    """
    if not confusions:
        raise DataError("no subject was predicted: there is nothing to score")
    size = len(classes)
    for subject, matrix in confusions.items():
        if np.shape(matrix) != (size, size):
            raise DataError(f"{subject}: a confusion matrix of {np.shape(matrix)}, not of {size} classes")
    matrices_SxYxY = np.stack([np.asarray(matrix, np.int64) for matrix in confusions.values()])
    of_subject_S = macro_f1(matrices_SxYxY)
    hits, true, predicted = _sums(matrices_SxYxY)
    accuracy_S, balanced_S, f1_SxY = (
        accuracy(matrices_SxYxY),
        balanced_accuracy(matrices_SxYxY),
        class_f1(matrices_SxYxY),
    )
    precision_SxY, recall_SxY = _ratio(hits, predicted), _ratio(hits, true)
    pooled_YxY = matrices_SxYxY.sum(axis=0)
    scored_S = of_subject_S[~np.isnan(of_subject_S)]
    mean_interval, pooled_interval, class_intervals = _bootstrap(matrices_SxYxY, seed, draws)
    pooled_hits, pooled_true, pooled_predicted = _sums(pooled_YxY)
    return Scores(
        classes=tuple(classes),
        subjects={
            subject: SubjectScores(
                macro_f1=float(of_subject_S[s]),
                accuracy=float(accuracy_S[s]),
                balanced_accuracy=float(balanced_S[s]),
                f1=tuple(f1_SxY[s].tolist()),
                precision=tuple(precision_SxY[s].tolist()),
                recall=tuple(recall_SxY[s].tolist()),
                samples=tuple(matrices_SxYxY[s].sum(axis=1).tolist()),
            )
            for s, subject in enumerate(confusions)
        },
        macro_f1_mean=float(scored_S.mean()) if len(scored_S) else float("nan"),
        macro_f1_std=float(scored_S.std()) if len(scored_S) else float("nan"),
        macro_f1_interval=mean_interval,
        pooled_macro_f1=float(macro_f1(pooled_YxY)),
        pooled_macro_f1_interval=pooled_interval,
        accuracy=float(accuracy(pooled_YxY)),
        balanced_accuracy=float(balanced_accuracy(pooled_YxY)),
        kappa=float(kappa(pooled_YxY)),
        f1=tuple(class_f1(pooled_YxY).tolist()),
        f1_interval=class_intervals,
        precision=tuple(_ratio(pooled_hits, pooled_predicted).tolist()),
        recall=tuple(_ratio(pooled_hits, pooled_true).tolist()),
        samples=tuple(pooled_YxY.sum(axis=1).tolist()),
    )


def _bootstrap(
    matrices_SxYxY: Int64[np.ndarray, "S Y Y"], seed: int, draws: int
) -> tuple[Interval, Interval, tuple[Interval, ...]]:
    """Intervals of the mean macro-F1, the pooled macro-F1, and each class' pooled F1."""
    subjects, classes, _ = matrices_SxYxY.shape
    scored_S = matrices_SxYxY.sum(axis=(1, 2)) > 0
    if scored_S.sum() < 2:
        nothing = (float("nan"), float("nan"))
        return nothing, nothing, (nothing,) * classes
    matrices_SxYxY = matrices_SxYxY[scored_S]
    subjects = len(matrices_SxYxY)
    # How often each subject is drawn is all that a draw amounts to, so that all draws are two matrix products.
    times_DxS = np.random.default_rng(seed).multinomial(subjects, np.full(subjects, 1 / subjects), draws)
    mean_D = times_DxS @ macro_f1(matrices_SxYxY) / subjects
    pooled_DxYxY = (times_DxS @ matrices_SxYxY.reshape(subjects, -1)).reshape(draws, classes, classes)
    f1_DxY = class_f1(pooled_DxYxY)
    return _interval(mean_D), _interval(_mean(f1_DxY)), tuple(_interval(f1_DxY[:, y]) for y in range(classes))


def _interval(values_D: np.ndarray) -> Interval:
    """The middle 95% of what is no NaN."""
    values_d = values_D[~np.isnan(values_D)]
    if not len(values_d):
        return (float("nan"), float("nan"))
    low, high = np.quantile(values_d, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return (float(low), float(high))


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
