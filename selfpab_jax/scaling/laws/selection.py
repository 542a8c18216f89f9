"""Which law: the one that predicts losses best that it was not fitted to."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from selfpab_jax.scaling.laws.fit import fit_law
from selfpab_jax.scaling.laws.forms import CONSTANT, FLOORED, JOINT, PLAIN_JOINT, POWER, Law
from selfpab_jax.scaling.laws.intervals import Prediction, Refusal, estimate
from selfpab_jax.scaling.laws.points import replicate_groups

CANDIDATES = {FLOORED: (CONSTANT, POWER, FLOORED), JOINT: (CONSTANT, PLAIN_JOINT, JOINT)}
"""The laws that a law with a floor is compared with."""


@dataclass(frozen=True)
class CrossValidation:
    """How well a law predicts the losses at amounts that it was not fitted to.

    Attributes:
        law: the form.
        largest: log of predicted over measured loss at the largest amount, from all smaller ones.
        rms: root mean square of the same over all amounts, each predicted from all others.
    """

    law: Law
    largest: float
    rms: float

    @property
    def score(self) -> float:
        """Root mean square of both; lower is better."""
        return math.hypot(self.largest, self.rms) / math.sqrt(2)


@dataclass(frozen=True)
class Extrapolation:
    """The loss at the largest amount: predicted from the smaller ones, and as measured.

    Attributes:
        amounts: the largest.
        runs: number of runs there.
        prediction: of their mean.
        measured: their geometric mean.
    """

    amounts: tuple[float, ...]
    runs: int
    prediction: Prediction
    measured: float

    @property
    def error(self) -> float:
        """Predicted over measured, minus 1."""
        return self.prediction.loss / self.measured - 1

    @property
    def is_covered(self) -> bool:
        """Whether the interval holds what was measured."""
        return self.prediction.low <= self.measured <= self.prediction.high


def compare_laws(law: Law, amounts: Float[np.ndarray, "R A"], losses: Float[np.ndarray, " R"]) -> list[CrossValidation]:
    """Compare a law with a floor with the same law without one and with a constant, the best first.

    Args:
        law: with a floor; equal scores are in the order of the number of unknowns.
        amounts: positive, one row per point.
        losses: positive.
    """
    scores = (cross_validate(form, amounts, losses) for form in CANDIDATES[law])
    return sorted(scores, key=lambda found: found.score)


def cross_validate(law: Law, amounts: Float[np.ndarray, "R A"], losses: Float[np.ndarray, " R"]) -> CrossValidation:
    """Predict the loss at each amount from all others.

    Args:
        law: the form.
        amounts: positive, one row per point.
        losses: positive.
    """
    group, largest = replicate_groups(amounts), _largest(amounts)
    errors = {int(held_out): _error(law, amounts, losses, group == held_out) for held_out in np.unique(group)}
    return CrossValidation(law, errors[largest], float(np.sqrt(np.mean(np.square(list(errors.values()))))))


def extrapolate_to_largest(
    law: Law, amounts: Float[np.ndarray, "R A"], losses: Float[np.ndarray, " R"], names: tuple[str, ...], seed: int = 0
) -> Extrapolation | Refusal:
    """Predict the loss at the largest amount from the smaller ones, with an interval, and compare.

    Args:
        law: with at least one power.
        amounts: positive, one row per point.
        losses: positive.
        names: of the amounts, for messages.
        seed: of the bootstrap.
    """
    held_out = replicate_groups(amounts) == _largest(amounts)
    smaller = estimate(law, amounts[~held_out], losses[~held_out], names, seed)
    if isinstance(smaller, Refusal):
        return Refusal(f"without the largest: {smaller.reason}")
    at = np.exp(np.log(amounts[held_out]).mean(0))
    runs = int(held_out.sum())
    measured = float(np.exp(np.log(losses[held_out]).mean()))
    return Extrapolation(tuple(at.tolist()), runs, smaller.predict(at, runs), measured)


def _error(law: Law, amounts: np.ndarray, losses: np.ndarray, held_out: np.ndarray) -> float:
    curve = fit_law(law, amounts[~held_out], losses[~held_out]).curve
    return float(np.mean(np.log(curve.loss(amounts[held_out]) / losses[held_out])))


def _largest(amounts: np.ndarray) -> int:
    group = replicate_groups(amounts)
    return int(group[np.log(amounts).sum(1).argmax()])
