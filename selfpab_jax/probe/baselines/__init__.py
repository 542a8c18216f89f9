"""Baselines to compare with: networks that are trained from scratch, and a random forest on hand-crafted features.

`BASELINES` has them by name; a new network is a `NetworkConfig` in `networks.py` and a line here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from selfpab_jax.probe.baselines.batches import InputKind
from selfpab_jax.probe.baselines.config import BaselinePrediction, BaselineSettings, ForestSettings, TrainingSettings
from selfpab_jax.probe.baselines.forest import fit_predict_forest
from selfpab_jax.probe.baselines.networks import CNNConfig, DeepConvLSTMConfig, LSTMConfig, TransformerConfig
from selfpab_jax.probe.baselines.training import NetworkConfig, fit_predict_network
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold

__all__ = ["BASELINES", "BaselinePrediction", "BaselineSettings", "ForestSettings", "TrainingSettings"]


@runtime_checkable
class FitPredict(Protocol):
    """Trains on a fold's training subjects and predicts all rows of its test subjects."""

    def __call__(
        self,
        corpus: Corpus,
        fold: Fold,
        settings: BaselineSettings,
        seed: int,
        rows_mask_R: Bool[np.ndarray, " R"] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> BaselinePrediction:
        """Probabilities of the test rows, and how they came about.

        Args:
            corpus: the data set.
            fold: test and training subjects.
            settings: of all baselines.
            seed: of everything random.
            rows_mask_R: rows whose labels may be used (a label budget); all if None.
            progress: called with a line now and then.
        """
        ...


@dataclass(frozen=True)
class NetworkBaseline(FitPredict):
    """A network that is trained from scratch.

    Args:
        kind: what it reads.
        config: its kind and sizes, from the settings.
    """

    kind: InputKind
    config: Callable[[BaselineSettings], NetworkConfig]

    def __call__(
        self,
        corpus: Corpus,
        fold: Fold,
        settings: BaselineSettings,
        seed: int,
        rows_mask_R: Bool[np.ndarray, " R"] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> BaselinePrediction:
        """See `fit_predict_network`."""
        config = self.config(settings)
        return fit_predict_network(config, self.kind, corpus, fold, settings, seed, rows_mask_R, progress)


def _transformer(settings: BaselineSettings) -> TransformerConfig:
    return TransformerConfig(model=replace(settings.transformer, temporal_positions=False), hidden=settings.hidden)


BASELINES: dict[str, FitPredict] = {
    "transformer": NetworkBaseline("frames", _transformer),
    "deepconvlstm": NetworkBaseline("signal", lambda settings: DeepConvLSTMConfig()),
    "cnn": NetworkBaseline("signal", lambda settings: CNNConfig()),
    "lstm_spectrogram": NetworkBaseline("frames", lambda settings: LSTMConfig()),
    "lstm_signal": NetworkBaseline("signal", lambda settings: LSTMConfig()),
    "forest": fit_predict_forest,
}
