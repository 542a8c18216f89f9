"""Scores over seeds: the mean of every figure, and how much subjects and seeds make it vary, kept apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int, Int64

from selfpab_jax.probe import metrics as scores

Confusions = Mapping[str, Int[np.ndarray, "Y Y"]]
NOTHING = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A figure, all parts NaN where there is none.

    Attributes:
        mean: over seeds.
        low: end of the 95% interval of that mean by bootstrap over subjects, each drawn with all its seeds.
        high: the other end; both NaN for a single subject.
        seeds_std: standard deviation over seeds (n - 1); NaN for a single seed.
    """

    mean: float
    low: float = NOTHING
    high: float = NOTHING
    seeds_std: float = NOTHING


@dataclass(frozen=True)
class Summary:
    """Of an arm. With one seed every figure is that of its `Scores`.

    Attributes:
        seeds: how many.
        macro_f1: mean over subjects of each one's macro-F1.
        subjects_std: standard deviation over subjects (n, as the original's) of each one's mean over seeds.
        subjects: each one's macro-F1, mean over seeds; NaN without labeled samples.
        pooled_macro_f1: of the sum of all subjects' matrices, as are the following.
        accuracy: share of samples.
        balanced_accuracy: mean recall.
        kappa: Cohen's.
        f1: of each class.
        precision: of each class.
        recall: of each class.
        samples: of each class in the truth, of one seed.
    """

    seeds: int
    macro_f1: Estimate
    subjects_std: float
    subjects: dict[str, float]
    pooled_macro_f1: Estimate
    accuracy: Estimate
    balanced_accuracy: Estimate
    kappa: Estimate
    f1: tuple[Estimate, ...]
    precision: tuple[Estimate, ...]
    recall: tuple[Estimate, ...]
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """Macro-F1 of one arm less another's, subject by subject.

    Attributes:
        mean: over the subjects that both were scored on.
        low: end of the 95% interval by bootstrap over subjects.
        high: the other end.
        better: subjects on which the one is above the other.
        subjects: that both were scored on.
    """

    mean: float
    low: float
    high: float
    better: int
    subjects: int


def summarize(seeds: Sequence[Confusions], *, seed: int = 0, draws: int = 2000) -> Summary:
    """Scores of an arm over its seeds.

    Args:
        seeds: for each seed every subject's confusion matrix; the same subjects in each.
        seed: of the bootstrap.
        draws: of it.
    """
    names = list(seeds[0])
    matrices_ExSxYxY = np.stack([np.stack([np.asarray(of[name], np.int64) for name in names]) for of in seeds])
    scored_S = matrices_ExSxYxY[0].sum(axis=(1, 2)) > 0
    matrices = matrices_ExSxYxY[:, scored_S]
    drawn_ExDxYxY = _draw(matrices, seed, draws)
    pooled_ExYxY = matrices.sum(axis=1)
    with_gaps_ExS = scores.macro_f1(matrices_ExSxYxY)
    of_subject_S = _mean(with_gaps_ExS)
    known_S = of_subject_S[scored_S]

    def pooled(figure: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        return _estimate(figure(pooled_ExYxY), figure(drawn_ExDxYxY))

    def of_classes(figure: Callable[[np.ndarray], np.ndarray]) -> tuple[Estimate, ...]:
        values_ExY, drawn_ExDxY = figure(pooled_ExYxY), figure(drawn_ExDxYxY)
        return tuple(_estimate(values_ExY[:, y], drawn_ExDxY[..., y]) for y in range(values_ExY.shape[1]))

    return Summary(
        seeds=len(seeds),
        macro_f1=_estimate(_mean(with_gaps_ExS.T), _draw_means(known_S, seed, draws)[None]),
        subjects_std=float(known_S.std()) if len(known_S) else NOTHING,
        subjects=dict(zip(names, of_subject_S.tolist(), strict=True)),
        pooled_macro_f1=pooled(scores.macro_f1),
        accuracy=pooled(scores.accuracy),
        balanced_accuracy=pooled(scores.balanced_accuracy),
        kappa=pooled(scores.kappa),
        f1=of_classes(scores.class_f1),
        precision=of_classes(_precision),
        recall=of_classes(_recall),
        samples=tuple(matrices_ExSxYxY[0].sum(axis=(0, 2)).tolist()),
    )


def compare(one: Mapping[str, float], other: Mapping[str, float], *, seed: int = 0, draws: int = 2000) -> Difference:
    """One arm's macro-F1 by subject less another's, over the subjects that both have."""
    differences_S = np.array([one[name] - other[name] for name in one if name in other], np.float64)
    differences_S = differences_S[~np.isnan(differences_S)]
    if not len(differences_S):
        return Difference(NOTHING, NOTHING, NOTHING, 0, 0)
    low, high = _interval(_draw_means(differences_S, seed, draws))
    return Difference(float(differences_S.mean()), low, high, int((differences_S > 0).sum()), len(differences_S))


def _draw(matrices_ExSxYxY: Int64[np.ndarray, "E S Y Y"], seed: int, draws: int) -> Float64[np.ndarray, "E D Y Y"]:
    """Pooled matrices of sets of subjects drawn with replacement, the same sets for every seed."""
    seeds, subjects, classes, _ = matrices_ExSxYxY.shape
    if subjects < 2:
        return np.zeros((seeds, 0, classes, classes))
    times_DxS = _times(subjects, seed, draws)
    drawn = times_DxS @ matrices_ExSxYxY.reshape(seeds, subjects, -1).astype(np.float64)
    return drawn.reshape(seeds, draws, classes, classes)


def _draw_means(values_S: Float64[np.ndarray, " S"], seed: int, draws: int) -> Float64[np.ndarray, " D"]:
    subjects = len(values_S)
    return _times(subjects, seed, draws) @ values_S / subjects if subjects > 1 else np.zeros(0)


def _times(subjects: int, seed: int, draws: int) -> Float64[np.ndarray, "D S"]:
    """How often each subject is in each draw, as `score_subjects` draws them."""
    return np.random.default_rng(seed).multinomial(subjects, np.full(subjects, 1 / subjects), draws).astype(np.float64)


def _estimate(values_E: Float64[np.ndarray, " E"], drawn_ExD: Float64[np.ndarray, "E D"]) -> Estimate:
    known_e = values_E[~np.isnan(values_E)]
    low, high = _interval(_mean(drawn_ExD))
    spread = float(known_e.std(ddof=1)) if len(known_e) > 1 else NOTHING
    return Estimate(float(known_e.mean()) if len(known_e) else NOTHING, low, high, spread)


def _mean(values_ExV: Float64[np.ndarray, "E V"]) -> Float64[np.ndarray, " V"]:
    """Over the first axis, without NaN."""
    known = ~np.isnan(values_ExV)
    count_V = known.sum(axis=0)
    total_V = np.where(known, values_ExV, 0).sum(axis=0)
    return np.divide(total_V, count_V, out=np.full(len(count_V), np.nan), where=count_V > 0)


def _interval(values_D: Float64[np.ndarray, " D"]) -> tuple[float, float]:
    values_d = values_D[~np.isnan(values_D)]
    if not len(values_d):
        return NOTHING, NOTHING
    low, high = np.quantile(values_d, [(1 - scores.CONFIDENCE) / 2, (1 + scores.CONFIDENCE) / 2])
    return float(low), float(high)


def _precision(confusions: np.ndarray) -> np.ndarray:
    return _share(np.diagonal(confusions, axis1=-2, axis2=-1), confusions.sum(-2))


def _recall(confusions: np.ndarray) -> np.ndarray:
    return _share(np.diagonal(confusions, axis1=-2, axis2=-1), confusions.sum(-1))


def _share(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below != 0)
