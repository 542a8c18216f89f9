"""What a run will do, worked out and checked before the first device is used."""

from dataclasses import dataclass

import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Int64

from selfpab_jax.data.records.dataset import Records
from selfpab_jax.data.subsets import evenly, hours_of, select
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.model.flops import training_flops
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model.masking import features_of
from selfpab_jax.signal.normalization import SMALLEST_STD
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.optimizer import Schedule, adamw, learning_rate
from selfpab_jax.train.state import check_batch, make_mesh, parameter_shardings, reading_share
from selfpab_jax.train.step import Objective


@dataclass(frozen=True)
class Plan:
    """A run before it starts.

    Args:
        objective: model, task and statistics.
        mesh: over all devices.
        update: the optimizer.
        schedule: its learning rate.
        rows: training windows, as positions in the train split.
        hours: of recording in them, overlaps counted once.
        held_out: windows that validation measures on.
        steps: of the whole run.
        validation_interval: steps between two measurements.
        patience: measurements without improvement that end the run, or None.
        flops: of one sample's training step.
    """

    objective: Objective
    mesh: Mesh
    update: optax.GradientTransformation
    schedule: Schedule
    rows: Int64[np.ndarray, " n"]
    hours: float
    held_out: Int64[np.ndarray, " m"]
    steps: int
    validation_interval: int
    patience: int | None
    flops: int


def make_plan(settings: PretrainSettings, records: Records) -> Plan:
    """Work out a run.

    Raises:
        ConfigError: task, mesh or batch do not fit the records or the devices.
        DataError: the records have fewer hours or subjects than asked for.
    """
    info = records.info
    if settings.model.temporal_positions:
        raise ConfigError(
            "model.temporal_positions needs the time of every frame, which records do not carry; leave it off to train"
        )
    try:
        features = features_of(settings.task, info.features, info.sensors, info.channels)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    functional = make_functional(settings.model, features, features)
    mesh = make_mesh(settings.mesh)
    parameter_shardings(functional, mesh)
    optimizer = settings.optimizer
    check_batch(optimizer.batch_size, optimizer.accumulate, mesh)
    reading_share(mesh, optimizer.batch_size)
    if "train" not in info.splits:
        raise DataError(f"{records.folder} has no train split; build it with smaller validation and test shares")
    index = records.index("train")
    rows = select(
        index,
        hours=settings.data.hours,
        subjects=settings.data.subjects,
        seed=settings.data.subset_seed,
    )
    statistics = records.statistics(settings.data.statistics)
    if (statistics.std <= SMALLEST_STD).any():
        raise DataError(
            f"{records.folder}: the {statistics.kind} statistics have features without spread, "
            "which normalization blows up; use more or shorter windows, or --data.statistics plain"
        )
    steps = optimizer.total_steps(len(rows))
    schedule = learning_rate(optimizer, steps, settings.model.width)
    interval = settings.validation.interval(len(rows), optimizer.batch_size)
    return Plan(
        objective=Objective(functional, settings.task, statistics, info.sensors, len(info.channels)),
        mesh=mesh,
        update=adamw(optimizer, schedule),
        schedule=schedule,
        rows=rows,
        hours=hours_of(index, rows),
        held_out=evenly(_held_out_windows(records), settings.validation.windows),
        steps=steps,
        validation_interval=interval,
        patience=settings.validation.patience_in_validations(steps, interval),
        flops=training_flops(settings.model, features, features, info.frames),
    )


def _held_out_windows(records: Records) -> int:
    return len(records.source("validation")) if "validation" in records.info.splits else 0
