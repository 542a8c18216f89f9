"""A checkpoint with its training state as a run that `pretrain --resume` continues."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from selfpab_jax.convert.checkpoint import Checkpoint
from selfpab_jax.convert.room import replaced_when_whole, require_folder, require_room
from selfpab_jax.convert.table import Arrays
from selfpab_jax.convert.training_state import TrainingState, read_training_state
from selfpab_jax.errors import ModelError
from selfpab_jax.model.blueprint import draw_blueprint
from selfpab_jax.signal.statistics import Statistics
from selfpab_jax.train.checkpoint import Checkpoints
from selfpab_jax.train.facts import facts_of
from selfpab_jax.train.optimiser import adamw, learning_rate
from selfpab_jax.train.pretrain import as_json
from selfpab_jax.train.run_directory import SETTINGS_FILE, write_json
from selfpab_jax.train.settings import PretrainSettings
from selfpab_jax.train.state import TrainState


def check_new(run: Path) -> None:
    """See before any work whether a run may be written.

    Raises:
        ModelError: it exists, or cannot be made.
    """
    if run.exists():
        raise ModelError(f"{run} exists; choose another directory for the run")
    require_folder(run)


def write_run(checkpoint: Checkpoint, run: Path, statistics: Statistics) -> TrainingState:
    """Write the run: settings, the whole state as its latest checkpoint, and the parameters as its best.

    The held-out loss of the file is not taken over: it was measured on other records, and is measured anew.

    Raises:
        ModelError: the run exists, the checkpoint's training cannot be continued, or the disk is too small.
    """
    check_new(run)
    if checkpoint.settings.temporal_positions:
        raise ModelError(
            f"{checkpoint.file.path}: a run with calendar positions cannot be continued: records carry no timestamps "
            "of frames; convert the weights alone"
        )
    checkpoint.check_weights()
    training = read_training_state(checkpoint)
    parameters = checkpoint.parameters()
    require_room(run, 4 * sum(array.nbytes for array in parameters.values()))
    settings = PretrainSettings(model=checkpoint.settings, task=checkpoint.family.task, optimiser=training.optimiser)
    state = state_of(checkpoint, training, parameters)
    checkpoint.file.forget_all()  # it is in memory now, and Orbax needs a second copy while it writes
    with replaced_when_whole(run) as workshop:
        workshop.mkdir()
        write_json(workshop / SETTINGS_FILE, as_json(settings))
        facts = _facts(checkpoint, settings, statistics)
        checkpoints = Checkpoints(workshop, settings.checkpoint)
        try:
            checkpoints.save_best(state.parameters, facts, training.step)
            checkpoints.finish()
            checkpoints.save(state, facts, training.step)
            checkpoints.finish()
        finally:
            checkpoints.close()
    return training


def state_of(checkpoint: Checkpoint, training: TrainingState, parameters: Arrays) -> TrainState:
    """The whole state as `pretrain` has it: optax's AdamW with the file's moments, at the file's step."""
    settings = training.optimiser
    schedule = learning_rate(settings, settings.total_steps(1), checkpoint.settings.width)
    blueprint = draw_blueprint(checkpoint.settings, checkpoint.features, checkpoint.outputs)
    abstract = jax.eval_shape(adamw(settings, schedule).init, blueprint.abstract)
    count = np.asarray(training.step, np.int32)
    moments = {"mu": training.mean, "nu": training.square}

    def leaf(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> jax.Array:
        field = next(part.name for part in reversed(path) if isinstance(part, jax.tree_util.GetAttrKey))
        found = count if field == "count" else moments[field][path[-1].key]
        if found.shape != shape.shape:
            raise ValueError(f"{jax.tree_util.keystr(path)} has shape {found.shape}, not {shape.shape}")
        return jax.numpy.asarray(found)

    optimiser = jax.tree_util.tree_map_with_path(leaf, abstract)
    on_device = {name: jax.numpy.asarray(parameters[name]) for name in blueprint.abstract}
    return TrainState(jax.numpy.asarray(count), on_device, optimiser)


def _facts(checkpoint: Checkpoint, settings: PretrainSettings, statistics: Statistics) -> dict[str, Any]:
    family = checkpoint.family
    spectrogram = family.spectrogram(checkpoint.features)
    window = spectrogram.fft_window + (family.frames - 1) * spectrogram.fft_hop
    records = {
        "settings": asdict(spectrogram),
        "window_samples": window,
        "shift_samples": window,
        "channels": list(family.channels),
        "sensors": list(family.sensors),
        "frames": family.frames,
        "features": len(statistics.mean),
        "source": f"{checkpoint.file.path.name}, written by PyTorch Lightning {checkpoint.version}",
    }
    return facts_of(
        as_json(settings),
        statistics,
        records,
        features=checkpoint.features,
        outputs=checkpoint.outputs,
        hours=None,
        steps=settings.optimiser.steps,
    )
