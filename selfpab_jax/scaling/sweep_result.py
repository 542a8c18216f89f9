"""What came out of a run: result.json in its directory, written once it is trained and measured."""

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from selfpab_jax.errors import DataError
from selfpab_jax.scaling.sweep_line import Line
from selfpab_jax.train.run_directory import write_json

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class Result:
    """Of a finished run.

    Attributes:
        hash: of the line it was planned by.
        ending: `finished`, or `stopped early` where validation no longer improved.
        loss: held out, of the best checkpoint, on the sweep's windows.
        feature_mean, interpolation: losses of the two baselines on them.
        best_step, steps: of the best checkpoint and of the whole training.
        tokens, flops: of the steps that were taken.
        macro_f1: downstream, if the sweep has a probe.
        probe: the sweep's section that macro_f1 was measured by.
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


def write_result(run: Path, result: Result) -> None:
    """Write result.json; it is whole or as it was."""
    write_json(run / RESULT_FILE, asdict(result))


def read_result(run: Path) -> Result | None:
    """The result of a run, None where there is none or it is damaged: it is then measured again."""
    try:
        told: dict[str, Any] = json.loads((run / RESULT_FILE).read_text(encoding="utf-8"))
        result = Result(
            **{each.name: told[each.name] for each in fields(Result) if each.name in told or each.default is MISSING}
        )
        return result if math.isfinite(result.loss) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def is_complete(line: Line, result: Result | None) -> bool:
    """Nothing is left to do for the run: it is trained, measured, and probed if the sweep has a probe."""
    return result is not None and result.hash == line.hash and (line.probe is None or probed(line, result) is not None)


def probed(line: Line, result: Result) -> float | None:
    """Macro-F1 by the probe that the sweep has now; None where there is none, or it is of another probe."""
    return result.macro_f1 if result.probe == line.probe else None


def measure(run: Path, line: Line, data: Path, ending: str) -> Result:
    """The held-out loss of a run's best checkpoint, on the same windows with the same parts hidden for all runs.

    Args:
        run: directory of the trained run.
        line: of the plan.
        data: directory of the records.
        ending: of the training.

    Raises:
        DataError: the loss is not finite, or the records do not fit.
        RunError: there is no checkpoint.
    """
    from selfpab_jax.data.records import open_records
    from selfpab_jax.data.subsets import evenly
    from selfpab_jax.evaluation.checkpoint_reader import read_checkpoint
    from selfpab_jax.evaluation.evaluate import evaluate

    records = open_records(data)
    objective, parameters, facts = read_checkpoint(run, "best")
    final = line.final
    scores, _ = evaluate(
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
    share = steps / line.steps
    return Result(
        hash=line.hash,
        ending=ending,
        loss=scores.model,
        feature_mean=scores.feature_mean,
        interpolation=scores.interpolation,
        best_step=facts["step"],
        steps=steps,
        tokens=line.tokens * share,
        flops=line.flops * share,
    )
