"""Encoder and head trained together on labels: as the original's unfreezing, or from random weights."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32

from selfpab_jax.errors import ConfigError, ModelError
from selfpab_jax.features.extract import Merge
from selfpab_jax.features.sensors import SensorEncoder, input_frames
from selfpab_jax.model.functional import Parameters
from selfpab_jax.probe.baselines.batches import (
    NetworkInputs,
    cached_per_corpus,
    rows_of,
    trainable_rows,
    training_batches,
)
from selfpab_jax.probe.baselines.config import BaselinePrediction
from selfpab_jax.probe.baselines.networks import TransformerConfig
from selfpab_jax.probe.baselines.training import (
    CompiledNetwork,
    NetworkState,
    StepRates,
    compiled,
    predict_windows,
    training_steps,
)
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold

PREDICTION_WINDOWS = 16


@dataclass(frozen=True)
class FinetuneSettings:
    """How encoder and head are trained; the defaults are those of the original's released configurations.

    Args:
        epochs: passes over the training windows.
        steps: number of steps; replaces `epochs` if set.
        batch_size: windows per step; if there are fewer, the next power of two.
        learning_rate: of Adam at the first step.
        decay: the learning rate is multiplied by it ...
        decay_steps: ... in this many steps, continuously.
        weight_decay: decoupled; the original has none.
        frozen_share: fraction of the steps with the encoder frozen: 0 trains all from the start, 1 the head only.
        hidden: width of the head; a linear one if not set.
        merge: how the outputs of several encoders (one cross-sensor encoder per sensor) are merged.
        random_weights: start from random instead of pre-trained weights.
        random_starts: shift each window by up to half its length whenever it is drawn, for a corpus whose windows do
            not overlap as the original's training windows do.
        class_weight: `balanced` weights classes inversely to their number of training rows.
        check_every: steps between two lines of progress.

    Raises:
        ConfigError: a value is out of range.
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
            raise ConfigError(f"finetune.frozen_share is {self.frozen_share}; it must be in [0, 1]")

    def rates(self, number: int) -> StepRates:
        """The optimizer's hyper-parameters at a step, counted from 0."""
        rate = self.learning_rate * self.decay ** (number / self.decay_steps)
        return StepRates(*(jnp.float32(value) for value in (rate, self.weight_decay, jnp.inf, 0.0)))


@dataclass(frozen=True)
class FinetunedEncoder:
    """Encoder and head after training.

    Attributes:
        corpus: whose rows it predicts.
        network: compiled functions of the parameters.
        parameters: `encoder.<number>.*` of each encoder, and `head.*`.
        inputs: the corpus' frames, as the encoders take them.
        description: how it was trained.
    """

    corpus: Corpus
    network: CompiledNetwork
    parameters: Parameters
    inputs: NetworkInputs
    description: dict[str, Any]

    def predict(self, subjects: Iterable[str]) -> Float32[np.ndarray, "R Y"]:
        """Probabilities of all rows of these subjects, in the corpus' order."""
        windows = np.unique(self.corpus.window_R[rows_of(self.corpus, subjects)])
        batch_size = min(PREDICTION_WINDOWS, self.description["batch_size"])
        return predict_windows(self.corpus, self.inputs, self.network, self.parameters, windows, batch_size)


def finetune(
    corpus: Corpus,
    fold: Fold,
    encoders: tuple[SensorEncoder, ...],
    settings: FinetuneSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None = None,
    progress: Callable[[str], None] | None = None,
) -> FinetunedEncoder:
    """Train encoder and head on a fold's training rows for a fixed number of steps, as the original does.

    While the encoder is frozen it has neither dropout nor gradient, so such a step costs only a forward pass. Adam's
    moments of the encoder start when it is unfrozen, as torch's do.

    Args:
        corpus: prepared with the encoder's spectrogram.
        fold: its training subjects.
        encoders: as `sensor_encoders` returns them: one, or one per sensor.
        settings: of the training.
        seed: of the head, the order of windows, dropout, and random weights.
        rows_mask_R: rows whose labels may be used; all if None.
        progress: called with a line now and then.

    Raises:
        ConfigError: several encoders without a way to merge them.
        DataError: fewer than two classes to train on.
        ModelError: the corpus was prepared with another spectrogram.
    """
    rows_R = trainable_rows(corpus, fold, rows_mask_R)
    config = _network_config(corpus, encoders, settings)
    inputs = _inputs(corpus, encoders)
    windows = len(np.unique(corpus.window_R[rows_R]))
    # A power of two, so that few shapes are compiled over folds and label budgets.
    batch_size = min(settings.batch_size, 1 << (windows - 1).bit_length())
    steps = settings.steps or max(1, round(settings.epochs * windows / batch_size))
    unfrozen_from = round(settings.frozen_share * steps)
    spec = inputs.spec(len(corpus.classes))
    frozen, free = (compiled(replace(config, frozen_encoder=frozen), spec) for frozen in (True, False))
    state = _initial_state(free, encoders, seed, settings.random_weights)
    batches = training_batches(
        corpus,
        inputs,
        rows_R,
        batch_size=batch_size,
        seed=seed,
        random_starts=settings.random_starts,
        balanced=settings.class_weight == "balanced",
    )
    run = training_steps(
        lambda number: frozen if number < unfrozen_from else free,
        state,
        batches,
        settings.rates,
        steps=steps,
        seed=seed,
    )
    parameters: Parameters = {}
    for number, state, loss in run:
        parameters = state.parameters
        if progress is not None and (number % settings.check_every == 0 or number == steps):
            trained = "head" if number <= unfrozen_from else "encoder and head"
            progress(f"{fold.name}: step {number} of {steps} ({trained}), loss {float(loss):.3f}")
    description = {
        **asdict(settings),
        "steps": steps,
        "unfrozen_from_step": unfrozen_from,
        "batch_size": batch_size,
        "stopping": "fixed number of steps",
        "parameters": free.parameter_count,
    }
    return FinetunedEncoder(corpus, free, parameters, inputs, description)


def fit_predict_finetuned(
    corpus: Corpus,
    fold: Fold,
    encoders: tuple[SensorEncoder, ...],
    settings: FinetuneSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None = None,
    progress: Callable[[str], None] | None = None,
) -> BaselinePrediction:
    """`finetune` on a fold, and the probabilities of its test subjects' rows.

    Args:
        corpus: see `finetune`, as all others.
        fold: test and training subjects.
        encoders: pre-trained.
        settings: of the training.
        seed: of everything random.
        rows_mask_R: rows whose labels may be used; all if None.
        progress: called with a line now and then.
    """
    trained = finetune(corpus, fold, encoders, settings, seed, rows_mask_R, progress)
    return BaselinePrediction(trained.predict(fold.test), trained.description)


def _network_config(
    corpus: Corpus, encoders: tuple[SensorEncoder, ...], settings: FinetuneSettings
) -> TransformerConfig:
    config = encoders[0].encoder.config
    if corpus.spectrogram != config.spectrogram:
        raise ModelError(f"the data was prepared with {corpus.spectrogram}; this encoder needs {config.spectrogram}")
    if len(encoders) > 1 and settings.merge == "together":
        raise ConfigError(
            "finetune.merge is together, but each sensor has its own encoder: give mean, max or concatenate"
        )
    return TransformerConfig(
        model=config.model,
        hidden=settings.hidden,
        sensor_features=tuple(each.encoder.features for each in encoders),
        merge=settings.merge,
    )


def _initial_state(
    network: CompiledNetwork, encoders: tuple[SensorEncoder, ...], seed: int, random_weights: bool
) -> NetworkState:
    drawn = network.initialize(seed)
    if random_weights:
        return drawn
    # Copies: the step donates its state, and the encoder will be used again.
    pretrained = {
        name.replace("encoder.", f"encoder.{number}.", 1): jnp.copy(value)
        for number, each in enumerate(encoders)
        for name, value in each.encoder.parameters.items()
        if name.startswith("encoder.")
    }
    return network.start(drawn.parameters | pretrained)


@cached_per_corpus
def _inputs(corpus: Corpus, encoders: tuple[SensorEncoder, ...]) -> NetworkInputs:
    """The frames, normalized with the encoders' own statistics."""
    frames = [input_frames(recording.signal_NxC, encoders) for recording in corpus.recordings]
    return NetworkInputs(np.concatenate(frames), corpus.frame_counts.astype(np.int64))
