"""The same encoder as the pre-trained one, from random weights, with a head: on spectrogram frames."""

from dataclasses import dataclass, replace

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from selfpab_jax.model.encoder import Encoder
from selfpab_jax.model.layers import Dense
from selfpab_jax.model.settings import ModelSettings
from selfpab_jax.probe.baselines.series import Reads
from selfpab_jax.probe.baselines.settings import BaselinePrediction, BaselineSettings, Progress
from selfpab_jax.probe.baselines.training import fit_predict_network
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.folds import Fold


class Head(nnx.Module):
    """Logits of each frame: the original's two layers with a ReLU, or one layer where there is no hidden width."""

    def __init__(self, width: int, classes: int, hidden: int | None, rngs: nnx.Rngs):
        self.expand = None if hidden is None else Dense(width, hidden, ("width", None), "float32", rngs)
        self.classify = Dense(hidden or width, classes, (None, None), "float32", rngs)

    def __call__(self, h_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B T Y"]:
        """Float32 logits."""
        return self.classify(h_BxTxD if self.expand is None else jax.nn.relu(self.expand(h_BxTxD)))


class FrameClassifier(nnx.Module):
    """Encoder and head; a frozen encoder runs without dropout and without a gradient."""

    def __init__(self, architecture: "TransformerArchitecture", rngs: nnx.Rngs):
        self.encoder = Encoder(architecture.features, architecture.model, rngs)
        self.head = Head(architecture.model.width, architecture.classes, architecture.hidden, rngs)
        self.frozen_encoder = architecture.frozen_encoder

    def __call__(self, x_BxTxX: Float[Array, "B T X"], keys_B: Key[Array, "B"] | None) -> Float[Array, "B T Y"]:
        """Logits of each frame; with keys, dropout is on."""
        if self.frozen_encoder:
            return self.head(jax.lax.stop_gradient(self.encoder(x_BxTxX)))
        return self.head(self.encoder(x_BxTxX, keys_B=keys_B))


@dataclass(frozen=True)
class TransformerArchitecture:
    """Sizes; parameters are named `encoder.*`, as in a model directory, and `head.*`."""

    features: int
    classes: int
    model: ModelSettings
    hidden: int | None
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
        corpus.spectrogram.features(len(corpus.channels)),
        len(corpus.classes),
        replace(settings.transformer, temporal_positions=False),
        settings.hidden,
    )
    return fit_predict_network(corpus, fold, settings, seed, rows_mask_R, progress, architecture)
