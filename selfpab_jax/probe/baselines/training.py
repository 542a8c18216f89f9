"""The one training loop of the networks: stop by inner validation, train again on everything, predict."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int

from selfpab_jax.model.blueprint import Parameters
from selfpab_jax.probe.baselines.batches import Standardised, prediction_batches, training_batches
from selfpab_jax.probe.baselines.network import Architecture, CompiledNetwork, Rates, TrainingState, compiled
from selfpab_jax.probe.baselines.rows import macro_f1, rows_of, training_rows
from selfpab_jax.probe.baselines.series import series_of
from selfpab_jax.probe.baselines.settings import BaselinePrediction, BaselineSettings, Progress, TrainingSettings
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.folds import Fold


def fit_predict_network(
    corpus: Corpus,
    fold: Fold,
    settings: BaselineSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None,
    progress: Progress | None,
    architecture: Architecture,
) -> BaselinePrediction:
    """Train a network from scratch on a fold and predict its test subjects.

    Inputs are standardised over all recordings of the training subjects, labelled or not. Training stops where the
    macro-F1 of held-out training subjects stops improving; with `refit` the network is then trained once more, on all
    training subjects, for as many steps as were best. With too few labels to validate, the number of steps is fixed.

    Raises:
        DataError: fewer than two classes to train on.
    """
    training = settings.training
    rows = training_rows(corpus, fold, settings.validation_share, seed, rows_mask_R)
    series = series_of(corpus, architecture.reads)
    own = [i for i, recording in enumerate(corpus.recordings) if recording.subject in fold.train]
    inputs = Standardised(series, *series.standardisation(own))
    trainer = _Trainer(corpus, inputs, compiled(architecture), architecture.learning_rate, settings, seed, fold.name)
    say = progress or (lambda line: None)
    description: dict[str, Any] = {"parameters": trainer.network.parameter_count, "validation": rows.split}
    if rows.fit_R is None or rows.validation_R is None:
        steps = training.steps if rows_mask_R is None else min(training.few_label_steps, training.steps)
        parameters = trainer.train(rows.all_R, steps, say)
        description |= {"steps": steps, "stopping": "fixed number of steps"}
    else:
        parameters, steps, score = trainer.train_until_best(rows.fit_R, rows.validation_R, say)
        description |= {"steps": steps, "stopping": "inner validation", "validation_macro_f1": score}
        if training.refit:
            parameters = trainer.train(rows.all_R, steps, say)
    windows = np.unique(corpus.window_R[rows_of(corpus, fold.test)])
    return BaselinePrediction(trainer.predict(parameters, windows), description)


def predict_windows(
    corpus: Corpus,
    inputs: Standardised,
    network: CompiledNetwork,
    parameters: Parameters,
    windows_W: Int[np.ndarray, " W"],
    batch_size: int,
) -> Float32[np.ndarray, "R Y"]:
    """Probabilities of the rows of these windows (ascending), in the corpus' order."""
    rows_W = corpus.rows_of_windows[windows_W]
    first_W = np.cumsum(rows_W) - rows_W
    out_RxY = np.empty((rows_W.sum(), len(corpus.classes)), np.float32)
    for part, x_BxNxX in prediction_batches(corpus, inputs, windows_W, batch_size):
        probabilities_BxTxY = np.asarray(network.predict(parameters, x_BxNxX))
        for at, probabilities_TxY in zip(np.searchsorted(windows_W, part), probabilities_BxTxY, strict=False):
            out_RxY[first_W[at] : first_W[at] + rows_W[at]] = probabilities_TxY[: rows_W[at]]
    return out_RxY


def rates(training: TrainingSettings, own_rate: float, number: int) -> Rates:
    """The optimiser's numbers at a step: a linear warm-up, then constant, as the moving average does the annealing."""
    peak = training.learning_rate or own_rate
    rate = peak * min(1.0, (number + 1) / max(1, training.warmup_steps))
    clip = math.inf if training.clip_norm is None else training.clip_norm
    return Rates(*(jnp.float32(value) for value in (rate, training.weight_decay, clip, training.averaging)))


@dataclass(frozen=True)
class _Trainer:
    """Training runs of one network on one fold."""

    corpus: Corpus
    inputs: Standardised
    network: CompiledNetwork
    own_rate: float
    settings: BaselineSettings
    seed: int
    fold: str

    def states(self, rows_R: Bool[np.ndarray, " R"], steps: int) -> Iterator[tuple[int, TrainingState, Any]]:
        """Number of steps, state and loss after each; a state is gone once the next one is asked for."""
        training = self.settings.training
        batches = training_batches(
            self.corpus,
            self.inputs,
            rows_R,
            batch_size=training.batch_size,
            seed=self.seed,
            random_starts=training.random_starts,
            balanced=self.settings.class_weight == "balanced",
        )
        state = self.network.initialise(self.seed)
        for number, batch in zip(range(steps), batches, strict=False):
            state, loss = self.network.step(state, *batch, rates(training, self.own_rate, number), self.seed, number)
            yield number + 1, state, loss

    def train(self, rows_R: Bool[np.ndarray, " R"], steps: int, say: Progress) -> Parameters:
        """Parameters after so many steps."""
        parameters = {}
        for number, state, loss in self.states(rows_R, steps):
            parameters = state.average
            if number % self.settings.training.check_every == 0 or number == steps:
                say(f"{self.fold}: step {number} of {steps}, loss {float(loss):.3f}")
        return parameters

    def train_until_best(
        self, fit_R: Bool[np.ndarray, " R"], validation_R: Bool[np.ndarray, " R"], say: Progress
    ) -> tuple[Parameters, int, float]:
        """Parameters of the best macro-F1 on the validation rows, the steps that led to them, and the score."""
        training, corpus = self.settings.training, self.corpus
        windows = np.unique(corpus.window_R[validation_R])
        scored = validation_R[np.isin(corpus.window_R, windows)]
        best: tuple[Parameters, int, float] = ({}, 0, -1.0)
        for number, state, loss in self.states(fit_R, training.steps):
            if number % training.check_every and number != training.steps:
                continue
            predicted = self.predict(state.average, windows)[scored].argmax(1)
            score = macro_f1(corpus.label_R[validation_R], predicted)
            say(f"{self.fold}: step {number}, loss {float(loss):.3f}, validation macro-F1 {score:.3f}")
            if score > best[2]:
                best = ({name: jnp.copy(value) for name, value in state.average.items()}, number, score)
            elif number - best[1] >= training.patience * training.check_every:
                break
        return best

    def predict(self, parameters: Parameters, windows_W: Int[np.ndarray, " W"]) -> Float32[np.ndarray, "R Y"]:
        """Probabilities of the rows of these windows."""
        size = self.settings.training.batch_size
        return predict_windows(self.corpus, self.inputs, self.network, parameters, windows_W, size)
