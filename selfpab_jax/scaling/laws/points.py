"""The points of a sweep: one a run, with its amounts and its losses."""

import csv
import math
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from selfpab_jax.errors import DataError

# The points of a sweep: one a run, with its amounts and its losses.

DONE = "done"


@dataclass(frozen=True)
class Point:
    """What a run used and what came out.

    Attributes:
        run: name of the run, unique.
        hours: of recording it was trained on.
        subjects: people in them.
        parameters: of the model.
        tokens: frames seen in training, repeats counted.
        flops: of the whole training.
        seed: of subset and model.
        loss: held out; NaN if there is none.
        macro_f1: downstream, 0 to 1, if it was measured.
        status: "done" for a finished run; others are shown and not fitted.
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
WHOLE = ("subjects", "parameters", "seed")
MAY_BE_EMPTY = ("loss", "macro_f1")


def load_points(sweep: Path) -> list[Point]:
    """The points of a sweep folder, or of a CSV with these columns.

    Raises:
        DataError: there is no such thing, or it cannot be read.
    """
    if sweep.is_dir():
        if find_spec("selfpab_jax.scaling.sweep.collect") is None:
            raise DataError(f"{sweep}: this installation cannot read sweep folders; give a CSV of points")
        return import_module("selfpab_jax.scaling.sweep.collect").collect(sweep)
    if not sweep.exists():
        raise DataError(
            f"{sweep} is not there; give a folder that `sweep plan` made, or a CSV with {', '.join(COLUMNS)}"
        )
    return points_from_csv(sweep)


def points_from_csv(path: Path) -> list[Point]:
    """Read a table of points; macro_f1 and status may be left out, and a loss left empty where a run has none.

    Raises:
        DataError: a column is missing, a field is no number, a run is there twice, or there are no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            names = table.fieldnames or []
            missing = [name for name in COLUMNS if name not in names and name not in ("macro_f1", "status")]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
            points = [_point(row, f"{path} line {table.line_num}") for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table of points: {error}") from error
    if not points:
        raise DataError(f"{path} has no rows")
    seen: set[str] = set()
    for point in points:
        if point.run in seen:
            raise DataError(f"{path} has the run {point.run} twice; every run has one row")
        seen.add(point.run)
    return points


def _point(row: dict[str, str | None], where: str) -> Point:
    def number(name: str) -> float:
        text = (row[name] or "").strip()
        if not text and name in MAY_BE_EMPTY:
            return math.nan
        try:
            value = float(text)
        except ValueError:
            raise DataError(f"{where}: {name} is {text!r}, which is no number") from None
        if name in WHOLE and not value.is_integer():
            raise DataError(f"{where}: {name} is {text}, which is no whole number")
        return value

    macro_f1 = number("macro_f1") if "macro_f1" in row else math.nan
    return Point(
        run=(row["run"] or "").strip(),
        hours=number("hours"),
        subjects=int(number("subjects")),
        parameters=int(number("parameters")),
        tokens=number("tokens"),
        flops=number("flops"),
        seed=int(number("seed")),
        loss=number("loss"),
        macro_f1=None if math.isnan(macro_f1) else macro_f1,
        status=(row.get("status") or DONE).strip(),
    )


def write_points_csv(points: list[Point], path: Path) -> None:
    """Write a table that `points_from_csv` reads back as it was."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for point in points:
            values = [getattr(point, name) for name in COLUMNS]
            table.writerow(["" if v is None or (isinstance(v, float) and math.isnan(v)) else v for v in values])


def usable(points: list[Point]) -> tuple[list[Point], dict[str, str]]:
    """The points that can be fitted, and why each of the others cannot, by run."""
    left_out = {point.run: reason for point in points if (reason := _unfit(point))}
    return [point for point in points if point.run not in left_out], left_out


def _unfit(point: Point) -> str:
    if point.status != DONE:
        return f"is {point.status}"
    if not math.isfinite(point.loss):
        return "has no finite loss"
    if point.loss <= 0:
        return f"has loss {point.loss:g}, which is not above 0"
    for name in ("hours", "subjects", "parameters", "tokens", "flops"):
        if not (math.isfinite(getattr(point, name)) and getattr(point, name) > 0):
            return f"has {name} {getattr(point, name):g}, which is not above 0"
    return ""


# Cells: the points that share their amounts, which differ by seed alone.

SAME = 1.05  # amounts closer than this ratio are one amount: subsets of different seeds are never equally long


def levels(amounts: Float[np.ndarray, " R"], ratio: float = SAME) -> Int[np.ndarray, " R"]:
    """Which of the distinct amounts, counted from the smallest, each one is; none is wider than `ratio`."""
    number = np.empty(len(amounts), int)
    level, smallest = -1, 0.0
    for place in np.argsort(amounts):
        if level < 0 or amounts[place] > ratio * smallest:
            level, smallest = level + 1, amounts[place]
        number[place] = level
    return number


def cells(amounts: Float[np.ndarray, "R A"]) -> Int[np.ndarray, " R"]:
    """Which cell each point is in; cells have equal levels of all amounts and are numbered without gaps."""
    each = np.stack([levels(column) for column in amounts.T], axis=1)
    return np.unique(each, axis=0, return_inverse=True)[1].ravel()


@dataclass(frozen=True)
class Spread:
    """How residuals lie: between cells against within cells.

    Attributes:
        cell: (R,) cell of each point.
        mean: (K,) mean residual of each cell.
        between: mean square between cells, by K - unknowns degrees; 0 without such degrees.
        within: mean square within cells, by R - K degrees; 0 without such degrees.
        degrees: (between's, within's).
    """

    cell: np.ndarray
    mean: np.ndarray
    between: float
    within: float
    degrees: tuple[int, int]


def spread(amounts: Float[np.ndarray, "R A"], residuals: Float[np.ndarray, " R"], unknowns: int) -> Spread:
    """The residuals of a law with so many unknowns, split up."""
    cell = cells(amounts)
    count = np.bincount(cell)
    mean = np.bincount(cell, residuals) / count
    over, under = max(len(count) - unknowns, 0), len(residuals) - len(count)
    between = float((count * mean**2).sum()) / over if over else 0.0
    within = float(((residuals - mean[cell]) ** 2).sum()) / under if under else 0.0
    return Spread(cell, mean, between, within, (over, under))
