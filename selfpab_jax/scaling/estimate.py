"""A law with its intervals, or the reason why these points cannot have one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from selfpab_jax.scaling.bootstrap import CONFIDENCE, ROUNDING, Bootstrap
from selfpab_jax.scaling.cells import levels, spread
from selfpab_jax.scaling.fit import Fit, fit_law
from selfpab_jax.scaling.laws import Law
from selfpab_jax.scaling.region import region

AMOUNTS = {1: 4, 2: 3}  # distinct values of each amount that a law with so many powers needs
CELLS = {1: 4, 2: 7}  # distinct combinations
DOUBT = 0.01  # a fall, or a misfit, is believed at this chance of error
SAMPLES = {1: 400, 2: 200}


@dataclass(frozen=True)
class Refusal:
    """No law: why, in a line for people."""

    reason: str


@dataclass(frozen=True)
class Prediction:
    """A loss where nothing was measured, or was not used.

    Attributes:
        loss: the law's.
        low: of the 95% interval.
        high: of the 95% interval.
    """

    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A fitted law and 95% intervals.

    Attributes:
        fit: the law and its points.
        exponents: (low, high) of each exponent; 0 or infinity where the points set no bound.
        floor: (low, high) of E.
        misfit: chance of amounts this far off the law if the law were right, None if seeds do not tell.
    """

    fit: Fit
    exponents: tuple[tuple[float, float], ...]
    floor: tuple[float, float]
    misfit: float | None
    bootstrap: Bootstrap

    @property
    def floor_is_known(self) -> bool:
        """Whether the points exclude a plain power law."""
        return bool(self.floor[0] > ROUNDING * self.fit.losses.min())

    def predict(self, amounts: Float[np.ndarray, " A"], runs: int | None = None) -> Prediction:
        """The loss at the amounts: the law's own, or with `runs` the mean of so many runs, with their scatter."""
        amounts = np.asarray(amounts, float)
        loss = float(self.fit.curve.loss(amounts[None])[0])
        low, high = self.bootstrap.loss(amounts)
        if runs:
            reach = t_distribution.ppf((1 + CONFIDENCE) / 2, self.fit.degrees) * np.sqrt(self._scatter(runs))
            high = loss * float(np.exp(np.hypot(np.log(high / loss), reach)))
            low = loss * float(np.exp(-np.hypot(np.log(loss / low), reach))) if low > 0 else 0.0
        return Prediction(loss, low, high)

    def _scatter(self, runs: int) -> float:
        """Variance of a new amount's mean over so many runs."""
        parts = spread(self.fit.amounts, self.bootstrap.region.residuals, self.fit.curve.law.unknowns)
        if parts.between <= parts.within or not all(parts.degrees):
            return self.bootstrap.variance / runs
        return (parts.between - parts.within) / np.bincount(parts.cell).mean() + parts.within / runs


def estimate(
    law: Law, amounts: Float[np.ndarray, "R A"], losses: Float[np.ndarray, " R"], names: tuple[str, ...], seed: int = 0
) -> Estimate | Refusal:
    """Fit a law with a floor, with intervals.

    Args:
        law: with at least one power.
        amounts: positive, a row a point.
        losses: positive.
        names: of the amounts, for the reasons.
        seed: of the bootstrap.
    """
    amounts, losses = np.asarray(amounts, float), np.asarray(losses, float)
    if not all((np.isfinite(values) & (values > 0)).all() for values in (amounts, losses)):
        return Refusal("amounts and losses must all be above 0 and finite; leave failed runs out")
    reason = too_few(law, amounts, names)
    if reason:
        return Refusal(reason)
    if np.ptp(losses) == 0:
        return Refusal(f"the loss is {losses[0]:g} everywhere: nothing to fit")
    fit = fit_law(law, amounts, losses)
    around = region(fit)
    bootstrap = Bootstrap(around, SAMPLES[law.powers], seed)
    parts = spread(amounts, around.residuals, law.unknowns)
    misfit = float(f_distribution.sf(parts.between / parts.within, *parts.degrees)) if parts.within else None
    misfit = misfit if all(parts.degrees) else None
    off_the_law = misfit is not None and misfit < DOUBT
    reason = _no_fall(fit, bootstrap, parts.between if off_the_law else bootstrap.variance, names)
    if reason:
        return Refusal(reason)
    return Estimate(
        fit,
        tuple(bootstrap.exponent(i) for i in range(law.powers)),
        bootstrap.loss(np.full(law.powers, np.inf)),
        misfit,
        bootstrap,
    )


def too_few(law: Law, amounts: Float[np.ndarray, "R A"], names: tuple[str, ...]) -> str:
    """Why there are too few points for the law, or nothing."""
    for column, name in zip(amounts.T, names, strict=True):
        distinct = len(np.unique(levels(column))) if len(column) else 0
        if distinct < AMOUNTS[law.powers]:
            return f"{distinct} distinct {name}; a law with a floor needs at least {AMOUNTS[law.powers]}"
    parts = spread(amounts, np.zeros(len(amounts)), law.unknowns)
    if len(parts.mean) < CELLS[law.powers]:
        return f"{len(parts.mean)} combinations of {' and '.join(names)}; this law needs at least {CELLS[law.powers]}"
    if len(amounts) < law.unknowns + 2:
        return f"{len(amounts)} points for {law.unknowns} unknowns; at least {law.unknowns + 2} are needed"
    return ""


def _no_fall(fit: Fit, bootstrap: Bootstrap, variance: float, names: tuple[str, ...]) -> str:
    """Why no fall of the loss is to be seen against one of the amounts, or nothing."""
    law = fit.curve.law
    for i, name in enumerate(names):
        others = [c for c in range(int(law.floor) + law.powers) if c != int(law.floor) + i]
        without = bootstrap.region.without(others)
        bar = 2 * variance * f_distribution.ppf(1 - DOUBT, 2, fit.degrees)
        if without - bootstrap.least <= bar or fit.curve.coefficients[int(law.floor) + i] == 0:
            high, low = fit.losses[fit.amounts[:, i].argmin()], fit.losses[fit.amounts[:, i].argmax()]
            if low > high * (1 + 2 * fit.noise):
                return f"it rises with {name}"
            return f"a fall with {name} cannot be told from a scatter of {fit.noise:.1%} about the law"
    return ""
