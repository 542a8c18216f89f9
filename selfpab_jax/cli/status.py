"""`selfpab-jax status`: how far a run is, from its log, while it runs or after."""

import sys
import time
from pathlib import Path

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.errors import ExitCode, RunError
from selfpab_jax.progress import duration
from selfpab_jax.train.logging import read_log
from selfpab_jax.train.run_dir import read_settings


def status_parser() -> Parser:
    """Arguments of the command."""
    parser = Parser("status", "Report how far runs are.")
    parser.add_argument("runs", nargs="+", type=Path, help="directories of runs")
    return parser


def run_status(parsed: Namespace) -> int:
    """Run the command."""
    failed = False
    for run in parsed.runs:
        try:
            read_settings(run)
            print(f"{run}: {describe(run)}")
        except RunError as error:
            failed = True
            print(f"selfpab-jax: {error}", file=sys.stderr)
    return ExitCode.FAILED if failed else ExitCode.OK


def describe(run: Path) -> str:
    """The state of a run in one line."""
    start, train, validation, end, latest = {}, {}, {}, {}, 0.0
    for event in read_log(run):
        latest = event["time"]
        match event["event"]:
            case "start":
                start, end = event, {}
            case "train":
                train = event
            case "validation":
                validation = event
            case "end":
                end = event
    if not start:
        return "not started yet"
    steps = start["steps"]
    parts = [f"step {train.get('step', start['step'])} of {steps}"]
    if train:
        parts.append(f"loss {train['mean_loss']:.4f}, {train['hours_seen']:,.1f} h of recording seen")
    if validation:
        parts.append(
            f"held-out loss {validation['loss']:.4f} at step {validation['step']} (best {validation['best']:.4f})"
        )
    silence = duration(time.time() - latest)
    if end:
        parts.append(f"{end['ending']} {silence} ago")
    else:
        left = (steps - train["step"]) / steps if train else 1.0
        seconds = (latest - start["time"]) * left / max(1 - left - start["step"] / steps, 1e-9) if train else 0
        parts.append(f"last log entry {silence} ago" + (f", {duration(seconds)} left then" if seconds else ""))
    return "; ".join(parts)
