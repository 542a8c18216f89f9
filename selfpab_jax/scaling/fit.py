"""Fit scaling laws: the function behind `selfpab-jax scaling fit`."""

from collections.abc import Sequence
from pathlib import Path

from selfpab_jax.errors import ConfigError
from selfpab_jax.scaling.laws.analysis import ScalingAnalysis, analyze
from selfpab_jax.scaling.laws.points import Point
from selfpab_jax.scaling.report import write_report
from selfpab_jax.scaling.sweep.collect import load_points


def fit_scaling_laws(
    points: Sequence[Point] | str | Path, *, out: str | Path | None = None, seed: int = 0
) -> ScalingAnalysis:
    """Fit scaling laws to the runs of a sweep.

    Args:
        points: one per run, or a sweep folder or CSV file to read them from.
        out: folder for report.html, fits.json, points.csv and figures; nothing is written where not given.
        seed: of the bootstrap that sets the confidence intervals.

    Returns:
        Every law with its intervals in `findings`; `selfpab_jax.scaling.report.summary` prints them.

    Raises:
        ConfigError: the seed is negative.
        DataError: the points cannot be read.
        RunError: the folder is not a sweep, or its plan is damaged.
        StorageError: the report cannot be written.
    """
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be at least 0")
    given = load_points(Path(points)) if isinstance(points, str | Path) else list(points)
    analysis = analyze(given, seed)
    if out is not None:
        write_report(analysis, Path(out))
    return analysis
