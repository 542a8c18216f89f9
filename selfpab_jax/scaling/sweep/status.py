"""What came out of a run: result.json in its directory, written once it is trained and measured."""

import json
import math
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from selfpab_jax.errors import DataError
from selfpab_jax.scaling.sweep.lease import Claim, claims_by_run
from selfpab_jax.scaling.sweep.manifest import Line, Sweep, changed_by_hand
from selfpab_jax.train.logging import LOG_FILE, duration, read_log
from selfpab_jax.train.run_dir import write_json

# What came out of a run: result.json in its directory, written once it is trained and measured.

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
    from selfpab_jax.data.records.dataset import open_records
    from selfpab_jax.data.subsets import evenly
    from selfpab_jax.train.evaluate import evaluate
    from selfpab_jax.train.export import read_checkpoint

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


# Where the runs of a sweep are: waiting, running, done or failed.

State = Literal["waiting", "running", "done", "failed"]


CHANGED = "changed by hand"


@dataclass(frozen=True)
class RunStatus:
    """Of one run.

    Attributes:
        line: of the plan.
        state: where it is.
        note: reason of a failure, who runs it, what is left.
        loss: the final held-out loss of a done run, else the best one so far, None before the first.
        macro_f1: downstream, where measured.
        step: the last one told.
        device_seconds: used up to now, start-up and failed attempts included.
        left_seconds: until a running one is trained, None where not known.
    """

    line: Line
    state: State
    note: str
    loss: float | None
    macro_f1: float | None
    step: int
    device_seconds: float
    left_seconds: float | None

    @property
    def is_changed(self) -> bool:
        """Its directory was changed by hand."""
        return self.note.startswith(CHANGED)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "line"}
        return {"index": self.line.index, "run": self.line.name, "steps": self.line.steps, **told}


def status_of(sweep: Sweep) -> list[RunStatus]:
    """Every run of a sweep, in the order of the plan."""
    claims = claims_by_run(sweep.claims)
    return [_status(sweep, line, claims.get(line.name, [])) for line in sweep.lines]


def read_failure(sweep: Sweep, line: Line) -> str:
    """Why a run failed; "" where it did not."""
    try:
        text = sweep.failure(line).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    try:
        return str(json.loads(text)["reason"])
    except (ValueError, TypeError, KeyError):
        return "for a reason that was not written down whole"


def _status(sweep: Sweep, line: Line, claims: list[Claim]) -> RunStatus:
    run = sweep.run(line)
    result = read_result(run)
    started, train, best = _told(run)
    step = int(train.get("step", started.get("step", 0)))
    left = None
    changed, failed = changed_by_hand(sweep, line), read_failure(sweep, line)
    live = claims[-1] if claims and claims[-1].is_live() else None
    state: State = "waiting"
    note = ""
    if changed:
        state, note = "failed", f"{CHANGED}: {'; '.join(changed[:4])}"
    elif is_complete(line, result):
        state = "done"
    elif live:
        state, note = "running", live.describe()
        rate = train.get("samples_per_second")
        if isinstance(rate, float | int) and rate > 0:
            left = (line.steps - step) * line.settings["optimizer"]["batch_size"] / rate
    elif failed:
        state, note = "failed", failed
    elif result is not None and result.hash == line.hash:
        note = "trained and measured, the probe is left"
    elif (run / RESULT_FILE).exists():
        note = f"its {RESULT_FILE} is damaged or of other settings; it is measured again"
    elif step:
        note = f"stopped at step {step}, goes on from its newest checkpoint"
    elif (run / LOG_FILE).exists():
        note = "begun"
    return RunStatus(
        line=line,
        state=state,
        note=note,
        loss=result.loss if result is not None and result.hash == line.hash else best,
        macro_f1=result.macro_f1 if result else None,
        step=result.steps if result else step,
        device_seconds=sum(claim.held for claim in claims) * int(started.get("devices", 1)),
        left_seconds=left,
    )


def _told(run: Path) -> tuple[dict[str, Any], dict[str, Any], float | None]:
    """Newest start, newest training step and best held-out loss of a log, as far as it can be read."""
    started, train, best = {}, {}, None
    with suppress(UnicodeDecodeError):
        for event in read_log(run):
            match event:
                case {"event": "start", "step": int(), "steps": int()}:
                    started = event
                case {"event": "train", "step": int()}:
                    train = event
                case {"event": "validation", "best": float()}:
                    best = event["best"]
    return started, train, best


def status_table(states: list[RunStatus]) -> str:
    """For people: a line a run, and the totals."""
    width = max(len(state.line.name) for state in states)
    rows = [f"{'':>5} {'run':<{width}}  {'state':<8} {'progress':>9} {'loss':>8} {'device time':>12}"]
    for state in states:
        line = state.line
        progress = f"{state.step / line.steps:.0%}" if state.step else ""
        loss = "" if state.loss is None else f"{state.loss:.4f}"
        used = duration(state.device_seconds) if state.device_seconds else ""
        notes = [f"{duration(state.left_seconds)} left"] if state.left_seconds is not None else []
        notes += [f"macro-F1 {state.macro_f1:.3f}"] if state.macro_f1 is not None else []
        notes += [state.note] if state.note else []
        rows.append(
            f"{line.index:>5} {line.name:<{width}}  {state.state:<8} {progress:>9} {loss:>8} {used:>12}  "
            + "; ".join(notes)
        )
    counts = {name: sum(state.state == name for state in states) for name in ("waiting", "running", "done", "failed")}
    done = [state for state in states if state.state == "done" and state.loss is not None]
    best = min(done, key=lambda state: state.loss or 0.0, default=None)
    totals = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    used = sum(state.device_seconds for state in states) / 3600
    rows.append(
        f"{totals}; {used:.3g} device-hours used" + (f"; best {best.loss:.4f}, {best.line.name}" if best else "")
    )
    return "\n".join(row.rstrip() for row in rows)
