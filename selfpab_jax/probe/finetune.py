"""Encoder and head trained together on labels: the original's unfreezing, and the same from random weights."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32

from selfpab_jax.errors import ConfigError, ModelError
from selfpab_jax.features.sensors import Branch, branch_frames
from selfpab_jax.model.functional import Parameters
from selfpab_jax.probe.baselines.config import BaselinePrediction, Progress
from selfpab_jax.probe.baselines.networks import Merge, TransformerArchitecture
from selfpab_jax.probe.baselines.rows import Series, once_per_corpus, rows_of, trainable_rows
from selfpab_jax.probe.baselines.training import (
    CompiledNetwork,
    Rates,
    Standardized,
    TrainingState,
    compiled,
    predict_windows,
    training_batches,
)
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold

PREDICTION_WINDOWS = 16


@dataclass(frozen=True)
class FinetuneSettings:
    """How encoder and head are trained; the defaults are those of the original's released configurations.

    Args:
        epochs: passes over the training windows.
        steps: number of steps; takes the place of `epochs` where it is set.
        batch_size: windows of a step; where there are fewer, the next power of two.
        learning_rate: of Adam at the first step.
        decay, decay_steps: the rate is multiplied by `decay` every so many steps, continuously.
        weight_decay: decoupled; the original has none.
        frozen_share: of the steps, with the encoder frozen: 0 trains all from the start, 1 the head only.
        hidden: width of the head; None for a linear one.
        merge: of several branches (one cross-sensor encoder for each sensor).
        random_weights: start from weights that were never trained.
        random_starts: move each window by up to half its length whenever it is drawn, where the corpus' windows do
            not overlap as the original's training windows do.
        class_weight: `balanced` weighs classes inversely to their training rows.
        check_every: steps between two lines of progress.
    """

    epochs: float = 15
    steps: int | None = None
    batch_size: int = 100
    learning_rate: float = 1e-4
    decay: float = 0.8
    decay_steps: int = 200
    weight_decay: float = 0.0
    frozen_share: float = 0.75
    hidden: int | None = 1028
    merge: Merge = "together"
    random_weights: bool = False
    random_starts: bool = False
    class_weight: Literal["balanced"] | None = None
    check_every: int = 50

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "decay", "decay_steps", "check_every"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"finetune.{name} is {getattr(self, name)}; it must be greater than 0")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"finetune.steps is {self.steps}; it must be at least 1")
        if not 0 <= self.frozen_share <= 1:
            raise ConfigError(f"finetune.frozen_share is {self.frozen_share}; it must lie in [0, 1]")

    def rates(self, number: int) -> Rates:
        """The optimizer's numbers at a step, counted from 0."""
        rate = self.learning_rate * self.decay ** (number / self.decay_steps)
        return Rates(*(jnp.float32(value) for value in (rate, self.weight_decay, jnp.inf, 0.0)))


@dataclass(frozen=True)
class FinetunedEncoder:
    """Encoder and head after training.

    Attributes:
        corpus: whose rows it predicts.
        network: what the parameters go into.
        parameters: `encoder.<branch>.*` and `head.*`.
        inputs: the corpus' frames as the encoder takes them.
        description: how it was trained.
    """

    corpus: Corpus
    network: CompiledNetwork
    parameters: Parameters
    inputs: Standardized
    description: dict[str, Any]

    def evaluate(self, subjects: Iterable[str]) -> Float32[np.ndarray, "R Y"]:
        """Probabilities of all rows of these subjects, in the corpus' order."""
        windows = np.unique(self.corpus.window_R[rows_of(self.corpus, subjects)])
        return predict_windows(self.corpus, self.inputs, self.network, self.parameters, windows, PREDICTION_WINDOWS)


def finetune(
    corpus: Corpus,
    fold: Fold,
    branches: tuple[Branch, ...],
    settings: FinetuneSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None = None,
    progress: Progress | None = None,
) -> FinetunedEncoder:
    """Train encoder and head on a fold's training rows for a fixed number of steps, as the original does.

    While the encoder is frozen it has neither dropout nor gradient, so that such a step costs a forward pass. Adam's
    moments of the encoder begin when it is unfrozen, as torch's do.

    Args:
        corpus: prepared with the encoder's spectrogram.
        fold: its training subjects.
        branches: the encoder, or one for each sensor (`branches_of`).
        settings: of the training.
        seed: of the head, the order of windows, dropout, and random weights.
        rows_mask_R: rows whose labels may be used; all where None.
        progress: given a line now and then.

    Raises:
        ConfigError: several branches without a way to merge them.
        DataError: fewer than two classes to train on.
        ModelError: the corpus was prepared with another spectrogram.
    """
    rows_R = trainable_rows(corpus, fold, rows_mask_R)
    architecture = _architecture(corpus, branches, settings)
    inputs = _inputs(corpus, branches)
    windows = len(np.unique(corpus.window_R[rows_R]))
    # A power of two, so that few shapes are compiled over folds and label budgets.
    batch_size = min(settings.batch_size, 1 << (windows - 1).bit_length())
    steps = settings.steps or max(1, round(settings.epochs * windows / batch_size))
    unfrozen_from = round(settings.frozen_share * steps)
    frozen, free = (compiled(replace(architecture, frozen_encoder=frozen)) for frozen in (True, False))
    batches = training_batches(
        corpus,
        inputs,
        rows_R,
        batch_size=batch_size,
        seed=seed,
        random_starts=settings.random_starts,
        balanced=settings.class_weight == "balanced",
    )
    state = _start(free, branches, seed, settings.random_weights)
    for number, batch in zip(range(steps), batches, strict=False):
        network = frozen if number < unfrozen_from else free
        state, loss = network.step(state, *batch, settings.rates(number), seed, number)
        if progress is not None and ((number + 1) % settings.check_every == 0 or number + 1 == steps):
            part = "head" if number < unfrozen_from else "encoder and head"
            progress(f"{fold.name}: step {number + 1} of {steps} ({part}), loss {float(loss):.3f}")
    description = {
        **asdict(settings),
        "steps": steps,
        "unfrozen_from_step": unfrozen_from,
        "batch_size": batch_size,
        "stopping": "fixed number of steps",
        "parameters": free.parameter_count,
    }
    return FinetunedEncoder(corpus, free, state.parameters, inputs, description)


def fit_predict_finetuned(
    corpus: Corpus,
    fold: Fold,
    branches: tuple[Branch, ...],
    settings: FinetuneSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None = None,
    progress: Progress | None = None,
) -> BaselinePrediction:
    """`finetune` on a fold, and the probabilities of its test subjects' rows."""
    trained = finetune(corpus, fold, branches, settings, seed, rows_mask_R, progress)
    return BaselinePrediction(trained.evaluate(fold.test), trained.description)


def _architecture(corpus: Corpus, branches: tuple[Branch, ...], settings: FinetuneSettings) -> TransformerArchitecture:
    config = branches[0].encoder.config
    if corpus.spectrogram != config.spectrogram:
        raise ModelError(f"the data was prepared with {corpus.spectrogram}; this encoder needs {config.spectrogram}")
    if len(branches) > 1 and settings.merge == "together":
        raise ConfigError(
            "finetune.merge is together, but each sensor has its own encoder: give mean, max or concatenate"
        )
    features = tuple(branch.encoder.features for branch in branches)
    return TransformerArchitecture(features, len(corpus.classes), config.model, settings.hidden, settings.merge)


def _start(network: CompiledNetwork, branches: tuple[Branch, ...], seed: int, random_weights: bool) -> TrainingState:
    drawn = network.initialize(seed)
    if random_weights:
        return drawn
    # Copies: the step takes its state over, and the encoder is to be used again.
    trained = {
        name.replace("encoder.", f"encoder.{number}.", 1): jnp.copy(value)
        for number, branch in enumerate(branches)
        for name, value in branch.encoder.parameters.items()
        if name.startswith("encoder.")
    }
    return network.start(drawn.parameters | trained)


@once_per_corpus
def _inputs(corpus: Corpus, branches: tuple[Branch, ...]) -> Standardized:
    """The frames, normalized with the encoder's own statistics."""
    frames = [branch_frames(recording.signal_NxC, branches) for recording in corpus.recordings]
    series = Series(np.concatenate(frames), corpus.frame_counts.astype(np.int64), 1, 1)
    width = series.values_NxX.shape[1]
    return Standardized(series, np.zeros(width, np.float32), np.ones(width, np.float32))
