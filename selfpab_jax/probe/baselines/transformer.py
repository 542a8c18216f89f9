"""The encoder with a head on spectrogram frames: from random weights, or (see `probe/finetune.py`) pre-trained."""

from dataclasses import dataclass, replace
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from selfpab_jax.model.encoder import Encoder
from selfpab_jax.model.layers import Dense
from selfpab_jax.model.random import fold_each
from selfpab_jax.model.settings import ModelSettings
from selfpab_jax.probe.baselines.series import Reads
from selfpab_jax.probe.baselines.settings import BaselinePrediction, BaselineSettings, Progress
from selfpab_jax.probe.baselines.training import fit_predict_network
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.folds import Fold

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

    def __call__(self, x_BxTxX: Float[Array, "B T X"], keys_B: Key[Array, "B"] | None) -> Float[Array, "B T Y"]:
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
