"""Bidirectional LSTMs over frames: of spectrograms, and of raw signals."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from selfpab_jax.model.layers import Dense, LayerNorm, parameter, uniform
from selfpab_jax.model.random import dropout, fold_each
from selfpab_jax.probe.baselines.series import Reads
from selfpab_jax.probe.baselines.settings import BaselinePrediction, BaselineSettings, Progress
from selfpab_jax.probe.baselines.training import fit_predict_network
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.folds import Fold


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

    def __call__(self, x_BxNxX: Float[Array, "B N X"], keys_B: Key[Array, "B"] | None) -> Float[Array, "B T Y"]:
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
