"""Bootstrap over amounts and seeds: how far from its best fit the true law may be by chance."""

import numpy as np
from jaxtyping import Float
from scipy.stats import f as f_distribution

from selfpab_jax.scaling.cells import spread
from selfpab_jax.scaling.region import Region

CONFIDENCE = 0.95
ROUNDING = (
    1e-4  # share of a loss; no residuals are trusted to be smaller: the search, float32 and evaluation are not exact
)


class Bootstrap:
    """Samples drawn from a fit, and the critical values that they give.

    An interval holds every value v for which the residual sum of squares under "the quantity is v" exceeds the least
    one by at most `critical` residual variances. For a linear law and Gaussian noise that is Student's interval, and
    the critical value a quantile of F. Here it is the same quantile over samples drawn from the fit, in each of which
    the quantity's true value is known; never less than F's, as few residuals make too tame samples.
    """

    def __init__(self, region: Region, samples: int, seed: int):
        fit = region.fit
        self.region, self.degrees = region, fit.degrees
        self.variance = max(float((region.residuals**2).sum()) / self.degrees, ROUNDING**2)
        self.least = float(region.best((1 + region.residuals)[:, None]).min())
        self._target_RxB = 1 + draw(region, samples, np.random.default_rng(seed))
        self._rss_GxB = region.best(self._target_RxB)
        self._least_B = np.maximum(self._rss_GxB.min(0), ROUNDING**2)

    def _limit(self, rss_B: np.ndarray) -> float:
        ratios = (rss_B - self._least_B) * self.degrees / self._least_B
        critical = max(np.quantile(ratios, CONFIDENCE), f_distribution.ppf(CONFIDENCE, 1, self.degrees))
        return self.least + float(critical) * self.variance

    def exponent(self, index: int) -> tuple[float, float]:
        """Interval of an exponent: 0 or infinity where the points set no bound."""
        grid_G = self.region.exponents_GxA[:, index]
        return self.region.exponents_within(self._limit(self._rss_GxB[grid_G == grid_G[0]].min(0)), index)

    def loss(self, amounts: Float[np.ndarray, " A"]) -> tuple[float, float]:
        """Interval of the law's loss at the amounts; infinite amounts ask for the floor."""
        own = float(self.region.fit.curve.loss(amounts[None])[0])
        return self.region.losses_within(self._limit(self.region.at_loss(self._target_RxB, amounts, own)), amounts)


def draw(region: Region, samples: int, rng: np.random.Generator) -> Float[np.ndarray, "R B"]:
    """Residuals of as many samples.

    Each point gets a residual of some other point. Where the amounts lie further from the law than their seeds' scatter
    explains (all seeds share a subset, say, or the law is not quite right), the residual is that of a seed within its
    amount, and each amount gets, on top, the deviation of some amount with either sign.
    """
    residuals, unknowns = region.residuals, region.fit.curve.law.unknowns
    points = len(residuals)
    parts = spread(region.fit.amounts, residuals, unknowns)
    count = np.bincount(parts.cell)
    if parts.between <= parts.within or not all(parts.degrees):
        pool = (residuals - residuals.mean()) * np.sqrt(points / region.fit.degrees)
        return rng.choice(pool, (points, samples))
    several = count[parts.cell] > 1
    within = ((residuals - parts.mean[parts.cell]) / np.sqrt(1 - 1 / np.maximum(count, 1.5)[parts.cell]))[several]
    shared = parts.mean / np.sqrt((parts.mean**2).mean()) * np.sqrt((parts.between - parts.within) / count.mean())
    offsets_KxB = rng.choice(np.concatenate([shared, -shared]), (len(count), samples))
    return offsets_KxB[parts.cell] + rng.choice(within, (points, samples))
