"""Series: the points of a sweep among which one amount varies and the rest is held, each seed once."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import numpy as np

from selfpab_jax.scaling.laws.forms import FLOORED, JOINT
from selfpab_jax.scaling.laws.intervals import Estimate, Prediction, Refusal, estimate
from selfpab_jax.scaling.laws.points import Point, levels, usable
from selfpab_jax.scaling.laws.selection import Foretold, HeldOut, choose, foretell_largest

# Series: the points of a sweep among which one amount varies and the rest is held, each seed once.

NAMES = {"hours": "hours", "subjects": "people", "parameters": "parameters", "flops": "training FLOPs"}
FEWER_PEOPLE = 0.75  # points with fewer than this share of an hour count's most people are of another series
SAME_FLOPS = 1.2  # runs whose training FLOPs differ by less are of equal compute
Key = TypeVar("Key", bound=Hashable)
LEAST = 3  # amounts that make a series worth showing


@dataclass(frozen=True)
class Series:
    """Points that one law may hold for.

    Attributes:
        amounts: fields of the points that vary, one or two.
        held: what is held, for people, "" if nothing is.
        points: a seed and amount once: of several runs (other learning rates, say), the one of the lowest loss.
    """

    amounts: tuple[str, ...]
    held: str
    points: tuple[Point, ...]

    @property
    def title(self) -> str:
        """For people and as a key: "hours, at 1.6 M parameters"."""
        return " and ".join(NAMES[name] for name in self.amounts) + (f", {self.held}" if self.held else "")

    def values(self) -> np.ndarray:
        """(R, A) amounts."""
        return np.array([[getattr(point, name) for name in self.amounts] for point in self.points], float)


def all_series(points: list[Point]) -> list[Series]:
    """Every series that the points make: hours, people, parameters, compute, and parameters and hours together."""
    widest, hours = widest_people(points), _hours(points)
    found = [
        *_vary(widest, "hours", lambda p: f"at {short(p.parameters)} parameters"),
        *_vary(points, "subjects", lambda p: f"at {hours[p.run]} hours, {short(p.parameters)} parameters"),
        *_vary(widest, "parameters", lambda p: f"at {hours[p.run]} hours"),
    ]
    if not any(series.amounts == ("subjects",) for series in found):
        found += _vary(widest, "subjects", lambda p: f"hours rising with them, at {short(p.parameters)} parameters")
    frontier = compute_frontier(widest)
    if len(_distinct(frontier, "flops", SAME_FLOPS)) >= LEAST:
        found.append(Series(("flops",), "the best runs of each compute", tuple(frontier)))
    if min(len(_distinct(widest, name)) for name in ("parameters", "hours")) >= 2:
        found.append(Series(("parameters", "hours"), "", _once(widest, ("parameters", "hours"))))
    return found


def short(number: float) -> str:
    """A count as people write it: 1.6 M."""
    for size, letter in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def widest_people(points: list[Point]) -> list[Point]:
    """The points whose hours come from as many people as any others of as many hours do.

    A sweep over people at equal hours has points of the same hours from fewer people; they would bend a law of hours.
    """
    if not points:
        return []
    level = levels(np.array([point.hours for point in points]))
    most = {i: max(p.subjects for p, j in zip(points, level, strict=True) if j == i) for i in set(level.tolist())}
    return [p for p, i in zip(points, level, strict=True) if p.subjects >= FEWER_PEOPLE * most[int(i)]]


def compute_frontier(points: list[Point]) -> list[Point]:
    """The runs of the size and hours with the lowest mean loss at each compute, unless less compute did better."""
    kept, best, hours = [], float("inf"), _hours(points)
    for group in equal_compute(points):
        by_kind = group_by(group, lambda p: (p.parameters, hours[p.run]))
        kind = min(by_kind.values(), key=_mean_loss)
        if _mean_loss(kind) < best:
            best = _mean_loss(kind)
            kept += _once(kind, ("parameters", "hours"))
    return kept


def equal_compute(points: list[Point]) -> list[list[Point]]:
    """The points in groups of equal training FLOPs, from the least."""
    if not points:
        return []
    level = levels(np.array([point.flops for point in points]), SAME_FLOPS)
    return [[p for p, j in zip(points, level, strict=True) if j == i] for i in range(level.max() + 1)]


def iso_flop(points: list[Point]) -> list[Series]:
    """Loss against parameters at equal compute, from the best hours of each size, where at least 3 sizes are there."""
    found, widest = [], widest_people(points)
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
            found.append(Series(("parameters",), held, _once(best, ("parameters",))))
    return found


def group_by(points: Iterable[Point], key: Callable[[Point], Key]) -> dict[Key, list[Point]]:
    """The points by a key, in order of first appearance."""
    groups: dict[Key, list[Point]] = defaultdict(list)
    for point in points:
        groups[key(point)].append(point)
    return dict(groups)


def _hours(points: list[Point]) -> dict[str, str]:
    """The hours of each run for people, the same for subsets that differ by a little."""
    hours = np.array([point.hours for point in points])
    level = levels(hours) if points else hours
    return {p.run: f"{hours[level == i].mean():.3g}" for p, i in zip(points, level, strict=True)}


def _vary(points: list[Point], amount: str, held: Callable[[Point], str]) -> list[Series]:
    groups = group_by(points, held).items()
    return [
        Series((amount,), what, _once(group, (amount,)))
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


# A study: every series of a sweep with its law, its choice, what it foretells and what it cannot show.

LOSS, F1 = "held-out loss", "1 - macro-F1"
FAR = 10  # how many times the largest amount is asked about
MISFIT = 0.01
NARROW = 1.0  # decades under which a range of amounts is called narrow


@dataclass(frozen=True)
class Finding:
    """One measure along one series.

    Attributes:
        series: the points.
        measure: LOSS or F1 (an error: lower is better).
        values: (R,) of the measure.
        result: the law with its intervals, or why there is none.
        choices: the laws tried by held-out error, the best first; empty without a law.
        foretold: the largest amount from the smaller ones; None without a law.
        ahead: the loss at `FAR` times the largest amounts; None without a law.
    """

    series: Series
    measure: str
    values: np.ndarray
    result: Estimate | Refusal
    choices: list[HeldOut]
    foretold: Foretold | Refusal | None
    ahead: Prediction | None

    @property
    def title(self) -> str:
        """For people: "held-out loss against hours, at 1.6 M parameters"."""
        return f"{self.measure} against {self.series.title}"


@dataclass(frozen=True)
class Study:
    """All of a sweep.

    Attributes:
        points: every point, fitted or not.
        left_out: why points were not fitted, by run.
        findings: of all series.
        iso: series of parameters at equal compute.
        narrow: runs whose hours come from fewer people than others of as many hours: in series of people only.
    """

    points: list[Point]
    left_out: dict[str, str]
    findings: list[Finding]
    iso: list[Series]
    narrow: list[str]


def study(points: list[Point], seed: int = 0) -> Study:
    """Fit whatever series the points make.

    Args:
        points: of the sweep.
        seed: of the bootstraps.
    """
    fitted, left_out = usable(points)
    findings = []
    for series in all_series(fitted):
        findings.append(_find(series, LOSS, np.array([point.loss for point in series.points]), seed))
        scored = tuple(p for p in series.points if p.macro_f1 is not None and 0 <= p.macro_f1 < 1)
        if len(series.amounts) == 1 and len({getattr(p, series.amounts[0]) for p in scored}) > 1:
            errors = np.array([1 - p.macro_f1 for p in scored if p.macro_f1 is not None])
            findings.append(_find(Series(series.amounts, series.held, scored), F1, errors, seed))
    wide = widest_people(fitted)
    return Study(points, left_out, findings, iso_flop(fitted), [point.run for point in fitted if point not in wide])


def _find(series: Series, measure: str, values: np.ndarray, seed: int) -> Finding:
    law, amounts = (JOINT if len(series.amounts) == 2 else FLOORED), series.values()
    names = tuple(NAMES[name] for name in series.amounts)
    result = estimate(law, amounts, values, names, seed)
    if isinstance(result, Refusal):
        return Finding(series, measure, values, result, [], None, None)
    ahead = result.predict(FAR * amounts.max(0))
    foretold = foretell_largest(law, amounts, values, names, seed)
    return Finding(series, measure, values, result, choose(law, amounts, values), foretold, ahead)


def doubts(finding: Finding) -> list[str]:
    """What speaks against reading a law as it stands, in sentences; told wherever the law is."""
    said = []
    people = [point.subjects for point in finding.series.points]
    if finding.series.amounts == ("hours",) and min(people) < FEWER_PEOPLE * max(people):
        said.append(
            f"People rise with the hours, from {min(people)} to {max(people)}: what is hours and what is people in the "
            "fall cannot be told apart here."
        )
    result = finding.result
    if isinstance(result, Estimate) and finding.choices and finding.choices[0].law != result.fit.curve.law:
        best = finding.choices[0]
        own = next(each for each in finding.choices if each.law == result.fit.curve.law)
        said.append(
            f"Amounts that were left out are foretold best by the {best.law.name} ({np.expm1(best.crossed):.1%} off), "
            f"not by this law ({np.expm1(own.crossed):.1%} off): its floor is one possibility among others."
        )
    return said


def limits(finding: Finding) -> list[str]:
    """What the finding cannot show, in sentences."""
    amounts, names = finding.series.values(), [NAMES[name] for name in finding.series.amounts]
    decades = np.log10(amounts.max(0) / amounts.min(0))
    said = [
        f"{names[i][0].upper()}{names[i][1:]} span {decades[i]:.1f} decades"
        + (
            ", which is narrow: an exponent from so short a range says little about larger amounts."
            if decades[i] < NARROW
            else "."
        )
        for i in range(len(names))
    ] + doubts(finding)
    result = finding.result
    if isinstance(result, Refusal):
        return said
    low, high = result.floor
    if result.floor_is_known:
        said.append(f"The floor E is seen: a plain power law does not fit; E lies between {low:.3g} and {high:.3g}.")
    else:
        said.append(f"The floor E is not identified: anything from 0 to {high:.3g} fits, a plain power law included.")
    if any(low == 0 or math.isinf(high) for low, high in result.exponents):
        said.append("An exponent is not identified: the points bound it on one side only, or not at all.")
    if result.misfit is not None and result.misfit < MISFIT:
        said.append(
            f"The amounts lie further from the law than their seeds explain (chance {result.misfit:.1g}): the law is "
            "not quite right, or all seeds of an amount share something. Intervals are widened for scatter, not for a "
            "wrong form."
        )
    if result.misfit is None:
        said.append("Without several seeds an amount, a wrong law cannot be told from noise.")
    if finding.ahead:
        width = finding.ahead.high / max(finding.ahead.low, 1e-300) - 1
        said.append(
            f"{FAR} times the largest amount is {math.log10(FAR):.2g} decade beyond points that span "
            + f"{decades.min():.1f}; "
            + (f"the interval there is {width:.0%} wide" if width < FAR else "no useful bound can be set there")
            + ", if the law goes on to hold, which no sweep can show."
        )
    return said
