"""`selfpab-jax scaling fit`."""

from pathlib import Path

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.errors import ConfigError


def fit_parser() -> Parser:
    """Arguments of the command."""
    parser = Parser(
        "scaling fit", "Fit scaling laws to a sweep's runs, with intervals, pictures and what they cannot show."
    )
    parser.add_argument("sweep", type=Path, help="folder that `sweep plan` made, or a CSV of points")
    parser.add_argument("--out", type=Path, required=True, help="folder for report.html, fits.json, points.csv")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser


def run_fit(options: Namespace) -> int:
    """Run the command."""
    if options.seed < 0:
        raise ConfigError(f"--seed is {options.seed}; it must be at least 0")
    from selfpab_jax.scaling.laws.analysis import study
    from selfpab_jax.scaling.laws.points import load_points
    from selfpab_jax.scaling.report import summary, write_report

    found = study(load_points(options.sweep), options.seed)
    files = write_report(found, options.out)
    print(summary(found))
    print(f"{', '.join(files)} in {options.out}")
    return 0
