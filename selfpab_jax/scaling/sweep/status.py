"""The state of the runs of a sweep: waiting, running, done or failed."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from selfpab_jax.config import update_names
from selfpab_jax.progress import duration
from selfpab_jax.scaling.sweep.lease import Lease, leases_by_run
from selfpab_jax.scaling.sweep.manifest import PlannedRun, Sweep, edits
from selfpab_jax.scaling.sweep.result import RESULT_FILE, is_complete, read_failure, read_result
from selfpab_jax.train.logging import LOG_FILE, read_log

RunState = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True)
class RunStatus:
    """The state of one run.

    Attributes:
        line: of the plan.
        state: of the run.
        note: why it failed, which worker has it, or what is left to do.
        loss: the final held-out loss of a finished run, else the best one so far; None before the first.
        macro_f1: downstream score, where measured.
        step: the last one in its log.
        device_seconds: used so far, including start-up and failed attempts.
        left_seconds: until a running one is trained; None where unknown.
        is_edited: whether its settings were edited after planning.
    """

    line: PlannedRun
    state: RunState
    note: str
    loss: float | None
    macro_f1: float | None
    step: int
    device_seconds: float
    left_seconds: float | None
    is_edited: bool = False

    def as_json(self) -> dict[str, Any]:
        """The state as plain values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "line"}
        return {"index": self.line.index, "run": self.line.name, "steps": self.line.steps, **values}


def status_of(sweep: Sweep) -> list[RunStatus]:
    """The state of every run of a sweep, in the order of the plan."""
    leases = leases_by_run(sweep.leases)
    return [_status(sweep, line, leases.get(line.name, [])) for line in sweep.lines]


def _status(sweep: Sweep, line: PlannedRun, leases: list[Lease]) -> RunStatus:
    run = sweep.run(line)
    result = read_result(run)
    started, train, best = _newest_events(run)
    step = int(train.get("step", started.get("step", 0)))
    left = None
    edited, failed = edits(sweep, line), read_failure(sweep, line)
    live = leases[-1] if leases and leases[-1].is_live() else None
    state: RunState = "waiting"
    note = ""
    if edited:
        state, note = "failed", f"edited after planning: {'; '.join(edited[:4])}"
    elif is_complete(line, result):
        state = "done"
    elif live:
        state, note = "running", live.describe()
        rate = train.get("samples_per_second")
        if isinstance(rate, float | int) and rate > 0:
            left = (line.steps - step) * update_names(line.settings)["optimizer"]["batch_size"] / rate
    elif failed:
        state, note = "failed", failed
    elif result is not None and result.hash == line.hash:
        note = "trained and measured; the probe is left to do"
    elif (run / RESULT_FILE).exists():
        note = f"its {RESULT_FILE} is damaged or of other settings; the run is measured again"
    elif step:
        note = f"stopped at step {step}; continues from its newest checkpoint"
    elif (run / LOG_FILE).exists():
        note = "started"
    return RunStatus(
        line=line,
        state=state,
        note=note,
        loss=result.loss if result is not None and result.hash == line.hash else best,
        macro_f1=result.macro_f1 if result else None,
        step=result.steps if result else step,
        device_seconds=sum((lease.held for lease in leases), 0.0) * int(started.get("devices", 1)),
        left_seconds=left,
        is_edited=bool(edited),
    )


def _newest_events(run: Path) -> tuple[dict[str, Any], dict[str, Any], float | None]:
    """The newest start, the newest training step and the best held-out loss of a log, as far as it can be read."""
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
    """A table with one line per run, and the totals."""
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
