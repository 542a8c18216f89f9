"""The encoder: features -> width, positions, L post-norm layers; and the network with its reconstruction head."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from selfpab_jax.model.layers import Dense, EncoderLayer
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
        # The original keeps the input projection and the head whole, and so does a tensor mesh: they are narrow.
        self.embed = Dense(features, settings.width, (None, "width"), settings.compute, rngs)
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
        h_BxTxD = self._embedded(x_BxTxX, timestamps_BxTx5)
        run = nnx.remat(_without_weights) if self.settings.rematerialise else _without_weights
        for depth, layer in enumerate(self.layers):
            h_BxTxD = run(layer, h_BxTxD, None if keys_B is None else fold_each(keys_B, depth))
        return h_BxTxD

    def trace(
        self, x_BxTxX: Float[Array, "B T X"], timestamps_BxTx5: Int[Array, "B T 5"] | None = None
    ) -> EncoderTrace:
        """Embedding, every layer's output and attention weights, without dropout."""
        embedding = h_BxTxD = self._embedded(x_BxTxX, timestamps_BxTx5)
        outputs, attention = [], []
        for layer in self.layers:
            h_BxTxD, weights = layer(h_BxTxD, None)
            outputs.append(h_BxTxD)
            attention.append(weights)
        return EncoderTrace(embedding, outputs, attention)

    def _embedded(self, x_BxTxX: Array, timestamps_BxTx5: Array | None) -> Array:
        if self.settings.temporal_positions != (timestamps_BxTx5 is not None):
            needed = "needs" if self.settings.temporal_positions else "takes no"
            raise ValueError(f"this encoder {needed} timestamps (month, day, weekday, hour, minute of every frame)")
        positions = jnp.asarray(sinusoids(x_BxTxX.shape[1], self.settings.width))
        h_BxTxD = self.embed(x_BxTxX).astype(jnp.float32) + positions
        if timestamps_BxTx5 is not None:
            h_BxTxD = h_BxTxD + calendar_sinusoids(timestamps_BxTx5, self.settings.width)
        return spread_over_batch(h_BxTxD)


def _without_weights(layer: EncoderLayer, h_BxTxD: Array, keys_B: Array | None) -> Array:
    return spread_over_batch(layer(h_BxTxD, keys_B)[0])


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
        self.head = Dense(settings.width, outputs, ("width", None), settings.compute, rngs)

    def __call__(
        self,
        x_BxTxX: Float[Array, "B T X"],
        timestamps_BxTx5: Int[Array, "B T 5"] | None = None,
        keys_B: Key[Array, "B"] | None = None,
    ) -> Float[Array, "B T O"]:
        """Reconstructed normalised frames (float32)."""
        return self.head(self.encoder(x_BxTxX, timestamps_BxTx5, keys_B)).astype(jnp.float32)
