"""The baselines by name."""

from typing import Protocol

import numpy as np
from jaxtyping import Bool

from selfpab_jax.probe.baselines.config import BaselinePrediction, BaselineSettings, Progress
from selfpab_jax.probe.baselines.forest import fit_predict_forest
from selfpab_jax.probe.baselines.networks import (
    fit_predict_cnn,
    fit_predict_deepconvlstm,
    fit_predict_lstm_signal,
    fit_predict_lstm_spectrogram,
    fit_predict_transformer,
)
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold


class FitPredict(Protocol):
    """Trains on a fold's training subjects and predicts all rows of its test subjects."""

    def __call__(
        self,
        corpus: Corpus,
        fold: Fold,
        settings: BaselineSettings,
        seed: int,
        rows_mask_R: Bool[np.ndarray, " R"] | None = None,
        progress: Progress | None = None,
    ) -> BaselinePrediction:
        """The mask restricts the rows whose labels may be used (label budgets)."""
        ...


BASELINES: dict[str, FitPredict] = {
    "transformer": fit_predict_transformer,
    "deepconvlstm": fit_predict_deepconvlstm,
    "cnn": fit_predict_cnn,
    "lstm_spectrogram": fit_predict_lstm_spectrogram,
    "lstm_signal": fit_predict_lstm_signal,
    "forest": fit_predict_forest,
}
