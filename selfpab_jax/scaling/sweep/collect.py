"""A sweep's runs as points for the fits."""

import math
import sys
from pathlib import Path

from selfpab_jax.scaling.laws.points import DONE, Point
from selfpab_jax.scaling.sweep.manifest import open_sweep
from selfpab_jax.scaling.sweep.status import RunStatus, probed, read_result, status_of


def collect(sweep_folder: Path) -> list[Point]:
    """The points of a sweep: hours and subjects are those really trained on, tokens and FLOPs those really spent.

    A run that is trained and measured is done, also while its probe is left. Runs changed by hand are not; a line
    says so.

    Raises:
        RunError: not a sweep, or its plan is damaged.
    """
    sweep = open_sweep(sweep_folder)
    points = []
    for status in status_of(sweep):
        if status.is_changed:
            print(f"selfpab-jax: {status.line.name} is left out: {status.note}", file=sys.stderr)
        points.append(_point(sweep.run(status.line), status))
    return points


def _point(run: Path, status: RunStatus) -> Point:
    line, result = status.line, read_result(run)
    # Also where its probe failed.
    is_done = result is not None and result.hash == line.hash and not status.is_changed
    return Point(
        run=line.name,
        hours=line.hours,
        subjects=line.subjects,
        parameters=line.parameters,
        tokens=result.tokens if result else line.tokens,
        flops=result.flops if result else line.flops,
        seed=line.seed,
        loss=result.loss if result and is_done else math.nan,
        macro_f1=probed(line, result) if result and is_done else None,
        status=DONE if is_done else status.state,
    )
