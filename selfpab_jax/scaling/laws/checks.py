"""What a fit leaves out or should not believe, in sentences that reports print: no run is left out without a word."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from selfpab_jax.scaling.laws.points import DONE, Point, PointSeries, replicate_groups

STATES_OF_SWEEPS = ("waiting", "running", "failed")
LISTED = 4
"""Runs that a sentence names."""
FAR_FROM_REPLICATES = 2.0
"""A loss this many times that of runs that differ by seed alone is suspicious."""
FAR_FROM_LAW = 1.5
"""The same for the law, if it is also beyond `SIGMAS` robust standard deviations of the residuals."""
SIGMAS = 6.0
FAR_FROM_LESS = 3.0
"""The same for the median of runs with less data, parameters or compute, where there are two such amounts or more."""


def left_out(excluded: Mapping[str, str]) -> list[str]:
    """A sentence for each reason why runs were not fitted.

    Args:
        excluded: reasons by run.
    """
    sentences = []
    for why in dict.fromkeys(excluded.values()):
        runs = [run for run, reason in excluded.items() if reason == why]
        sentence = f"Not fitted, because the run {why}: {_names(runs)}."
        if why.startswith("is ") and why.removeprefix("is ") not in STATES_OF_SWEEPS:
            sentence += f' If the training is finished, write "{DONE}" into the column status.'
        sentences.append(sentence)
    return sentences


def wrong_scores(points: Iterable[Point]) -> list[str]:
    """A sentence where scores cannot be macro-F1, so that laws of macro-F1 leave them out.

    Args:
        points: that are fitted.
    """
    wrong = [p for p in points if p.macro_f1 is not None and not 0 <= p.macro_f1 < 1]
    if not wrong:
        return []
    percent = all(1 < p.macro_f1 <= 100 for p in wrong if p.macro_f1 is not None)
    hint = "they look like percent: divide them by 100" if percent else "correct them or leave them empty"
    return [
        f"Not in laws of macro-F1: {_names([p.run for p in wrong])} (macro_f1 {wrong[0].macro_f1:g}): it must be at "
        f"least 0 and below 1; {hint}."
    ]


def in_no_series(points: Iterable[Point], series: Iterable[PointSeries]) -> list[str]:
    """A sentence where runs are in no series.

    Args:
        points: that can be fitted.
        series: all series of the report.
    """
    used = {point.run for one in series for point in one.points}
    unused = [point.run for point in points if point.run not in used]
    if not unused or not used:
        return []
    return [
        f"In no series: {_names(unused)}. No others differ from them in one amount alone, or another run of the same "
        "amounts and seed has a lower loss."
    ]


def suspicious_losses(
    found: Iterable[tuple[PointSeries, Float[np.ndarray, " R"], Float[np.ndarray, " R"] | None]],
) -> list[str]:
    """A sentence for each loss that is far from those of its replicates, from its law, or from runs with less.

    Args:
        found: series, losses, and residuals of the law (log of measured over fitted loss) where there is one.
    """
    reasons: dict[str, str] = {}
    for series, losses, residuals in found:
        logs = np.log(losses)
        for place, why in (
            *_far_from_replicates(series.values(), logs),
            *(_far_from_law(residuals) if residuals is not None else ()),
            *(_far_from_less(series.values()[:, 0], logs) if len(series.amounts) == 1 else ()),
        ):
            reasons.setdefault(series.points[place].run, f"loss {losses[place]:.3g}, {why}")
    return [
        f"Suspicious: {run} has {why}. It is fitted; if its training diverged or the number is wrong, write "
        '"diverged" into its status or correct it.'
        for run, why in reasons.items()
    ]


def _far_from_replicates(amounts: np.ndarray, logs: np.ndarray) -> Iterable[tuple[int, str]]:
    group = replicate_groups(amounts)
    for number in range(group.max() + 1):
        members = np.flatnonzero(group == number)
        if len(members) < 3:
            continue
        for place in members:
            away = float(logs[place] - np.median(logs[members[members != place]]))
            others = np.ptp(np.delete(logs[members], np.flatnonzero(members == place)))
            if abs(away) > max(math.log(FAR_FROM_REPLICATES), 2 * float(others)):
                yield int(place), f"{_times(away)} that of the runs that differ from it by seed alone"


def _far_from_law(residuals: np.ndarray) -> Iterable[tuple[int, str]]:
    spread = 1.4826 * float(np.median(np.abs(residuals)))
    for place in np.flatnonzero(np.abs(residuals) > max(math.log(FAR_FROM_LAW), SIGMAS * spread)):
        yield int(place), f"{_times(float(residuals[place]))} what the law gives"


def _far_from_less(amounts: np.ndarray, logs: np.ndarray) -> Iterable[tuple[int, str]]:
    for place, amount in enumerate(amounts):
        less = amounts < amount / 1.05
        if len(np.unique(amounts[less])) >= 2:
            away = float(logs[place] - np.median(logs[less]))
            if away > math.log(FAR_FROM_LESS):
                yield place, f"{_times(away)} the median of the runs with less"


def _times(log_ratio: float) -> str:
    ratio = math.exp(min(log_ratio, 700.0))
    return f"{ratio:.3g} times"


def _names(runs: Sequence[str]) -> str:
    more = len(runs) - LISTED
    return ", ".join(runs[:LISTED]) + (f" and {more} more" if more > 0 else "")
