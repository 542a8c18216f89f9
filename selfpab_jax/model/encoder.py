"""The encoder: features -> width, positions, L post-norm layers; and the network with its reconstruction head."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from selfpab_jax.model.layers import Dense, EncoderLayer
from selfpab_jax.model.layout import laid_out, zero_padded
from selfpab_jax.model.placement import spread_over_batch
from selfpab_jax.model.positions import calendar_sinusoids, sinusoids
from selfpab_jax.model.random import fold_each
from selfpab_jax.model.settings import ModelSettings


class EncoderTrace(NamedTuple):
    """What the encoder computed on the way: `layers[-1]` is its output."""

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
        columns = laid_out(settings.width, "width", settings.layout)
        # The original keeps the input projection and the head whole, and so does a tensor mesh: they are narrow.
        self.embed = Dense(features, settings.width, (None, "width"), settings.compute, rngs, columns)
        self.layers = nnx.List([EncoderLayer(settings, rngs) for _ in range(settings.layers)])
        self.settings = settings

    def __call__(
        self,
        x_BxTxX: Float[Array, "B T X"],
        timestamps_BxTx5: Int[Array, "B T 5"] | None = None,
        keys_B: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Encode normalised frames; with keys, dropout is on.

        Args:
            x_BxTxX: normalised spectrogram frames.
            timestamps_BxTx5: month, day, weekday, hour, minute of each frame; only for `temporal_positions`.
            keys_B: one key a sample for dropout, or None for evaluation.
        """
        return self.trimmed(self.laid_out(x_BxTxX, timestamps_BxTx5, keys_B), x_BxTxX.shape[1])

    def laid_out(
        self, x_BxTxX: Float[Array, "B T X"], timestamps_BxTx5: Array | None = None, keys_B: Array | None = None
    ) -> Float[Array, "B T D"]:
        """As a call, with the layout's padding behind the last frame (anything) and the last feature (zeros)."""
        frames = x_BxTxX.shape[1]
        h_BxTxD = self._embedded(x_BxTxX, timestamps_BxTx5)
        run = nnx.remat(_run, static_argnums=(3,)) if self.settings.rematerialise == "layers" else _run
        for depth, layer in enumerate(self.layers):
            h_BxTxD = run(layer, h_BxTxD, None if keys_B is None else fold_each(keys_B, depth), frames)
        return h_BxTxD

    def trimmed(self, h_BxTxD: Float[Array, "B T D"], frames: int) -> Float[Array, "B T D"]:
        """Without the layout's padding."""
        return h_BxTxD[:, :frames, : self.settings.width]

    def layer_outputs(
        self, x_BxTxX: Float[Array, "B T X"], timestamps_BxTx5: Int[Array, "B T 5"] | None = None
    ) -> list[Float[Array, "B T D"]]:
        """The embedding and every layer's output, without dropout and without the layout's padding."""
        frames = x_BxTxX.shape[1]
        outputs = [self._embedded(x_BxTxX, timestamps_BxTx5)]
        for layer in self.layers:
            outputs.append(_run(layer, outputs[-1], None, frames))
        return [self.trimmed(h_BxTxD, frames) for h_BxTxD in outputs]

    def trace(
        self, x_BxTxX: Float[Array, "B T X"], timestamps_BxTx5: Int[Array, "B T 5"] | None = None
    ) -> EncoderTrace:
        """Embedding, every layer's output and attention weights, without dropout."""
        embedding, *outputs = self.layer_outputs(x_BxTxX, timestamps_BxTx5)
        columns = laid_out(self.settings.width, "width", self.settings.layout)
        inputs = [zero_padded(h, None, None, columns) for h in (embedding, *outputs[:-1])]
        attention = [layer.attention.weights(h) for layer, h in zip(self.layers, inputs, strict=True)]
        return EncoderTrace(embedding, outputs, attention)

    def _embedded(self, x_BxTxX: Array, timestamps_BxTx5: Array | None) -> Array:
        if self.settings.temporal_positions != (timestamps_BxTx5 is not None):
            needed = "needs" if self.settings.temporal_positions else "takes no"
            raise ValueError(f"this encoder {needed} timestamps (month, day, weekday, hour, minute of every frame)")
        _, frames, features = x_BxTxX.shape
        layout = self.settings.layout
        rows, columns = laid_out(frames, "frames", layout), laid_out(features, "features", layout)
        positions = jnp.asarray(sinusoids(frames, self.settings.width))[None]
        if timestamps_BxTx5 is not None:
            positions = positions + calendar_sinusoids(timestamps_BxTx5, self.settings.width)
        h_BxTxD = self.embed(zero_padded(x_BxTxX, None, rows, columns)).astype(jnp.float32)
        return spread_over_batch(h_BxTxD + zero_padded(positions, None, rows, h_BxTxD.shape[-1]))


def _run(layer: EncoderLayer, h_BxTxD: Array, keys_B: Array | None, frames: int) -> Array:
    return spread_over_batch(layer(h_BxTxD, keys_B, frames))


class ReconstructionModel(nnx.Module):
    """The encoder with its linear head back to features: what pre-training trains.

    Args:
        features: features X of an input frame.
        outputs: features of a reconstructed frame (as many, but of the other sensor, in the cross-sensor task).
        settings: sizes and numerics.
        rngs: with a `params` stream.
    """

    def __init__(self, features: int, outputs: int, settings: ModelSettings, rngs: nnx.Rngs):
        self.encoder = Encoder(features, settings, rngs)
        columns = laid_out(outputs, "features", settings.layout)
        self.head = Dense(settings.width, outputs, ("width", None), settings.compute, rngs, columns)
        self.outputs = outputs

    def __call__(
        self,
        x_BxTxX: Float[Array, "B T X"],
        timestamps_BxTx5: Int[Array, "B T 5"] | None = None,
        keys_B: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B T O"]:
        """Reconstructed normalised frames (float32)."""
        h_BxTxD = self.encoder.laid_out(x_BxTxX, timestamps_BxTx5, keys_B)
        return self.head(h_BxTxD)[:, : x_BxTxX.shape[1], : self.outputs].astype(jnp.float32)
