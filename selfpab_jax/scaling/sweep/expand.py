"""From a sweep's base, model and overrides to the settings of one run."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import AbstractMesh

from selfpab_jax.config import find_preset, merge, parse_settings, read_yaml
from selfpab_jax.data.records.dataset import RecordIndex, Records, open_records
from selfpab_jax.data.subsets import hours_of, select
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.model.flops import training_flops
from selfpab_jax.model.masking import features_of
from selfpab_jax.scaling.ladder import ladder_file, parameter_count
from selfpab_jax.scaling.sweep.config import AXES, Length, SweepSettings
from selfpab_jax.scaling.sweep.cost import Shape, device_seconds, memory_bytes, mesh_sizes, run_flops
from selfpab_jax.scaling.sweep.manifest import Line, hash_of
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.loop import as_json
from selfpab_jax.train.state import MESH_AXIS_OF, check_batch

# From a sweep's base, model and overrides to the settings of one run.


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
        of_axes["optimizer"] = {"learning_rate": axes["learning_rate"]}
    if data is not None:
        of_axes["data"]["path"] = str(data)
    parts = [read_yaml(preset_file(sweep.base, "base"))]
    if "model" in axes:
        parts.append(_model(sweep, axes["model"]))
    merged: dict[str, Any] = {}
    for part in (*parts, sweep.overrides, of_axes):
        merged = merge(merged, part)
    try:
        return parse_settings(PretrainSettings, merged)
    except ConfigError as error:
        place = ", ".join(f"{name} {value}" for name, value in axes.items())
        raise ConfigError(f"sweep {sweep.name}, run of {place}: {error}") from None


def settings_from_json(stored: dict[str, Any]) -> PretrainSettings:
    """The settings that `train.loop.as_json` wrote."""
    return parse_settings(PretrainSettings, stored)


def _model(sweep: SweepSettings, name: str) -> dict[str, Any]:
    if name in sweep.models:
        return sweep.models[name]
    try:
        return read_yaml(ladder_file(name))
    except ConfigError as error:
        own = f"; the sweep's own models are {', '.join(sweep.models)}" if sweep.models else ""
        raise ConfigError(f"sweep {sweep.name}: model {error}{own}") from None


def preset_file(name: str, field: str) -> Path:
    """The file, or the shipped preset of that name, that a field of the sweep names.

    Raises:
        ConfigError: there is neither.
    """
    try:
        return find_preset(name)
    except ConfigError as error:
        raise ConfigError(f"{field} {error}") from None


# From a sweep file and records to the lines of the plan, refusing what cannot fit.


@dataclass(frozen=True)
class Planned:
    """The runs of a sweep, and what is to be said about those that are not."""

    lines: list[Line]
    remarks: list[str]


def plan_sweep(sweep: SweepSettings, data: Path | None) -> Planned:
    """Work out every run of a sweep; nothing is written.

    Args:
        sweep: the sweep.
        data: directory of the records; where it is not given, `data.path` of the sweep's overrides.

    Raises:
        ConfigError: a run's settings make no sense, do not fit the devices, or there are no runs.
        DataError: the records cannot be read, or a run wants more than there is and the sweep says `refuse`.
    """
    if sweep.probe is not None:
        preset_file(sweep.probe["config"], f"sweep {sweep.name}: probe.config")
    planner = _Planner(sweep)
    lines: list[Line] = []
    dropped: dict[str, int] = {}
    hashes: dict[str, str] = {}
    twice = 0
    for axes in _places(sweep):
        settings = settings_for(sweep, axes, data)
        try:
            line = planner.line(len(lines), axes, settings)
        except DataError as error:
            if sweep.beyond_data == "refuse" or not axes.keys() & {"hours", "subjects"}:
                raise DataError(f"{_name(axes)}: {error}; take it out of the sweep, or say beyond_data: drop") from None
            dropped[str(error)] = dropped.get(str(error), 0) + 1
            continue
        if line.hash in hashes:
            twice += 1
            continue
        hashes[line.hash] = line.name
        lines.append(line)
    if not lines:
        raise ConfigError(f"sweep {sweep.name} has no runs left: {'; '.join(dropped)}")
    remarks = [f"dropped {count} runs: {reason}" for reason, count in dropped.items()]
    if twice:
        remarks.append(f"{twice} runs that two grids make are made once")
    fewer = {
        f"{line.axes['subjects']} subjects with seed {line.seed}: {line.subjects} of them have a part in the "
        f"{line.hours:.3g} hours": None
        for line in lines
        if line.axes.get("subjects", line.subjects) > line.subjects
    }
    remarks += fewer
    return Planned(lines, remarks)


def records_fingerprint(records: Records) -> str:
    """Of the train and validation shards: runs on records of another fingerprint cannot be compared."""
    shards = [[s.split, s.records, s.fingerprint] for s in records.info.shards if s.split in ("train", "validation")]
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()[:16]


class _Planner:
    """Opens each set of records and draws each subset once."""

    def __init__(self, sweep: SweepSettings):
        self._sweep = sweep
        self._records: dict[Path, tuple[Records, RecordIndex, str]] = {}
        self._subsets: dict[tuple, tuple[float, int, int]] = {}

    def line(self, index: int, axes: dict[str, Any], settings: PretrainSettings) -> Line:
        sweep, name = self._sweep, _name(axes)
        if settings.data.path is None:
            raise ConfigError(f"sweep {sweep.name} has no records: give --data.path what `records build` wrote")
        path = settings.data.path.absolute()
        settings = replace(settings, data=replace(settings.data, path=path))
        records, train, fingerprint = self._open(path)
        hours, subjects, windows = self._subset(settings, train)
        info = records.info
        try:
            features = features_of(settings.task, info.features, info.sensors, info.channels)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
        shape = Shape(features, features, info.frames)
        settings = with_length(settings, sweep.length, shape, windows)
        steps = settings.optimizer.total_steps(windows)
        memory = self._fits(name, settings, shape)
        flops = run_flops(settings, shape, steps)
        told, final = as_json(settings), asdict(sweep.final)
        return Line(
            index=index,
            name=name,
            axes=axes,
            hours=hours,
            subjects=subjects,
            windows=windows,
            parameters=parameter_count(settings.model, features, features),
            steps=steps,
            tokens=float(steps * settings.optimizer.batch_size * info.frames),
            flops=flops,
            memory_bytes=memory,
            device_seconds=device_seconds(flops, sweep.devices, sweep.rate),
            settings=told,
            final=final,
            probe=sweep.probe,
            records=fingerprint,
            hash=hash_of(told, final, fingerprint),
        )

    def _open(self, path: Path) -> tuple[Records, RecordIndex, str]:
        if path not in self._records:
            records = open_records(path)
            for split in ("train", "validation"):
                if split not in records.info.splits:
                    raise ConfigError(f"{records.folder} has no {split} split, by which runs are trained and judged")
            self._records[path] = records, records.index("train"), records_fingerprint(records)
        return self._records[path]

    def _subset(self, settings: PretrainSettings, train: RecordIndex) -> tuple[float, int, int]:
        data = settings.data
        key = (data.path, data.hours, data.subjects, data.subset_seed)
        if key not in self._subsets:
            rows = select(train, hours=data.hours, subjects=data.subjects, seed=data.subset_seed)
            self._subsets[key] = hours_of(train, rows), len(np.unique(train.subject[rows])), len(rows)
        return self._subsets[key]

    def _fits(self, name: str, settings: PretrainSettings, shape: Shape) -> int:
        devices = self._sweep.devices
        try:
            sizes = mesh_sizes(settings.mesh, devices.count)
            check_batch(
                settings.optimizer.batch_size,
                settings.optimizer.accumulate,
                AbstractMesh(tuple(sizes.values()), tuple(sizes)),  # pyright: ignore[reportArgumentType]
            )
        except ConfigError as error:
            raise ConfigError(f"{name} cannot fit: {error}") from None
        model = settings.model
        for logical, size in (("width", model.width), ("heads", model.heads), ("hidden", model.feedforward)):
            ways = sizes[MESH_AXIS_OF[logical]]
            if size % ways:
                raise ConfigError(
                    f"{name} cannot fit: mesh.{MESH_AXIS_OF[logical]} {ways} does not divide {size} {logical}"
                )
        needed = memory_bytes(settings, shape, sizes)
        if devices.memory_gib is not None and needed > devices.memory_gib * 2**30:
            raise ConfigError(
                f"{name} cannot fit: about {needed / 2**30:.3g} GiB a device, of {devices.memory_gib:g}; raise "
                "mesh.fsdp or optimizer.accumulate, or model.rematerialize layers"
            )
        return needed


def with_length(settings: PretrainSettings, length: Length, shape: Shape, windows: int) -> PretrainSettings:
    """The settings with the number of epochs or steps that the sweep's length makes for them."""
    optimizer = settings.optimizer
    if length.epochs is not None:
        return replace(settings, optimizer=replace(optimizer, epochs=length.epochs, steps=None))
    if length.steps is not None:
        steps = length.steps
    elif length.tokens is not None:
        steps = length.tokens / (optimizer.batch_size * shape.frames)
    else:
        each = training_flops(settings.model, shape.features, shape.outputs, shape.frames)
        steps = (length.flops or 0) / (each * optimizer.batch_size)
    return replace(settings, optimizer=replace(optimizer, steps=max(1, round(steps))))


def _places(sweep: SweepSettings) -> Iterator[dict[str, Any]]:
    """Axes in the order of AXES, so that a name does not depend on the order in the file; seeds vary fastest."""
    for grid in sweep.grids:
        axes = [axis for axis in (*(a for a in AXES if a != "seed"), "seed") if axis in grid]
        for values in itertools.product(*(grid[axis] for axis in axes)):
            yield dict(zip(axes, values, strict=True))


def _name(axes: dict[str, Any]) -> str:
    short = {"hours": "h", "subjects": "p", "model": "", "learning_rate": "lr", "seed": "s"}
    return "-".join(
        f"{short[axis]}{value:g}" if isinstance(value, float) else f"{short[axis]}{value}"
        for axis, value in axes.items()
    )
