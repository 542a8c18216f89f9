"""The best learning rate at small widths, compared with the rule of the ladder (inversely proportional to the width).

    python benchmarks/ladder_rule.py [--steps 300] [--out FOLDER]

Three widths (heads of 64, feed-forward of four widths, two layers) by five rates, from a quarter to four times that of
the rule, each trained from the same seed on a synthetic cohort. Prints the final held-out loss of each, the best rate
of each width (the minimum of a parabola through the lowest loss and its neighbors, in the logarithm of the rate), and
the power of the width that the best rates follow; by the rule it is -1. About ten minutes on 2 CPU cores.
"""

import argparse
import contextlib
import io
import math
import tempfile
from pathlib import Path

import numpy as np

from selfpab_jax.cli.main import main as command
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.errors import RunError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.scaling.ladder import learning_rate_of
from selfpab_jax.train.checkpoint import CheckpointSettings
from selfpab_jax.train.config import DataSettings, PretrainSettings, ValidationSettings
from selfpab_jax.train.logging import LogSettings, read_log
from selfpab_jax.train.loop import pretrain
from selfpab_jax.train.optimizer import OptimizerSettings

WIDTHS = (64, 128, 256)
MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)


def records_of_cohort(folder: Path) -> Path:
    """Windows of 20 seconds from 16 subjects of the synthetic cohort."""
    records = folder / "records"
    cohort = ["cohort", str(folder / "cohort"), "--subjects", "16", "--hours", "2"]
    build = ["records", "build", "--source", "hunt4", str(folder / "cohort"), "--out", str(records)]
    with contextlib.redirect_stdout(io.StringIO()):
        assert records.exists() or command(cohort) == 0
        assert command([*build, "--window_seconds", "20", "--workers", "1", "--validation", "0.25"]) == 0
    open_records(records)
    return records


def held_out(records: Path, run: Path, width: int, rate: float, steps: int) -> float:
    """The held-out loss after the last step; infinite where training diverged.

    Args:
        records: folder of the records.
        run: folder of the run; a finished or stopped run is continued.
        width: of the model.
        rate: learning rate.
        steps: of training.
    """
    settings = PretrainSettings(
        seed=0,
        data=DataSettings(path=records),
        model=ModelSettings(
            width=width, heads=width // 64, feedforward=4 * width, layers=2, dropout=0.0, compute="float32"
        ),
        optimizer=OptimizerSettings(batch_size=16, steps=steps, learning_rate=rate),
        validation=ValidationSettings(every_steps=steps, patience=0.0),
        checkpoint=CheckpointSettings(every_steps=steps, keep=1),
        log=LogSettings(progress_seconds=1e9),
    )
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            pretrain(settings, run, resume=True)
    except RunError:
        return math.inf
    return [event["loss"] for event in read_log(run) if event["event"] == "validation"][-1]


def lowest(rates: list[float], losses: list[float]) -> float:
    """The rate at the minimum of a parabola through the lowest loss and its neighbors."""
    at = int(np.argmin(losses))
    around = slice(max(at - 1, 0), at + 2)
    x, y = np.log(rates[around]), np.array(losses[around])
    if len(x) < 3 or not np.isfinite(y).all():
        return rates[at]
    a, b, _ = np.polyfit(x, y, 2)
    return float(np.exp(-b / (2 * a)))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, help="keeps records and runs, from which a stopped benchmark continues")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        records = records_of_cohort(folder)
        print(f"held-out loss after {options.steps} steps; x: the rate by the rule, 1e-4 x 1500 / width")
        print("width" + "".join(f"{f'{multiple:g} x':>10}" for multiple in MULTIPLES) + "   best rate    by rule")
        best = []
        for width in WIDTHS:
            rates = [learning_rate_of(width) * multiple for multiple in MULTIPLES]
            losses = [
                held_out(records, folder / f"w{width}-{multiple:g}", width, rate, options.steps)
                for multiple, rate in zip(MULTIPLES, rates, strict=True)
            ]
            best.append(lowest(rates, losses))
            row = "".join(f"{loss:>10.4f}" for loss in losses)
            print(f"{width:>5}{row}   {best[-1]:>9.3g}  {learning_rate_of(width):>11.3g}", flush=True)
            if losses.index(min(losses)) in (0, len(losses) - 1):
                print(f"      the lowest loss of width {width} is at the edge: the best rate is beyond it")
    power = float(np.polyfit(np.log(WIDTHS), np.log(best), 1)[0])
    print(f"best rates follow width^{power:.2f}; by the rule, width^-1")


if __name__ == "__main__":
    main()
