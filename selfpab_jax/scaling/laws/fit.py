"""Least squares with coefficients of at least 0, for a whole grid of exponents and many samples at once.

Given its exponents a law is linear in its coefficients, and few of them: the best ones under "at least 0" are the best
ones of some face, a subset of the coefficients with the others at 0. So every face is solved in closed form, and
nothing depends on starts or on an iteration that may fail (variable projection; Golub and Pereyra 1973).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from selfpab_jax.scaling.laws.forms import Curve, Law

# Least squares with coefficients of at least 0, for a whole grid of exponents and many samples at once.
#
# Given its exponents a law is linear in its coefficients, and few of them: the best ones under "at least 0" are the
# best ones of some face, a subset of the coefficients with the others at 0. So every face is solved in closed form, and
# nothing depends on starts or on an iteration that may fail (variable projection; Golub and Pereyra 1973).

BELOW_ZERO = -1e-9  # coefficients this little below 0 are rounding
TINY = 1e-300


class Face(NamedTuple):
    """Some columns of the designs, orthogonalised: design = q r."""

    columns: list[int]
    q_GxRxK: np.ndarray
    inverse_GxKxK: np.ndarray

    def fit(self, target_RxB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual sums of squares (G, B), and coefficients (G, K, B)."""
        seen_GxKxB = np.swapaxes(self.q_GxRxK, 1, 2) @ target_RxB
        rss_GxB = (target_RxB**2).sum(0) - (seen_GxKxB**2).sum(1)
        return rss_GxB, self.inverse_GxKxK @ seen_GxKxB

    def leverage(self, row_GxP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For a prediction row·c: its variance in units of the noise's (G), and the direction (G, K) it lies in."""
        half_GxK = (row_GxP[:, None, self.columns] @ self.inverse_GxKxK)[:, 0]
        return np.maximum((half_GxK**2).sum(1), TINY), (self.inverse_GxKxK @ half_GxK[:, :, None])[..., 0]


def faces(design_GxRxP: Float[np.ndarray, "G R P"]) -> Iterator[Face]:
    """Every subset of the columns but the empty one (a law of no terms says that the loss is 0)."""
    columns = range(design_GxRxP.shape[2])
    for size in range(1, len(columns) + 1):
        for subset in combinations(columns, size):
            q, r = np.linalg.qr(design_GxRxP[:, :, list(subset)])
            yield Face(list(subset), q, np.linalg.inv(r))


def project(
    all_faces: list[Face], target_RxB: Float[np.ndarray, "R B"], width: int
) -> tuple[Float[np.ndarray, "G B"], Float[np.ndarray, "G P B"]]:
    """The best coefficients of at least 0 for every grid point and sample.

    Args:
        all_faces: of the designs.
        target_RxB: what to fit, a column a sample.
        width: P, the number of coefficients.

    Returns:
        Residual sums of squares (G, B), and coefficients (G, P, B).
    """
    points, samples = len(all_faces[0].q_GxRxK), target_RxB.shape[1]
    best_GxB = np.full((points, samples), np.inf)
    coefficients_GxPxB = np.zeros((points, width, samples))
    for face in all_faces:
        rss_GxB, c_GxKxB = face.fit(target_RxB)
        better_GxB = (c_GxKxB >= BELOW_ZERO).all(1) & (rss_GxB < best_GxB)
        best_GxB = np.where(better_GxB, rss_GxB, best_GxB)
        full_GxPxB = np.zeros_like(coefficients_GxPxB)
        full_GxPxB[:, face.columns] = np.maximum(c_GxKxB, 0)
        coefficients_GxPxB = np.where(better_GxB[:, None], full_GxPxB, coefficients_GxPxB)
    return best_GxB, coefficients_GxPxB


# A law fitted to losses: Huber's loss on log residuals, searched over all exponents.

HUBER = 1.345  # in standard deviations: 95% as efficient as least squares if the noise is Gaussian
CONSISTENT = 0.7102  # mean of min(|z|, HUBER)^2 of a standard Gaussian z: Huber's proposal 2
EXPONENTS = (0.01, 3.0)  # where exponents are looked for
COARSE = {0: 1, 1: 60, 2: 20}  # grid points an exponent, by the number of exponents
ZOOM, ZOOMS = 7, 7  # points an exponent, and how often the cell about the best point is divided
ROUNDS = 30


@dataclass(frozen=True)
class Fit:
    """A fitted law and the points it was fitted to.

    Attributes:
        curve: the law with its numbers.
        amounts: (R, A) of the points.
        losses: (R,) of the points.
        residuals: (R,), log of loss over the law's.
        noise: standard deviation of the residuals as Huber's proposal 2 sees it; a share of the loss.
    """

    curve: Curve
    amounts: Float[np.ndarray, "R A"]
    losses: Float[np.ndarray, " R"]
    residuals: Float[np.ndarray, " R"]
    noise: float

    @property
    def degrees(self) -> int:
        """Degrees of freedom that are left: points less unknowns."""
        return len(self.losses) - self.curve.law.unknowns


def grid(count: int, powers: int) -> Float[np.ndarray, "G A"]:
    """Exponents over all that are looked for, geometric, every combination."""
    return combine([np.geomspace(*EXPONENTS, count)] * powers)


def combine(axes: list[np.ndarray]) -> Float[np.ndarray, "G A"]:
    """Every combination of the axes' values."""
    every = list(product(*axes))
    return np.array(every, float).reshape(len(every), len(axes))


def fit_law(law: Law, amounts: Float[np.ndarray, "R A"], losses: Float[np.ndarray, " R"]) -> Fit:
    """Fit a law by Huber's loss on log residuals.

    Each round weighs the points by Huber's weights and replaces log L by its tangent at the last round's law; then the
    coefficients follow from the exponents in closed form, and the exponents from a grid that is divided ever more
    finely. The first grid spans all exponents, so no start is needed, and the minimum is the global one.

    Args:
        law: the form.
        amounts: positive, a row a point.
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
    """The exponents and coefficients of least squares: the best of a grid, then of ever finer ones about it."""
    points = grid(COARSE[law.powers], law.powers)
    ratio = (EXPONENTS[1] / EXPONENTS[0]) ** (1 / (COARSE[law.powers] - 1)) if law.powers else 1.0
    for _ in range(ZOOMS if law.powers else 1):
        design = law.basis(points, amounts) * row_scale[None, :, None]
        rss, coefficients = project(list(faces(design)), target[:, None], design.shape[2])
        best = int(rss[:, 0].argmin())
        axis = np.geomspace(1 / ratio, ratio, ZOOM)
        found = points[best], coefficients[best, :, 0]
        points = combine([np.clip(e * axis, *EXPONENTS) for e in points[best]])
        ratio **= 2 / (ZOOM - 1)
    return found
