"""A law fitted to losses: Huber's loss on log residuals, searched over all exponents.

Given its exponents a law is linear in its few coefficients. Their best values under the constraint "at least 0" are
the best values of some active set: a subset of the coefficients, with the others at 0. So every active set is solved
in closed form, and nothing depends on starting points or on an iteration that may fail (variable projection; Golub and
Pereyra 1973). `scipy.optimize.nnls` solves one problem at a time; this solves a whole grid of exponents and a batch of
bootstrap samples at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from selfpab_jax.scaling.laws.forms import Curve, Law

HUBER = 1.345
"""Where Huber's loss turns linear, in standard deviations: 95% as efficient as least squares for Gaussian noise."""
CONSISTENT = 0.7102
"""Mean of min(|z|, HUBER)^2 of a standard Gaussian z (Huber's proposal 2)."""
EXPONENTS = (0.01, 3.0)
"""The range that exponents are searched in."""
COARSE = {0: 1, 1: 60, 2: 20}
"""Grid points per exponent, by the number of exponents."""
ZOOM, ZOOMS = 7, 7
"""Points per exponent of a finer grid, and the number of refinements about the best point."""
ROUNDS = 30
BELOW_ZERO = -1e-9
"""Coefficients this little below 0 are rounding errors."""
TINY = 1e-300


@dataclass(frozen=True)
class Fit:
    """A fitted law and the points it was fitted to.

    Attributes:
        curve: the law with its numbers.
        amounts: (R, A) of the points.
        losses: (R,) of the points.
        residuals: (R,) log of measured over fitted loss.
        noise: standard deviation of the residuals by Huber's proposal 2, relative to the loss.
    """

    curve: Curve
    amounts: Float[np.ndarray, "R A"]
    losses: Float[np.ndarray, " R"]
    residuals: Float[np.ndarray, " R"]
    noise: float

    @property
    def degrees(self) -> int:
        """Degrees of freedom that are left: points minus unknowns."""
        return len(self.losses) - self.curve.law.unknowns


def fit_law(law: Law, amounts: Float[np.ndarray, "R A"], losses: Float[np.ndarray, " R"]) -> Fit:
    """Fit a law by Huber's loss on log residuals.

    Each round weights the points by Huber's weights and replaces log L by its tangent at the law of the round before;
    then the coefficients follow from the exponents in closed form, and the exponents from a grid that is refined about
    its best point. The first grid spans all exponents, so no starting point is needed, and the minimum is global.

    Args:
        law: the form.
        amounts: positive, one row per point.
        losses: positive.
    """
    scale = np.exp(np.log(amounts).mean(0)) if law.powers else np.ones(amounts.shape[1])
    scaled, log_losses = amounts / scale, np.log(losses)
    fitted, weights, noise = losses.astype(float), np.ones(len(losses)), 0.0
    exponents, coefficients = np.zeros(law.powers), np.zeros(law.floor + law.powers)
    degrees = max(len(losses) - law.unknowns, 1)
    for _ in range(ROUNDS):
        root = np.sqrt(weights)
        target = root * (1 + log_losses - np.log(fitted))
        exponents, coefficients = _search(law, scaled, root / fitted, target)
        before, fitted = fitted, law.basis(exponents[None], scaled)[0] @ coefficients
        residuals = log_losses - np.log(fitted)
        noise = max(float(np.sqrt(((weights * residuals) ** 2).sum() / (degrees * CONSISTENT))), 1e-12)
        weights = np.minimum(1, HUBER * noise / np.maximum(np.abs(residuals), 1e-300))
        if np.abs(np.log(fitted / before)).max() < 1e-3 * noise:
            break
    powers = coefficients[int(law.floor) :] * scale[: law.powers] ** exponents
    numbers = (*coefficients[: int(law.floor)].tolist(), *powers.tolist())
    return Fit(Curve(law, tuple(exponents.tolist()), numbers), amounts, losses, residuals, noise)


def _search(law: Law, amounts: np.ndarray, row_scale: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The exponents and coefficients of least squares: the best of a grid, then of finer and finer ones about it."""
    points = combine([np.geomspace(*EXPONENTS, COARSE[law.powers])] * law.powers)
    ratio = (EXPONENTS[1] / EXPONENTS[0]) ** (1 / (COARSE[law.powers] - 1)) if law.powers else 1.0
    for _ in range(ZOOMS if law.powers else 1):
        design = law.basis(points, amounts) * row_scale[None, :, None]
        rss, coefficients = nnls(list(active_sets(design)), target[:, None], design.shape[2])
        best = int(rss[:, 0].argmin())
        axis = np.geomspace(1 / ratio, ratio, ZOOM)
        found = points[best], coefficients[best, :, 0]
        points = combine([np.clip(e * axis, *EXPONENTS) for e in points[best]])
        ratio **= 2 / (ZOOM - 1)
    return found


def combine(axes: list[np.ndarray]) -> Float[np.ndarray, "G A"]:
    """Every combination of the values on the axes, one row each."""
    every = list(product(*axes))
    return np.array(every, float).reshape(len(every), len(axes))


class ActiveSet(NamedTuple):
    """Some columns of the design at each grid point, orthogonalized: design = q r."""

    columns: list[int]
    q_GxRxK: np.ndarray
    inverse_GxKxK: np.ndarray

    def fit(self, target_RxB: Float[np.ndarray, "R B"]) -> tuple[Float[np.ndarray, "G B"], Float[np.ndarray, "G K B"]]:
        """Residual sums of squares and coefficients, without the constraint on their signs."""
        seen_GxKxB = np.swapaxes(self.q_GxRxK, 1, 2) @ target_RxB
        rss_GxB = (target_RxB**2).sum(0) - (seen_GxKxB**2).sum(1)
        return rss_GxB, self.inverse_GxKxK @ seen_GxKxB

    def leverage(self, row_GxP: Float[np.ndarray, "G P"]) -> tuple[Float[np.ndarray, " G"], Float[np.ndarray, "G K"]]:
        """For a prediction row·c: its variance in units of the noise variance, and its direction in coefficients."""
        half_GxK = (row_GxP[:, None, self.columns] @ self.inverse_GxKxK)[:, 0]
        return np.maximum((half_GxK**2).sum(1), TINY), (self.inverse_GxKxK @ half_GxK[:, :, None])[..., 0]


def active_sets(design_GxRxP: Float[np.ndarray, "G R P"]) -> Iterator[ActiveSet]:
    """Every subset of the columns except the empty one, by which all losses would be 0."""
    columns = range(design_GxRxP.shape[2])
    for size in range(1, len(columns) + 1):
        for subset in combinations(columns, size):
            q, r = np.linalg.qr(design_GxRxP[:, :, list(subset)])
            yield ActiveSet(list(subset), q, np.linalg.inv(r))


def nnls(
    sets: list[ActiveSet], target_RxB: Float[np.ndarray, "R B"], width: int
) -> tuple[Float[np.ndarray, "G B"], Float[np.ndarray, "G P B"]]:
    """Non-negative least squares for every grid point and sample.

    Args:
        sets: all active sets of the designs.
        target_RxB: what to fit, one column per sample.
        width: P, the number of coefficients.

    Returns:
        Residual sums of squares and coefficients.
    """
    points, samples = len(sets[0].q_GxRxK), target_RxB.shape[1]
    best_GxB = np.full((points, samples), np.inf)
    coefficients_GxPxB = np.zeros((points, width, samples))
    for active in sets:
        rss_GxB, c_GxKxB = active.fit(target_RxB)
        better_GxB = (c_GxKxB >= BELOW_ZERO).all(1) & (rss_GxB < best_GxB)
        best_GxB = np.where(better_GxB, rss_GxB, best_GxB)
        full_GxPxB = np.zeros_like(coefficients_GxPxB)
        full_GxPxB[:, active.columns] = np.maximum(c_GxKxB, 0)
        coefficients_GxPxB = np.where(better_GxB[:, None], full_GxPxB, coefficients_GxPxB)
    return best_GxB, coefficients_GxPxB
