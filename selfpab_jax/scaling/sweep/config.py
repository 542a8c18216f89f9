"""A sweep file: which runs, on what base, how long, on which devices."""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from selfpab_jax.errors import ConfigError

AXES: dict[str, type] = {"hours": float, "subjects": int, "model": str, "seed": int, "learning_rate": float}
"""What a grid can vary, and what its values are."""

Grid = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Length:
    """How long each run trains: exactly one of these.

    Args:
        epochs: passes over its windows; more data mean more steps.
        steps: optimizer steps; all runs of a batch size see as many windows.
        tokens: frames seen, repeats counted; the steps follow from the batch and the frames of a window.
        flops: of training by hand count; larger models take fewer steps, so that all cost the same.
    """

    epochs: float | None = None
    steps: int | None = None
    tokens: float | None = None
    flops: float | None = None

    def __post_init__(self) -> None:
        given = {each.name: getattr(self, each.name) for each in fields(self) if getattr(self, each.name) is not None}
        if len(given) != 1:
            raise ValueError(f"give exactly one of epochs, steps, tokens, flops, not {', '.join(given) or 'none'}")
        for name, value in given.items():
            if value <= 0:
                raise ValueError(f"{name} is {value:g}; it must be greater than 0")


@dataclass(frozen=True)
class Devices:
    """What a run has to itself, for estimates and for what cannot fit.

    Args:
        kind: of accelerator, as train/chips.py names it; "" where only a measured rate is known.
        count: devices of a run.
        memory_gib: of one device; nothing is refused for memory where it is not set.
        utilization: assumed share of the kind's peak that training reaches.
    """

    kind: str = ""
    count: int = 1
    memory_gib: float | None = None
    utilization: float = 0.35

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}; it must be at least 1")
        if not 0 < self.utilization <= 1:
            raise ValueError(f"utilization is {self.utilization:g}; it must lie in (0, 1]")
        if self.memory_gib is not None and self.memory_gib <= 0:
            raise ValueError(f"memory_gib is {self.memory_gib:g}; it must be greater than 0")


@dataclass(frozen=True)
class Rate:
    """Measured, in place of a peak and a utilization.

    Args:
        gflops: training FLOPs a second that one device keeps up, in 1e9.
        start_seconds: what a run takes beside its steps: starting, compiling, validating, saving.
    """

    gflops: float
    start_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.gflops <= 0 or self.start_seconds < 0:
            raise ValueError("gflops must be greater than 0, start_seconds not negative")


@dataclass(frozen=True)
class FinalMeasurement:
    """The held-out loss that a run is judged by: the same windows with the same parts hidden for all runs.

    Args:
        windows: so many, evenly spaced over the validation split; all where not set, or where it has fewer.
        seed: of what is hidden in them.
        batch_size: windows at a time.
    """

    windows: int | None = None
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.batch_size < 1 or (self.windows is not None and self.windows < 1):
            raise ValueError("windows and batch_size must be at least 1")


@dataclass(frozen=True)
class SweepSettings:
    """Everything that a sweep file says.

    Args:
        name: of the sweep.
        base: preset that every run starts from: a file, or a shipped one by name.
        grids: each the product of its axes; a run that two of them make is made once.
        length: how long each run trains.
        overrides: fields of all runs, as in a preset.
        models: further names for the axis `model`, each with fields as in a preset.
        beyond_data: what becomes of runs that want more hours or subjects than there are.
        devices: that each run has.
        rate: measured on one of them.
        final: measurement after training.
        probe: downstream measurement after training, none where not set: `config`, a preset of `selfpab-jax probe`, and
            `data`, its recordings.
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
    """Read a sweep file; `name` is the file's own where it has none.

    Raises:
        ConfigError: it cannot be read, a field or an axis is unknown, or a value makes no sense; names the field.
    """
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} is not there; sweeps lie in configs/sweeps/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    return sweep_of(told, str(path), path.stem)


def sweep_of(told: Any, where: str, name: str) -> SweepSettings:
    """A sweep file's content, checked (see `read_sweep`)."""
    values = {"name": name, **_mapping(told, where)}
    _known(values, [each.name for each in fields(SweepSettings)], where, "field")
    for needed in ("base", "grids", "length"):
        if values.get(needed) is None:
            raise ConfigError(f"{where}: {needed} is missing (docs/sweeps.md tells what a sweep file holds)")
    if values.get("beyond_data", "refuse") not in ("drop", "refuse"):
        raise ConfigError(f"{where}: beyond_data is {values['beyond_data']}; it is drop or refuse")
    for part in ("overrides", "models", "probe"):
        if values.get(part) is not None:
            values[part] = _mapping(values[part], f"{where}: {part}")
    parts = {"length": Length, "devices": Devices, "rate": Rate, "final": FinalMeasurement}
    for part, kind in parts.items():
        if values.get(part) is not None:
            values[part] = _part(kind, values[part], f"{where}: {part}")
    for model in values.get("models") or {}:
        if not re.fullmatch(r"[\w.]+", model) or not isinstance(values["models"][model], Mapping):
            raise ConfigError(f"{where}: models: {model} must be a name of letters and digits with fields of a preset")
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


def _grid(told: Any, where: str) -> Grid:
    grid = _mapping(told, where)
    _known(grid, AXES, where, "axis")
    if not grid:
        raise ConfigError(f"{where} has no axes; there are {', '.join(AXES)}")
    found: Grid = {}
    for axis, values in grid.items():
        listed = values if isinstance(values, list) else [values]
        found[axis] = tuple(_number(AXES[axis], value, f"{where}, {axis}") for value in listed)
        if not found[axis]:
            raise ConfigError(f"{where}: {axis} has no values")
        if len(set(found[axis])) < len(found[axis]):
            raise ConfigError(f"{where}: {axis} has a value twice")
        if axis in ("hours", "subjects", "learning_rate") and min(found[axis]) <= 0:
            raise ConfigError(f"{where}: {axis} has {min(found[axis]):g}; its values must be greater than 0")
        if axis == "seed" and not 0 <= min(found[axis]) <= max(found[axis]) < 2**31:
            raise ConfigError(f"{where}: seeds are whole numbers from 0 to {2**31 - 1}")
    return found


def _part(kind: type, told: Any, where: str) -> Any:
    values = _mapping(told, where)
    types = {each.name: str(each.type) for each in fields(kind)}
    _known(values, types, where, "field")
    for name, value in values.items():
        wanted = str if "str" in types[name] else int if "int" in types[name] else float
        values[name] = None if value is None else _number(wanted, value, f"{where}.{name}")
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from None


def _number(kind: type, value: Any, where: str) -> Any:
    """YAML reads 1e18 and 5e-4 as texts, and 1m and 3 alike as names of models."""
    if kind is str:
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{where} is {value!r}, which is no number") from None
    if isinstance(value, bool) or not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise ConfigError(f"{where} is {value!r}, which is no {'whole ' if kind is int else ''}number")
    return value if isinstance(value, kind) else kind(number)


def _mapping(told: Any, where: str) -> dict[str, Any]:
    if not isinstance(told, Mapping) or not all(isinstance(name, str) for name in told):
        raise ConfigError(f"{where} must be a mapping of names to values")
    return dict(told)


def _known(values: Mapping[str, Any], names: Any, where: str, what: str) -> None:
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, list(names), 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            raise ConfigError(f"{where}: no {what} {name}; {hint}")
