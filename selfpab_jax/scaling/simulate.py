"""Simulated sweeps whose law is known, to see whether intervals hold it."""

import math
from dataclasses import dataclass

import numpy as np

from selfpab_jax.scaling.laws.forms import FLOORED, JOINT, Curve, Law
from selfpab_jax.scaling.laws.intervals import Refusal, estimate
from selfpab_jax.scaling.laws.points import DONE, Point

SCATTERS = ("even", "heavy tails", "falling", "shared", "one outlier", "one seed")


@dataclass(frozen=True)
class Truth:
    """What a sweep was drawn from.

    Attributes:
        curve: of the loss against hours, or against parameters and hours.
        noise: standard deviation of a run's log loss.
        beyond: amounts at which the loss is to be foretold: ten times the largest of the sweep.
    """

    curve: Curve
    noise: float
    beyond: tuple[float, ...]


def simulate(scatter: str, seed: int, law: Law = FLOORED, missing: float = 0.2) -> tuple[list[Point], Truth]:
    """A sweep over hours, or over sizes and hours.

    Exponents are 0.1 to 0.5, the floor 2 to 60% of the smallest amount's loss, the noise 0.3, 1 or 2%; 5 or 6 amounts
    lie a factor of 2, 3.2 or 10 apart, with 3 seeds each (4 or 5 amounts and 3 or 4 sizes for the joint law), and up
    to a share of `missing` of the runs failed.

    Args:
        scatter: how runs lie about the law. "even": Gaussian; "heavy tails": Student's t of 4 degrees; "falling": from
            1.5 to 0.5 times the noise as amounts grow; "shared": besides, all seeds of an amount are off by the same
            0.7 times the noise; "one outlier": a run 22% too high; "one seed": even, with 1 seed in place of 3.
        seed: of everything.
        law: FLOORED or JOINT.
        missing: largest share of failed runs.
    """
    rng = np.random.default_rng([SCATTERS.index(scatter), law.powers, seed])
    sizes = 1e6 * 4.0 ** np.arange(rng.integers(3, 5)) if law is JOINT else np.array([1e6])
    hours = 10 * rng.choice([2, math.sqrt(10), 10]) ** np.arange(rng.integers(5, 7) - (law is JOINT))
    if scatter == "one seed":
        hours = 10 * rng.choice([2, math.sqrt(10), 10]) ** np.arange(6)
    cell_KxA = np.array([(n, h) for n in sizes for h in hours])[:, -law.powers :]
    exponents = rng.uniform(0.1, 0.5, law.powers)
    shares = np.append(rng.choice([0.02, 0.1, 0.3, 0.6]), 1)
    if law is JOINT:
        shares = np.append(shares, rng.choice([0.3, 1.0]))
    first = cell_KxA.min(0)
    coefficients = np.append(shares[0] / (1 - shares[0]), shares[1:] * first**exponents)
    curve = Curve(law, tuple(exponents.tolist()), tuple(coefficients.tolist()))
    noise = float(rng.choice([0.003, 0.01, 0.02]))
    seeds = 1 if scatter == "one seed" else 3
    cell = np.repeat(np.arange(len(cell_KxA)), seeds)
    losses = curve.loss(cell_KxA[cell]) * np.exp(noise * _scatter(scatter, cell, noise, rng))
    failed = rng.random(len(cell)) < rng.uniform(0, missing)
    points = [
        Point(
            run=f"{k:03d}-{i:03d}",
            hours=float(cell_KxA[k, -1]),
            subjects=int(np.ceil(cell_KxA[k, -1] / 5)),
            parameters=int(cell_KxA[k, 0]) if law is JOINT else int(sizes[0]),
            tokens=1e8,
            flops=6e8 * float(cell_KxA[k, 0] if law is JOINT else sizes[0]),
            seed=i % seeds,
            loss=math.nan if failed[i] else float(losses[i]),
            status="failed" if failed[i] else DONE,
        )
        for i, k in enumerate(cell)
    ]
    return points, Truth(curve, noise, tuple((cell_KxA.max(0) * 10).tolist()))


def _scatter(scatter: str, cell: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    z = rng.normal(size=len(cell))
    match scatter:
        case "heavy tails":
            return rng.standard_t(4, len(cell)) / math.sqrt(2)
        case "falling":
            return z * np.linspace(1.5, 0.5, cell.max() + 1)[cell]
        case "shared":
            return z + 0.7 * rng.normal(size=cell.max() + 1)[cell]
        case "one outlier":
            z[rng.integers(len(cell))] += 0.2 / noise
    return z


@dataclass(frozen=True)
class Trial:
    """How a fit to a simulated sweep came out.

    Attributes:
        refused: the reason, if the sweep was refused; nothing else is meant then.
        exponents_held: whether each exponent's interval holds the truth.
        loss_held: whether the interval of the loss at ten times the largest amounts holds the truth.
        error: of that loss, log of foretold over true.
        width: of its interval, log of high over low.
        spans: of the exponents' intervals, high over low.
    """

    refused: str = ""
    exponents_held: tuple[bool, ...] = ()
    loss_held: bool = False
    error: float = math.nan
    width: float = math.nan
    spans: tuple[float, ...] = ()


def trial(scatter: str, seed: int, law: Law = FLOORED) -> Trial:
    """Draw a sweep, fit it, and compare with the truth."""
    points, truth = simulate(scatter, seed, law)
    points = [point for point in points if point.status == DONE]
    amounts = np.array([(point.parameters, point.hours)[-law.powers :] for point in points], float)
    names = ("sizes", "hours")[-law.powers :]
    found = estimate(law, amounts, np.array([point.loss for point in points]), names, seed)
    if isinstance(found, Refusal):
        return Trial(refused=found.reason)
    foretold, true = found.predict(np.array(truth.beyond)), float(truth.curve.loss([truth.beyond])[0])
    return Trial(
        exponents_held=tuple(
            low <= e <= high for (low, high), e in zip(found.exponents, truth.curve.exponents, strict=True)
        ),
        loss_held=foretold.low <= true <= foretold.high,
        error=math.log(foretold.loss / true),
        width=math.log(foretold.high / foretold.low) if foretold.low > 0 else math.inf,
        spans=tuple(high / low if low > 0 else math.inf for low, high in found.exponents),
    )
