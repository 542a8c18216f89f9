"""The points that laws are fitted to: one per run, with its amounts and its losses; as a CSV, in groups and in series.

Runs that share their amounts and differ by seed alone are replicates. Their scatter is what a fit has to explain. In a
series one amount varies and the others are held fixed, each seed once.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

from selfpab_jax.errors import DataError
from selfpab_jax.io import atomic_path, reason

DONE = "done"
SAME_AS_DONE = ("done", "finished", "complete", "completed", "success", "succeeded", "ok")
"""What other tools call a finished run, in any capitalization."""


@dataclass(frozen=True)
class Point:
    """What a run used and how it came out.

    Attributes:
        run: unique name of the run.
        hours: hours of recording that it was trained on; NaN where unknown.
        subjects: number of subjects in those hours; 0 where unknown.
        parameters: of the model.
        tokens: frames seen in training, repeats counted.
        flops: of the whole training.
        seed: of the subset and the model.
        loss: held-out loss; NaN if there is none.
        macro_f1: downstream score, 0 to 1, if it was measured.
        status: `done` for a finished run; other runs are listed in the report, but not fitted.
    """

    run: str
    hours: float
    subjects: int
    parameters: int
    tokens: float
    flops: float
    seed: int
    loss: float
    macro_f1: float | None = None
    status: str = DONE


COLUMNS = tuple(field.name for field in fields(Point))
NEEDED = ("parameters", "tokens", "flops", "loss")
MAY_BE_EMPTY = ("hours", "loss", "macro_f1")


def points_from_csv(path: Path) -> list[Point]:
    """Read a table of points with at least the columns of `NEEDED`; a run without a loss leaves it empty.

    Without the columns: `run` is the number of the line, and so is `seed`, so that no row counts as another one's
    repetition; `hours` and `subjects` (both or none) are unknown, and laws have tokens in place of hours.

    Raises:
        DataError: the file cannot be read, a column is missing, a field is not a number, a run appears twice, or there
            are no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            names = table.fieldnames or []
            together = ("hours", "subjects") if {"hours", "subjects"} & set(names) else ()
            missing = [name for name in (*together, *NEEDED) if name not in names]
            if missing:
                raise DataError(
                    f"{path} has no column {', '.join(missing)}; it needs {', '.join(NEEDED)}, and may have "
                    f"{', '.join(name for name in COLUMNS if name not in NEEDED)}"
                )
            points = [_point(row, path, table.line_num) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a table of points: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    if not points:
        raise DataError(f"{path} has no rows")
    seen: set[str] = set()
    for point in points:
        if point.run in seen:
            raise DataError(f"{path} has the run {point.run} twice; keep one row per run")
        seen.add(point.run)
    return points


def _point(row: dict[str, str | None], path: Path, line: int) -> Point:
    where = f"{path} line {line}"

    def number(name: str, unknown: float = math.nan) -> float:
        if name not in row:
            return unknown
        text = (row[name] or "").strip()
        if not text and name in MAY_BE_EMPTY:
            return math.nan
        try:
            value = float(text)
        except ValueError:
            raise DataError(f"{where}: {name} is {text!r}, which is not a number") from None
        if name in ("subjects", "seed") and not value.is_integer():
            raise DataError(f"{where}: {name} is {text}, which is not a whole number")
        return value

    status = (row.get("status") or "").strip() or DONE
    macro_f1, parameters = number("macro_f1"), number("parameters")
    if not 0.5 <= parameters < math.inf:
        raise DataError(f"{where}: parameters is {row['parameters']}, which is no number of parameters")
    return Point(
        run=(row.get("run") or "").strip() if "run" in row else f"line {line}",
        hours=number("hours"),
        subjects=int(number("subjects", unknown=0)),
        parameters=round(parameters),  # sizes that were read off a figure have fractions
        tokens=number("tokens"),
        flops=number("flops"),
        seed=int(number("seed", unknown=line)),
        loss=number("loss"),
        macro_f1=None if math.isnan(macro_f1) else macro_f1,
        status=DONE if status.casefold() in SAME_AS_DONE else status,
    )


def write_points_csv(points: list[Point], path: Path) -> None:
    """Write a table that `points_from_csv` reads back unchanged."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for point in points:
            values = [getattr(point, name) for name in COLUMNS]
            table.writerow(["" if v is None or (isinstance(v, float) and math.isnan(v)) else v for v in values])


def usable(points: list[Point]) -> tuple[list[Point], dict[str, str]]:
    """The points that can be fitted, and for each other run the reason why not."""
    data = data_amount(points)
    excluded = {point.run: problem for point in points if (problem := _problem(point, data))}
    return [point for point in points if point.run not in excluded], excluded


def data_amount(points: Iterable[Point]) -> str:
    """What laws take for the amount of data: `hours`, or `tokens` where no point knows its hours."""
    return "tokens" if all(math.isnan(point.hours) for point in points) else "hours"


def _problem(point: Point, data: str) -> str:
    if point.status != DONE:
        return f"is {point.status}"
    if not math.isfinite(point.loss):
        return "has no finite loss"
    if point.loss <= 0:
        return f"has loss {point.loss:g}, which is not above 0"
    known = ("hours", "subjects") if data == "hours" else ()
    for name in (*known, "parameters", "tokens", "flops"):
        if not (math.isfinite(getattr(point, name)) and getattr(point, name) > 0):
            return f"has {name} {getattr(point, name):g}, which is not above 0"
    return ""


# Replicates: points that share their amounts and differ by seed alone.

SAME = 1.05
"""Amounts closer than this ratio count as one amount: subsets of different seeds are never equally long."""


def levels(amounts: Float[np.ndarray, " R"], ratio: float = SAME) -> Int[np.ndarray, " R"]:
    """The index of each value among the distinct ones, from the smallest; no level is wider than `ratio`."""
    number = np.empty(len(amounts), int)
    level, smallest = -1, 0.0
    for place in np.argsort(amounts):
        if level < 0 or amounts[place] > ratio * smallest:
            level, smallest = level + 1, amounts[place]
        number[place] = level
    return number


def replicate_groups(amounts: Float[np.ndarray, "R A"]) -> Int[np.ndarray, " R"]:
    """The group of replicates that each point is in: equal levels of all amounts, numbered without gaps."""
    each = np.stack([levels(column) for column in amounts.T], axis=1)
    return np.unique(each, axis=0, return_inverse=True)[1].ravel()


@dataclass(frozen=True)
class LackOfFit:
    """The residuals of a law, split as in the lack-of-fit test: between and within groups of replicates.

    Attributes:
        group: (R,) group of each point.
        mean: (K,) mean residual of each group.
        between: mean square between groups (lack of fit), with K - unknowns degrees of freedom; 0 without any.
        within: mean square within groups (pure error), with R - K degrees of freedom; 0 without any.
        degrees: degrees of freedom of `between` and of `within`.
    """

    group: Int[np.ndarray, " R"]
    mean: Float[np.ndarray, " K"]
    between: float
    within: float
    degrees: tuple[int, int]

    @property
    def shows_scatter_between_groups(self) -> bool:
        """Whether groups are further from the law than the scatter of their replicates explains."""
        return self.between > self.within and all(self.degrees)


def lack_of_fit(amounts: Float[np.ndarray, "R A"], residuals: Float[np.ndarray, " R"], unknowns: int) -> LackOfFit:
    """Split the residuals of a law.

    Args:
        amounts: of the points.
        residuals: of the points, log of measured over fitted loss.
        unknowns: number of free parameters of the law.
    """
    group = replicate_groups(amounts)
    count = np.bincount(group)
    mean = np.bincount(group, residuals) / count
    over, under = max(len(count) - unknowns, 0), len(residuals) - len(count)
    between = float((count * mean**2).sum()) / over if over else 0.0
    within = float(((residuals - mean[group]) ** 2).sum()) / under if under else 0.0
    return LackOfFit(group, mean, between, within, (over, under))


NAMES = {
    "hours": "hours",
    "tokens": "tokens",
    "subjects": "subjects",
    "parameters": "parameters",
    "flops": "training FLOPs",
}
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
    """Every series in the points: hours (or tokens), subjects, parameters, compute, parameters and hours together."""
    widest, amount_of, data = most_subjects(points), _data_texts(points), data_amount(points)
    found = [
        *_vary(widest, data, lambda p: f"at {short(p.parameters)} parameters"),
        *_vary(points, "subjects", lambda p: f"at {amount_of[p.run]}, {short(p.parameters)} parameters"),
        *_vary(widest, "parameters", lambda p: f"at {amount_of[p.run]}"),
    ]
    if not any(series.amounts == ("subjects",) for series in found):
        found += _vary(widest, "subjects", lambda p: f"hours rising with them, at {short(p.parameters)} parameters")
    frontier = compute_frontier(widest)
    if len(_distinct(frontier, "flops", SAME_FLOPS)) >= LEAST:
        found.append(PointSeries(("flops",), "the best runs of each compute", tuple(frontier)))
    if min(len(_distinct(widest, name)) for name in ("parameters", data)) >= 2:
        found.append(PointSeries(("parameters", data), "", _once(widest, ("parameters", data))))
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
    level = levels(_data(points))
    most = {i: max(p.subjects for p, j in zip(points, level, strict=True) if j == i) for i in set(level.tolist())}
    return [p for p, i in zip(points, level, strict=True) if p.subjects >= FEWER_SUBJECTS * most[int(i)]]


def compute_frontier(points: list[Point]) -> list[Point]:
    """At each compute, the runs of the size and hours with the lowest mean loss, unless less compute did better."""
    kept, best, amount_of, data = [], float("inf"), _data_texts(points), data_amount(points)
    for group in equal_compute(points):
        by_kind = group_by(group, lambda p: (p.parameters, amount_of[p.run]))
        kind = min(by_kind.values(), key=_mean_loss)
        if _mean_loss(kind) < best:
            best = _mean_loss(kind)
            kept += _once(kind, ("parameters", data))
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
    amount_of = _data_texts(widest)
    for group in equal_compute(widest):
        sizes = group_by(group, lambda p: p.parameters)
        if len(sizes) >= LEAST:
            best = [
                point
                for size in sizes.values()
                for point in min(group_by(size, lambda p: amount_of[p.run]).values(), key=_mean_loss)
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


def _data(points: list[Point]) -> Float[np.ndarray, " R"]:
    return np.array([getattr(point, data_amount(points)) for point in points], float)


def _data_texts(points: list[Point]) -> dict[str, str]:
    """Hours or tokens of each run as text, the same for subsets that differ by a little."""
    amounts, data = _data(points), data_amount(points)
    text = (lambda mean: f"{mean:.3g} hours") if data == "hours" else (lambda mean: f"{short(mean)} tokens")
    level = levels(amounts) if points else amounts
    return {p.run: text(amounts[level == i].mean()) for p, i in zip(points, level, strict=True)}


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
