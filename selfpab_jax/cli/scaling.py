"""`selfpab-jax scaling fit`."""

from pathlib import Path

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.errors import ConfigError, ExitCode


def fit_parser() -> Parser:
    """Arguments of the command."""
    parser = Parser("scaling fit", "Fit scaling laws to the runs of a sweep, with confidence intervals and figures.")
    parser.add_argument("sweep", type=Path, help="folder that `sweep plan` made, or a CSV of points")
    parser.add_argument("--out", type=Path, required=True, help="folder for report.html, fits.json and points.csv")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    return parser


def run_fit(options: Namespace) -> int:
    """Run the command."""
    if options.seed < 0:
        raise ConfigError(f"--seed is {options.seed}; it must be at least 0")
    from selfpab_jax.scaling.fit import fit_scaling_laws
    from selfpab_jax.scaling.report import summary

    print(summary(fit_scaling_laws(options.sweep, out=options.out, seed=options.seed)))
    print(f"report.html, fits.json, points.csv and figures are in {options.out}")
    return ExitCode.OK
