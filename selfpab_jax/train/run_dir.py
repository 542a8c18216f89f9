"""The directory of a run: who may write to it, and the settings it was started with."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from selfpab_jax.config import parse_settings, update_names
from selfpab_jax.data.records.dataset import Records
from selfpab_jax.errors import ConfigError, RunError, warn
from selfpab_jax.io import exclusive_lock, write_json
from selfpab_jax.train.checkpoint import RECORDS_FIELDS, newest_metadata, statistics_of
from selfpab_jax.train.config import PretrainSettings, as_json
from selfpab_jax.train.logging import LOG_FILE

SETTINGS_FILE = "settings.json"
SUBJECTS_FILE = "subjects.json"
PROBE_FILE = "probe_subjects.json"
"""Data set and subjects of the probe while training."""

MAY_CHANGE = ("mesh", "probe", "checkpoint", "log")
"""Groups of settings that may differ when a run is resumed."""
DATA_MAY_CHANGE = ("path", "workers", "threads")


@contextmanager
def open_run(
    run: Path,
    settings: dict[str, Any],
    *,
    resume: bool,
    overwrite: bool,
    check: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Create the directory of a new run, or check that this is the run to resume, and lock it for this process.

    Args:
        run: the directory.
        settings: of the run, as JSON.
        resume: continue an existing run.
        overwrite: remove an existing run first.
        check: raises an error where the run cannot continue for another reason; called before anything is written.

    Raises:
        RunError: the run exists and neither `resume` nor `overwrite` is set, or it is another run.
        LockedError: another process is training it.
    """
    if resume and overwrite:
        raise RunError("--resume and --overwrite cannot be combined; choose one")
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
        check()
        write_json(path, settings)
        yield


def check_records(run: Path, records: Records, *, allow_changed: bool) -> None:
    """Check that records are those that a run was trained on so far, if it has a checkpoint.

    Of a run that an earlier version or the converter wrote, only the statistics can be compared.

    Args:
        run: its directory.
        records: to continue on.
        allow_changed: warn instead of refusing.

    Raises:
        DataError: they have other channels or spectrogram settings.
        RunError: they are others.
    """
    metadata = newest_metadata(run)
    if metadata is None:
        return
    records.info.check_fits(metadata["records"], records.folder)
    before, now = metadata["records"], records_metadata(records)
    found = _changed_records(metadata, records)
    if not found:
        if "fingerprint" not in before:
            warn(
                f"{run} keeps no fingerprint of its records, so it could not be checked that {records.folder} has them"
            )
        return
    text = f"{run} was trained on other records than those in {records.folder} ({'; '.join(found[:4])})"
    if not allow_changed:
        raise RunError(
            f"{text}; give --data.path those, or start another --run, or add --data.allow_changed true to go on with "
            "the statistics it began with"
        )
    warn(
        f"{text}; it goes on, with the statistics that it began with"
        + ("" if now["splits"] == before.get("splits") else ", and its epochs have another length")
    )


def records_metadata(records: Records) -> dict[str, Any]:
    """What a checkpoint keeps of its records, as JSON."""
    stored = {**asdict(records.info), "fingerprint": records.fingerprint}
    return json.loads(json.dumps({name: stored[name] for name in RECORDS_FIELDS}))


def _changed_records(metadata: dict[str, Any], records: Records) -> list[str]:
    """What differs between the records of a checkpoint and these, as texts."""
    before, now = metadata["records"], records_metadata(records)
    if before.get("fingerprint") == now["fingerprint"]:
        return []
    statistics = statistics_of(metadata)
    is_theirs = statistics.kind in ("hour_weighted", "plain") and statistics.scale == "linear"
    other_statistics = is_theirs and not (
        np.array_equal(statistics.mean, records.statistics(statistics.kind).mean)
        and np.array_equal(statistics.std, records.statistics(statistics.kind).std)
    )
    if "fingerprint" not in before:
        return ["their statistics differ"] if other_statistics else []
    sizes = [
        f"{split}: {_size(before, split)}, now {_size(now, split)}"
        for split in ("train", "validation")
        if _size(before, split) != _size(now, split)
    ]
    return [*sizes, "their statistics differ" if other_statistics else "their content differs"]


def _size(records: dict[str, Any], split: str) -> str:
    size = records["splits"].get(split)
    return f"{size['records']:,} records of {size['subjects']:,} subjects" if size else "no records"


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
    if "branch" in kept:  # the state is copied, so the trunk may be elsewhere by now
        kept["branch"] = {"step": kept["branch"]["step"]}
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


def _is_run(run: Path) -> bool:
    """Whether a folder is a run, also one with damaged settings, and not another command's output."""
    if (run / "checkpoints").is_dir() or (run / LOG_FILE).exists():
        return (run / SETTINGS_FILE).exists()
    try:
        parse_settings(PretrainSettings, read_settings(run))
    except (ConfigError, RunError):
        return False
    return True


def _clear(run: Path) -> None:
    if any(run.iterdir()) and not _is_run(run):
        raise RunError(
            f"{run} was not written by this program, so it is kept, also with --overwrite; choose another --run"
        )
    for entry in run.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
