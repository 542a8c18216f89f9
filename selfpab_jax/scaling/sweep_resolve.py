"""From a sweep's base, model and overrides to the settings of one run."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from selfpab_jax.cli.preset import preset
from selfpab_jax.cli.pretrain import PretrainParser, pretrain_parser, settings_of
from selfpab_jax.errors import ConfigError
from selfpab_jax.scaling.ladder import ladder_file
from selfpab_jax.scaling.sweep_settings import SweepSettings
from selfpab_jax.train.settings import PretrainSettings


def settings_for(sweep: SweepSettings, axes: Mapping[str, Any], data: Path | None) -> PretrainSettings:
    """The settings of the run at one place of a grid.

    Later ones win: base, the model of the axis, the sweep's overrides, the axes, the records' path. `seed` is that of
    the subset, too, so that for one seed smaller amounts of data lie inside larger ones. The length is not set yet.

    Args:
        sweep: the sweep.
        axes: value of each axis.
        data: directory of the records; that of the overrides or the base where not given.

    Raises:
        ConfigError: a field is unknown or its value makes no sense.
    """
    of_axes: dict[str, Any] = {"data": {name: axes[name] for name in ("hours", "subjects") if name in axes}}
    if "seed" in axes:
        of_axes["seed"] = of_axes["data"]["subset_seed"] = axes["seed"]
    if "learning_rate" in axes:
        of_axes["optimiser"] = {"learning_rate": axes["learning_rate"]}
    if data is not None:
        of_axes["data"]["path"] = str(data)
    parts = [_yaml(preset_file(sweep.base, "base"))]
    if "model" in axes:
        parts.append(_model(sweep, axes["model"]))
    merged: dict[str, Any] = {}
    for part in (*parts, sweep.overrides, of_axes):
        merged = _merged(merged, part)
    foreign = [name for name in merged if name not in PretrainSettings.__dataclass_fields__]
    if foreign:
        raise ConfigError(f"sweep {sweep.name}: {foreign[0]} is no part of a run's settings")
    try:
        # As text, so that values are read as in a preset (PyYAML takes 5e-4 for a text and writes it as it was).
        parsed = _parser().parse_string(yaml.safe_dump(merged))
        return settings_of(_parser(), parsed)
    except ConfigError as error:
        place = ", ".join(f"{name} {value}" for name, value in axes.items())
        raise ConfigError(f"sweep {sweep.name}, run of {place}: {error}") from None


def settings_from_json(told: dict[str, Any]) -> PretrainSettings:
    """The settings that `train.pretrain.as_json` wrote."""
    return settings_of(_parser(), _parser().parse_object(told))


@cache
def _parser() -> PretrainParser:
    return pretrain_parser()


def _model(sweep: SweepSettings, name: str) -> dict[str, Any]:
    if name in sweep.models:
        return sweep.models[name]
    try:
        return _yaml(ladder_file(name))
    except ConfigError as error:
        own = f"; the sweep's own models are {', '.join(sweep.models)}" if sweep.models else ""
        raise ConfigError(f"sweep {sweep.name}: model {error}{own}") from None


def preset_file(name: str, field: str) -> Path:
    """The file, or the shipped preset of that name, that a field of the sweep names.

    Raises:
        ConfigError: there is neither.
    """
    path = preset(Path(name))
    if not path.is_file():
        raise ConfigError(f"{field} {name} is no file and no shipped preset")
    return path


@cache
def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(under)
    for name, value in over.items():
        old = both.get(name)
        if isinstance(old, Mapping) and value is not None and not isinstance(value, Mapping):
            raise ConfigError(
                f"{name} is {value!r}; it has fields of its own: {', '.join(map(str, old)) or 'name them'}"
            )
        both[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both
