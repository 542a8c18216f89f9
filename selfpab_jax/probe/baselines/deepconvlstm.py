"""DeepConvLSTM (Ordóñez and Roggen 2016) on raw signals, with an answer for every frame."""

from dataclasses import dataclass
from itertools import pairwise

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from selfpab_jax.model.layers import Dense
from selfpab_jax.model.random import dropout, fold_each
from selfpab_jax.probe.baselines.lstm import LSTM
from selfpab_jax.probe.baselines.pooling import mean_of_frames
from selfpab_jax.probe.baselines.series import Reads
from selfpab_jax.probe.baselines.settings import BaselinePrediction, BaselineSettings, Progress
from selfpab_jax.probe.baselines.training import fit_predict_network
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.folds import Fold


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

    def __call__(self, signal_BxNxC: Float[Array, "B N C"], keys_B: Key[Array, "B"] | None) -> Float[Array, "B T Y"]:
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
