"""What an operator watches a run with: a watchdog for steps that never end, and a profile of a few steps."""

import faulthandler
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jax

from selfpab_jax.background import repeated
from selfpab_jax.errors import ExitCode, warn
from selfpab_jax.progress import duration
from selfpab_jax.train.logging import WatchSettings

OnStep = Callable[[int], None]
"""Called with the number of a step before it begins."""
LISTED = 10
"""Operations that the summary of a profile names."""
PROFILE_FOLDER = "profile"


@contextmanager
def watch(settings: WatchSettings, run: Path) -> Iterator[OnStep]:
    """Watch a run until the block ends.

    Args:
        settings: what to watch.
        run: directory of the run; profiles go into its folder `profile`.

    Yields:
        What the training loop calls before each step.
    """
    watchers: list[OnStep] = []
    with ExitStack() as stack:
        if settings.stuck_minutes is not None:
            watchers.append(stack.enter_context(_watchdog(60 * settings.stuck_minutes)))
        if settings.profile_steps:
            watchers.append(stack.enter_context(_profile(*settings.profiled(), run / PROFILE_FOLDER)))

        def on_step(step: int) -> None:
            for watcher in watchers:
                watcher(step)

        yield on_step


@contextmanager
def _watchdog(seconds: float) -> Iterator[OnStep]:
    """A thread that ends the process where steps stop coming; the main thread may hang in a collective for ever."""
    latest = [time.monotonic(), 0.0]

    def check() -> bool:
        silent = time.monotonic() - latest[0]
        if silent > seconds:
            where = f"process {jax.process_index()}" if jax.distributed.is_initialized() else "this process"
            print(
                f"selfpab-jax: {where} has done no step for {duration(silent)} (the last was {latest[1]:.0f}); "
                f"this is where its threads wait, and it ends with code {int(ExitCode.STUCK)}:",
                file=sys.stderr,
                flush=True,
            )
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
            os._exit(ExitCode.STUCK)
        return True

    def on_step(step: int) -> None:
        latest[:] = time.monotonic(), step - 1

    with repeated(check, min(1.0, seconds / 10), "watchdog"):
        yield on_step


@contextmanager
def _profile(first: int, last: int, folder: Path) -> Iterator[OnStep]:
    """Trace from the beginning of a step to the end of another, and say where the time went."""
    state = "before"

    def finish() -> None:
        nonlocal state
        jax.profiler.stop_trace()
        state = "after"
        if jax.process_index() == 0:
            print(f"profile of steps {first} to {last} in {folder} (open it with XProf)", file=sys.stderr)
            for line in summary(folder):
                print(f"  {line}", file=sys.stderr)

    def on_step(step: int) -> None:
        nonlocal state
        if state == "before" and step >= first:
            if step == first:
                jax.profiler.start_trace(str(folder))
                state = "during"
            else:
                warn(f"watch.profile_steps {first}:{last}: the run begins at step {step}, so there is no profile")
                state = "after"
        elif state == "during" and step > last + 1:  # the loop reads a step while the next one runs
            finish()

    try:
        yield on_step
    finally:
        if state == "during":
            finish()
        elif state == "before":
            warn(f"watch.profile_steps {first}:{last}: the run ended before, so there is no profile")


def summary(folder: Path, most: int = LISTED) -> list[str]:
    """The operations of the newest profile below a folder that took the most time, with their shares.

    Time is of devices where the profile has them, otherwise of the threads that compute for the CPU.

    Args:
        folder: that the profiler wrote to.
        most: lines.
    """
    files = sorted(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not files:
        return ["the profiler wrote nothing"]
    planes = list(jax.profiler.ProfileData.from_file(str(files[-1])).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    lines = [
        line
        for plane in devices or planes
        for line in plane.lines
        if (line.name == "XLA Ops" if devices else "XLA" in line.name or "Eigen" in line.name)
    ]
    seconds: dict[str, float] = defaultdict(float)
    for line in lines:
        for event in line.events:
            if not event.name.startswith(("ThreadpoolListener", "ThunkExecutor", "end: ")):
                seconds[re.sub(r"[.\d]+$", "", event.name)] += event.duration_ns / 1e9
    total = sum(seconds.values())
    if not total:
        return ["the profile has no operations"]
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    shown = [f"{taken / total:>6.1%}  {name[:80]}" for name, taken in ordered[: most - 1]]
    rest = sum(taken for _, taken in ordered[most - 1 :])
    return [*shown, f"{rest / total:>6.1%}  {len(ordered[most - 1 :])} others; {total:.3g} s in all"]
