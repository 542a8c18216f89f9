"""Least squares with coefficients of at least 0, for a whole grid of exponents and many samples at once.

Given its exponents a law is linear in its coefficients, and few of them: the best ones under "at least 0" are the best
ones of some face, a subset of the coefficients with the others at 0. So every face is solved in closed form, and
nothing depends on starts or on an iteration that may fail (variable projection; Golub and Pereyra 1973).
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

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
