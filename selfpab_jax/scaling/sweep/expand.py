"""From a sweep file and records to the runs of the plan; sweeps that cannot run are refused."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import AbstractMesh

from selfpab_jax.config import find_preset, merge, parse_settings, read_yaml
from selfpab_jax.data.records.dataset import RecordIndex, Records, open_records
from selfpab_jax.data.splits import hours_of, select
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.model.masking import features_of
from selfpab_jax.scaling.ladder import ladder_file, parameter_count
from selfpab_jax.scaling.sweep.config import AXES, SweepSettings, is_field
from selfpab_jax.scaling.sweep.cost import ModelShape, device_seconds, memory_bytes, mesh_sizes, run_flops
from selfpab_jax.scaling.sweep.lengths import trunk_and_branches, with_length
from selfpab_jax.scaling.sweep.manifest import TRUNK, PlannedRun, hash_of
from selfpab_jax.train.config import PretrainSettings, as_json
from selfpab_jax.train.state import MESH_AXIS_OF, check_batch


@dataclass(frozen=True)
class SweepPlan:
    """The runs of a sweep.

    Attributes:
        lines: the runs.
        remarks: about runs that were dropped or differ from what was asked for.
    """

    lines: list[PlannedRun]
    remarks: list[str]


def plan_sweep(sweep: SweepSettings, data: Path | None) -> SweepPlan:
    """Compute the settings and the cost of every run of a sweep; nothing is written.

    Args:
        sweep: the sweep.
        data: directory of the records; `data.path` of the settings where not given.

    Raises:
        ConfigError: the settings of a run are invalid or do not fit the devices, or there are no runs.
        DataError: the records cannot be read, or a run needs more data than there are and `beyond_data` is `refuse`.
    """
    if sweep.probe is not None:
        _preset(sweep.probe["config"], f"sweep {sweep.name}: probe.config")
    planner = _Planner(sweep)
    lines: list[PlannedRun] = []
    dropped: dict[str, int] = {}
    hashes: dict[str, str] = {}
    repeated = 0
    for axes in _grid_points(sweep):
        settings = settings_for(sweep, axes, data)
        try:
            of_point = planner.lines(axes, settings)
        except DataError as error:
            if sweep.beyond_data == "refuse" or not axes.keys() & {"hours", "subjects"}:
                raise DataError(f"{_name(axes)}: {error}; remove it from the sweep, or set beyond_data: drop") from None
            dropped[str(error)] = dropped.get(str(error), 0) + 1
            continue
        for line in of_point:
            if line.hash in hashes:
                repeated += 1
                continue
            hashes[line.hash] = line.name
            lines.append(replace(line, index=len(lines)))
    if not lines:
        raise ConfigError(f"sweep {sweep.name} has no runs left: {'; '.join(dropped)}")
    remarks = [f"dropped {count} runs: {reason}" for reason, count in dropped.items()]
    if repeated:
        remarks.append(f"{repeated} runs that are in two grids are made once")
    fewer = {
        f"{line.axes['subjects']} subjects with seed {line.seed}: only {line.subjects} of them contribute to the "
        f"{line.hours:.3g} hours": None
        for line in lines
        if line.axes.get("subjects", line.subjects) > line.subjects
    }
    remarks += fewer
    return SweepPlan(lines, remarks)


def records_fingerprint(records: Records) -> str:
    """Identifies the train and validation shards: runs on records with different fingerprints cannot be compared."""
    shards = [[s.split, s.records, s.fingerprint] for s in records.info.shards if s.split in ("train", "validation")]
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()[:16]


class _Planner:
    """Plans runs; opens each set of records and draws each subset only once."""

    def __init__(self, sweep: SweepSettings):
        self._sweep = sweep
        self._records: dict[Path, tuple[Records, RecordIndex, str]] = {}
        self._subsets: dict[tuple, tuple[float, int, int]] = {}

    def lines(self, axes: dict[str, Any], settings: PretrainSettings) -> list[PlannedRun]:
        """A run for each length; before them, the trunk that they are branched off, if they are."""
        sweep, name = self._sweep, _name(axes)
        if settings.data.path is None:
            raise ConfigError(
                f"sweep {sweep.name} has no records: give --data.path, the directory that `records build` wrote"
            )
        path = settings.data.path.absolute()
        settings = replace(settings, data=replace(settings.data, path=path))
        records, train, _ = self._open(path)
        windows, info = self._subset(settings, train)[2], records.info
        try:
            features = features_of(settings.task, info.features, info.sensors, info.channels)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
        shape = ModelShape(features, features, info.frames)
        lengths = sweep.length.values
        of_lengths = [with_length(settings, sweep.length.kind, length, shape, windows) for length in lengths]
        if len(lengths) == 1:
            return [self._line(axes, of_lengths[0], shape)]
        named = [_with_length(axes, length) for length in lengths]
        if not sweep.length.trunk:
            return [self._line(each, of_length, shape) for each, of_length in zip(named, of_lengths, strict=True)]
        try:
            name_of_trunk = _name(_with_length(axes, TRUNK))
            trunk, branches = trunk_and_branches(of_lengths, windows, sweep.length.cooldown, name_of_trunk)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
        first = replace(self._line(_with_length(axes, TRUNK), trunk, shape), probe=None)
        return [first, *(self._line(*pair, shape) for pair in zip(named, branches, strict=True))]

    def _line(self, axes: dict[str, Any], settings: PretrainSettings, shape: ModelShape) -> PlannedRun:
        sweep, name = self._sweep, _name(axes)
        assert settings.data.path is not None
        _, train, fingerprint = self._open(settings.data.path)
        hours, subjects, windows = self._subset(settings, train)
        steps, branch = settings.optimizer.total_steps(windows), settings.branch
        memory = self._fits(name, settings, shape)
        flops = run_flops(settings, shape, steps)
        plain, final = as_json(settings), asdict(sweep.final)
        return PlannedRun(
            index=0,
            name=name,
            axes=axes,
            hours=hours,
            subjects=subjects,
            windows=windows,
            parameters=parameter_count(settings.model, shape.features, shape.outputs),
            steps=steps,
            tokens=float(steps * settings.optimizer.batch_size * shape.frames),
            flops=flops,
            memory_bytes=memory,
            device_seconds=device_seconds(flops * (1 - branch.step / steps), sweep.devices, sweep.rate),
            settings=plain,
            final=final,
            probe=sweep.probe,
            records=fingerprint,
            hash=hash_of(plain, final, fingerprint),
            trunk="" if branch.run is None else branch.run.name,
            trunk_steps=branch.step,
        )

    def _open(self, path: Path) -> tuple[Records, RecordIndex, str]:
        if path not in self._records:
            records = open_records(path)
            for split in ("train", "validation"):
                if split not in records.info.splits:
                    raise ConfigError(f"{records.folder} has no {split} split; sweeps need train and validation")
            self._records[path] = records, records.index("train"), records_fingerprint(records)
        return self._records[path]

    def _subset(self, settings: PretrainSettings, train: RecordIndex) -> tuple[float, int, int]:
        data = settings.data
        key = (data.path, data.hours, data.subjects, data.subset_seed)
        if key not in self._subsets:
            rows = select(train, hours=data.hours, subjects=data.subjects, seed=data.subset_seed)
            self._subsets[key] = hours_of(train, rows), len(np.unique(train.subject[rows])), len(rows)
        return self._subsets[key]

    def _fits(self, name: str, settings: PretrainSettings, shape: ModelShape) -> int:
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
            shards = sizes[MESH_AXIS_OF[logical]]
            if size % shards:
                raise ConfigError(
                    f"{name} cannot fit: mesh.{MESH_AXIS_OF[logical]} {shards} does not divide {size} {logical}"
                )
        needed = memory_bytes(settings, shape, sizes)
        if devices.memory_gib is not None and needed > devices.memory_gib * 2**30:
            raise ConfigError(
                f"{name} cannot fit: about {needed / 2**30:.3g} GiB per device, but it has {devices.memory_gib:g}; "
                "increase mesh.fsdp or optimizer.accumulate, or set model.rematerialize to layers"
            )
        return needed


def _grid_points(sweep: SweepSettings) -> Iterator[dict[str, Any]]:
    """The values of the axes of every run, in the order of AXES, then fields; seeds vary fastest."""
    for grid in sweep.grids:
        named = [axis for axis in AXES if axis in grid and axis != "seed"]
        axes = [*named, *sorted(filter(is_field, grid)), *(["seed"] if "seed" in grid else [])]
        for values in itertools.product(*(grid[axis] for axis in axes)):
            yield dict(zip(axes, values, strict=True))


def _with_length(axes: dict[str, Any], length: float | str) -> dict[str, Any]:
    """The axes with the length before the seed, which names end with."""
    others = {axis: value for axis, value in axes.items() if axis != "seed"}
    return {**others, "length": length, **({"seed": axes["seed"]} if "seed" in axes else {})}


def _name(axes: dict[str, Any]) -> str:
    short = {
        "hours": "h",
        "subjects": "p",  # p for participants
        "model": "",
        "learning_rate": "lr",
        "seed": "s",
        "length": "n",
    }
    parts = []
    for axis, value in axes.items():
        if axis == "length" and value == TRUNK:
            parts.append(TRUNK)
            continue
        text = f"{value:g}" if isinstance(value, float) else re.sub(r"[^\w.+]+", "_", str(value))
        parts.append(f"{axis.split('.', 1)[1]}_{text}" if is_field(axis) else f"{short[axis]}{text}")
    return "-".join(parts)


def settings_for(sweep: SweepSettings, axes: Mapping[str, Any], data: Path | None) -> PretrainSettings:
    """The settings of the run with these values of the axes.

    Later ones win: the base, the model, the overrides, the axes, the path of the records. `seed` is also the seed of
    the subset, so that for one seed smaller amounts of data are part of larger ones. The length is not set yet.

    Args:
        sweep: the sweep.
        axes: value of each axis.
        data: directory of the records; `data.path` of the settings where not given.

    Raises:
        ConfigError: a field is unknown or its value is invalid.
    """
    of_axes: dict[str, Any] = {"data": {name: axes[name] for name in ("hours", "subjects") if name in axes}}
    if "seed" in axes:
        of_axes["seed"] = of_axes["data"]["subset_seed"] = axes["seed"]
    if "learning_rate" in axes:
        of_axes["optimizer"] = {"learning_rate": axes["learning_rate"]}
    for axis in filter(is_field, axes):
        *groups, name = axis.split(".")
        inner = of_axes
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = axes[axis]
    if data is not None:
        of_axes["data"]["path"] = str(data)
    merged = read_yaml(_preset(sweep.base, "base"))
    model = _model(sweep, axes["model"]) if "model" in axes else {}
    try:
        for settings in (model, sweep.overrides, of_axes):
            merged = merge(merged, settings)
        return parse_settings(PretrainSettings, merged)
    except ConfigError as error:
        values = ", ".join(f"{name} {value}" for name, value in axes.items())
        raise ConfigError(f"sweep {sweep.name}, run with {values}: {error}") from None


def _model(sweep: SweepSettings, name: str) -> dict[str, Any]:
    if name in sweep.models:
        return sweep.models[name]
    try:
        return read_yaml(ladder_file(name))
    except ConfigError as error:
        own = f"; the models of the sweep are {', '.join(sweep.models)}" if sweep.models else ""
        raise ConfigError(f"sweep {sweep.name}: model {error}{own}") from None


def _preset(name: str, field: str) -> Path:
    try:
        return find_preset(name)
    except ConfigError as error:
        raise ConfigError(f"{field} {error}") from None
