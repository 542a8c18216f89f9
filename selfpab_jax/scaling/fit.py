"""A law fitted to losses: Huber's loss on log residuals, searched over all exponents."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

from selfpab_jax.scaling.laws import Curve, Law
from selfpab_jax.scaling.projection import faces, project

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
