"""The jitted steps: one that trains, one that measures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float16, Int, Key

from selfpab_jax.model.encoder import ReconstructionModel
from selfpab_jax.model.functional import FunctionalModel, Parameters
from selfpab_jax.model.losses import masked_errors
from selfpab_jax.model.masking import MaskedBatch, TaskSettings, mask_batch
from selfpab_jax.model.rng import fold_each, sample_keys
from selfpab_jax.signal.normalization import Statistics, log_magnitudes, to_scale
from selfpab_jax.train.state import TrainState, batch_sharding, on_every_device, replicated, state_shardings


class FrameInfo(NamedTuple):
    """What is known of a batch's frames beside their magnitudes.

    Attributes:
        valid_B: valid frames of each sample: padding after them is neither masked nor attended to, and its
            reconstruction has no meaning. None: there is no padding.
        timestamps_BxTx5: month, day, weekday, hour and minute of each frame, for a model with calendar positions.
    """

    valid_B: Int[Array, " B"] | None = None
    timestamps_BxTx5: Int[Array, "B T 5"] | None = None


ALL_VALID = FrameInfo()


@dataclass(frozen=True)
class Objective:
    """Everything that turns a batch of raw spectrograms and parameters into a loss.

    Args:
        functional: the model.
        task: the pretext task.
        statistics: of the records, for normalization on the device.
        sensors: their names in the order of the features.
        channels: channels C of all sensors together.
    """

    functional: FunctionalModel
    task: TaskSettings
    statistics: Statistics
    sensors: tuple[str, ...]
    channels: int

    def normalize(
        self, spectrogram: Float16[Array, "B T X"], valid_B: Int[Array, " B"] | None = None
    ) -> Float[Array, "B T X"]:
        """Float32 frames, on the statistics' scale, with mean 0 and standard deviation 1 over the training recordings.

        Frames after the first `valid_B` of a sample are padding, and become 0.
        """
        scaled_BxTxX = to_scale(spectrogram.astype(jnp.float32), self.statistics.scale)
        frames_BxTxX = (scaled_BxTxX - self.statistics.mean) / self.statistics.std
        if valid_B is None:
            return frames_BxTxX
        is_valid_BxT = jnp.arange(frames_BxTxX.shape[1]) < valid_B[:, None]
        return jnp.where(is_valid_BxT[:, :, None], frames_BxTxX, 0)

    def mask(
        self,
        spectrogram: Float16[Array, "B T X"],
        keys_B: Key[Array, " B"],
        valid_B: Int[Array, " B"] | None = None,
    ) -> MaskedBatch:
        """Normalize a batch and draw its masks, within the valid frames."""
        frames_BxTxX = self.normalize(spectrogram, valid_B)
        return mask_batch(
            frames_BxTxX, keys_B, self.task, channels=self.channels, sensors=self.sensors, valid_B=valid_B
        )

    def reconstruct(
        self,
        parameters: Parameters,
        spectrogram: Float16[Array, "B T X"],
        keys_B: Key[Array, " B"],
        info: FrameInfo = ALL_VALID,
        *,
        training: bool,
    ) -> tuple[MaskedBatch, Float[Array, "B T O"]]:
        """The masked batch and the model's reconstruction of it.

        Args:
            parameters: of the model.
            spectrogram: magnitudes as records hold them.
            keys_B: one key per sample.
            info: of the frames.
            training: with dropout.
        """
        masked, model, h_BxPxQ = self._encoded(parameters, spectrogram, keys_B, info, training)
        return masked, model.reconstruct(h_BxPxQ, spectrogram.shape[1])

    def errors(
        self,
        parameters: Parameters,
        spectrogram: Float16[Array, "B T X"],
        keys_B: Key[Array, " B"],
        info: FrameInfo = ALL_VALID,
        *,
        training: bool,
    ) -> Float[Array, " B"]:
        """The loss of each sample, with that of the second head where there is one; arguments as for `reconstruct`."""
        masked, model, h_BxPxQ = self._encoded(parameters, spectrogram, keys_B, info, training)
        frames = spectrogram.shape[1]
        output = model.reconstruct(h_BxPxQ, frames)
        errors_B = masked_errors(self.compared(output), self.compared(masked.target), masked.mask, self.task.loss)
        if masked.altered_half is None:
            return errors_B
        odds_B = model.compare_halves(h_BxPxQ, frames, info.valid_B)
        cross_entropy_B = jax.nn.softplus(jnp.where(masked.altered_half == 1, -odds_B, odds_B))
        return errors_B + self.task.second_weight * jnp.where(masked.altered_half >= 0, cross_entropy_B, 0)

    def _encoded(
        self, parameters: Parameters, spectrogram: Array, keys_B: Array, info: FrameInfo, training: bool
    ) -> tuple[MaskedBatch, ReconstructionModel, Array]:
        masked = self.mask(spectrogram, fold_each(keys_B, 0), info.valid_B)
        model = self.functional.build(parameters)
        dropout_keys_B = fold_each(keys_B, 1) if training else None
        h_BxPxQ = model.encoder.encode_padded(masked.input, info.timestamps_BxTx5, dropout_keys_B, info.valid_B)
        return masked, model, h_BxPxQ

    def compared(self, frames_BxTxO: Float[Any, "*B T O"]) -> Float[Any, "*B T O"]:
        """What the loss compares: normalized frames as they are, or their log magnitudes for `log_spectral`."""
        if self.task.loss != "log_spectral":
            return frames_BxTxO
        scaled_BxTxO = frames_BxTxO * self.statistics.std + self.statistics.mean
        return log_magnitudes(scaled_BxTxO, self.statistics.scale)


class StepMetrics(NamedTuple):
    """What a training step reports to the host."""

    loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    stop: Bool[Array, ""]
    """Some process was asked to stop; all of them read this after the same step."""


LearningRate = Callable[[Int[Array, ""]], Float[Array, ""]]
"""As a function of the step, counted from 0."""


@runtime_checkable
class TrainStep(Protocol):
    """A training step."""

    def __call__(
        self,
        state: TrainState,
        spectrogram: Float16[Array, "B T X"],
        stop: Bool[Array, " N"],
        info: FrameInfo = ALL_VALID,
        /,
    ) -> tuple[TrainState, StepMetrics]:
        """The state after the step, and what it reports."""
        ...


@runtime_checkable
class ErrorStep(Protocol):
    """The loss of each sample."""

    def __call__(
        self,
        parameters: Parameters,
        spectrogram: Float16[Array, "B T X"],
        rows: Int[Array, " B"],
        info: FrameInfo = ALL_VALID,
        /,
    ) -> Float[Array, " B"]:
        """The losses."""
        ...


def train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: LearningRate,
    mesh: Mesh,
    *,
    seed: int,
    accumulate: int,
) -> TrainStep:
    """`jitted_train_step` for calls with arrays; the state that goes in is donated.

    Args:
        objective: model, task and statistics.
        optimizer: AdamW with its schedule.
        schedule: its learning rate, for the metrics.
        mesh: the devices.
        seed: of masking and dropout.
        accumulate: micro-batches that a batch is cut into.
    """
    jitted = jitted_train_step(objective, optimizer, schedule, mesh, seed=seed, accumulate=accumulate)

    def on_mesh(
        state: TrainState, spectrogram: Array, stop: Array, info: FrameInfo = ALL_VALID
    ) -> tuple[TrainState, StepMetrics]:
        with jax.set_mesh(mesh):
            return jitted(state, spectrogram, stop, info)

    return on_mesh


def jitted_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: LearningRate,
    mesh: Mesh,
    *,
    seed: int,
    accumulate: int,
) -> jax.stages.Wrapped:
    """The training step as `jax.jit` returns it, to be lowered or called under `jax.set_mesh(mesh)`.

    Masking and dropout depend on the seed, the step and each sample's place in the global batch, not on devices.

    Args:
        objective: model, task and statistics.
        optimizer: AdamW with its schedule.
        schedule: its learning rate, for the metrics.
        mesh: the devices.
        seed: of masking and dropout.
        accumulate: micro-batches that a batch is cut into.
    """

    def loss_of(parameters: Parameters, spectrogram: Array, keys_B: Array, info: FrameInfo) -> Array:
        return objective.errors(parameters, spectrogram, keys_B, info, training=True).mean()

    def step(state: TrainState, spectrogram: Array, stop: Array, info: FrameInfo) -> tuple[TrainState, StepMetrics]:
        keys_B = sample_keys(jax.random.key(seed), state.step, jnp.arange(spectrogram.shape[0]))
        loss, gradient = _mean_gradient(loss_of, state.parameters, (spectrogram, keys_B, info), accumulate)
        change, optimizer_state = optimizer.update(gradient, state.optimizer, state.parameters)
        parameters = cast(Parameters, optax.apply_updates(state.parameters, change))
        metrics = StepMetrics(loss, optax.tree.norm(gradient), schedule(state.step), stop.any())
        return TrainState(state.step + 1, parameters, optimizer_state), metrics

    shardings = state_shardings(objective.functional, optimizer, mesh)
    batch = batch_sharding(mesh)
    return jax.jit(
        step,
        in_shardings=(shardings, batch, on_every_device(mesh), batch),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def _mean_gradient(
    loss_of: Callable, parameters: Parameters, inputs: tuple[Array, Array, FrameInfo], accumulate: int
) -> tuple[Array, Parameters]:
    if accumulate == 1:
        return jax.value_and_grad(loss_of)(parameters, *inputs)

    def micro(total: tuple, part: tuple) -> tuple[tuple, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss_of)(parameters, *part)), None

    # Every accumulate-th sample, so that each device cuts its own part of the batch.
    parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, accumulate, *x.shape[1:]), 1, 0), inputs)
    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, parameters))
    total, _ = jax.lax.scan(micro, zero, parts)
    return jax.tree.map(lambda x: x / accumulate, total)


def held_out_keys(seed: int, rows: Int[Array, " B"]) -> Key[Array, " B"]:
    """Keys that mask a held-out record in the same way every time, whatever batch it comes in."""
    return sample_keys(jax.random.key(seed), jnp.zeros((), jnp.int32), rows)


def error_step(objective: Objective, mesh: Mesh, *, seed: int) -> ErrorStep:
    """The compiled held-out loss of each sample; its masking depends on the seed and the record alone."""

    def step(parameters: Parameters, spectrogram: Array, rows: Array, info: FrameInfo) -> Array:
        return objective.errors(parameters, spectrogram, held_out_keys(seed, rows), info, training=False)

    compiled = jax.jit(step, out_shardings=replicated(mesh))

    def on_mesh(parameters: Parameters, spectrogram: Array, rows: Array, info: FrameInfo = ALL_VALID) -> Array:
        with jax.set_mesh(mesh):
            return compiled(parameters, spectrogram, rows, info)

    return on_mesh


def to_devices(mesh: Mesh, local: np.ndarray, batch_size: int) -> Array:
    """This process's share of a batch (see `sharding.batch_shard`) as its part of the global array."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), local, (batch_size, *local.shape[1:]))


def frame_info(mesh: Mesh, batch: Mapping[str, np.ndarray], batch_size: int) -> FrameInfo:
    """Of this process's share of a batch, as `to_devices`: its `frames` and `timestamps`, where it has them."""
    names = ("frames", "timestamps")
    return FrameInfo(*(to_devices(mesh, batch[name], batch_size) if name in batch else None for name in names))


@jax.jit
def all_finite(parameters: Parameters) -> Bool[Array, ""]:
    """Whether every parameter is a finite number."""
    return jnp.stack([jnp.isfinite(array).all() for array in parameters.values()]).all()


def stop_flags(mesh: Mesh, stop: bool) -> Bool[Array, " N"]:
    """Whether this process was asked to stop, one entry per device."""
    local = np.full(len(mesh.local_devices), stop)
    return jax.make_array_from_process_local_data(on_every_device(mesh), local, (mesh.size,))
