"""The directory of a run: who may write to it, and the settings it was started with."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfpab_jax.config import parse_settings, update_names
from selfpab_jax.errors import RunError
from selfpab_jax.io import exclusive_lock, write_json
from selfpab_jax.train.config import PretrainSettings, as_json

SETTINGS_FILE = "settings.json"
SUBJECTS_FILE = "subjects.json"

MAY_CHANGE = ("mesh", "checkpoint", "log")
"""Groups of settings that may differ when a run is resumed."""
DATA_MAY_CHANGE = ("path", "workers", "threads")


@contextmanager
def open_run(run: Path, settings: dict[str, Any], *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Create the directory of a new run, or check that this is the run to resume, and lock it for this process.

    Args:
        run: the directory.
        settings: of the run, as JSON.
        resume: continue an existing run.
        overwrite: remove an existing run first.

    Raises:
        RunError: the run exists and neither `resume` nor `overwrite` is set, or it is another run.
        LockedError: another process is training it.
    """
    if resume and overwrite:
        raise RunError("--resume and --overwrite exclude each other; choose one")
    if run.exists() and not run.is_dir():
        raise RunError(f"{run} is a file; choose another --run")
    run.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(run, f"{run} is being trained by another process; wait for it or choose another --run"):
        if overwrite:
            _clear(run)
        if any(run.iterdir()) and not resume:
            raise RunError(f"{run} exists; add --resume to continue it or --overwrite to start again")
        path = run / SETTINGS_FILE
        if not path.exists() and any(not name.startswith(f".{SETTINGS_FILE}.") for name in os.listdir(run)):
            raise RunError(f"{run} is not a run and holds other files; choose another --run")
        if path.exists():
            # Fields that a later version added take their defaults, which are what the version before did.
            before = as_json(parse_settings(PretrainSettings, read_settings(run)))
            changed = differences(comparable(before), comparable(settings))
            if changed:
                raise RunError(
                    f"{run} was started with other settings ({'; '.join(changed[:4])}); "
                    f"use those in its {SETTINGS_FILE}, or another --run"
                )
        write_json(path, settings)
        yield


def read_settings(run: Path) -> dict[str, Any]:
    """The resolved settings that the run was started with, under this version's names.

    Raises:
        RunError: not a run, or its settings are damaged.
    """
    path = run / SETTINGS_FILE
    try:
        return update_names(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RunError(f"{run} is not a run: it has no {SETTINGS_FILE}") from None
    except ValueError as error:
        raise RunError(f"{path} cannot be read: {error}") from None


def comparable(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that identify a run: those that must not change when it is resumed."""
    kept = {group: value for group, value in settings.items() if group not in MAY_CHANGE}
    kept["data"] = {name: value for name, value in kept.get("data", {}).items() if name not in DATA_MAY_CHANGE}
    return kept


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between nested settings, one text per field: `model.width was 32, is 64`.

    Args:
        old: settings of an earlier call.
        new: settings now.
        name: of the group that is compared.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            difference
            for key in sorted(old.keys() | new.keys())
            for difference in differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if old == new else [f"{name} was {old}, is {new}"]


def _clear(run: Path) -> None:
    if any(run.iterdir()) and not (run / SETTINGS_FILE).exists():
        raise RunError(f"{run} was not written by this program, so --overwrite leaves it alone; choose another --run")
    for entry in run.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
