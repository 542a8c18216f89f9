"""Cells: the points that share their amounts, which differ by seed alone."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

SAME = 1.05  # amounts closer than this ratio are one amount: subsets of different seeds are never equally long


def levels(amounts: Float[np.ndarray, " R"], ratio: float = SAME) -> Int[np.ndarray, " R"]:
    """Which of the distinct amounts, counted from the smallest, each one is; none is wider than `ratio`."""
    number = np.empty(len(amounts), int)
    level, smallest = -1, 0.0
    for place in np.argsort(amounts):
        if level < 0 or amounts[place] > ratio * smallest:
            level, smallest = level + 1, amounts[place]
        number[place] = level
    return number


def cells(amounts: Float[np.ndarray, "R A"]) -> Int[np.ndarray, " R"]:
    """Which cell each point is in; cells have equal levels of all amounts and are numbered without gaps."""
    each = np.stack([levels(column) for column in amounts.T], axis=1)
    return np.unique(each, axis=0, return_inverse=True)[1].ravel()


@dataclass(frozen=True)
class Spread:
    """How residuals lie: between cells against within cells.

    Attributes:
        cell: (R,) cell of each point.
        mean: (K,) mean residual of each cell.
        between: mean square between cells, by K - unknowns degrees; 0 without such degrees.
        within: mean square within cells, by R - K degrees; 0 without such degrees.
        degrees: (between's, within's).
    """

    cell: np.ndarray
    mean: np.ndarray
    between: float
    within: float
    degrees: tuple[int, int]


def spread(amounts: Float[np.ndarray, "R A"], residuals: Float[np.ndarray, " R"], unknowns: int) -> Spread:
    """The residuals of a law with so many unknowns, split up."""
    cell = cells(amounts)
    count = np.bincount(cell)
    mean = np.bincount(cell, residuals) / count
    over, under = max(len(count) - unknowns, 0), len(residuals) - len(count)
    between = float((count * mean**2).sum()) / over if over else 0.0
    within = float(((residuals - mean[cell]) ** 2).sum()) / under if under else 0.0
    return Spread(cell, mean, between, within, (over, under))
