"""A one-dimensional convolutional network on raw signals."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from selfpab_jax.model.layers import Dense, LayerNorm
from selfpab_jax.model.random import dropout, fold_each
from selfpab_jax.probe.baselines.pooling import max_of_frames, mean_of_frames
from selfpab_jax.probe.baselines.series import Reads
from selfpab_jax.probe.baselines.settings import BaselinePrediction, BaselineSettings, Progress
from selfpab_jax.probe.baselines.training import fit_predict_network
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.folds import Fold


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

    def __call__(self, signal_BxNxC: Float[Array, "B N C"], keys_B: Key[Array, "B"] | None) -> Float[Array, "B T Y"]:
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
