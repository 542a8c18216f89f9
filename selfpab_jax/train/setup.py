"""A run before it starts: model, mesh, optimizer, windows and length, computed and checked before any step."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Float64, Int64

from selfpab_jax.data.loader import rows_of_batch
from selfpab_jax.data.records.dataset import Records, RecordSource
from selfpab_jax.data.records.second_pass import movement, movement_shares, scaled_statistics
from selfpab_jax.data.splits import evenly, hours_of, select
from selfpab_jax.errors import DataError
from selfpab_jax.model.config import training_flops
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model.masking import features_of
from selfpab_jax.signal.calendar import UNKNOWN_START
from selfpab_jax.signal.normalization import SMALLEST_STD
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.optimizer import Schedule, adamw, learning_rate
from selfpab_jax.train.state import batch_shard, check_batch, make_mesh, parameter_shardings
from selfpab_jax.train.step import Objective

ADVICE = "the training diverged; start another --run with a lower optimizer.learning_rate or with optimizer.clip_norm"


@dataclass(frozen=True)
class TrainSetup:
    """Everything that the training loop needs and that does not change while it runs.

    Args:
        settings: of the run.
        records: that it trains on.
        objective: model, task and statistics.
        mesh: over all devices.
        optimizer: AdamW with its schedule.
        schedule: its learning rate.
        rows: training windows, as positions in the train split.
        shares: probability of each of them, where they are not drawn equally often.
        hours: of recording in them, overlaps counted once.
        window_hours: of recording in a window, on average: less than its length where some are padded.
        held_out: windows that validation measures on; none where there is no validation split.
        steps: of the whole run.
        validation_interval: steps between two validations.
        patience: validations without improvement that end the run, or None.
        flops: of one sample's training step.
        shard: which part of each batch this process reads, as (index, count).
    """

    settings: PretrainSettings
    records: Records
    objective: Objective
    mesh: Mesh
    optimizer: optax.GradientTransformation
    schedule: Schedule
    rows: Int64[np.ndarray, " n"]
    shares: Float64[np.ndarray, " n"] | None
    hours: float
    window_hours: float
    held_out: Int64[np.ndarray, " m"]
    steps: int
    validation_interval: int
    patience: int | None
    flops: int
    shard: tuple[int, int]

    def source(self, split: str) -> RecordSource:
        """The records of a split, with the times of their frames where the model has calendar positions."""
        return self.records.source(split, calendar=self.settings.model.temporal_positions)

    @property
    def batch_size(self) -> int:
        """Samples of a global batch."""
        return self.settings.optimizer.batch_size


def require_starts(records: Records) -> None:
    """Calendar positions need to know when every record begins.

    Raises:
        DataError: some records do not know it.
    """
    for split in ("train", "validation"):
        if split not in records.info.splits:
            continue
        unknown = records.index(split).start_ms == UNKNOWN_START
        if unknown.any():
            raise DataError(
                f"{records.folder}: {int(unknown.sum())} of {len(unknown)} records of {split} have no start time, "
                "which model.temporal_positions needs: build them from recordings with timestamps, or set it to false"
            )


def make_setup(settings: PretrainSettings, records: Records) -> TrainSetup:
    """Check the settings against records and devices, and compute what follows from them.

    Raises:
        ConfigError: task, mesh or batch do not fit the records or the devices.
        DataError: the records have fewer hours or subjects than asked for.
    """
    info = records.info
    features = features_of(settings.task, info.features, info.sensors, info.channels)
    functional = make_functional(settings.model, features, features, second_head=settings.task.second_head != "none")
    mesh = make_mesh(settings.mesh)
    parameter_shardings(functional, mesh)
    check_batch(settings.optimizer.batch_size, settings.optimizer.accumulate, mesh)
    shard = batch_shard(mesh, settings.optimizer.batch_size)
    if "train" not in info.splits:
        raise DataError(f"{records.folder} has no train split; build it with smaller validation and test shares")
    index = records.index("train")
    data = settings.data
    rows = select(index, hours=data.hours, subjects=data.subjects, seed=data.subset_seed)
    is_first = jax.process_index() == 0
    shares = movement_shares(movement(records, report=is_first)[rows]) if data.sampling == "movement" else None
    statistics = scaled_statistics(records, data.statistics, data.scale, report=is_first)
    if (statistics.std <= SMALLEST_STD).any():
        raise DataError(
            f"{records.folder}: some features of the {statistics.kind} statistics never vary, so they cannot be "
            "normalized; use more or shorter windows, or --data.statistics plain"
        )
    steps = settings.optimizer.total_steps(len(rows))
    schedule = learning_rate(settings.optimizer, steps, settings.model.width)
    interval = settings.validation.interval(len(rows), settings.optimizer.batch_size)
    held_out = len(records.source("validation")) if "validation" in info.splits else 0
    if settings.model.temporal_positions:
        require_starts(records)
    return TrainSetup(
        settings=settings,
        records=records,
        objective=Objective(functional, settings.task, statistics, info.sensors, len(info.channels)),
        mesh=mesh,
        optimizer=adamw(settings.optimizer, schedule),
        schedule=schedule,
        rows=rows,
        shares=shares,
        hours=hours_of(index, rows),
        window_hours=float(index.frames[rows].mean()) / info.frames * info.window_seconds / 3600,
        held_out=evenly(held_out, settings.validation.windows),
        steps=steps,
        validation_interval=interval,
        patience=settings.validation.patience_in_validations(steps, interval),
        flops=training_flops(settings.model, features, features, info.frames),
        shard=shard,
    )


def loss_not_finite(setup: TrainSetup, step: int, loss: float) -> str:
    """A message for a loss that is not finite: which step and records, and whether they or the training are to blame.

    Args:
        setup: of the run.
        step: whose loss it is, from 1.
        loss: as it was.
    """
    source = setup.source("train")
    seed, batch_size = setup.settings.seed, setup.batch_size
    rows = rows_of_batch(setup.rows, seed=seed, batch_size=batch_size, step=step - 1, shares=setup.shares)
    index = setup.records.index("train")
    broken = [row for row in rows if not np.isfinite(source[int(row)]["spectrogram"]).all()]
    recordings = dict.fromkeys(f"{index.subject[row]}/{index.recording[row]}" for row in broken or rows)
    names = ", ".join(list(recordings)[:4])
    if broken:
        return (
            f"the loss is {loss} at step {step}: {len(broken)} of its records hold values that are not finite: {names}"
        )
    return f"the loss is {loss} at step {step}, though its records ({names}, ...) are finite: {ADVICE}"


def start_event(setup: TrainSetup, step: int) -> dict[str, Any]:
    """What the log says when training starts at a step."""
    return {
        "event": "start",
        "step": step,
        "steps": setup.steps,
        "parameters": setup.objective.functional.parameter_count,
        "windows": len(setup.rows),
        "hours": setup.hours,
        "processes": jax.process_count(),
        "devices": setup.mesh.size,
        "device": setup.mesh.devices.flat[0].device_kind,
        "mesh": dict(setup.mesh.shape),
    }


def start_line(setup: TrainSetup, step: int) -> str:
    """The same for people."""
    begin = f"resuming at step {step}" if step else "starting"
    held_out = (
        f"validation on {len(setup.held_out):,} windows every {setup.validation_interval} steps"
        if len(setup.held_out)
        else "no held-out windows: the last state counts as the best"
    )
    return (
        f"{begin}: {setup.steps} steps on {setup.hours:,.1f} h of recording in {len(setup.rows):,} windows, {held_out}"
    )
