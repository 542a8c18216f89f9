"""What came out of a run: result.json in its directory, or the reason why it failed."""

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from selfpab_jax.errors import DataError, SelfPABError
from selfpab_jax.io import write_json
from selfpab_jax.scaling.sweep.manifest import PlannedRun, Sweep

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class RunResult:
    """The result of a finished run.

    Attributes:
        hash: of the planned run.
        ending: `finished`, or `stopped early` where validation no longer improved.
        loss: held-out loss of the best checkpoint, on the windows of the final measurement.
        feature_mean, interpolation: losses of the two baselines on these windows.
        best_step, steps: of the best checkpoint and of the whole training.
        tokens, flops: of the steps that were taken.
        macro_f1: downstream score, if the sweep has a probe.
        probe: the probe of the sweep that `macro_f1` is from.
    """

    hash: str
    ending: str
    loss: float
    feature_mean: float
    interpolation: float
    best_step: int
    steps: int
    tokens: float
    flops: float
    macro_f1: float | None = None
    probe: dict[str, Any] | None = None


def write_result(run: Path, result: RunResult) -> None:
    """Write result.json completely or not at all."""
    write_json(run / RESULT_FILE, asdict(result))


def read_result(run: Path) -> RunResult | None:
    """The result of a run; None where there is none or it is damaged, so that the run is measured again."""
    try:
        stored: dict[str, Any] = json.loads((run / RESULT_FILE).read_text(encoding="utf-8"))
        result = RunResult(
            **{
                each.name: stored[each.name]
                for each in fields(RunResult)
                if each.name in stored or each.default is MISSING
            }
        )
        return result if math.isfinite(result.loss) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def is_complete(line: PlannedRun, result: RunResult | None) -> bool:
    """Whether the run is trained and measured, and probed if the sweep has a probe."""
    if result is None or result.hash != line.hash:
        return False
    return line.probe is None or macro_f1_of(line, result) is not None


def macro_f1_of(line: PlannedRun, result: RunResult) -> float | None:
    """Macro-F1 by the probe that the sweep has now; None where there is none, or it is from another probe."""
    return result.macro_f1 if result.probe == line.probe else None


def measure(run: Path, line: PlannedRun, data: Path, ending: str) -> RunResult:
    """Measure the held-out loss of the best checkpoint, on the same windows with the same masks for all runs.

    Args:
        run: directory of the trained run.
        line: of the plan.
        data: directory of the records.
        ending: of the training.

    Raises:
        DataError: the loss is not finite, or the records do not fit.
        RunError: there is no checkpoint.
    """
    from selfpab_jax.data.records.dataset import open_records
    from selfpab_jax.data.splits import evenly
    from selfpab_jax.train.evaluate import evaluate_model
    from selfpab_jax.train.export import read_checkpoint

    records = open_records(data)
    objective, parameters, metadata = read_checkpoint(run, "best")
    final = line.final
    scores, _ = evaluate_model(
        objective,
        parameters,
        records,
        split="validation",
        seed=final["seed"],
        rows=evenly(records.info.splits["validation"].records, final["windows"]),
        batch_size=final["batch_size"],
        examples=0,
    )
    if not math.isfinite(scores.model):
        raise DataError(f"the held-out loss of {run} is {scores.model}")
    steps = max(int(path.name) for path in (run / "checkpoints" / "latest").iterdir() if path.name.isdigit())
    fraction = steps / line.steps
    return RunResult(
        hash=line.hash,
        ending=ending,
        loss=scores.model,
        feature_mean=scores.feature_mean,
        interpolation=scores.interpolation,
        best_step=metadata["step"],
        steps=steps,
        tokens=line.tokens * fraction,
        flops=line.flops * fraction,
    )


def write_failure(sweep: Sweep, line: PlannedRun, error: Exception) -> None:
    """Store the first line of the reason why a run failed."""
    reason = " ".join((str(error).strip() or type(error).__name__).split("\n", 1)[0].split())[:400]
    if not isinstance(error, SelfPABError):
        reason = f"{type(error).__name__}: {reason}"
    write_json(sweep.failure(line), {"reason": reason, "hash": line.hash})


def read_failure(sweep: Sweep, line: PlannedRun) -> str:
    """Why a run failed; empty if it did not."""
    try:
        text = sweep.failure(line).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    try:
        return str(json.loads(text)["reason"])
    except (ValueError, TypeError, KeyError):
        return "the reason is missing: its file is damaged"
