"""A law with its 95% intervals, or the reason why the points do not support one.

An interval holds every value under which the points fit hardly worse than under the best law. How much worse is taken
from a bootstrap over amounts and replicates (`Bootstrap`); all laws that pass are the confidence region
(`ConfidenceRegion`), on a grid of exponents.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from selfpab_jax.scaling.laws.fit import (
    BELOW_ZERO,
    EXPONENTS,
    HUBER,
    ActiveSet,
    Fit,
    active_sets,
    combine,
    fit_law,
    nnls,
)
from selfpab_jax.scaling.laws.forms import Law
from selfpab_jax.scaling.laws.points import lack_of_fit, levels, replicate_groups

CONFIDENCE = 0.95
ROUNDING = 1e-4
"""No residual is taken to be smaller, relative to the loss: the search, float32 and the evaluation are not exact."""
WIDE = {1: 60, 2: 16}
"""Grid points per exponent over the whole range, by the number of exponents."""
NEAR = {1: 60, 2: 20}
"""Further grid points per exponent where the fit is good."""
GOOD = 12.0
"""Residual variances up to which a fit is good."""


@dataclass(frozen=True)
class ConfidenceRegion:
    """A fit, linearized in the coefficients about its own law, over a grid of exponents.

    Losses are replaced by Huber's pseudo-values (the law plus the clipped residual over the share of unclipped ones):
    least squares on them gives the robust fit, with the variance of the robust fit (Huber 1981, chapter 7.10).
    Everything here is relative to the loss by the law, so 0.01 is one percent.

    Attributes:
        fit: the fit.
        scale: (A,) by which amounts are divided.
        exponents_GxA: the grid; its first row is the exponents of the fit.
        residuals: (R,) of the pseudo-values.
        sets: active sets of the designs, divided by the loss by the law at every point.
    """

    fit: Fit
    scale: Float[np.ndarray, " A"]
    exponents_GxA: Float[np.ndarray, "G A"]
    residuals: Float[np.ndarray, " R"]
    sets: list[ActiveSet]

    @property
    def width(self) -> int:
        """P, the number of coefficients."""
        return max(len(active.columns) for active in self.sets)

    @property
    def target_Rx1(self) -> Float[np.ndarray, "R 1"]:
        """The pseudo-values."""
        return (1 + self.residuals)[:, None]

    def best(self, target_RxB: Float[np.ndarray, "R B"]) -> Float[np.ndarray, "G B"]:
        """The least residual sum of squares at each grid point."""
        return nnls(self.sets, target_RxB, self.width)[0]

    def only(self, columns: list[int]) -> float:
        """The least residual sum of squares with only these coefficients, of any sign."""
        active = next(active for active in self.sets if active.columns == columns)
        return float(active.fit(self.target_Rx1)[0].min())

    def rows(self, amounts: Float[np.ndarray, " A"]) -> Float[np.ndarray, "G P"]:
        """The basis at the amounts: its product with the coefficients is the loss."""
        return self.fit.curve.law.basis(self.exponents_GxA, amounts[None] / self.scale)[:, 0]

    def at_loss(
        self, target_RxB: Float[np.ndarray, "R B"], amounts: Float[np.ndarray, " A"], loss: float
    ) -> Float[np.ndarray, " B"]:
        """The least residual sum of squares, for each sample, of the laws by which the amounts have this loss."""
        row_GxP = self.rows(amounts)
        least_B = np.full(target_RxB.shape[1], np.inf)
        for active in self.sets:
            rss_GxB, c_GxKxB = active.fit(target_RxB)
            variance_G, direction_GxK = active.leverage(row_GxP)
            away_GxB = loss - (row_GxP[:, active.columns, None] * c_GxKxB).sum(1)
            moved_GxKxB = c_GxKxB + direction_GxK[:, :, None] * (away_GxB / variance_G[:, None])[:, None]
            rss_GxB = np.where((moved_GxKxB >= BELOW_ZERO).all(1), rss_GxB + away_GxB**2 / variance_G[:, None], np.inf)
            least_B = np.minimum(least_B, rss_GxB.min(0))
        return least_B

    def losses_within(self, limit: float, amounts: Float[np.ndarray, " A"]) -> tuple[float, float]:
        """The lowest and highest loss at the amounts by any law whose residual sum of squares is at most `limit`.

        For an active set these laws form an ellipsoid, cut off where a coefficient falls below 0. A linear function
        has its extremes on the surface of the ellipsoid, or where it is cut off, which is the ellipsoid of a smaller
        active set.
        """
        row_GxP, low, high = self.rows(amounts), np.inf, -np.inf
        for active in self.sets:
            rss_GxB, c_GxKxB = active.fit(self.target_Rx1)
            variance_G, direction_GxK = active.leverage(row_GxP)
            slack_G = limit - rss_GxB[:, 0]
            reach_G = np.sqrt(np.maximum(slack_G, 0) / variance_G)
            for sign in (-1, 1):
                c_GxK = c_GxKxB[:, :, 0] + sign * direction_GxK * reach_G[:, None]
                values = (row_GxP[:, active.columns] * c_GxK).sum(1)[(slack_G >= 0) & (c_GxK >= BELOW_ZERO).all(1)]
                if values.size:
                    low, high = min(low, values.min()), max(high, values.max())
        return float(low), float(high)

    def exponents_within(self, limit: float, index: int) -> tuple[float, float]:
        """The lowest and highest exponent of such laws; 0 or infinity where the region reaches the end of the grid."""
        rss_G = self.best(self.target_Rx1)[:, 0]
        values = np.unique(self.exponents_GxA[:, index])
        profile = np.array([rss_G[self.exponents_GxA[:, index] == value].min() for value in values])
        profile = np.sqrt(np.maximum(profile - rss_G.min(), 0))  # nearly straight on both sides of the minimum
        edge = np.sqrt(max(limit - rss_G.min(), 0))
        inside = np.flatnonzero(profile <= edge).tolist()

        def cross(i: int, j: int) -> float:
            share = (edge - profile[i]) / (profile[j] - profile[i])
            return float(np.exp(np.log(values[i]) + share * np.log(values[j] / values[i])))

        low = 0.0 if inside[0] == 0 else cross(inside[0], inside[0] - 1)
        high = np.inf if inside[-1] == len(values) - 1 else cross(inside[-1], inside[-1] + 1)
        return low, high


def confidence_region(fit: Fit) -> ConfidenceRegion:
    """The region about a fit, with a finer grid of exponents where the fit is good (within `GOOD` variances)."""
    curve = fit.curve
    scale = np.exp(np.log(fit.amounts).mean(0))
    clipped = HUBER * fit.noise
    residuals = np.clip(fit.residuals, -clipped, clipped) / max(np.mean(np.abs(fit.residuals) <= clipped), 0.5)
    own = np.array(curve.exponents)[None]
    coarse = combine([np.geomspace(*EXPONENTS, WIDE[curve.law.powers])] * curve.law.powers)
    first = _build(fit, scale, np.concatenate([own, coarse]), residuals)
    variance = (residuals**2).sum() / max(fit.degrees, 1)
    rss_G = first.best(first.target_Rx1)[:, 0]
    near = first.exponents_GxA[rss_G <= rss_G.min() + GOOD * variance]
    step = (EXPONENTS[1] / EXPONENTS[0]) ** (1 / (WIDE[curve.law.powers] - 1))
    spans = zip(near.min(0) / step, near.max(0) * step, strict=True)
    axes = [
        np.geomspace(max(low, EXPONENTS[0]), min(high, EXPONENTS[1]), NEAR[curve.law.powers]) for low, high in spans
    ]
    if curve.law.powers > 1:  # so that each exponent can be held at its fitted value
        axes = [np.append(axis, e) for axis, e in zip(axes, own[0], strict=True)]
        coarse = combine([np.append(np.geomspace(*EXPONENTS, WIDE[curve.law.powers]), e) for e in own[0]])
    return _build(fit, scale, np.concatenate([own, coarse, combine(axes)]), residuals)


def _build(fit: Fit, scale: np.ndarray, exponents_GxA: np.ndarray, residuals: np.ndarray) -> ConfidenceRegion:
    fitted = fit.losses / np.exp(fit.residuals)
    design = fit.curve.law.basis(exponents_GxA, fit.amounts / scale) / fitted[None, :, None]
    return ConfidenceRegion(fit, scale, exponents_GxA, residuals, list(active_sets(design)))


class Bootstrap:
    """Samples drawn from a fit, and the intervals that follow from them.

    An interval holds every value v for which the residual sum of squares under "the quantity is v" exceeds the least
    one by at most a critical number of residual variances. For a linear law and Gaussian noise this is Student's
    interval, and the critical value is a quantile of the F distribution. Here it is the same quantile over samples
    drawn from the fit, for which the true value of the quantity is known; but never less than that of F, because few
    residuals make samples that scatter too little.

    Args:
        region: the confidence region of the fit.
        samples: number of samples.
        seed: of the samples.
    """

    def __init__(self, region: ConfidenceRegion, samples: int, seed: int):
        fit = region.fit
        self.region, self.degrees = region, fit.degrees
        self.variance = max(float((region.residuals**2).sum()) / self.degrees, ROUNDING**2)
        self.least = float(region.best(region.target_Rx1).min())
        self._target_RxB = 1 + draw(region, samples, np.random.default_rng(seed))
        self._rss_GxB = region.best(self._target_RxB)
        self._least_B = np.maximum(self._rss_GxB.min(0), ROUNDING**2)

    def _limit(self, rss_B: np.ndarray) -> float:
        ratios = (rss_B - self._least_B) * self.degrees / self._least_B
        critical = max(np.quantile(ratios, CONFIDENCE), f_distribution.ppf(CONFIDENCE, 1, self.degrees))
        return self.least + float(critical) * self.variance

    def exponent(self, index: int) -> tuple[float, float]:
        """The interval of an exponent; 0 or infinity where the points set no bound."""
        grid_G = self.region.exponents_GxA[:, index]
        return self.region.exponents_within(self._limit(self._rss_GxB[grid_G == grid_G[0]].min(0)), index)

    def loss(self, amounts: Float[np.ndarray, " A"]) -> tuple[float, float]:
        """The interval of the loss by the law at the amounts; infinite amounts give the floor."""
        own = float(self.region.fit.curve.loss(amounts[None])[0])
        return self.region.losses_within(self._limit(self.region.at_loss(self._target_RxB, amounts, own)), amounts)


def draw(region: ConfidenceRegion, samples: int, rng: np.random.Generator) -> Float[np.ndarray, "R B"]:
    """Residuals of bootstrap samples, one column per sample.

    Each point gets the residual of some point. Where groups of replicates are further from the law than the scatter of
    the replicates explains (all of them share a subset, say, or the law is not quite right), the residual is that of a
    replicate about the mean of its group, and each group also gets the mean residual of some group, with either sign.

    Args:
        region: of the fit.
        samples: number of samples.
        rng: random numbers.
    """
    residuals, unknowns = region.residuals, region.fit.curve.law.unknowns
    points = len(residuals)
    split = lack_of_fit(region.fit.amounts, residuals, unknowns)
    count = np.bincount(split.group)
    if not split.shows_scatter_between_groups:
        pool = (residuals - residuals.mean()) * np.sqrt(points / region.fit.degrees)
        return rng.choice(pool, (points, samples))
    several = count[split.group] > 1
    within = ((residuals - split.mean[split.group]) / np.sqrt(1 - 1 / np.maximum(count, 1.5)[split.group]))[several]
    shared = split.mean / np.sqrt((split.mean**2).mean()) * np.sqrt((split.between - split.within) / count.mean())
    offsets_KxB = rng.choice(np.concatenate([shared, -shared]), (len(count), samples))
    return offsets_KxB[split.group] + rng.choice(within, (points, samples))


DISTINCT = {1: 4, 2: 3}
"""Distinct values of each amount that a law needs, by its number of powers."""
COMBINATIONS = {1: 4, 2: 7}
"""Distinct combinations of amounts that a law needs."""
SIGNIFICANCE = 0.01
"""Chance of error at which a decrease of the loss, or a lack of fit, is accepted."""
SAMPLES = {1: 400, 2: 200}
"""Bootstrap samples, by the number of exponents."""


@dataclass(frozen=True)
class Refusal:
    """No law, and why not, in one line."""

    reason: str


@dataclass(frozen=True)
class Prediction:
    """A predicted loss.

    Attributes:
        loss: by the law.
        low, high: its 95% interval.
    """

    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class LawEstimate:
    """A fitted law with 95% intervals.

    Attributes:
        fit: the law and its points.
        exponents: (low, high) of each exponent; 0 or infinity where the points set no bound.
        floor: (low, high) of E.
        lack_of_fit_p: p-value of the lack-of-fit test; None without replicates.
        bootstrap: that the intervals are from.
    """

    fit: Fit
    exponents: tuple[tuple[float, float], ...]
    floor: tuple[float, float]
    lack_of_fit_p: float | None
    bootstrap: Bootstrap

    @property
    def floor_is_known(self) -> bool:
        """Whether the points exclude a plain power law."""
        return bool(self.floor[0] > ROUNDING * self.fit.losses.min())

    def predict(self, amounts: Float[np.ndarray, " A"], runs: int | None = None) -> Prediction:
        """The loss at the amounts, with its interval.

        Args:
            amounts: one of each.
            runs: predict the mean of this many new runs, which scatter about the law; the law itself where not given.
        """
        amounts = np.asarray(amounts, float)
        loss = float(self.fit.curve.loss(amounts[None])[0])
        low, high = self.bootstrap.loss(amounts)
        if runs:
            reach = t_distribution.ppf((1 + CONFIDENCE) / 2, self.fit.degrees) * np.sqrt(self._scatter(runs))
            high = loss * float(np.exp(np.hypot(np.log(high / loss), reach)))
            low = loss * float(np.exp(-np.hypot(np.log(loss / low), reach))) if low > 0 else 0.0
        return Prediction(loss, low, high)

    def _scatter(self, runs: int) -> float:
        """Variance of the mean of this many runs at a new amount."""
        split = lack_of_fit(self.fit.amounts, self.bootstrap.region.residuals, self.fit.curve.law.unknowns)
        if not split.shows_scatter_between_groups:
            return self.bootstrap.variance / runs
        return (split.between - split.within) / np.bincount(split.group).mean() + split.within / runs


def estimate(
    law: Law, amounts: Float[np.ndarray, "R A"], losses: Float[np.ndarray, " R"], names: tuple[str, ...], seed: int = 0
) -> LawEstimate | Refusal:
    """Fit a law with a floor, with intervals.

    Args:
        law: with at least one power.
        amounts: positive, one row per point.
        losses: positive.
        names: of the amounts, for messages.
        seed: of the bootstrap.
    """
    amounts, losses = np.asarray(amounts, float), np.asarray(losses, float)
    if not all((np.isfinite(values) & (values > 0)).all() for values in (amounts, losses)):
        return Refusal("amounts and losses must all be finite and greater than 0; remove failed runs")
    reason = too_few(law, amounts, names)
    if reason:
        return Refusal(reason)
    if np.ptp(losses) == 0:
        return Refusal(f"the loss is the same everywhere ({losses[0]:g})")
    fit = fit_law(law, amounts, losses)
    region = confidence_region(fit)
    bootstrap = Bootstrap(region, SAMPLES[law.powers], seed)
    split = lack_of_fit(amounts, region.residuals, law.unknowns)
    p_value = float(f_distribution.sf(split.between / split.within, *split.degrees)) if split.within else None
    p_value = p_value if all(split.degrees) else None
    is_lacking = p_value is not None and p_value < SIGNIFICANCE
    reason = _no_decrease(fit, bootstrap, split.between if is_lacking else bootstrap.variance, names)
    if reason:
        return Refusal(reason)
    return LawEstimate(
        fit,
        tuple(bootstrap.exponent(i) for i in range(law.powers)),
        bootstrap.loss(np.full(law.powers, np.inf)),
        p_value,
        bootstrap,
    )


def too_few(law: Law, amounts: Float[np.ndarray, "R A"], names: tuple[str, ...]) -> str:
    """Why there are too few points for the law; empty if there are enough."""
    for column, name in zip(amounts.T, names, strict=True):
        distinct = len(np.unique(levels(column))) if len(column) else 0
        if distinct < DISTINCT[law.powers]:
            return f"{distinct} distinct {name}; a law with a floor needs at least {DISTINCT[law.powers]}"
    groups = len(np.unique(replicate_groups(amounts)))
    if groups < COMBINATIONS[law.powers]:
        return f"{groups} combinations of {' and '.join(names)}; this law needs at least {COMBINATIONS[law.powers]}"
    if len(amounts) < law.unknowns + 2:
        return f"{len(amounts)} points for {law.unknowns} unknowns; at least {law.unknowns + 2} are needed"
    return ""


def _no_decrease(fit: Fit, bootstrap: Bootstrap, variance: float, names: tuple[str, ...]) -> str:
    """Why the loss does not clearly decrease with one of the amounts; empty if it does with all."""
    law = fit.curve.law
    for i, name in enumerate(names):
        others = [c for c in range(int(law.floor) + law.powers) if c != int(law.floor) + i]
        without = bootstrap.region.only(others)
        bar = 2 * variance * f_distribution.ppf(1 - SIGNIFICANCE, 2, fit.degrees)
        if without - bootstrap.least <= bar or fit.curve.coefficients[int(law.floor) + i] == 0:
            high, low = fit.losses[fit.amounts[:, i].argmin()], fit.losses[fit.amounts[:, i].argmax()]
            if low > high * (1 + 2 * fit.noise):
                return f"the loss rises with {name}"
            return f"no decrease with {name} can be distinguished from the scatter of {fit.noise:.1%} about the law"
    return ""
