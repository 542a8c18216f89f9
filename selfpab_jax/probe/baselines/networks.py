"""The networks that are trained from scratch: 1-D CNN, DeepConvLSTM, LSTM and transformer.

Each reads windows of samples or of spectrogram frames and returns logits for every frame. Dropout draws from one key
per window, as in pre-training, so a result does not depend on how a batch is spread over devices.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from selfpab_jax.features.extract import Merge
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.encoder import Dense, Encoder
from selfpab_jax.model.rng import dropout, fold_each
from selfpab_jax.probe.baselines.batches import InputSpec
from selfpab_jax.probe.baselines.training import NetworkConfig


def dropout_at(h: Float[Array, "B ..."], rate: float, keys_B: Key[Array, " B"] | None, site: int) -> Array:
    """Dropout with draws of its own for each place in a network; none without keys.

    Args:
        h: activations.
        rate: of entries set to zero.
        keys_B: one key per window.
        site: number of the place in the network.
    """
    return h if keys_B is None else dropout(h, rate, fold_each(keys_B, site))


def layer_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm with a numerically safe variance."""
    return nnx.LayerNorm(width, use_fast_variance=False, rngs=rngs)


def mean_of_frames(h_BxNxD: Float[Array, "B N D"], inputs: InputSpec) -> Float[Array, "B T D"]:
    """The mean over each frame's samples."""
    # Not nnx.avg_pool: it divides by an integer array, which strict dtype promotion, our tests' setting, refuses.
    return nnx.pool(h_BxNxD, 0.0, jax.lax.add, (inputs.window,), (inputs.hop,), "VALID") / inputs.window


class CNN(nnx.Module):
    """Two convolutions over samples, mean and maximum of each frame, dilated residual convolutions over frames."""

    def __init__(self, config: "CNNConfig", inputs: InputSpec, rngs: nnx.Rngs):
        filters, width = config.filters, 2 * config.filters
        self.samples = nnx.List(
            [nnx.Conv(inputs.features, filters, (9,), rngs=rngs), nnx.Conv(filters, filters, (5,), rngs=rngs)]
        )
        self.sample_norms = nnx.List([layer_norm(filters, rngs) for _ in self.samples])
        self.embed = nnx.Linear(width, width, rngs=rngs)
        self.frames = nnx.List([nnx.Conv(width, width, (5,), kernel_dilation=n, rngs=rngs) for n in config.dilations])
        self.norms = nnx.List([layer_norm(width, rngs) for _ in range(len(config.dilations) + 1)])
        self.classify = nnx.Linear(width, inputs.classes, rngs=rngs)
        self.config, self.inputs = config, inputs

    def __call__(
        self,
        x_BxNxX: Float[Array, "B N X"],
        keys_B: Key[Array, " B"] | None,
        valid_B: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B T Y"]:
        """Logits of each frame; with keys, dropout is on."""
        rate = self.config.dropout
        h = x_BxNxX
        for convolution, norm in zip(self.samples, self.sample_norms, strict=True):
            h = jax.nn.relu(norm(convolution(h)))
        largest = nnx.max_pool(h, (self.inputs.window,), (self.inputs.hop,))
        h_BxTxD = self.embed(jnp.concatenate([mean_of_frames(h, self.inputs), largest], axis=-1))
        for depth, (convolution, norm) in enumerate(zip(self.frames, self.norms[:-1], strict=True)):
            h_BxTxD = h_BxTxD + dropout_at(convolution(jax.nn.relu(norm(h_BxTxD))), rate, keys_B, depth)
        h_BxTxD = jax.nn.relu(self.norms[-1](h_BxTxD))
        return self.classify(dropout_at(h_BxTxD, rate, keys_B, len(self.frames)))


@dataclass(frozen=True)
class CNNConfig(NetworkConfig):
    """A one-dimensional convolutional network on signals.

    With kernels of 5 and these dilations a frame sees 30 frames to either side: 15 s at the published hop.

    Args:
        filters: of the convolutions over samples; twice as many over frames.
        dilations: of the convolutions over frames.
        dropout: rate.
    """

    filters: int = 64
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    dropout: float = 0.2

    def build(self, inputs: InputSpec, rngs: nnx.Rngs) -> CNN:
        """The module."""
        return CNN(self, inputs, rngs)


def lstm(inputs: int, units: int, rngs: nnx.Rngs, *, reverse: bool = False) -> nnx.RNN:
    """An LSTM layer over frames (Hochreiter and Schmidhuber 1997).

    Input kernels are drawn as LeCun's, recurrent ones are orthogonal, and the biases of the forget gates start at 1.

    Args:
        inputs: features of a frame.
        units: hidden units.
        rngs: with a `params` stream.
        reverse: run backward in time; the outputs keep the order of the frames.
    """

    def bias(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return jnp.zeros(shape, dtype).at[units : 2 * units].set(1)  # gates: input, forget, candidate, output

    cell = nnx.OptimizedLSTMCell(inputs, units, bias_init=bias, rngs=rngs)
    return nnx.RNN(cell, reverse=reverse, keep_order=reverse, rngs=False)


def run_lstm(layer: nnx.RNN, x_BxTxI: Float[Array, "B T I"]) -> Float[Array, "B T U"]:
    """Hidden states of an `lstm` that starts from zeros."""
    zeros = jnp.zeros((len(x_BxTxI), cast(nnx.OptimizedLSTMCell, layer.cell).hidden_features))
    return cast(Array, layer(x_BxTxI, initial_carry=(zeros, zeros)))


class DeepConvLSTM(nnx.Module):
    """Four convolutions over time, the same for each channel, then two LSTM layers; dropout before each dense layer.

    As published (Ordóñez and Roggen 2016) except for the rate: the published network slides windows of half a second
    and runs its LSTM over samples; here long windows are read at once, so the LSTM runs over frames, each the mean of
    its samples' features.
    """

    def __init__(self, config: "DeepConvLSTMConfig", inputs: InputSpec, rngs: nnx.Rngs):
        sizes = [1] + [config.filters] * config.convolutions
        self.convolutions = nnx.List([nnx.Conv(i, o, (config.kernel,), rngs=rngs) for i, o in pairwise(sizes)])
        widths = (config.filters * inputs.features, config.units)
        self.recurrent = nnx.List([lstm(width, config.units, rngs) for width in widths])
        self.classify = nnx.Linear(config.units, inputs.classes, rngs=rngs)
        self.config, self.inputs = config, inputs

    def __call__(
        self,
        x_BxNxX: Float[Array, "B N X"],
        keys_B: Key[Array, " B"] | None,
        valid_B: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B T Y"]:
        """Logits of each frame; with keys, dropout is on."""
        rate = self.config.dropout
        batch, samples, channels = x_BxNxX.shape
        h = x_BxNxX.transpose(0, 2, 1).reshape(batch * channels, samples, 1)
        for convolution in self.convolutions:
            h = jax.nn.relu(convolution(h))
        h = mean_of_frames(h, self.inputs)
        h_BxTxI = h.reshape(batch, channels, h.shape[1], -1).transpose(0, 2, 1, 3).reshape(batch, h.shape[1], -1)
        for depth, layer in enumerate(self.recurrent):
            h_BxTxI = run_lstm(layer, dropout_at(h_BxTxI, rate, keys_B, depth))
        return self.classify(dropout_at(h_BxTxI, rate, keys_B, len(self.recurrent)))


@dataclass(frozen=True)
class DeepConvLSTMConfig(NetworkConfig):
    """DeepConvLSTM on signals, with the published sizes.

    Args:
        convolutions: layers.
        filters: of each convolution.
        kernel: samples.
        units: of each of the two LSTM layers.
        dropout: rate.
    """

    convolutions: int = 4
    filters: int = 64
    kernel: int = 5
    units: int = 128
    dropout: float = 0.5

    def build(self, inputs: InputSpec, rngs: nnx.Rngs) -> DeepConvLSTM:
        """The module."""
        return DeepConvLSTM(self, inputs, rngs)


class BidirectionalLSTM(nnx.Module):
    """A dense layer on the values of each frame, then bidirectional LSTM layers, with dropout before each."""

    def __init__(self, config: "LSTMConfig", inputs: InputSpec, rngs: nnx.Rngs):
        units, width = config.units, 2 * config.units
        self.embed = nnx.Linear(inputs.features * inputs.window, width, rngs=rngs)
        self.norm = layer_norm(width, rngs)
        self.forward = nnx.List([lstm(width, units, rngs) for _ in range(config.layers)])
        self.backward = nnx.List([lstm(width, units, rngs, reverse=True) for _ in range(config.layers)])
        self.classify = nnx.Linear(width, inputs.classes, rngs=rngs)
        self.config, self.inputs = config, inputs

    def __call__(
        self,
        x_BxNxX: Float[Array, "B N X"],
        keys_B: Key[Array, " B"] | None,
        valid_B: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B T Y"]:
        """Logits of each frame; with keys, dropout is on."""
        rate, window, hop = self.config.dropout, self.inputs.window, self.inputs.hop
        frames = (x_BxNxX.shape[1] - window) // hop + 1
        values_BxTxWxX = x_BxNxX[:, np.arange(frames)[:, None] * hop + np.arange(window)]
        h_BxTxD = self.norm(jax.nn.relu(self.embed(values_BxTxWxX.reshape(len(x_BxNxX), frames, -1))))
        for depth, layers in enumerate(zip(self.forward, self.backward, strict=True)):
            h_BxTxD = dropout_at(h_BxTxD, rate, keys_B, depth)
            h_BxTxD = jnp.concatenate([run_lstm(layer, h_BxTxD) for layer in layers], axis=-1)
        return self.classify(dropout_at(h_BxTxD, rate, keys_B, len(self.forward)))


@dataclass(frozen=True)
class LSTMConfig(NetworkConfig):
    """Bidirectional LSTMs over frames: of spectrograms, or of the samples in each frame.

    Args:
        units: of each layer and direction.
        layers: of both directions.
        dropout: rate.
    """

    units: int = 128
    layers: int = 2
    dropout: float = 0.3

    def build(self, inputs: InputSpec, rngs: nnx.Rngs) -> BidirectionalLSTM:
        """The module."""
        return BidirectionalLSTM(self, inputs, rngs)


class FrameHead(nnx.Module):
    """Logits of each frame: the original's two layers with a ReLU, or one layer if there is no hidden width."""

    def __init__(self, width: int, classes: int, hidden: int | None, rngs: nnx.Rngs):
        self.expand = None if hidden is None else Dense(width, hidden, ("width", None), "float32", rngs)
        self.classify = Dense(hidden or width, classes, (None, None), "float32", rngs)

    def __call__(self, h_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B T Y"]:
        """Float32 logits."""
        return self.classify(h_BxTxD if self.expand is None else jax.nn.relu(self.expand(h_BxTxD)))


class FrameClassifier(nnx.Module):
    """An encoder, or one for each sensor merged, and a head; frozen encoders run without dropout and gradient.

    Parameters are named `encoder.0.*`, `encoder.1.*` and so on, and `head.*`.
    """

    def __init__(self, config: "TransformerConfig", inputs: InputSpec, rngs: nnx.Rngs):
        self.features = config.sensor_features or (inputs.features,)
        self.encoder = nnx.List([Encoder(features, config.model, rngs) for features in self.features])
        encoders = len(self.features) if config.merge == "concatenate" else 1
        self.head = FrameHead(encoders * config.model.width, inputs.classes, config.hidden, rngs)
        self.config = config

    def __call__(
        self,
        x_BxTxX: Float[Array, "B T X"],
        keys_B: Key[Array, " B"] | None,
        valid_B: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B T Y"]:
        """Logits of each frame; with keys, dropout is on."""
        frozen, outputs = self.config.frozen_encoder, []
        parts = jnp.split(x_BxTxX, np.cumsum(self.features)[:-1].tolist(), axis=2)
        for number, (encoder, part_BxTxX) in enumerate(zip(self.encoder, parts, strict=True)):
            keys = None if frozen or keys_B is None else fold_each(keys_B, number)
            outputs.append(encoder(part_BxTxX, keys_B=keys, valid_B=valid_B))
        match self.config.merge:
            case "mean":
                h_BxTxD = jnp.stack(outputs).mean(0)
            case "max":
                h_BxTxD = jnp.stack(outputs).max(0)
            case _:
                h_BxTxD = jnp.concatenate(outputs, axis=-1)
        return self.head(jax.lax.stop_gradient(h_BxTxD) if frozen else h_BxTxD)


@dataclass(frozen=True)
class TransformerConfig(NetworkConfig):
    """The encoder with a head on spectrogram frames: from random weights, or (see `probe/finetune.py`) pre-trained.

    Args:
        model: sizes of the encoder.
        hidden: width of the head; None for a linear one.
        sensor_features: features of each sensor's frames, for one encoder per sensor; empty for one encoder of all.
        merge: how the outputs of several encoders are merged.
        frozen_encoder: train the head alone.
    """

    learning_rate: float = 3e-4
    model: ModelSettings = field(default_factory=ModelSettings)
    hidden: int | None = 1028
    sensor_features: tuple[int, ...] = ()
    merge: Merge = "together"
    frozen_encoder: bool = False

    @property
    def trained(self) -> tuple[str, ...]:
        """The head alone while the encoder is frozen."""
        return ("head",) if self.frozen_encoder else ()

    def build(self, inputs: InputSpec, rngs: nnx.Rngs) -> FrameClassifier:
        """The module."""
        return FrameClassifier(self, inputs, rngs)
