"""The laws: a loss as the sum of a floor and decreasing powers of the amounts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Law:
    """L = E + the sum over amounts x of A_x x^-a_x, with every coefficient at least 0.

    Attributes:
        name: for reports.
        floor: whether there is an E.
        powers: number of amounts that have a power: 0, 1 (L(D)) or 2 (L(N, D); Hoffmann et al. 2022, equation 2).
    """

    name: str
    floor: bool
    powers: int

    @property
    def unknowns(self) -> int:
        """Number of free parameters: coefficients and exponents."""
        return self.floor + 2 * self.powers

    def basis(
        self, exponents: Float[np.ndarray, "G _"], amounts: Float[np.ndarray, "R _"]
    ) -> Float[np.ndarray, "G R P"]:
        """What the coefficients multiply: a column of ones if there is a floor, then the power of each amount.

        Only the first `powers` columns of both arguments are used.
        """
        count, rows = len(exponents), len(amounts)
        ones = np.ones((count, rows, int(self.floor)))
        powers = np.exp(-exponents[:, None, : self.powers] * np.log(amounts[None, :, : self.powers]))
        return np.concatenate([ones, powers], axis=2)


CONSTANT = Law("constant", floor=True, powers=0)
POWER = Law("power law", floor=False, powers=1)
FLOORED = Law("power law with a floor", floor=True, powers=1)
PLAIN_JOINT = Law("two power laws", floor=False, powers=2)
JOINT = Law("two power laws with a floor", floor=True, powers=2)


@dataclass(frozen=True)
class Curve:
    """A law with its numbers, in the units of the amounts.

    Attributes:
        law: the form.
        exponents: a_x of each amount.
        coefficients: E if the law has a floor, then A_x of each amount.
    """

    law: Law
    exponents: tuple[float, ...]
    coefficients: tuple[float, ...]

    def loss(self, amounts: Float[np.ndarray, "R _"] | Sequence[Sequence[float]]) -> Float[np.ndarray, " R"]:
        """The loss at each row of amounts."""
        exponents = np.array(self.exponents, float).reshape(1, -1)
        return self.law.basis(exponents, np.asarray(amounts, float))[0] @ np.array(self.coefficients)

    @property
    def floor(self) -> float:
        """E, the loss that no amount goes below."""
        return self.coefficients[0] if self.law.floor else 0.0

    def formula(self, symbols: Sequence[str]) -> str:
        """Human-readable, e.g. "L = 0.21 + 0.4 hours^-0.3"."""
        terms = [f"{self.coefficients[0]:.4g}"] if self.law.floor else []
        powers = zip(symbols, self.coefficients[int(self.law.floor) :], self.exponents, strict=False)
        return "L = " + " + ".join([*terms, *(f"{a:.4g} {symbol}^-{e:.3g}" for symbol, a, e in powers)])
