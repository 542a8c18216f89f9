"""All laws of a sweep: for every series its law, how it compares with others, and what it cannot show."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from selfpab_jax.scaling.laws.checks import in_no_series, left_out, suspicious_losses, wrong_scores
from selfpab_jax.scaling.laws.forms import FLOORED, JOINT
from selfpab_jax.scaling.laws.intervals import SIGNIFICANCE, LawEstimate, Prediction, Refusal, estimate
from selfpab_jax.scaling.laws.points import (
    FEWER_SUBJECTS,
    NAMES,
    Point,
    PointSeries,
    all_series,
    iso_flop,
    most_subjects,
    usable,
)
from selfpab_jax.scaling.laws.selection import CrossValidation, Extrapolation, compare_laws, extrapolate_to_largest

LOSS, F1 = "held-out loss", "1 - macro-F1"
"""The measures that laws are fitted to; both are better when lower."""
FAR = 10
"""Laws are extrapolated to this many times the largest amount."""
NARROW = 1.0
"""Decades below which a range of amounts is called narrow."""


@dataclass(frozen=True)
class Finding:
    """The law of one measure along one series.

    Attributes:
        series: the points.
        measure: `LOSS` or `F1`.
        values: (R,) of the measure.
        result: the law with its intervals, or why there is none.
        comparison: the laws that were tried, the one with the lowest held-out error first; empty without a law.
        check: the largest amount extrapolated from the smaller ones; None without a law.
        ahead: the loss at `FAR` times the largest amounts; None without a law.
    """

    series: PointSeries
    measure: str
    values: Float[np.ndarray, " R"]
    result: LawEstimate | Refusal
    comparison: list[CrossValidation]
    check: Extrapolation | Refusal | None
    ahead: Prediction | None

    @property
    def title(self) -> str:
        """The title in reports, e.g. "held-out loss against hours, at 1.6 M parameters"."""
        return f"{self.measure} against {self.series.title}"


@dataclass(frozen=True)
class ScalingAnalysis:
    """All laws of a sweep.

    Attributes:
        points: every point, fitted or not.
        excluded: why points were not fitted, by run.
        findings: for every series.
        iso_flop: series of parameters at equal compute.
        few_subjects: runs whose hours come from fewer subjects than those of others with as many hours: they are in
            series of subjects only.
        remarks: runs that were left out or whose numbers are suspicious, and what to do, in sentences.
    """

    points: list[Point]
    excluded: dict[str, str]
    findings: list[Finding]
    iso_flop: list[PointSeries]
    few_subjects: list[str]
    remarks: list[str]


def analyze(points: list[Point], seed: int = 0) -> ScalingAnalysis:
    """Fit a law to every series in the points.

    Args:
        points: of a sweep.
        seed: of the bootstrap.
    """
    fitted, excluded = usable(points)
    findings = []
    for series in all_series(fitted):
        findings.append(_find(series, LOSS, np.array([point.loss for point in series.points]), seed))
        scored = tuple(p for p in series.points if p.macro_f1 is not None and 0 <= p.macro_f1 < 1)
        if len(series.amounts) == 1 and len({getattr(p, series.amounts[0]) for p in scored}) > 1:
            errors = np.array([1 - p.macro_f1 for p in scored if p.macro_f1 is not None])
            findings.append(_find(PointSeries(series.amounts, series.held, scored), F1, errors, seed))
    wide = most_subjects(fitted)
    few_subjects = [point.run for point in fitted if point not in wide]
    compute = iso_flop(fitted)
    remarks = [
        *left_out(excluded),
        *wrong_scores(fitted),
        *suspicious_losses(
            (each.series, each.values, each.result.fit.residuals if isinstance(each.result, LawEstimate) else None)
            for each in findings
            if each.measure == LOSS
        ),
        *in_no_series(fitted, [*(each.series for each in findings), *compute]),
    ]
    return ScalingAnalysis(points, excluded, findings, compute, few_subjects, remarks)


def _find(series: PointSeries, measure: str, values: np.ndarray, seed: int) -> Finding:
    law, amounts = (JOINT if len(series.amounts) == 2 else FLOORED), series.values()
    names = tuple(NAMES[name] for name in series.amounts)
    result = estimate(law, amounts, values, names, seed)
    if isinstance(result, Refusal):
        return Finding(series, measure, values, result, [], None, None)
    ahead = result.predict(FAR * amounts.max(0))
    check = extrapolate_to_largest(law, amounts, values, names, seed)
    return Finding(series, measure, values, result, compare_laws(law, amounts, values), check, ahead)


def caveats(finding: Finding) -> list[str]:
    """Reasons to doubt the law, in sentences; reports print them wherever they print the law."""
    sentences = []
    subjects = [point.subjects for point in finding.series.points]
    if finding.series.amounts == ("hours",) and min(subjects) < FEWER_SUBJECTS * max(subjects):
        sentences.append(
            f"The number of subjects rises with the hours, from {min(subjects)} to {max(subjects)}: the effects of "
            "hours and of subjects cannot be separated here."
        )
    result = finding.result
    if isinstance(result, LawEstimate) and finding.comparison and finding.comparison[0].law != result.fit.curve.law:
        best = finding.comparison[0]
        own = next(each for each in finding.comparison if each.law == result.fit.curve.law)
        sentences.append(
            "Held-out amounts, of which the largest counts as much as all others, are predicted best by the "
            f"{best.law.name} ({np.expm1(best.score):.1%} error), not by this law ({np.expm1(own.score):.1%}): "
            "its floor is only one possibility."
        )
    return sentences


def limits(finding: Finding) -> list[str]:
    """What the finding cannot show, in sentences."""
    amounts, names = finding.series.values(), [NAMES[name] for name in finding.series.amounts]
    decades = np.log10(amounts.max(0) / amounts.min(0))
    sentences = [
        f"{name[0].upper()}{name[1:]} span {span:.1f} decades"
        + (
            ", which is narrow: an exponent from so short a range means little for larger amounts."
            if span < NARROW
            else "."
        )
        for name, span in zip(names, decades, strict=True)
    ] + caveats(finding)
    result = finding.result
    if isinstance(result, Refusal):
        return sentences
    low, high = result.floor
    if result.floor_is_known:
        sentences.append(
            f"The floor E is identified: a plain power law does not fit, and E is between {low:.3g} and {high:.3g}."
        )
    else:
        sentences.append(
            f"The floor E is not identified: anything from 0 to {high:.3g} fits, including a plain power law."
        )
    if any(low == 0 or math.isinf(high) for low, high in result.exponents):
        sentences.append("An exponent is not identified: the points bound it on one side only, or not at all.")
    if result.lack_of_fit_p is None:
        sentences.append("Without several seeds per amount, a wrong law cannot be distinguished from noise.")
    elif result.lack_of_fit_p < SIGNIFICANCE:
        sentences.append(
            f"The losses are further from the law than the scatter between seeds explains (p = "
            f"{result.lack_of_fit_p:.1g}): the law is not quite right, or all seeds of an amount share something. "
            "Intervals allow for the scatter, but not for a wrong law."
        )
    if finding.ahead:
        width = finding.ahead.high / max(finding.ahead.low, 1e-300) - 1
        sentences.append(
            f"{FAR} times the largest amount is {math.log10(FAR):.2g} decade beyond points that span "
            f"{decades.min():.1f}; "
            + (f"the interval there is {width:.0%} wide" if width < FAR else "the points set no useful bound there")
            + ", provided that the law continues to hold, which no sweep can show."
        )
    return sentences
