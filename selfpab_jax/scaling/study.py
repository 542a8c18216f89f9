"""A study: every series of a sweep with its law, its choice, what it foretells and what it cannot show."""

import math
from dataclasses import dataclass

import numpy as np

from selfpab_jax.scaling.choice import Foretold, HeldOut, choose, foretell_largest
from selfpab_jax.scaling.estimate import Estimate, Prediction, Refusal, estimate
from selfpab_jax.scaling.laws import FLOORED, JOINT
from selfpab_jax.scaling.points import Point, usable
from selfpab_jax.scaling.series import FEWER_PEOPLE, NAMES, Series, all_series, iso_flop, widest_people

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
