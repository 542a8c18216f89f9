"""How long the runs of a sweep train, and the trunk that runs of several lengths are branched off."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selfpab_jax.errors import ConfigError
from selfpab_jax.model.config import training_flops
from selfpab_jax.scaling.sweep.cost import ModelShape
from selfpab_jax.train.config import BranchSettings, PretrainSettings


def with_length(
    settings: PretrainSettings, kind: str, length: float, shape: ModelShape, windows: int
) -> PretrainSettings:
    """The settings with the number of epochs or steps by a length of the sweep.

    Args:
        settings: of a run.
        kind: of length: `epochs`, `steps`, `tokens` or `flops`.
        length: how many.
        shape: of the windows.
        windows: number of windows in an epoch.
    """
    optimizer = settings.optimizer
    match kind:
        case "epochs":
            return replace(settings, optimizer=replace(optimizer, epochs=length, steps=None))
        case "steps":
            steps = length
        case "tokens":
            steps = length / (optimizer.batch_size * shape.frames)
        case _:
            each = training_flops(settings.model, shape.features, shape.outputs, shape.frames)
            steps = length / (each * optimizer.batch_size)
    return replace(settings, optimizer=replace(optimizer, steps=max(1, round(steps))))


def trunk_and_branches(
    of_lengths: Sequence[PretrainSettings], windows: int, cooldown: float, name: str
) -> tuple[PretrainSettings, list[PretrainSettings]]:
    """The settings of a trunk, and those of a branch for each length, which cools down at its end.

    Args:
        of_lengths: settings with each length.
        windows: number of windows in an epoch.
        cooldown: share of a run's steps that it cools down over.
        name: of the trunk.

    Raises:
        ConfigError: the schedule is not `wsd`, or a run is too short to cool down.
    """
    optimizer = of_lengths[0].optimizer
    if optimizer.schedule != "wsd":
        raise ConfigError(f"length.trunk needs optimizer.schedule wsd, not {optimizer.schedule}")
    branches, begins = [], []
    for settings in of_lengths:
        steps = settings.optimizer.total_steps(windows)
        cooled = max(1, round(cooldown * steps))
        if steps - cooled < max(1, optimizer.warmup_steps or 0):
            raise ConfigError(f"a run of {steps} steps, {cooled} to cool down, ends before the trunk is warmed up")
        begins.append(steps - cooled)
        branches.append(
            replace(
                settings,
                optimizer=replace(settings.optimizer, steps=steps, cooldown_steps=cooled),
                branch=BranchSettings(Path(name), steps - cooled),
            )
        )
    first = of_lengths[0]
    trunk = replace(
        first,
        optimizer=replace(optimizer, steps=max(begins), cooldown_steps=0),
        checkpoint=replace(first.checkpoint, keep_steps=tuple(sorted(begins))),
    )
    return trunk, branches
