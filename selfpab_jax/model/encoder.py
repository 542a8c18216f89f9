"""The encoder: input projection, sinusoidal positions and post-norm layers; and the reconstruction model around it."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Float32, Int, Key, Shaped

from selfpab_jax.model.attention import SelfAttention
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.parameters import multiply, padded_size, parameter, uniform, zero_padded
from selfpab_jax.model.rng import dropout, fold_each

CALENDAR = {"month": 13, "day": 32, "weekday": 7, "hour": 24, "minute": 60}
"""Rows of LTA2V's five tables, in the order of the last axis of its timestamps."""


def sinusoids(rows: int, width: int) -> Float32[np.ndarray, "T D"]:
    """Sine on even and cosine on odd features, base 10,000, as the original builds its table.

    Every intermediate is float32, as there: the angle of frame 599 then differs from the float64 one by 2e-5, and
    a table in higher precision would miss the published encoder's positions by as much.
    """
    exponent = np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10_000.0) / width)
    # The nearest float32 to the exponential is what torch gets; NumPy's own is an ulp off for half of the rates.
    rate_of_pair = np.exp(exponent.astype(np.float64)).astype(np.float32)
    angle = np.arange(rows, dtype=np.float32)[:, None] * rate_of_pair
    table = np.empty((rows, width), np.float32)
    table[:, 0::2] = np.sin(angle)
    table[:, 1::2] = np.cos(angle)
    return table


def calendar_sinusoids(timestamps: Int[Array, "B T 5"], width: int) -> Float[Array, "B T D"]:
    """Sum of the five calendar tables at each frame's month, day, weekday, hour and minute (LTA2V)."""
    total = jnp.zeros((*timestamps.shape[:2], width))
    for column, rows in enumerate(CALENDAR.values()):
        total = total + jnp.asarray(sinusoids(rows, width))[timestamps[..., column]]
    return total


LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's default, which the original uses


class Dense(nnx.Module):
    """x W + b over the last axis, initialized as torch.nn.Linear.

    Args:
        inputs: size of the last axis of x.
        outputs: size of the last axis of the result.
        axes: logical axes of the kernel, for sharding.
        compute: dtype of the product.
        rngs: with a `params` stream.
        columns: padded size of the result; columns beyond `outputs` are 0.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        axes: tuple[str | None, str | None],
        compute: str,
        rngs: nnx.Rngs,
        columns: int | None = None,
    ):
        bound = 1 / math.sqrt(inputs)
        self.kernel = parameter(uniform(rngs, (inputs, outputs), bound), *axes)
        self.bias = parameter(uniform(rngs, (outputs,), bound), axes[1])
        self.compute = compute
        self.columns = columns or outputs

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B T O"]:
        """Product in the compute dtype."""
        kernel = zero_padded(self.kernel[...].astype(self.compute), x.shape[-1], self.columns)
        bias = zero_padded(self.bias[...].astype(self.compute), self.columns)
        return multiply("bti,io->bto", x, kernel, self.compute) + bias


class LayerNorm(nnx.Module):
    """LayerNorm over the last axis in float32; padding after the first `width` entries stays 0 and does not count."""

    def __init__(self, width: int):
        self.scale = parameter(jnp.ones(width), None)
        self.bias = parameter(jnp.zeros(width), None)
        self.width = width

    def __call__(self, h_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalize each frame; the variance is the biased one."""
        h = h_BxTxD.astype(jnp.float32)
        columns = h.shape[-1]
        centered = h - h.sum(-1, keepdims=True) / self.width
        if columns > self.width:
            centered = jnp.where(jax.lax.broadcasted_iota(jnp.int32, h.shape, h.ndim - 1) < self.width, centered, 0)
        variance = jnp.square(centered).sum(-1, keepdims=True) / self.width
        normal = centered * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
        return normal * zero_padded(self.scale[...], columns) + zero_padded(self.bias[...], columns)


class EncoderLayer(nnx.Module):
    """Post-norm transformer layer with a ReLU feed-forward, as torch.nn.TransformerEncoderLayer."""

    def __init__(self, settings: ModelSettings, rngs: nnx.Rngs):
        d, m, compute, layout = settings.width, settings.feedforward, settings.compute, settings.layout
        self.attention = SelfAttention(settings, rngs)
        self.norm1 = LayerNorm(d)
        self.expand = Dense(d, m, ("width", "hidden"), compute, rngs, padded_size(m, "hidden", layout))
        self.contract = Dense(m, d, ("hidden", "width"), compute, rngs, padded_size(d, "width", layout))
        self.norm2 = LayerNorm(d)
        self.settings = settings

    def __call__(
        self,
        h_BxTxD: Float[Array, "B T D"],
        keys_B: Key[Array, " B"] | None,
        frames: int,
        valid_B: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The layer's output (float32).

        Args:
            h_BxTxD: input; frames after the first `frames` are padding.
            keys_B: one key per sample for dropout, or None for evaluation.
            frames: without the layout's padding.
            valid_B: frames of each sample that are attended to; `frames` where not given.
        """
        rate, d, m = self.settings.dropout, self.settings.width, self.settings.feedforward
        keys = [None] * 4 if keys_B is None else [fold_each(keys_B, site) for site in range(4)]
        attended = dropout(self.attention(h_BxTxD, keys[0], frames, valid_B), rate, keys[1], (frames, d))
        h = self.norm1(h_BxTxD + attended.astype(jnp.float32))
        hidden = dropout(jax.nn.relu(self.expand(h)), rate, keys[2], (frames, m))
        return self.norm2(h + dropout(self.contract(hidden), rate, keys[3], (frames, d)).astype(jnp.float32))


BATCH_AXES = ("data", "fsdp")
"""Mesh axes that a batch is sharded over."""


def shard_batch(x: Shaped[Array, "B ..."]) -> Shaped[Array, "B ..."]:
    """Keep the first axis sharded over devices and the others whole; does nothing without a mesh.

    Used once per layer, it makes FSDP gather a layer's weights instead of splitting its activations.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES))


class EncoderTrace(NamedTuple):
    """Intermediate results of the encoder; `layers[-1]` is its output."""

    embedding: Float[Array, "B T D"]
    layers: list[Float[Array, "B T D"]]
    attention: list[Float[Array, "B H T T"]]


class Encoder(nnx.Module):
    """SelfPAB's transformer encoder (Logacjov et al. 2024), float32 parameters.

    Args:
        features: features X of an input frame.
        settings: sizes and numerics.
        rngs: with a `params` stream.
    """

    def __init__(self, features: int, settings: ModelSettings, rngs: nnx.Rngs):
        columns = padded_size(settings.width, "width", settings.layout)
        # The input projection and the head are not sharded over the tensor axis: they are narrow.
        self.embed = Dense(features, settings.width, (None, "width"), settings.compute, rngs, columns)
        self.layers = nnx.List([EncoderLayer(settings, rngs) for _ in range(settings.layers)])
        self.settings = settings

    def __call__(
        self,
        x_BxTxX: Float[Array, "B T X"],
        timestamps_BxTx5: Int[Array, "B T 5"] | None = None,
        keys_B: Key[Array, " B"] | None = None,
        valid_B: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Encode normalized frames; with keys, dropout is on.

        Args:
            x_BxTxX: normalized spectrogram frames.
            timestamps_BxTx5: month, day, weekday, hour, minute of each frame; only for `temporal_positions`.
            keys_B: one key per sample for dropout, or None for evaluation.
            valid_B: see `encode_padded`.
        """
        return self.without_padding(self.encode_padded(x_BxTxX, timestamps_BxTx5, keys_B, valid_B), x_BxTxX.shape[1])

    def encode_padded(
        self,
        x_BxTxX: Float[Array, "B T X"],
        timestamps_BxTx5: Array | None = None,
        keys_B: Array | None = None,
        valid_B: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B P Q"]:
        """As `__call__`, with the layout's padding after the last frame (any values) and the last feature (zeros).

        Args:
            x_BxTxX, timestamps_BxTx5, keys_B: see `__call__`.
            valid_B: frames of each sample that are attended to; outputs of the frames after them have no meaning. All
                where not given.
        """
        frames = x_BxTxX.shape[1]
        h_BxTxD = self._embedded(x_BxTxX, timestamps_BxTx5)
        run = nnx.remat(_run, static_argnums=(3,)) if self.settings.rematerialize == "layers" else _run
        for depth, layer in enumerate(self.layers):
            h_BxTxD = run(layer, h_BxTxD, None if keys_B is None else fold_each(keys_B, depth), frames, valid_B)
        return h_BxTxD

    def without_padding(self, h_BxPxQ: Float[Array, "B P Q"], frames: int) -> Float[Array, "B T D"]:
        """The output without the layout's padding."""
        return h_BxPxQ[:, :frames, : self.settings.width]

    def layer_outputs(
        self,
        x_BxTxX: Float[Array, "B T X"],
        timestamps_BxTx5: Int[Array, "B T 5"] | None = None,
        valid_B: Int[Array, " B"] | None = None,
    ) -> list[Float[Array, "B T D"]]:
        """The embedding and every layer's output, without dropout and without the layout's padding.

        Args:
            x_BxTxX, timestamps_BxTx5: see `__call__`.
            valid_B: see `encode_padded`.
        """
        frames = x_BxTxX.shape[1]
        outputs = [self._embedded(x_BxTxX, timestamps_BxTx5)]
        for layer in self.layers:
            outputs.append(_run(layer, outputs[-1], None, frames, valid_B))
        return [self.without_padding(h_BxTxD, frames) for h_BxTxD in outputs]

    def trace(
        self, x_BxTxX: Float[Array, "B T X"], timestamps_BxTx5: Int[Array, "B T 5"] | None = None
    ) -> EncoderTrace:
        """Embedding, every layer's output and attention weights, without dropout."""
        embedding, *outputs = self.layer_outputs(x_BxTxX, timestamps_BxTx5)
        columns = padded_size(self.settings.width, "width", self.settings.layout)
        inputs = [zero_padded(h, None, None, columns) for h in (embedding, *outputs[:-1])]
        attention = [layer.attention.weights(h) for layer, h in zip(self.layers, inputs, strict=True)]
        return EncoderTrace(embedding, outputs, attention)

    def _embedded(self, x_BxTxX: Array, timestamps_BxTx5: Array | None) -> Array:
        if self.settings.temporal_positions != (timestamps_BxTx5 is not None):
            needed = "needs" if self.settings.temporal_positions else "takes no"
            raise ValueError(f"this encoder {needed} timestamps (month, day, weekday, hour, minute of every frame)")
        _, frames, features = x_BxTxX.shape
        layout = self.settings.layout
        rows, columns = padded_size(frames, "frames", layout), padded_size(features, "features", layout)
        positions = jnp.asarray(sinusoids(frames, self.settings.width))[None]
        if timestamps_BxTx5 is not None:
            positions = positions + calendar_sinusoids(timestamps_BxTx5, self.settings.width)
        h_BxTxD = self.embed(zero_padded(x_BxTxX, None, rows, columns)).astype(jnp.float32)
        return shard_batch(h_BxTxD + zero_padded(positions, None, rows, h_BxTxD.shape[-1]))


def _run(layer: EncoderLayer, h_BxTxD: Array, keys_B: Array | None, frames: int, valid_B: Array | None = None) -> Array:
    return shard_batch(layer(h_BxTxD, keys_B, frames, valid_B))


class ReconstructionModel(nnx.Module):
    """The encoder with its linear head back to features: what is pre-trained.

    Args:
        features: features X of an input frame.
        outputs: features of a reconstructed frame (those of the other sensor in the cross-sensor task).
        settings: sizes and numerics.
        rngs: with a `params` stream.
        second_head: with a head that compares the halves of a window (`TaskSettings.second_head`).
    """

    def __init__(
        self, features: int, outputs: int, settings: ModelSettings, rngs: nnx.Rngs, *, second_head: bool = False
    ):
        self.encoder = Encoder(features, settings, rngs)
        columns = padded_size(outputs, "features", settings.layout)
        self.head = Dense(settings.width, outputs, ("width", None), settings.compute, rngs, columns)
        if second_head:
            bound = 1 / math.sqrt(settings.width)
            self.second_head = parameter(uniform(rngs, (settings.width,), bound), "width")
        self.outputs = outputs

    def __call__(
        self,
        x_BxTxX: Float[Array, "B T X"],
        timestamps_BxTx5: Int[Array, "B T 5"] | None = None,
        keys_B: Key[Array, " B"] | None = None,
        valid_B: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B T O"]:
        """Reconstructed normalized frames (float32); arguments as for `Encoder.encode_padded`."""
        h_BxTxD = self.encoder.encode_padded(x_BxTxX, timestamps_BxTx5, keys_B, valid_B)
        return self.reconstruct(h_BxTxD, x_BxTxX.shape[1])

    def reconstruct(self, h_BxPxQ: Float[Array, "B P Q"], frames: int) -> Float[Array, "B T O"]:
        """Frames from the encoder's padded output."""
        return self.head(h_BxPxQ)[:, :frames, : self.outputs].astype(jnp.float32)

    def compare_halves(
        self, h_BxPxQ: Float[Array, "B P Q"], frames: int, valid_B: Int[Array, " B"] | None = None
    ) -> Float[Array, " B"]:
        """Log odds that the second half of each window was altered, not the first.

        Args:
            h_BxPxQ: the encoder's padded output.
            frames: without the layout's padding.
            valid_B: frames of each sample; all where not given.
        """
        score_BxT = self.encoder.without_padding(h_BxPxQ, frames).astype(jnp.float32) @ self.second_head[...]
        half_B = (jnp.full(len(h_BxPxQ), frames) if valid_B is None else valid_B) // 2
        place_BxT = jnp.arange(frames) // jnp.maximum(half_B, 1)[:, None]
        first_BxT, second_BxT = place_BxT == 0, place_BxT == 1
        return jnp.where(second_BxT, score_BxT, jnp.where(first_BxT, -score_BxT, 0)).sum(1) / jnp.maximum(half_B, 1)
