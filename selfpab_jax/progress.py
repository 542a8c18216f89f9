"""Progress of long work: a bar on a terminal, plain lines every few seconds elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar


class Progress:
    """How far a task is, how fast it goes, and how long it will take.

    On a terminal this is a bar that is redrawn in place. Elsewhere (a log file, a pipe) a plain line is printed to
    stderr at most every `every_seconds`.

    Args:
        task: a short name, e.g. `embed`; every plain line begins with it.
        total: amount of work, where it is known or can be estimated.
        unit: of the amount, e.g. `h` or `steps`.
        enabled: only one process of a run shows progress.
        every_seconds: least time between two plain lines.
        started: amount that was done before (a resumed task); it does not count towards the speed.
    """

    def __init__(
        self,
        task: str,
        total: int | float | None = None,
        unit: str = "",
        *,
        enabled: bool = True,
        every_seconds: float = 10.0,
        started: int | float = 0.0,
    ):
        self.task, self.total, self.unit, self.enabled = task, total, unit, enabled
        self._started, self._every = started, every_seconds
        self._began = self._shown = time.monotonic()
        self._bar: Bar | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def update(self, done: int | float, note: str = "", *, force: bool = False) -> None:
        """Report how much is done; cheap to call often.

        Args:
            done: amount of work so far.
            note: what else to show, e.g. the loss.
            force: print a plain line even if the last one was just now.
        """
        if not (self.enabled and (force or self.is_due())):
            return
        self._shown = time.monotonic()
        line = self._line(done, note)
        if not sys.stderr.isatty():
            print(f"{self.task}: {line}", file=sys.stderr, flush=True)
            return
        if self._bar is None:
            columns = (TextColumn(self.task), BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task("")
            self._bar.start()
        task = self._bar.task_ids[0]
        self._bar.update(task, completed=done, total=self.total, description=line)

    def is_due(self) -> bool:
        """Whether an update would be shown now."""
        return time.monotonic() - self._shown >= (0.2 if sys.stderr.isatty() else self._every)

    def log(self, line: str) -> None:
        """Print a line that stays."""
        if not self.enabled:
            return
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, done: int | float, note: str) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = (done - self._started) / seconds
        unit = f" {self.unit}" if self.unit else ""
        parts = [f"{amount(done)}{unit}" if self.total is None else f"{amount(done)} of {amount(self.total)}{unit}"]
        if rate > 0:
            parts.append(f"{rate:.3g}{unit}/s")
            if self.total is not None:
                parts.append(f"{duration(max(0.0, self.total - done) / rate)} left")
        return ", ".join([*parts, *([note] if note else [])])


def amount(value: int | float) -> str:
    """`1,234` for whole numbers, `12.3` for others."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def duration(seconds: int | float) -> str:
    """`2 d 3 h`, `3 h 12 min`, `4 min 10 s`, `8 s`."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
