"""What the points leave possible: all laws that fit them hardly worse than the best one, on a grid of exponents."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from selfpab_jax.scaling.fit import EXPONENTS, HUBER, Fit, combine
from selfpab_jax.scaling.projection import BELOW_ZERO, Face, faces, project

WIDE = {1: 60, 2: 16}  # grid points an exponent over all exponents, by the number of exponents
NEAR = {1: 60, 2: 20}  # and more of them where the fit is good
GOOD = 12.0


@dataclass(frozen=True)
class Region:
    """The fit, linearised in the coefficients about its own law, over a grid of exponents.

    Losses are replaced by Huber's pseudo-values (the law plus the clipped residual over the share of unclipped ones):
    least squares on them gives the robust fit, with the robust fit's variance (Huber 1981, chapter 7.10). Everything
    here is in units of the law's own loss, so 0.01 is one per cent.

    Attributes:
        fit: the fit.
        scale: (A,) by which amounts are divided.
        exponents_GxA: the grid; the fit's own exponents are its first row.
        residuals: (R,) of the pseudo-values.
        all_faces: the designs, divided by the law's loss at every point.
    """

    fit: Fit
    scale: np.ndarray
    exponents_GxA: np.ndarray
    residuals: np.ndarray
    all_faces: list[Face]

    @property
    def width(self) -> int:
        """P, the number of coefficients."""
        return max(map(len, (face.columns for face in self.all_faces)))

    def best(self, target_RxB: Float[np.ndarray, "R B"]) -> np.ndarray:
        """(G, B) least residual sum of squares at each of the exponents."""
        return project(self.all_faces, target_RxB, self.width)[0]

    def without(self, columns: list[int]) -> float:
        """Least residual sum of squares with these coefficients alone, of whatever sign."""
        face = next(face for face in self.all_faces if face.columns == columns)
        return float(face.fit((1 + self.residuals)[:, None])[0].min())

    def rows(self, amounts: Float[np.ndarray, " A"]) -> np.ndarray:
        """(G, P): what times the coefficients is the loss at the amounts."""
        return self.fit.curve.law.basis(self.exponents_GxA, amounts[None] / self.scale)[:, 0]

    def at_loss(
        self, target_RxB: Float[np.ndarray, "R B"], amounts: Float[np.ndarray, " A"], loss: float
    ) -> np.ndarray:
        """(B,) least residual sum of squares of the laws that say `loss` at the amounts."""
        row_GxP = self.rows(amounts)
        least_B = np.full(target_RxB.shape[1], np.inf)
        for face in self.all_faces:
            rss_GxB, c_GxKxB = face.fit(target_RxB)
            variance_G, way_GxK = face.leverage(row_GxP)
            away_GxB = loss - (row_GxP[:, face.columns, None] * c_GxKxB).sum(1)
            moved_GxKxB = c_GxKxB + way_GxK[:, :, None] * (away_GxB / variance_G[:, None])[:, None]
            rss_GxB = np.where((moved_GxKxB >= BELOW_ZERO).all(1), rss_GxB + away_GxB**2 / variance_G[:, None], np.inf)
            least_B = np.minimum(least_B, rss_GxB.min(0))
        return least_B

    def losses_within(self, limit: float, amounts: Float[np.ndarray, " A"]) -> tuple[float, float]:
        """Lowest and highest loss at the amounts of all laws whose residual sum of squares is at most `limit`.

        On a face these laws are an ellipsoid, cut off where a coefficient falls below 0. A linear function is extreme
        on the ellipsoid's hull, or where it is cut, which is the ellipsoid of a smaller face.
        """
        row_GxP, low, high = self.rows(amounts), np.inf, -np.inf
        for face in self.all_faces:
            rss_GxB, c_GxKxB = face.fit((1 + self.residuals)[:, None])
            variance_G, way_GxK = face.leverage(row_GxP)
            slack_G = limit - rss_GxB[:, 0]
            reach_G = np.sqrt(np.maximum(slack_G, 0) / variance_G)
            for sign in (-1, 1):
                c_GxK = c_GxKxB[:, :, 0] + sign * way_GxK * reach_G[:, None]
                values = (row_GxP[:, face.columns] * c_GxK).sum(1)[(slack_G >= 0) & (c_GxK >= BELOW_ZERO).all(1)]
                if values.size:
                    low, high = min(low, values.min()), max(high, values.max())
        return float(low), float(high)

    def exponents_within(self, limit: float, index: int) -> tuple[float, float]:
        """Lowest and highest exponent of such laws; 0 or infinity where the grid's end is still within."""
        rss_G = self.best((1 + self.residuals)[:, None])[:, 0]
        values = np.unique(self.exponents_GxA[:, index])
        profile = np.array([rss_G[self.exponents_GxA[:, index] == value].min() for value in values])
        profile = np.sqrt(np.maximum(profile - rss_G.min(), 0))  # nearly straight on both sides of the minimum
        edge = np.sqrt(max(limit - rss_G.min(), 0))
        inside = np.flatnonzero(profile <= edge)

        def cross(i: int, j: int) -> float:
            share = (edge - profile[i]) / (profile[j] - profile[i])
            return float(np.exp(np.log(values[i]) + share * np.log(values[j] / values[i])))

        low = 0.0 if inside[0] == 0 else cross(inside[0], inside[0] - 1)
        high = np.inf if inside[-1] == len(values) - 1 else cross(inside[-1], inside[-1] + 1)
        return low, high


def region(fit: Fit) -> Region:
    """The region about a fit, with a finer grid of exponents where the fit is good (within `GOOD` variances)."""
    curve = fit.curve
    scale = np.exp(np.log(fit.amounts).mean(0))
    clipped = HUBER * fit.noise
    residuals = np.clip(fit.residuals, -clipped, clipped) / max(np.mean(np.abs(fit.residuals) <= clipped), 0.5)
    own = np.array(curve.exponents)[None]
    coarse = combine([np.geomspace(*EXPONENTS, WIDE[curve.law.powers])] * curve.law.powers)
    first = _build(fit, scale, np.concatenate([own, coarse]), residuals)
    variance = (residuals**2).sum() / max(fit.degrees, 1)
    rss_G = first.best((1 + residuals)[:, None])[:, 0]
    near = first.exponents_GxA[rss_G <= rss_G.min() + GOOD * variance]
    step = (EXPONENTS[1] / EXPONENTS[0]) ** (1 / (WIDE[curve.law.powers] - 1))
    spans = zip(near.min(0) / step, near.max(0) * step, strict=True)
    axes = [
        np.geomspace(max(low, EXPONENTS[0]), min(high, EXPONENTS[1]), NEAR[curve.law.powers]) for low, high in spans
    ]
    if curve.law.powers > 1:  # lines through the fit's own exponents, on which a law's exponent is held
        axes = [np.append(axis, e) for axis, e in zip(axes, own[0], strict=True)]
        coarse = combine([np.append(np.geomspace(*EXPONENTS, WIDE[curve.law.powers]), e) for e in own[0]])
    return _build(fit, scale, np.concatenate([own, coarse, combine(axes)]), residuals)


def _build(fit: Fit, scale: np.ndarray, exponents_GxA: np.ndarray, residuals: np.ndarray) -> Region:
    fitted = fit.losses / np.exp(fit.residuals)
    design = fit.curve.law.basis(exponents_GxA, fit.amounts / scale) / fitted[None, :, None]
    return Region(fit, scale, exponents_GxA, residuals, list(faces(design)))
