"""Which law: the one that best foretells what it has not seen."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from selfpab_jax.scaling.laws.fit import fit_law
from selfpab_jax.scaling.laws.forms import CONSTANT, FLOORED, JOINT, PLAIN_JOINT, POWER, Law
from selfpab_jax.scaling.laws.intervals import Prediction, Refusal, estimate
from selfpab_jax.scaling.laws.points import cells

CANDIDATES = {FLOORED: (CONSTANT, POWER, FLOORED), JOINT: (CONSTANT, PLAIN_JOINT, JOINT)}


@dataclass(frozen=True)
class HeldOut:
    """How well a law foretells amounts that it was not fitted to.

    Attributes:
        law: the form.
        largest: log of foretold over measured loss at the largest amount, from all the smaller ones.
        crossed: root mean square of the same over all amounts, each foretold from all the others.
    """

    law: Law
    largest: float
    crossed: float

    @property
    def score(self) -> float:
        """Root mean square of both."""
        return math.hypot(self.largest, self.crossed) / math.sqrt(2)


@dataclass(frozen=True)
class Foretold:
    """The largest amount's loss, foretold from the smaller ones, and as it was.

    Attributes:
        amounts: of it.
        runs: that were there.
        prediction: for their mean.
        measured: their geometric mean.
    """

    amounts: tuple[float, ...]
    runs: int
    prediction: Prediction
    measured: float

    @property
    def error(self) -> float:
        """Foretold over measured, less 1."""
        return self.prediction.loss / self.measured - 1

    @property
    def held(self) -> bool:
        """Whether the interval holds what was measured."""
        return self.prediction.low <= self.measured <= self.prediction.high


def choose(law: Law, amounts: Float[np.ndarray, "R A"], losses: Float[np.ndarray, " R"]) -> list[HeldOut]:
    """A law with a floor against the same without one and against a constant, the best foreteller first.

    Equal ones stand in the order of their unknowns.
    """
    return sorted((held_out(form, amounts, losses) for form in CANDIDATES[law]), key=lambda found: found.score)


def held_out(law: Law, amounts: Float[np.ndarray, "R A"], losses: Float[np.ndarray, " R"]) -> HeldOut:
    """Foretell each amount from all the others."""
    cell, largest = cells(amounts), _largest(amounts)
    errors = {int(left_out): _error(law, amounts, losses, cell == left_out) for left_out in np.unique(cell)}
    return HeldOut(law, errors[largest], float(np.sqrt(np.mean(np.square(list(errors.values()))))))


def _error(law: Law, amounts: np.ndarray, losses: np.ndarray, out: np.ndarray) -> float:
    curve = fit_law(law, amounts[~out], losses[~out]).curve
    return float(np.mean(np.log(curve.loss(amounts[out]) / losses[out])))


def _largest(amounts: np.ndarray) -> int:
    cell = cells(amounts)
    return int(cell[np.log(amounts).sum(1).argmax()])


def foretell_largest(
    law: Law, amounts: Float[np.ndarray, "R A"], losses: Float[np.ndarray, " R"], names: tuple[str, ...], seed: int = 0
) -> Foretold | Refusal:
    """Foretell the largest amount's loss from the smaller ones, with its interval, and compare."""
    out = cells(amounts) == _largest(amounts)
    smaller = estimate(law, amounts[~out], losses[~out], names, seed)
    if isinstance(smaller, Refusal):
        return Refusal(f"without the largest: {smaller.reason}")
    at = np.exp(np.log(amounts[out]).mean(0))
    runs = int(out.sum())
    measured = float(np.exp(np.log(losses[out]).mean()))
    return Foretold(tuple(at.tolist()), runs, smaller.predict(at, runs), measured)
