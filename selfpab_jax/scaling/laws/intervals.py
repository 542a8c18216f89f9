"""A law with its 95% intervals, or the reason why the points do not support one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from selfpab_jax.scaling.laws.bootstrap import CONFIDENCE, ROUNDING, Bootstrap, confidence_region
from selfpab_jax.scaling.laws.fit import Fit, fit_law
from selfpab_jax.scaling.laws.forms import Law
from selfpab_jax.scaling.laws.points import lack_of_fit, levels, replicate_groups

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
