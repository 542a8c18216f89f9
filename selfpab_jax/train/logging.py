"""What a run logs: JSON lines on disk always, Weights & Biases on request, and a progress line."""

import json
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
from jax.sharding import Mesh

from selfpab_jax.distributed.hardware import peak_flops
from selfpab_jax.errors import ConfigError, RunError
from selfpab_jax.io import write_text
from selfpab_jax.progress import Progress
from selfpab_jax.train.step import StepMetrics

LOG_FILE = "log.jsonl"


@dataclass(frozen=True)
class LogSettings:
    """What is logged, and how often.

    Args:
        every_steps: steps between two lines of log.jsonl.
        progress_seconds: seconds between two progress lines where stderr is not a terminal.
        wandb: Weights & Biases: `off`, `offline` (kept in the run's directory) or `online`.
        project: its project there.
    """

    every_steps: int = 10
    progress_seconds: float = 10.0
    wandb: Literal["off", "offline", "online"] = "off"
    project: str = "selfpab-jax"

    def __post_init__(self) -> None:
        if self.every_steps < 1:
            raise ConfigError(f"log.every_steps is {self.every_steps}; it must be at least 1")


@dataclass(frozen=True)
class WatchSettings:
    """Means of an operator, for one start of a run; they are not stored.

    Args:
        stuck_minutes: end the process where no step is done for so many minutes, after printing where every thread
            waits, with exit code 76; longer than compilation, validation and checkpoints take. Off where not set.
        profile_steps: steps to profile, as 100:105, for XProf; off where empty.

    Raises:
        ConfigError: a value is out of range.
    """

    stuck_minutes: float | None = None
    profile_steps: str = ""

    def __post_init__(self) -> None:
        if self.stuck_minutes is not None and self.stuck_minutes <= 0:
            raise ConfigError(f"watch.stuck_minutes is {self.stuck_minutes}; it must be greater than 0")
        if self.profile_steps:
            self.profiled()

    def profiled(self) -> tuple[int, int]:
        """The first and the last step to profile."""
        match = re.fullmatch(r"(\d+):(\d+)", self.profile_steps)
        first, last = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= first <= last:
            raise ConfigError(
                f"watch.profile_steps is {self.profile_steps!r}; give the first and last step, as 100:105"
            )
        return first, last


@runtime_checkable
class Log(Protocol):
    """Takes events: flat dictionaries with `event`, `step` and figures."""

    def write(self, event: dict[str, Any]) -> None:
        """Log one event."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class JsonLines:
    """One line per event, flushed when `write` returns."""

    def __init__(self, path: Path):
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: dict[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; a full disk was reported by `write`."""
        with suppress(OSError):
            self._file.close()


class WeightsAndBiases:
    """The same events as a Weights & Biases run of the same name; resumed runs continue it."""

    def __init__(self, run: Path, settings: LogSettings, configuration: dict[str, Any]):
        try:
            import wandb  # pyright: ignore[reportMissingImports]  # an extra
        except ImportError:
            raise RunError(
                'log.wandb needs the package wandb: pip install "selfpab-jax[wandb]", or log.wandb off'
            ) from None
        name, identity = run.absolute().name, run / "wandb_id"
        if not identity.exists():
            identity.write_text(uuid.uuid4().hex, encoding="utf-8")
        self._run = wandb.init(
            project=settings.project,
            name=name,
            id=identity.read_text(encoding="utf-8"),
            resume="allow",
            mode=cast(Any, settings.wandb),
            dir=run,
            config=configuration,
            settings=wandb.Settings(silent=True),
        )

    def write(self, event: dict[str, Any]) -> None:
        """Figures under `<event>/<name>` at their step."""
        figures = {f"{event['event']}/{name}": value for name, value in event.items() if isinstance(value, int | float)}
        self._run.log(figures, step=event.get("step"))

    def close(self) -> None:
        """Upload or store what is left."""
        self._run.finish()


class NoLog:
    """For the processes that do not log."""

    def write(self, event: dict[str, Any]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Both:
    """Two logs as one."""

    def __init__(self, first: Log, second: Log):
        self._logs = (first, second)

    def write(self, event: dict[str, Any]) -> None:
        """Write to both."""
        for log in self._logs:
            log.write(event)

    def close(self) -> None:
        """Close both."""
        for log in self._logs:
            log.close()


def open_log(run: Path, settings: LogSettings, configuration: dict[str, Any], *, enabled: bool) -> Log:
    """The log of a run.

    Args:
        run: its directory.
        settings: where to log.
        configuration: of the run, for Weights & Biases.
        enabled: only one process of a run writes.
    """
    if not enabled:
        return NoLog()
    lines = JsonLines(run / LOG_FILE)
    return lines if settings.wandb == "off" else Both(lines, WeightsAndBiases(run, settings, configuration))


def read_log(run: Path) -> Iterator[dict[str, Any]]:
    """The events of a run; a line cut short by a kill is ignored."""
    path = run / LOG_FILE
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict) and "event" in event:
                yield event


def rewind_log(run: Path, step: int) -> None:
    """Remove what was logged after `step`, because a resumed run logs it again."""
    if not (run / LOG_FILE).exists():
        return
    events = list(read_log(run))
    kept = [event for event in events if event.get("step", 0) <= step and event["event"] != "end"]
    undone = [event["time"] for event in events if event.get("step", 0) > step and "time" in event]
    if undone:  # what it cost stays known
        before = max((event["time"] for event in kept if "time" in event), default=undone[0])
        kept.append({"time": undone[-1], "event": "lost", "step": step, "seconds": max(undone[-1] - before, 0.0)})
    write_text(run / LOG_FILE, "".join(json.dumps(event) + "\n" for event in kept))


PHASES = {
    "steps": "in steps",
    "waiting": "waiting for data",
    "validation": "in validation",
    "probe": "in probes",
    "checkpoint": "writing checkpoints",
    "compiling": "compiling",
    "lost": "lost to restarts",
}
"""What a run spends its time on, in words."""


def time_shares(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Share of the time of a run, over all of its starts, that each of `PHASES` took; empty before the first pause.

    What is lost to restarts is the time of steps that had to be done again. Time without a process does not count.

    Args:
        events: of the run's log.
    """
    seconds, current = dict.fromkeys(PHASES, 0.0), dict[str, float]()
    for event in events:
        match event["event"]:
            case "start":
                seconds, current = _added(seconds, current), {}
            case "time":
                current = {name: event[name] for name in PHASES if name in event}
            case "lost":
                seconds["lost"] += event["seconds"]
    seconds = _added(seconds, current)
    total = sum(seconds.values())
    return {name: taken / total for name, taken in seconds.items() if taken} if total else {}


def _added(seconds: dict[str, float], more: dict[str, float]) -> dict[str, float]:
    return {name: taken + more.get(name, 0.0) for name, taken in seconds.items()}


class Meter:
    """Turns finished steps into log lines and progress: loss, hours seen, speed, share of time spent waiting for data.

    Args:
        log: takes events.
        progress: of the run, in steps.
        settings: how often to log.
        steps: of the whole run.
        batch_size: samples per step.
        window_hours: hours of recording in a sample.
        flops: of one sample's training step.
        mesh: the devices.
    """

    def __init__(
        self,
        log: Log,
        progress: Progress,
        settings: LogSettings,
        *,
        steps: int,
        batch_size: int,
        window_hours: float,
        flops: int,
        mesh: Mesh,
    ):
        self._log, self._progress, self._every_steps = log, progress, settings.every_steps
        self._all_steps, self._batch_size, self._window_hours, self._flops = steps, batch_size, window_hours, flops
        peak = peak_flops(mesh.devices.flat[0].device_kind)
        self._peak = peak * mesh.size if peak else None
        self._losses: list[float] = []
        self._validation = self._probe = ""
        self._rates: dict[str, float] = {}
        self._since: float | None = None  # None until the first step is done: it compiles
        self._steps, self._waited = 0, 0.0
        self._phase, self._phase_began = "steps", time.perf_counter()
        self._seconds: dict[str, float] = {}

    def phase(self, name: str) -> None:
        """From now on the run is in one of `PHASES`; steps are compiling until the first of them is done."""
        now = time.perf_counter()
        before = "compiling" if self._phase == "steps" and self._since is None else self._phase
        self._seconds[before] = self._seconds.get(before, 0.0) + now - self._phase_began
        if before == "waiting":
            self._waited += now - self._phase_began
        self._phase, self._phase_began = name, now

    def add_times(self, step: int) -> None:
        """Log the seconds of each phase since this start of the run."""
        self.phase(self._phase)
        self._log.write({"event": "time", "step": step, **{name: round(s, 3) for name, s in self._seconds.items()}})

    def restart_clock(self) -> None:
        """Start timing again, after a pause for validation or a checkpoint."""
        self._since, self._steps, self._waited = time.perf_counter(), 0, 0.0

    def add_step(self, step: int, loss: float, metrics: StepMetrics) -> None:
        """Take in a step that is done.

        Args:
            step: its number, from 1.
            loss: as a number of the host.
            metrics: what the step reported.
        """
        self._losses.append(loss)
        if self._since is None:
            self.phase("steps")
            self.restart_clock()
        else:
            self._steps += 1
            self._measure()
        if step % self._every_steps == 0 or step == self._all_steps:
            self._log.write(
                {
                    "event": "train",
                    "step": step,
                    "loss": loss,
                    "mean_loss": float(np.mean(self._losses)),
                    "gradient_norm": float(metrics.gradient_norm),
                    "learning_rate": float(metrics.learning_rate),
                    "hours_seen": self._hours(step),
                    **{name: float(f"{value:.6g}") for name, value in self._rates.items()},
                }
            )
            self._losses.clear()
        if self._progress.is_due():
            self._progress.update(step, self._note(step, loss))

    def add_validation(self, step: int, loss: float, best: float) -> None:
        """Take in a held-out loss.

        Args:
            step: after which it was measured.
            loss: the held-out loss.
            best: the lowest so far.
        """
        self._log.write({"event": "validation", "step": step, "loss": loss, "best": best})
        self._validation = f"held-out {loss:.4f} (best {best:.4f})"
        self._progress.log(f"step {step}/{self._all_steps}  {self._validation}")

    def add_probe(self, step: int, macro_f1: float) -> None:
        """Take in the score of a probe, 0 to 1."""
        self._log.write({"event": "probe", "step": step, "macro_f1": macro_f1})
        self._probe = f"probe macro-F1 {100 * macro_f1:.1f}"
        self._progress.log(f"step {step}/{self._all_steps}  {self._probe}")

    def _hours(self, step: int) -> float:
        return step * self._batch_size * self._window_hours

    def _measure(self) -> None:
        elapsed = time.perf_counter() - self._since if self._since else 0.0
        if not self._steps or elapsed <= 0:
            return
        samples = self._steps * self._batch_size / elapsed
        self._rates = {
            "samples_per_second": samples,
            "model_flops_per_second": samples * self._flops,
            "waiting_share": min(self._waited / elapsed, 1.0),
        }
        if self._peak:
            self._rates["mfu"] = samples * self._flops / self._peak

    def _note(self, step: int, loss: float) -> str:
        parts = [f"loss {loss:.4f}", f"{self._hours(step):,.1f} h seen"]
        if self._rates:
            parts += [
                f"{self._rates['samples_per_second']:,.1f} samples/s",
                f"{self._rates['model_flops_per_second'] / 1e12:,.3g} TFLOP/s",
                *([f"MFU {self._rates['mfu']:.0%}"] if "mfu" in self._rates else []),
                f"waiting {self._rates['waiting_share']:.0%}",
            ]
        return ", ".join([*parts, *(text for text in (self._validation, self._probe) if text)])
