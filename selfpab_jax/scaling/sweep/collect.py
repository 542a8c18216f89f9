"""The runs of a sweep as points for the fits."""

import math
import sys
from pathlib import Path

from selfpab_jax.errors import DataError
from selfpab_jax.scaling.laws.points import COLUMNS, DONE, Point, points_from_csv
from selfpab_jax.scaling.sweep.manifest import open_sweep
from selfpab_jax.scaling.sweep.result import macro_f1_of, read_result
from selfpab_jax.scaling.sweep.status import RunStatus, status_of


def load_points(source: Path) -> list[Point]:
    """The points of a sweep folder, or of a CSV file (see `points_from_csv`).

    Raises:
        DataError: the file is missing or cannot be read.
        RunError: the folder is not a sweep, or its plan is damaged.
    """
    if source.is_dir():
        return collect(source)
    if not source.exists():
        raise DataError(
            f"{source} does not exist; give a folder that `sweep plan` made, or a CSV with {', '.join(COLUMNS)}"
        )
    return points_from_csv(source)


def collect(sweep_folder: Path) -> list[Point]:
    """The points of a sweep, with the hours, subjects, tokens and FLOPs that were actually used.

    A run that is trained and measured is done, even if its probe is left to do. A run that was edited after planning
    is not; a warning names it.

    Raises:
        RunError: the folder is not a sweep, or its plan is damaged.
    """
    sweep = open_sweep(sweep_folder)
    points = []
    for status in status_of(sweep):
        if status.line.is_trunk:  # it has not cooled down
            continue
        if status.is_edited:
            print(f"selfpab-jax: {status.line.name} is excluded: {status.note}", file=sys.stderr)
        points.append(_point(sweep.run(status.line), status))
    return points


def _point(run: Path, status: RunStatus) -> Point:
    line, result = status.line, read_result(run)
    is_done = result is not None and result.hash == line.hash and not status.is_edited
    return Point(
        run=line.name,
        hours=line.hours,
        subjects=line.subjects,
        parameters=line.parameters,
        tokens=result.tokens if result else line.tokens,
        flops=result.flops if result else line.flops,
        seed=line.seed,
        loss=result.loss if result and is_done else math.nan,
        macro_f1=macro_f1_of(line, result) if result and is_done else None,
        status=DONE if is_done else status.state,
    )
