"""What a run tells: JSON lines on disk always, Weights & Biases when asked for, a progress line for people."""

import json
import math
import os
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from selfpab_jax.errors import ConfigError, RunError

LOG_FILE = "log.jsonl"


@dataclass(frozen=True)
class LogSettings:
    """What is told, and how often.

    Args:
        every_steps: steps between two lines of log.jsonl.
        progress_seconds: seconds between two progress lines.
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


class Log(Protocol):
    """Takes events: flat dictionaries with `event`, `step` and figures."""

    def write(self, event: dict[str, Any]) -> None:
        """Tell one event."""
        ...

    def close(self) -> None:
        """Tell no more."""
        ...


class JsonLines:
    """One line an event; each is on its way to the disk when `write` returns."""

    def __init__(self, path: Path):
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: dict[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class WeightsAndBiases:
    """The same events as a Weights & Biases run of the same name; resumed runs go on in it."""

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


class Silent:
    """For the processes that do not speak."""

    def write(self, event: dict[str, Any]) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Nothing to close."""


class Both:
    """Two logs as one."""

    def __init__(self, first: Log, second: Log):
        self._logs = (first, second)

    def write(self, event: dict[str, Any]) -> None:
        """Tell both."""
        for log in self._logs:
            log.write(event)

    def close(self) -> None:
        """Close both."""
        for log in self._logs:
            log.close()


def open_log(run: Path, settings: LogSettings, configuration: dict[str, Any], *, speaks: bool) -> Log:
    """The log of a run; only the process that speaks writes."""
    if not speaks:
        return Silent()
    lines = JsonLines(run / LOG_FILE)
    return lines if settings.wandb == "off" else Both(lines, WeightsAndBiases(run, settings, configuration))


def read_log(run: Path) -> Iterator[dict[str, Any]]:
    """The events of a run; a line cut short by a kill is left out."""
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
    """Take back what was told after `step`, because a resumed run tells it again."""
    if not (run / LOG_FILE).exists():
        return
    kept = [event for event in read_log(run) if event.get("step", 0) <= step and event["event"] != "end"]
    temporary = run / (LOG_FILE + ".new")
    temporary.write_text("".join(json.dumps(event) + "\n" for event in kept), encoding="utf-8")
    os.replace(temporary, run / LOG_FILE)


class ProgressLine:
    """The line people watch: overwritten in place on a terminal, one line after another elsewhere."""

    def __init__(self, seconds: float, *, speaks: bool):
        self._seconds = seconds
        self._speaks = speaks
        self._terminal = sys.stderr.isatty()
        self._last = -math.inf

    def due(self) -> bool:
        """It is time for another line."""
        return self._speaks and time.monotonic() - self._last >= (1.0 if self._terminal else self._seconds)

    def show(self, line: str) -> None:
        """Put the line where people see it."""
        self._last = time.monotonic()
        print(f"\r\033[K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._speaks:
            print(f"\r\033[K{line}" if self._terminal else line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`2 d 3 h`, `3 h 12 min`, `4 min 10 s`, `8 s`."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
