"""Scores over several seeds: the mean of every figure, with its variation over subjects and over seeds kept apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from selfpab_jax.probe import metrics

NAN = float("nan")
Figure = Callable[[metrics.Matrices], Float64[np.ndarray, "*S"]]
"""A score of each confusion matrix."""


@dataclass(frozen=True)
class MeanWithInterval:
    """A figure over subjects and seeds; NaN where it is not defined.

    Attributes:
        mean: over seeds.
        low: lower end of the 95% interval of the mean, by bootstrap over subjects, each with all its seeds.
        high: upper end; both are NaN for a single subject.
        seeds_std: standard deviation over seeds (over n - 1); NaN for a single seed.
    """

    mean: float
    low: float = NAN
    high: float = NAN
    seeds_std: float = NAN


@dataclass(frozen=True)
class Summary:
    """Scores of a method. With one seed every figure is that of `metrics.Scores`.

    Attributes:
        seeds: number of seeds.
        macro_f1: mean over subjects of each one's macro-F1.
        subjects_std: standard deviation over subjects (over n, as the original) of each one's mean over seeds.
        subjects: macro-F1 of each subject, mean over seeds; NaN without labeled samples.
        pooled_macro_f1: of the sum of all subjects' confusion matrices, as are the following.
        accuracy: fraction of samples.
        balanced_accuracy: mean recall.
        kappa: Cohen's.
        f1: of each class.
        precision: of each class.
        recall: of each class.
        samples: of each class in the truth, of one seed.
    """

    seeds: int
    macro_f1: MeanWithInterval
    subjects_std: float
    subjects: dict[str, float]
    pooled_macro_f1: MeanWithInterval
    accuracy: MeanWithInterval
    balanced_accuracy: MeanWithInterval
    kappa: MeanWithInterval
    f1: tuple[MeanWithInterval, ...]
    precision: tuple[MeanWithInterval, ...]
    recall: tuple[MeanWithInterval, ...]
    samples: tuple[int, ...]


@dataclass(frozen=True)
class PairedDifference:
    """Macro-F1 of one method minus that of another, paired by subject.

    Attributes:
        mean: over the subjects that both were scored on.
        low: lower end of its 95% interval, by bootstrap over subjects.
        high: upper end.
        better: number of subjects with a higher score under the first method.
        subjects: number of subjects that both were scored on.
    """

    mean: float
    low: float
    high: float
    better: int
    subjects: int


def summarize(seeds: Sequence[Mapping[str, Int[np.ndarray, "Y Y"]]], *, seed: int = 0, draws: int = 2000) -> Summary:
    """Scores of a method over its seeds.

    Args:
        seeds: for each seed the confusion matrix of every subject; the same subjects for each.
        seed: of the bootstrap.
        draws: number of bootstrap samples.
    """
    names = list(seeds[0])
    matrices_ExSxYxY = np.stack([np.stack([np.asarray(of[name], np.int64) for name in names]) for of in seeds])
    scored_S = matrices_ExSxYxY[0].sum(axis=(1, 2)) > 0
    matrices = matrices_ExSxYxY[:, scored_S]
    drawn_ExDxYxY = metrics.bootstrap_sums(matrices, seed=seed, draws=draws)
    pooled_ExYxY = matrices.sum(axis=1)
    macro_f1_ExS = metrics.macro_f1(matrices_ExSxYxY)
    of_subject_S = _nan_mean(macro_f1_ExS)
    known_s = of_subject_S[scored_S]

    def pooled(figure: Figure) -> MeanWithInterval:
        return _mean_with_interval(figure(pooled_ExYxY), figure(drawn_ExDxYxY))

    def of_classes(figure: Figure) -> tuple[MeanWithInterval, ...]:
        values_ExY, drawn_ExDxY = figure(pooled_ExYxY), figure(drawn_ExDxYxY)
        return tuple(_mean_with_interval(values_ExY[:, y], drawn_ExDxY[..., y]) for y in range(values_ExY.shape[1]))

    drawn_means_D = metrics.bootstrap_means(known_s, seed=seed, draws=draws)
    return Summary(
        seeds=len(seeds),
        macro_f1=_mean_with_interval(_nan_mean(macro_f1_ExS.T), drawn_means_D[None]),
        subjects_std=float(known_s.std()) if len(known_s) else NAN,
        subjects=dict(zip(names, of_subject_S.tolist(), strict=True)),
        pooled_macro_f1=pooled(metrics.macro_f1),
        accuracy=pooled(metrics.accuracy),
        balanced_accuracy=pooled(metrics.balanced_accuracy),
        kappa=pooled(metrics.kappa),
        f1=of_classes(metrics.class_f1),
        precision=of_classes(metrics.class_precision),
        recall=of_classes(metrics.class_recall),
        samples=tuple(matrices_ExSxYxY[0].sum(axis=(0, 2)).tolist()),
    )


def subject_macro_f1(seeds: Sequence[Mapping[str, Any]], counted_Y: Bool[np.ndarray, " Y"]) -> dict[str, float]:
    """Macro-F1 of each subject over some of the classes, the mean over seeds; NaN where none of them is defined.

    Args:
        seeds: for each seed the confusion matrix of each subject; the same subjects for each.
        counted_Y: classes that count.
    """

    def macro_f1(matrix_YxY: Any) -> float:
        f1_Y = metrics.class_f1(np.asarray(matrix_YxY))[counted_Y]
        return NAN if np.isnan(f1_Y).all() else float(np.nanmean(f1_Y))

    return {name: float(np.mean([macro_f1(of_seed[name]) for of_seed in seeds])) for name in seeds[0]}


def compare(
    first: Mapping[str, float], second: Mapping[str, float], *, seed: int = 0, draws: int = 2000
) -> PairedDifference:
    """Macro-F1 of one method minus that of another, over the subjects that both have.

    Args:
        first: macro-F1 of each subject.
        second: the same, of the method that is subtracted.
        seed: of the bootstrap.
        draws: number of bootstrap samples.
    """
    differences_S = np.array([first[name] - second[name] for name in first if name in second], np.float64)
    differences_S = differences_S[~np.isnan(differences_S)]
    if not len(differences_S):
        return PairedDifference(NAN, NAN, NAN, 0, 0)
    low, high = metrics.percentile_interval(metrics.bootstrap_means(differences_S, seed=seed, draws=draws))
    return PairedDifference(float(differences_S.mean()), low, high, int((differences_S > 0).sum()), len(differences_S))


def _mean_with_interval(values_E: Float64[np.ndarray, " E"], drawn_ExD: Float64[np.ndarray, "F D"]) -> MeanWithInterval:
    known_e = values_E[~np.isnan(values_E)]
    low, high = metrics.percentile_interval(_nan_mean(drawn_ExD))
    seeds_std = float(known_e.std(ddof=1)) if len(known_e) > 1 else NAN
    return MeanWithInterval(float(known_e.mean()) if len(known_e) else NAN, low, high, seeds_std)


def _nan_mean(values_ExV: Float64[np.ndarray, "E V"]) -> Float64[np.ndarray, " V"]:
    """Over the first axis, without NaN."""
    known_ExV = ~np.isnan(values_ExV)
    count_V = known_ExV.sum(axis=0)
    total_V = np.where(known_ExV, values_ExV, 0).sum(axis=0)
    return np.divide(total_V, count_V, out=np.full(len(count_V), np.nan), where=count_V > 0)
