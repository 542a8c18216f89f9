"""The directory of a run: who may write to it, and what it was started with."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfpab_jax.errors import RunError

SETTINGS_FILE = "settings.json"
SUBJECTS_FILE = "subjects.json"

MAY_CHANGE = ("mesh", "checkpoint", "log")
"""Parts of the configuration that a resumed run may change without becoming another run."""
DATA_MAY_CHANGE = ("path", "workers", "threads")


@contextmanager
def claim(run: Path, settings: dict[str, Any], *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Make the directory of a new run, or check that this is the run to go on with, and hold it for this process.

    A killed process lets go of it by itself.

    Raises:
        RunError: the run exists and neither `resume` nor `overwrite` was asked for, it is another run, or another
            process holds it.
    """
    if resume and overwrite:
        raise RunError("--resume and --overwrite exclude each other; choose one")
    if run.exists() and not run.is_dir():
        raise RunError(f"{run} is a file; choose another --run")
    run.mkdir(parents=True, exist_ok=True)
    with _held(run):
        if overwrite:
            _clear(run)
        if any(run.iterdir()) and not resume:
            raise RunError(f"{run} exists; add --resume to go on with it or --overwrite to start anew")
        path = run / SETTINGS_FILE
        if not path.exists() and set(os.listdir(run)) - {path.name + ".new"}:
            raise RunError(f"{run} holds other files and is no run; choose another --run")
        if path.exists():
            changed = changes(comparable(read_settings(run)), comparable(settings))
            if changed:
                raise RunError(
                    f"{run} was started with other settings ({'; '.join(changed[:4])}); "
                    "use the ones in its settings.json, or another --run"
                )
        write_json(path, settings)
        yield


def write_json(path: Path, content: Any) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_settings(run: Path) -> dict[str, Any]:
    """The resolved configuration that the run was started with.

    Raises:
        RunError: not a run, or its settings are damaged.
    """
    path = run / SETTINGS_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{run} is no run: it has no {SETTINGS_FILE}") from None
    except ValueError as error:
        raise RunError(f"{path} cannot be read: {error}") from None


class Held(RunError):
    """Another process trains in the directory."""


@contextmanager
def _held(run: Path) -> Iterator[None]:
    handle = os.open(run, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Held(f"{run} is being trained by another process; wait for it or choose another --run") from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(handle)


def _clear(run: Path) -> None:
    if any(run.iterdir()) and not (run / SETTINGS_FILE).exists():
        raise RunError(f"{run} is no run of this program, so --overwrite leaves it alone; choose another --run")
    for entry in run.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def comparable(settings: dict[str, Any]) -> dict[str, Any]:
    """What makes a run the run it is: its settings without those that a resumed run may change."""
    kept = {part: value for part, value in settings.items() if part not in MAY_CHANGE}
    kept["data"] = {name: value for name, value in kept.get("data", {}).items() if name not in DATA_MAY_CHANGE}
    return kept


def changes(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between nested settings, a field a text: `model.width was 32, is 64`."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for key in sorted(old.keys() | new.keys())
            for change in changes(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if old == new else [f"{name} was {old}, is {new}"]
