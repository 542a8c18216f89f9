"""A sweep file: which runs, from which preset, how long, and on which devices."""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from selfpab_jax.config import read_yaml, update_names
from selfpab_jax.errors import ConfigError

AXES: dict[str, type] = {"hours": float, "subjects": int, "model": str, "seed": int, "learning_rate": float}
"""What a grid can vary, and the type of its values; beside them any field of a run by its dotted name."""
FIELDS_OF_AXES = {
    "data.hours": "hours",
    "data.subjects": "subjects",
    "data.subset_seed": "seed",
    "optimizer.learning_rate": "learning_rate",
}
RENAMED = {"devices": {"utilisation": "utilization"}}
"""Fields of groups of a sweep file by their name in version 0.1, which is still read."""

LENGTHS = ("epochs", "steps", "tokens", "flops")
Grid = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Length:
    """How long each run trains: exactly one of these, one or more of each.

    Args:
        epochs: passes over the windows; more data mean more steps.
        steps: optimizer steps; all runs with the same batch size see as many windows.
        tokens: frames seen, repeats counted; the steps follow from the batch size and the frames per window.
        flops: training FLOPs by formula; larger models take fewer steps, so that all runs cost the same.
        trunk: branch the runs of several lengths off one trunk (optimizer.schedule wsd), which is trained once.
        cooldown: share of each run's steps that it cools down over.
    """

    epochs: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()
    tokens: tuple[float, ...] = ()
    flops: tuple[float, ...] = ()
    trunk: bool = False
    cooldown: float = 0.2

    def __post_init__(self) -> None:
        given = [name for name in LENGTHS if getattr(self, name)]
        if len(given) != 1:
            raise ConfigError(f"give exactly one of {', '.join(LENGTHS)}, not {', '.join(given) or 'none'}")
        for value in self.values:
            if value <= 0:
                raise ConfigError(f"{given[0]} is {value:g}; it must be greater than 0")
        if len(set(self.values)) < len(self.values):
            raise ConfigError(f"{given[0]} has a value twice")
        if self.trunk and len(self.values) < 2:
            raise ConfigError("trunk is for several lengths; give a list of them")
        if not 0 < self.cooldown < 1:
            raise ConfigError(f"cooldown is {self.cooldown:g}; it must be a share between 0 and 1")

    @property
    def kind(self) -> str:
        """Which of the four is given."""
        return next(name for name in LENGTHS if getattr(self, name))

    @property
    def values(self) -> tuple[float, ...]:
        """One or more, as given."""
        return getattr(self, self.kind)


@dataclass(frozen=True)
class Devices:
    """The devices of each run, for estimates and for refusing runs that do not fit.

    Args:
        kind: of accelerator, as JAX names it, e.g. "NVIDIA H100"; "" where only a measured rate is known.
        count: devices per run.
        memory_gib: memory of one device; memory is not checked where it is not set.
        utilization: assumed fraction of the peak FLOP/s that training reaches.
    """

    kind: str = ""
    count: int = 1
    memory_gib: float | None = None
    utilization: float = 0.35

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count is {self.count}; it must be at least 1")
        if not 0 < self.utilization <= 1:
            raise ConfigError(f"utilization is {self.utilization:g}; it must be in (0, 1]")
        if self.memory_gib is not None and self.memory_gib <= 0:
            raise ConfigError(f"memory_gib is {self.memory_gib:g}; it must be greater than 0")


@dataclass(frozen=True)
class Rate:
    """A measured speed, in place of a peak and a utilization.

    Args:
        gflops: training GFLOP/s of one device.
        start_seconds: time that a run takes in addition to its steps: starting, compiling, validating, saving.
    """

    gflops: float
    start_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.gflops <= 0 or self.start_seconds < 0:
            raise ConfigError("gflops must be greater than 0, start_seconds not negative")


@dataclass(frozen=True)
class FinalMeasurement:
    """How the final held-out loss is measured: on the same windows with the same masks for all runs.

    Args:
        windows: number of windows, evenly spaced over the validation split; all where not set or where it has fewer.
        seed: of the masks.
        batch_size: windows per batch.
    """

    windows: int | None = None
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.batch_size < 1 or (self.windows is not None and self.windows < 1):
            raise ConfigError("windows and batch_size must be at least 1")


@dataclass(frozen=True)
class SweepSettings:
    """The content of a sweep file.

    Args:
        name: of the sweep.
        base: preset that every run starts from: a file, or the name of a shipped preset.
        grids: each is the product of its axes; a run that is in two of them is made once.
        length: how long each run trains.
        overrides: settings of all runs, as in a preset.
        models: further names for the axis `model`, each with settings as in a preset.
        beyond_data: drop runs that need more hours or subjects than there are, or refuse the sweep.
        devices: of each run.
        rate: measured on one device.
        final: measurement after training.
        probe: downstream measurement after training, none where not set: `config`, a preset of `selfpab-jax probe`,
            and `data`, its recordings.
    """

    name: str
    base: str
    grids: tuple[Grid, ...]
    length: Length
    overrides: dict[str, Any] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    beyond_data: Literal["drop", "refuse"] = "refuse"
    devices: Devices = field(default_factory=Devices)
    rate: Rate | None = None
    final: FinalMeasurement = field(default_factory=FinalMeasurement)
    probe: dict[str, Any] | None = None


def read_sweep(path: Path) -> SweepSettings:
    """Read a sweep file; `name` is the name of the file where it has none.

    Raises:
        ConfigError: it cannot be read, a field or an axis is unknown, or a value is invalid; names the field.
    """
    return parse_sweep(read_yaml(path), str(path), path.stem)


def parse_sweep(content: Mapping[str, Any], where: str, name: str) -> SweepSettings:
    """Check the content of a sweep file.

    Args:
        content: nested plain values, as YAML holds them.
        where: the file, for messages.
        name: of the sweep where the content has none.

    Raises:
        ConfigError: a field or an axis is unknown, or a value is invalid; names the field.
    """
    values = {"name": name, **_mapping(content, where)}
    _known(values, [each.name for each in fields(SweepSettings)], where, "field")
    for needed in ("base", "grids", "length"):
        if values.get(needed) is None:
            raise ConfigError(f"{where}: {needed} is missing (docs/sweeps.md lists the fields of a sweep file)")
    if values.get("beyond_data", "refuse") not in ("drop", "refuse"):
        raise ConfigError(f"{where}: beyond_data is {values['beyond_data']}; it is drop or refuse")
    for group in ("overrides", "models", "probe"):
        if values.get(group) is not None:
            values[group] = _mapping(values[group], f"{where}: {group}")
    kinds = {"length": Length, "devices": Devices, "rate": Rate, "final": FinalMeasurement}
    for group, kind in kinds.items():
        if values.get(group) is not None:
            values[group] = _group(kind, values[group], f"{where}: {group}", RENAMED.get(group, {}))
    if values.get("overrides"):
        values["overrides"] = update_names(values["overrides"], f"{where}: overrides")
    for model, settings in (values.get("models") or {}).items():
        if not re.fullmatch(r"[\w.]+", model) or not isinstance(settings, Mapping):
            raise ConfigError(f"{where}: models: {model} must be a name of letters and digits with settings of a run")
        values["models"][model] = update_names(settings, f"{where}: models: {model}")
    if values.get("probe") is not None:
        _known(values["probe"], ("config", "data"), f"{where}: probe", "field")
        if sorted(values["probe"]) != ["config", "data"]:
            raise ConfigError(f"{where}: probe needs config, a preset of `selfpab-jax probe`, and data, its recordings")
    grids = values["grids"]
    if not isinstance(grids, list) or not grids:
        raise ConfigError(f"{where}: grids must be a list of grids, each a mapping of axes to values")
    values["grids"] = tuple(_grid(grid, f"{where}: grid {number}") for number, grid in enumerate(grids, 1))
    for each in ("name", "base"):
        values[each] = str(values[each])
    return SweepSettings(**{each: value for each, value in values.items() if value is not None})


def _grid(content: Any, where: str) -> Grid:
    grid = _mapping(content, where)
    _known({axis: values for axis, values in grid.items() if not is_field(axis)}, AXES, where, "axis")
    if not grid:
        raise ConfigError(f"{where} has no axes; give one of {', '.join(AXES)}, or a field such as data.scale")
    if taken := [axis for axis in grid if axis in FIELDS_OF_AXES]:
        raise ConfigError(f"{where}: {taken[0]} is the axis {FIELDS_OF_AXES[taken[0]]}")
    if taken := [axis for axis in grid if axis in ("optimizer.steps", "optimizer.epochs", "data.path")]:
        raise ConfigError(f"{where}: {taken[0]} follows from the sweep's length and records, and is not an axis")
    found: Grid = {}
    for axis, values in grid.items():
        listed = values if isinstance(values, list) else [values]
        if not listed:
            raise ConfigError(f"{where}: {axis} has no values")
        if is_field(axis):
            found[axis] = tuple(_plain(value, f"{where}, {axis}") for value in listed)
        else:
            found[axis] = tuple(_number(AXES[axis], value, f"{where}, {axis}") for value in listed)
        if len(set(found[axis])) < len(found[axis]):
            raise ConfigError(f"{where}: {axis} has a value twice")
        if axis in ("hours", "subjects", "learning_rate") and min(found[axis]) <= 0:
            raise ConfigError(f"{where}: {axis} has {min(found[axis]):g}; its values must be greater than 0")
        if axis == "seed" and not 0 <= min(found[axis]) <= max(found[axis]) < 2**31:
            raise ConfigError(f"{where}: seeds are whole numbers from 0 to {2**31 - 1}")
    return found


def is_field(axis: str) -> bool:
    """Whether an axis is a field of a run by its dotted name, such as `task.masking.time_share`."""
    return "." in axis


def _plain(value: Any, where: str) -> Any:
    """A value of a field: text, a number, true or false; the run's settings check it."""
    if not isinstance(value, str | int | float):
        raise ConfigError(f"{where} is {value!r}; give text, a number, true or false")
    return value


def _group(kind: type, content: Any, where: str, renamed: Mapping[str, str]) -> Any:
    values = {renamed.get(name, name): value for name, value in _mapping(content, where).items()}
    types = {each.name: str(each.type) for each in fields(kind)}
    _known(values, types, where, "field")
    for name, value in values.items():
        wanted = str if "str" in types[name] else int if "int" in types[name] else float
        if types[name].startswith("tuple"):
            listed = value if isinstance(value, list) else [] if value is None else [value]
            values[name] = tuple(_number(wanted, each, f"{where}.{name}") for each in listed)
        elif "bool" in types[name]:
            if not isinstance(value, bool):
                raise ConfigError(f"{where}.{name} is {value!r}; give true or false")
        else:
            values[name] = None if value is None else _number(wanted, value, f"{where}.{name}")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _number(kind: type, value: Any, where: str) -> Any:
    """A value of an axis or field; PyYAML reads 1e18 and 5e-4 as text, and a model may be called 3."""
    if kind is str:
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{where} is {value!r}, which is not a number") from None
    if isinstance(value, bool) or not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise ConfigError(f"{where} is {value!r}, which is not a {'whole ' if kind is int else ''}number")
    return value if isinstance(value, kind) else kind(number)


def _mapping(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{where} must be a mapping of names to values")
    return dict(content)


def _known(values: Mapping[str, Any], names: Any, where: str, what: str) -> None:
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, list(names), 1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names)}"
            raise ConfigError(f"{where}: no {what} {name}; {hint}")
