"""Series: the points of a sweep in which one amount varies and the others are held fixed, each seed once."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from selfpab_jax.scaling.laws.points import Point, levels

NAMES = {"hours": "hours", "subjects": "subjects", "parameters": "parameters", "flops": "training FLOPs"}
"""The amounts that a law can have, and what reports call them."""
FEWER_SUBJECTS = 0.75
"""Points with fewer subjects than this fraction of the most at as many hours belong to a series of subjects only."""
SAME_FLOPS = 1.2
"""Runs whose training FLOPs differ by a smaller ratio have equal compute."""
LEAST = 3
"""Amounts that make a series worth showing."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class PointSeries:
    """Points that one law may hold for.

    Attributes:
        amounts: the one or two fields of the points that vary.
        held: what is held fixed, e.g. "at 1.6 M parameters"; empty if nothing is.
        points: one per seed and amount: of several runs (other learning rates, say), the one with the lowest loss.
    """

    amounts: tuple[str, ...]
    held: str
    points: tuple[Point, ...]

    @property
    def title(self) -> str:
        """The title in reports, e.g. "hours, at 1.6 M parameters"."""
        return " and ".join(NAMES[name] for name in self.amounts) + (f", {self.held}" if self.held else "")

    def values(self) -> Float[np.ndarray, "R A"]:
        """The amounts of the points."""
        return np.array([[getattr(point, name) for name in self.amounts] for point in self.points], float)


def all_series(points: list[Point]) -> list[PointSeries]:
    """Every series in the points: hours, subjects, parameters, compute, and parameters and hours together."""
    widest, hours = most_subjects(points), _hours(points)
    found = [
        *_vary(widest, "hours", lambda p: f"at {short(p.parameters)} parameters"),
        *_vary(points, "subjects", lambda p: f"at {hours[p.run]} hours, {short(p.parameters)} parameters"),
        *_vary(widest, "parameters", lambda p: f"at {hours[p.run]} hours"),
    ]
    if not any(series.amounts == ("subjects",) for series in found):
        found += _vary(widest, "subjects", lambda p: f"hours rising with them, at {short(p.parameters)} parameters")
    frontier = compute_frontier(widest)
    if len(_distinct(frontier, "flops", SAME_FLOPS)) >= LEAST:
        found.append(PointSeries(("flops",), "the best runs of each compute", tuple(frontier)))
    if min(len(_distinct(widest, name)) for name in ("parameters", "hours")) >= 2:
        found.append(PointSeries(("parameters", "hours"), "", _once(widest, ("parameters", "hours"))))
    return found


def short(number: int | float) -> str:
    """A count in short: 1.6 M."""
    for size, letter in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def most_subjects(points: list[Point]) -> list[Point]:
    """The points whose hours come from as many subjects as those of any other point with as many hours.

    A sweep over subjects at equal hours has points with the same hours from fewer subjects; they would distort a law of
    hours.
    """
    if not points:
        return []
    level = levels(np.array([point.hours for point in points]))
    most = {i: max(p.subjects for p, j in zip(points, level, strict=True) if j == i) for i in set(level.tolist())}
    return [p for p, i in zip(points, level, strict=True) if p.subjects >= FEWER_SUBJECTS * most[int(i)]]


def compute_frontier(points: list[Point]) -> list[Point]:
    """At each compute, the runs of the size and hours with the lowest mean loss, unless less compute did better."""
    kept, best, hours = [], float("inf"), _hours(points)
    for group in equal_compute(points):
        by_kind = group_by(group, lambda p: (p.parameters, hours[p.run]))
        kind = min(by_kind.values(), key=_mean_loss)
        if _mean_loss(kind) < best:
            best = _mean_loss(kind)
            kept += _once(kind, ("parameters", "hours"))
    return kept


def equal_compute(points: list[Point]) -> list[list[Point]]:
    """The points in groups of equal training FLOPs, the smallest first."""
    if not points:
        return []
    level = levels(np.array([point.flops for point in points]), SAME_FLOPS)
    return [[p for p, j in zip(points, level, strict=True) if j == i] for i in range(level.max() + 1)]


def iso_flop(points: list[Point]) -> list[PointSeries]:
    """Loss against parameters at equal compute, at the best hours of each size, where there are at least 3 sizes."""
    found, widest = [], most_subjects(points)
    hours = _hours(widest)
    for group in equal_compute(widest):
        sizes = group_by(group, lambda p: p.parameters)
        if len(sizes) >= LEAST:
            best = [
                point
                for size in sizes.values()
                for point in min(group_by(size, lambda p: hours[p.run]).values(), key=_mean_loss)
            ]
            held = f"at {fmean(p.flops for p in best):.2g} training FLOPs"
            found.append(PointSeries(("parameters",), held, _once(best, ("parameters",))))
    return found


def group_by(points: Iterable[Point], key: Callable[[Point], Key]) -> dict[Key, list[Point]]:
    """The points by key, in order of first appearance."""
    groups: dict[Key, list[Point]] = defaultdict(list)
    for point in points:
        groups[key(point)].append(point)
    return dict(groups)


def _hours(points: list[Point]) -> dict[str, str]:
    """The hours of each run as text, the same for subsets that differ by a little."""
    hours = np.array([point.hours for point in points])
    level = levels(hours) if points else hours
    return {p.run: f"{hours[level == i].mean():.3g}" for p, i in zip(points, level, strict=True)}


def _vary(points: list[Point], amount: str, held: Callable[[Point], str]) -> list[PointSeries]:
    groups = group_by(points, held).items()
    return [
        PointSeries((amount,), what, _once(group, (amount,)))
        for what, group in groups
        if len(_distinct(group, amount)) >= LEAST
    ]


def _once(points: list[Point], amounts: tuple[str, ...]) -> tuple[Point, ...]:
    each = [levels(np.array([getattr(p, name) for p in points], float)) for name in amounts]
    best: dict[object, Point] = {}
    for point, *place in zip(points, *each, strict=True):
        key = (*map(int, place), point.seed)
        if key not in best or point.loss < best[key].loss:
            best[key] = point
    return tuple(best.values())


def _distinct(points: list[Point], amount: str, ratio: float | None = None) -> set[int]:
    values = np.array([getattr(point, amount) for point in points], float)
    return set(levels(values, *([ratio] if ratio else [])).tolist()) if len(points) else set()


def _mean_loss(points: list[Point]) -> float:
    return fmean(point.loss for point in points)
