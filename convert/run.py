"""A checkpoint with its training state as a run that `pretrain --resume` continues.

The state is that of torch's AdamW (its moments, under our names) and of the original's learning-rate schedule.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from selfpab_jax.convert.checkpoint import Checkpoint
from selfpab_jax.convert.hyper_parameters import number, short
from selfpab_jax.convert.pickle_objects import StoredTensor
from selfpab_jax.convert.table import Arrays, is_ignored
from selfpab_jax.errors import ModelError, StorageError
from selfpab_jax.io import atomic_path, require_disk_space, require_parent, write_json
from selfpab_jax.model.functional import make_functional
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train.checkpoint import Checkpoints, checkpoint_metadata
from selfpab_jax.train.config import PretrainSettings, as_json
from selfpab_jax.train.optimizer import FINAL_SHARE, OptimizerSettings, adamw, learning_rate
from selfpab_jax.train.run_dir import SETTINGS_FILE
from selfpab_jax.train.state import TrainState

SCHEDULE = "LinearWUSchedule"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TorchTrainingState:
    """The point where the original's training stopped.

    Args:
        step: AdamW's steps so far.
        optimizer: settings of AdamW and of the schedule.
        mean: first moment of every parameter, as views of the file under our names.
        square: second moment, by the same names.
    """

    step: int
    optimizer: OptimizerSettings
    mean: Arrays
    square: Arrays


# Writing the run


def require_new(run: Path) -> None:
    """Check before any work that a run may be written.

    Raises:
        StorageError: it exists, or cannot be created.
    """
    if run.exists():
        raise StorageError(f"{run} exists; choose another directory for the run")
    require_parent(run)


def write_run(checkpoint: Checkpoint, run: Path, statistics: Statistics) -> TorchTrainingState:
    """Write the run: settings, the complete state as its latest checkpoint, and the parameters as its best.

    The held-out loss of the file is not used: it was measured on other records, and is measured again.

    Args:
        checkpoint: with the state of its optimizer and schedule.
        run: directory to create.
        statistics: that its inputs are normalized with.

    Raises:
        ModelError: the checkpoint's training cannot be continued.
        StorageError: the run exists or cannot be written.
    """
    require_new(run)
    checkpoint.check_weights()
    training = read_training_state(checkpoint)
    parameters = checkpoint.parameters()
    require_disk_space(run, 4 * sum(array.nbytes for array in parameters.values()))
    settings = PretrainSettings(model=checkpoint.settings, task=checkpoint.family.task, optimizer=training.optimizer)
    state = _train_state(checkpoint, training, parameters)
    checkpoint.file.release_all()  # it is in memory now, and Orbax needs a second copy while it writes
    with atomic_path(run) as temporary:
        temporary.mkdir()
        write_json(temporary / SETTINGS_FILE, as_json(settings))
        metadata = _metadata(checkpoint, settings, statistics)
        checkpoints = Checkpoints(temporary, settings.checkpoint)
        try:
            checkpoints.save_best(state.parameters, metadata, training.step)
            checkpoints.finish()
            checkpoints.save(state, metadata, training.step)
            checkpoints.finish()
        finally:
            checkpoints.close()
    return training


def _train_state(checkpoint: Checkpoint, training: TorchTrainingState, parameters: Arrays) -> TrainState:
    """The state of `pretrain`: optax's AdamW with the file's moments, at the file's step."""
    settings = training.optimizer
    schedule = learning_rate(settings, settings.total_steps(1), checkpoint.settings.width)
    functional = make_functional(checkpoint.settings, checkpoint.features, checkpoint.outputs)
    abstract = jax.eval_shape(adamw(settings, schedule).init, functional.abstract)
    count = np.asarray(training.step, np.int32)
    moments = {"mu": training.mean, "nu": training.square}

    def leaf(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> jax.Array:
        field = next(part.name for part in reversed(path) if isinstance(part, jax.tree_util.GetAttrKey))
        found = count if field == "count" else moments[field][path[-1].key]
        if found.shape != shape.shape:
            raise ValueError(f"{jax.tree_util.keystr(path)} has shape {found.shape}, not {shape.shape}")
        return jax.numpy.asarray(found)

    optimizer = jax.tree_util.tree_map_with_path(leaf, abstract)
    on_device = {name: jax.numpy.asarray(parameters[name]) for name in functional.abstract}
    return TrainState(jax.numpy.asarray(count), on_device, optimizer)


def _metadata(checkpoint: Checkpoint, settings: PretrainSettings, statistics: Statistics) -> dict[str, Any]:
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
        "source": checkpoint.source,
    }
    return checkpoint_metadata(
        as_json(settings),
        statistics,
        records,
        features=checkpoint.features,
        outputs=checkpoint.outputs,
        hours=None,
        steps=settings.optimizer.steps,
    )


# Reading the state of AdamW and its schedule


def read_training_state(checkpoint: Checkpoint) -> TorchTrainingState:
    """The state of AdamW and its schedule.

    Raises:
        ModelError: there is none, it is of another optimizer or schedule, or it does not fit the parameters.
    """
    try:
        return _read_state(checkpoint)
    except ModelError as error:
        raise ModelError(f"{checkpoint.file.path}: {str(error).removeprefix(f'{checkpoint.file.path}: ')}") from None


def _read_state(checkpoint: Checkpoint) -> TorchTrainingState:
    content = checkpoint.file.content
    if not checkpoint.has_arguments:
        raise ModelError("it has no hyper_parameters, so its run cannot be continued; convert the weights only")
    if not checkpoint.weight_set.is_main:
        raise ModelError(
            f"its optimizer state is not that of {checkpoint.weight_set.name}; convert these weights without --run"
        )
    if checkpoint.cast_from:
        raise ModelError(
            f"its weights are {' and '.join(checkpoint.cast_from)}, but a run continues in float32; convert the "
            "weights only"
        )
    name = checkpoint.arguments.get("optimizer")
    if name != "AdamW":
        raise ModelError(f"its optimizer is {short(name)}; only AdamW can be continued")
    states = content.get("optimizer_states")
    if not isinstance(states, list) or len(states) != 1 or not isinstance(states[0], dict):
        raise ModelError("it has no optimizer state, so its run cannot be continued; convert the weights only")
    group, by_number = _group(states[0]), states[0].get("state")
    by_name = _by_name(checkpoint, group, by_number if isinstance(by_number, dict) else {})
    steps = {_step(checkpoint, state) for state in by_name.values()}
    if len(steps) != 1:
        raise ModelError(f"its parameters have taken different numbers of steps: {sorted(steps)[:4]}")
    step = steps.pop()
    moments = [{name: state[moment] for name, state in by_name.items()} for moment in MOMENTS]
    for tensors in moments:
        checkpoint.check_values(tensors)
    optimizer = _optimizer(checkpoint, group, step)
    return TorchTrainingState(step, optimizer, *(checkpoint.to_ours(tensors) for tensors in moments))


def _group(state: Mapping[str, Any]) -> Mapping[str, Any]:
    groups = state.get("param_groups")
    if not isinstance(groups, list) or len(groups) != 1 or not isinstance(groups[0], dict):
        raise ModelError("its optimizer has several groups of parameters, which is not supported")
    if groups[0].get("amsgrad") or groups[0].get("maximize"):
        raise ModelError("its AdamW uses amsgrad or maximize, which is not supported")
    return groups[0]


def _by_name(checkpoint: Checkpoint, group: Mapping[str, Any], states: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    # torch's optimizers number their parameters in the order of `model.parameters()`, which is that of `state_dict`
    # without its buffers (frame positions; calendar positions are parameters). Comparing shapes finds another order.
    names = [name for name in checkpoint.tensors if not (is_ignored(name) or name.endswith(".pe"))]
    numbers = group.get("params")
    if not isinstance(numbers, list) or len(numbers) != len(names):
        raise ModelError(f"its optimizer does not hold the model's {len(names)} parameters")
    found = {name: states.get(place) for name, place in zip(names, numbers, strict=True)}
    problems, fitting = [], {}
    for name, weight in checkpoint.weights.items():
        state, shape = found[name], weight.shape
        moments = [state.get(moment) for moment in MOMENTS] if isinstance(state, dict) else [None, None]
        for moment, tensor in zip(MOMENTS, moments, strict=True):
            if not isinstance(tensor, StoredTensor):
                problems.append(f"{moment} of {name} is missing")
            elif tensor.shape != shape or tensor.dtype != "float32":
                problems.append(f"{moment} of {name} has shape {tensor.shape} of {tensor.dtype}, not {shape}")
        fitting[name] = state
    if problems:
        raise ModelError("its optimizer state does not fit the model: " + "; ".join(problems))
    return fitting


def _step(checkpoint: Checkpoint, state: Mapping[str, Any]) -> int:
    step = state.get("step")
    value = float(checkpoint.file.array(step)) if isinstance(step, StoredTensor) and step.shape == () else step
    return number({"step": value}, "step", int)


def _optimizer(checkpoint: Checkpoint, group: Mapping[str, Any], step: int) -> OptimizerSettings:
    betas = group.get("betas")
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ModelError(f"its AdamW has betas {short(betas)}; two numbers are needed")
    beta1, beta2 = (number({"beta": beta}, "beta", float) for beta in betas)
    common = {
        "batch_size": number(checkpoint.arguments, "batch_size", int),
        "beta1": beta1,
        "beta2": beta2,
        "epsilon": number(group, "eps", float),
        "weight_decay": number(group, "weight_decay", float),
    }
    rate = number(group, "lr", float)
    settings = OptimizerSettings(**common, **_schedule(checkpoint, step, rate))
    # The schedule that continues must be where the file's stopped.
    at = learning_rate(settings, settings.total_steps(1), checkpoint.settings.width)
    expected = float(at(jax.numpy.asarray(step, "int32")))
    if not np.isclose(expected, rate, rtol=1e-5, atol=0):
        raise ModelError(f"its rate is {rate:.6g}, but its schedule gives {expected:.6g} after step {step}")
    return settings


def _schedule(checkpoint: Checkpoint, step: int, rate: float) -> dict[str, Any]:
    name, states = checkpoint.arguments.get("lr_scheduler"), checkpoint.file.content.get("lr_schedulers")
    epochs = number(checkpoint.arguments, "_epochs" if "_epochs" in checkpoint.arguments else "epochs", float)
    if name is None:
        total = number(checkpoint.arguments, "total_step_count", int)
        return {"schedule": "constant", "learning_rate": rate, "steps": total, "epochs": epochs}
    state = states[0] if isinstance(states, list) and len(states) == 1 else None
    if name != SCHEDULE or not isinstance(state, dict):
        raise ModelError(f"its learning-rate schedule {short(name)} cannot be continued; only {SCHEDULE} can")
    peak, final = (number(state, key, float) for key in ("initial_learning_rate", "end_learning_rate"))
    if not np.isclose(final, FINAL_SHARE * peak, rtol=1e-6):
        raise ModelError(f"its schedule ends at {final:g}, not at {FINAL_SHARE:g} of {peak:g}")
    taken = number(state, "n_steps", int) - 1  # it counts from 1
    if taken != step:
        raise ModelError(f"its schedule has taken {taken} steps, its optimizer {step}")
    return {
        "schedule": "linear_warmup",
        "learning_rate": peak,
        "warmup_share": number(state, "warmup", float),
        "steps": number(state, "decay_steps", int),
        "epochs": epochs,
        "full_first_step": True,
    }
