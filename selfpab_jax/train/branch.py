"""Runs that begin with a kept state of another run: one trunk, and a cool-down for each length."""

import shutil
from pathlib import Path
from typing import Any

from selfpab_jax.config import parse_settings
from selfpab_jax.errors import RunError
from selfpab_jax.io import atomic_path
from selfpab_jax.train.checkpoint import LATEST
from selfpab_jax.train.config import PretrainSettings, as_json
from selfpab_jax.train.run_dir import comparable, differences, read_settings

OF_ITS_OWN = {"optimizer": ("steps", "epochs", "cooldown_steps"), "branch": ("run", "step"), "validation": None}
"""What a branch may have otherwise than its trunk: fields of a group, or all of it."""


def check_branch(settings: PretrainSettings) -> None:
    """Check that a run can begin with the state that its `branch` names.

    Raises:
        RunError: the trunk is not a run, has another schedule than `wsd`, is in its own cool-down at that step or keeps
            no state of it, or the run has other settings than the trunk.
    """
    trunk, step = settings.branch.run, settings.branch.step
    if trunk is None:
        return
    of_trunk = parse_settings(PretrainSettings, read_settings(trunk))
    optimizer = of_trunk.optimizer
    if optimizer.schedule != "wsd":
        raise RunError(
            f"{trunk} has optimizer.schedule {optimizer.schedule}, whose rate depends on the length of the run; only "
            "runs with wsd can be branched off"
        )
    if optimizer.cooldown_steps and optimizer.steps is not None:
        first = optimizer.steps - optimizer.cooldown_steps
        if step > first:
            raise RunError(
                f"{trunk} cools down from step {first} on; a branch must begin there or before, not at step {step}: a "
                "cool-down of a cool-down would be neither"
            )
    kept = kept_steps(trunk)
    if step not in kept:
        raise RunError(
            f"{trunk} keeps no state of step {step}; it keeps {', '.join(map(str, kept)) or 'none'} "
            "(checkpoint.keep_steps of a run keeps more)"
        )
    length = settings.optimizer.steps
    if length is None or length <= step:
        raise RunError(f"the branch begins at step {step} and must be longer; set optimizer.steps")
    changed = differences(_shared(of_trunk), _shared(settings))
    if changed:
        raise RunError(f"a branch of {trunk} has its settings but for its length ({'; '.join(changed[:4])})")


def kept_steps(run: Path) -> list[int]:
    """Steps whose complete states a run keeps."""
    directory = run / "checkpoints" / LATEST
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal())


def begin_branch(settings: PretrainSettings, run: Path) -> None:
    """Copy the state that a run begins with, completely or not at all; nothing where the run has states already.

    Args:
        settings: of the run, with `branch`.
        run: its directory.

    Raises:
        RunError: see `check_branch`, or the state cannot be copied.
    """
    trunk, step = settings.branch.run, settings.branch.step
    if trunk is None or kept_steps(run):
        return
    check_branch(settings)
    target = run / "checkpoints" / LATEST / str(step)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_path(target) as temporary:
            shutil.copytree(trunk / "checkpoints" / LATEST / str(step), temporary)
    except OSError as error:
        raise RunError(f"the state of step {step} could not be copied from {trunk}: {error}") from None


def _shared(settings: PretrainSettings) -> dict[str, Any]:
    """What a branch and its trunk have in common."""
    kept = comparable(as_json(settings))
    for group, fields in OF_ITS_OWN.items():
        if fields is None:
            kept.pop(group, None)
        elif group in kept:
            kept[group] = {name: value for name, value in kept[group].items() if name not in fields}
    return {group: value for group, value in kept.items() if value}
