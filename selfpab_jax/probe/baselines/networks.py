"""Supervised networks: CNN, DeepConvLSTM, LSTM and transformer."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.encoder import Dense, Encoder, LayerNorm, parameter, uniform
from selfpab_jax.model.rng import dropout, fold_each
from selfpab_jax.probe.baselines.config import BaselinePrediction, BaselineSettings, Progress
from selfpab_jax.probe.baselines.rows import Reads
from selfpab_jax.probe.baselines.training import fit_predict_network
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold

# Bidirectional LSTMs over frames: of spectrograms, and of raw signals.


class LSTM(nnx.Module):
    """A layer in one direction (Hochreiter and Schmidhuber 1997, with forget gates whose bias begins at 1)."""

    def __init__(self, inputs: int, units: int, rngs: nnx.Rngs):
        self.project = Dense(inputs, 4 * units, (None, None), "float32", rngs)
        self.project.bias[...] = jnp.zeros(4 * units).at[units : 2 * units].set(1.0)
        self.kernel = parameter(uniform(rngs, (units, 4 * units), 1 / math.sqrt(units)), None, None)
        self.units = units

    def __call__(self, x_BxTxI: Float[Array, "B T I"], *, reverse: bool = False) -> Float[Array, "B T U"]:
        """Hidden states; backwards in time with `reverse`."""
        kernel = self.kernel[...]

        def step(carry: tuple[Array, Array], given_BxG: Array) -> tuple[tuple[Array, Array], Array]:
            hidden, cell = carry
            enter, forget, leave, candidate = jnp.split(given_BxG + hidden @ kernel, 4, axis=-1)
            cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
            hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
            return (hidden, cell), hidden

        zero = jnp.zeros((len(x_BxTxI), self.units))
        _, hidden_TxBxU = jax.lax.scan(step, (zero, zero), jnp.swapaxes(self.project(x_BxTxI), 0, 1), reverse=reverse)
        return jnp.swapaxes(hidden_TxBxU, 0, 1)


def frames_of_signal(signal_BxNxC: Float[Array, "B N C"], window: int, hop: int) -> Float[Array, "B T W C"]:
    """The samples of each frame."""
    frames = (signal_BxNxC.shape[1] - window) // hop + 1
    return signal_BxNxC[:, np.arange(frames)[:, None] * hop + np.arange(window)]


class BidirectionalLSTM(nnx.Module):
    """Frames -> width -> bidirectional layers -> logits, with dropout before each."""

    def __init__(self, architecture: "LSTMArchitecture", rngs: nnx.Rngs):
        units, width = architecture.units, 2 * architecture.units
        self.embed = Dense(architecture.features * architecture.window, width, (None, None), "float32", rngs)
        self.norm = LayerNorm(width)
        self.layers = nnx.List(
            [nnx.List([LSTM(width, units, rngs) for _ in range(2)]) for _ in range(architecture.layers)]
        )
        self.classify = Dense(width, architecture.classes, (None, None), "float32", rngs)
        self.architecture = architecture

    def __call__(self, x_BxNxX: Float[Array, "B N X"], keys_B: Key[Array, " B"] | None) -> Float[Array, "B T Y"]:
        """Logits of each frame; with keys, dropout is on."""
        of = self.architecture
        frames = frames_of_signal(x_BxNxX, of.window, of.hop)
        h_BxTxD = self.norm(jax.nn.relu(self.embed(frames.reshape(*frames.shape[:2], -1))))
        for depth, (forward, backward) in enumerate(self.layers):
            h_BxTxD = dropout(h_BxTxD, of.dropout, None if keys_B is None else fold_each(keys_B, depth))
            h_BxTxD = jnp.concatenate([forward(h_BxTxD), backward(h_BxTxD, reverse=True)], axis=-1)
        return self.classify(
            dropout(h_BxTxD, of.dropout, None if keys_B is None else fold_each(keys_B, len(self.layers)))
        )


@dataclass(frozen=True)
class LSTMArchitecture:
    """Sizes: features of a value, and values that a frame spans (1 where values are frames)."""

    features: int
    classes: int
    window: int
    hop: int
    reads: Reads
    units: int = 128
    layers: int = 2
    dropout: float = 0.3
    learning_rate: float = 1e-3

    @property
    def trained(self) -> tuple[str, ...]:
        """Everything."""
        return ()

    def build(self, rngs: nnx.Rngs) -> BidirectionalLSTM:
        """The module."""
        return BidirectionalLSTM(self, rngs)


def fit_predict_lstm_spectrogram(
    corpus: Corpus,
    fold: Fold,
    settings: BaselineSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None = None,
    progress: Progress | None = None,
) -> BaselinePrediction:
    """The LSTM on spectrogram frames (see `fit_predict_network`)."""
    features = corpus.spectrogram.features(len(corpus.channels))
    architecture = LSTMArchitecture(features, len(corpus.classes), 1, 1, "frames")
    return fit_predict_network(corpus, fold, settings, seed, rows_mask_R, progress, architecture)


def fit_predict_lstm_signal(
    corpus: Corpus,
    fold: Fold,
    settings: BaselineSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None = None,
    progress: Progress | None = None,
) -> BaselinePrediction:
    """The LSTM on raw signals: a step reads the samples of one frame (see `fit_predict_network`)."""
    of = corpus.spectrogram
    architecture = LSTMArchitecture(len(corpus.channels), len(corpus.classes), of.fft_window, of.fft_hop, "signal")
    return fit_predict_network(corpus, fold, settings, seed, rows_mask_R, progress, architecture)


# The encoder with a head on spectrogram frames: from random weights, or (see `probe/finetune.py`) pre-trained.

Merge = Literal["together", "mean", "max", "concatenate"]


class Head(nnx.Module):
    """Logits of each frame: the original's two layers with a ReLU, or one layer where there is no hidden width."""

    def __init__(self, width: int, classes: int, hidden: int | None, rngs: nnx.Rngs):
        self.expand = None if hidden is None else Dense(width, hidden, ("width", None), "float32", rngs)
        self.classify = Dense(hidden or width, classes, (None, None), "float32", rngs)

    def __call__(self, h_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B T Y"]:
        """Float32 logits."""
        return self.classify(h_BxTxD if self.expand is None else jax.nn.relu(self.expand(h_BxTxD)))


class FrameClassifier(nnx.Module):
    """An encoder, or one for each sensor merged, and a head; frozen encoders run without dropout and gradient."""

    def __init__(self, architecture: "TransformerArchitecture", rngs: nnx.Rngs):
        of = architecture
        self.encoder = nnx.List([Encoder(features, of.model, rngs) for features in of.features])
        wide = len(of.features) if of.merge == "concatenate" else 1
        self.head = Head(wide * of.model.width, of.classes, of.hidden, rngs)
        self.architecture = architecture

    def __call__(self, x_BxTxX: Float[Array, "B T X"], keys_B: Key[Array, " B"] | None) -> Float[Array, "B T Y"]:
        """Logits of each frame; with keys, dropout is on."""
        frozen, parts = self.architecture.frozen_encoder, []
        split = jnp.split(x_BxTxX, np.cumsum(self.architecture.features)[:-1].tolist(), axis=2)
        for number, (encoder, part_BxTxX) in enumerate(zip(self.encoder, split, strict=True)):
            keys = None if frozen or keys_B is None else fold_each(keys_B, number)
            parts.append(encoder(part_BxTxX, keys_B=keys))
        match self.architecture.merge:
            case "mean":
                h_BxTxD = jnp.stack(parts).mean(0)
            case "max":
                h_BxTxD = jnp.stack(parts).max(0)
            case _:
                h_BxTxD = jnp.concatenate(parts, axis=-1)
        return self.head(jax.lax.stop_gradient(h_BxTxD) if frozen else h_BxTxD)


@dataclass(frozen=True)
class TransformerArchitecture:
    """Features of each encoder's frames, and sizes; parameters are named `encoder.0.*` and so on, and `head.*`."""

    features: tuple[int, ...]
    classes: int
    model: ModelSettings
    hidden: int | None
    merge: Merge = "together"
    frozen_encoder: bool = False
    reads: Reads = "frames"
    learning_rate: float = 3e-4

    @property
    def trained(self) -> tuple[str, ...]:
        """The head alone while the encoder is frozen."""
        return ("head",) if self.frozen_encoder else ()

    def build(self, rngs: nnx.Rngs) -> FrameClassifier:
        """The module."""
        return FrameClassifier(self, rngs)


def fit_predict_transformer(
    corpus: Corpus,
    fold: Fold,
    settings: BaselineSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None = None,
    progress: Progress | None = None,
) -> BaselinePrediction:
    """The encoder of `settings.transformer` trained from scratch (see `fit_predict_network`)."""
    architecture = TransformerArchitecture(
        (corpus.spectrogram.features(len(corpus.channels)),),
        len(corpus.classes),
        replace(settings.transformer, temporal_positions=False),
        settings.hidden,
    )
    return fit_predict_network(corpus, fold, settings, seed, rows_mask_R, progress, architecture)


# From samples to frames.


def mean_of_frames(h_BxNxD: Float[Array, "B N D"], window: int, hop: int) -> Float[Array, "B T D"]:
    """The mean over each frame's samples."""
    return jax.lax.reduce_window(h_BxNxD, 0.0, jax.lax.add, (1, window, 1), (1, hop, 1), "VALID") / window


def max_of_frames(h_BxNxD: Float[Array, "B N D"], window: int, hop: int) -> Float[Array, "B T D"]:
    """The largest over each frame's samples."""
    return jax.lax.reduce_window(h_BxNxD, -jnp.inf, jax.lax.max, (1, window, 1), (1, hop, 1), "VALID")


# A one-dimensional convolutional network on raw signals.


class CNN(nnx.Module):
    """Two convolutions over samples, mean and maximum of each frame, dilated residual convolutions over frames."""

    def __init__(self, architecture: "CNNArchitecture", rngs: nnx.Rngs):
        filters = architecture.filters
        first = nnx.Conv(architecture.channels, filters, (9,), rngs=rngs)
        self.samples = nnx.List([first, nnx.Conv(filters, filters, (5,), rngs=rngs)])
        self.sample_norms = nnx.List([LayerNorm(filters) for _ in range(2)])
        self.embed = Dense(2 * filters, 2 * filters, (None, None), "float32", rngs)
        self.norms = nnx.List([LayerNorm(2 * filters) for _ in range(len(architecture.dilations) + 1)])
        self.frames = nnx.List(
            [nnx.Conv(2 * filters, 2 * filters, (5,), kernel_dilation=n, rngs=rngs) for n in architecture.dilations]
        )
        self.classify = Dense(2 * filters, architecture.classes, (None, None), "float32", rngs)
        self.architecture = architecture

    def __call__(self, signal_BxNxC: Float[Array, "B N C"], keys_B: Key[Array, " B"] | None) -> Float[Array, "B T Y"]:
        """Logits of each frame; with keys, dropout is on."""
        of = self.architecture
        h = signal_BxNxC
        for convolution, norm in zip(self.samples, self.sample_norms, strict=True):
            h = jax.nn.relu(norm(convolution(h)))
        pooled = [mean_of_frames(h, of.window, of.hop), max_of_frames(h, of.window, of.hop)]
        h_BxTxD = self.embed(jnp.concatenate(pooled, axis=-1))
        for depth, (convolution, norm) in enumerate(zip(self.frames, self.norms[:-1], strict=True)):
            change = convolution(jax.nn.relu(norm(h_BxTxD)))
            h_BxTxD = h_BxTxD + dropout(change, of.dropout, None if keys_B is None else fold_each(keys_B, depth))
        h_BxTxD = jax.nn.relu(self.norms[-1](h_BxTxD))
        last = None if keys_B is None else fold_each(keys_B, len(self.frames))
        return self.classify(dropout(h_BxTxD, of.dropout, last))


@dataclass(frozen=True)
class CNNArchitecture:
    """Sizes, for the channels and frames of a data set.

    With kernels of 5 and these dilations a frame sees 30 frames to either side: 15 s at the published hop.
    """

    channels: int
    classes: int
    window: int
    hop: int
    filters: int = 64
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    dropout: float = 0.2
    learning_rate: float = 1e-3
    reads: Reads = "signal"

    @property
    def trained(self) -> tuple[str, ...]:
        """Everything."""
        return ()

    def build(self, rngs: nnx.Rngs) -> CNN:
        """The module."""
        return CNN(self, rngs)


def fit_predict_cnn(
    corpus: Corpus,
    fold: Fold,
    settings: BaselineSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None = None,
    progress: Progress | None = None,
) -> BaselinePrediction:
    """The convolutional network on raw signals (see `fit_predict_network`)."""
    of = corpus.spectrogram
    architecture = CNNArchitecture(len(corpus.channels), len(corpus.classes), of.fft_window, of.fft_hop)
    return fit_predict_network(corpus, fold, settings, seed, rows_mask_R, progress, architecture)


# DeepConvLSTM (Ordóñez and Roggen 2016) on raw signals, with an answer for every frame.


class DeepConvLSTM(nnx.Module):
    """Four convolutions along time, alike for each channel, then two LSTM layers; dropout before each dense one.

    As published but for the rate: the published network slides windows of half a second and runs its LSTM over
    samples; here long windows are read at once, so the LSTM runs over frames, each the mean of its samples' features.
    """

    def __init__(self, architecture: "DeepConvLSTMArchitecture", rngs: nnx.Rngs):
        filters, units = architecture.filters, architecture.units
        sizes = [1] + [filters] * architecture.convolutions
        kernel = (architecture.kernel,)
        pairs = pairwise(sizes)
        self.convolutions = nnx.List([nnx.Conv(i, o, kernel, rngs=rngs) for i, o in pairs])
        inputs = (filters * architecture.channels, units)
        self.recurrent = nnx.List([LSTM(width, units, rngs) for width in inputs])
        self.classify = Dense(units, architecture.classes, (None, None), "float32", rngs)
        self.architecture = architecture

    def __call__(self, signal_BxNxC: Float[Array, "B N C"], keys_B: Key[Array, " B"] | None) -> Float[Array, "B T Y"]:
        """Logits of each frame; with keys, dropout is on."""
        of = self.architecture
        batch, samples, channels = signal_BxNxC.shape
        h = signal_BxNxC.transpose(0, 2, 1).reshape(batch * channels, samples, 1)
        for convolution in self.convolutions:
            h = jax.nn.relu(convolution(h))
        h = mean_of_frames(h, of.window, of.hop)
        h_BxTxI = h.reshape(batch, channels, h.shape[1], -1).transpose(0, 2, 1, 3).reshape(batch, h.shape[1], -1)
        for depth, layer in enumerate(self.recurrent):
            h_BxTxI = layer(dropout(h_BxTxI, of.dropout, None if keys_B is None else fold_each(keys_B, depth)))
        return self.classify(dropout(h_BxTxI, of.dropout, None if keys_B is None else fold_each(keys_B, 2)))


@dataclass(frozen=True)
class DeepConvLSTMArchitecture:
    """Sizes as published, for the channels and frames of a data set."""

    channels: int
    classes: int
    window: int
    hop: int
    convolutions: int = 4
    filters: int = 64
    kernel: int = 5
    units: int = 128
    dropout: float = 0.5
    learning_rate: float = 1e-3
    reads: Reads = "signal"

    @property
    def trained(self) -> tuple[str, ...]:
        """Everything."""
        return ()

    def build(self, rngs: nnx.Rngs) -> DeepConvLSTM:
        """The module."""
        return DeepConvLSTM(self, rngs)


def fit_predict_deepconvlstm(
    corpus: Corpus,
    fold: Fold,
    settings: BaselineSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None = None,
    progress: Progress | None = None,
) -> BaselinePrediction:
    """DeepConvLSTM on raw signals (see `fit_predict_network`)."""
    of = corpus.spectrogram
    architecture = DeepConvLSTMArchitecture(len(corpus.channels), len(corpus.classes), of.fft_window, of.fft_hop)
    return fit_predict_network(corpus, fold, settings, seed, rows_mask_R, progress, architecture)
