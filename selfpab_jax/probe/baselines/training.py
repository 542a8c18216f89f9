"""A network as compiled functions of flat parameters, made once for each architecture in a process."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from selfpab_jax.model.functional import Parameters
from selfpab_jax.model.rng import sample_keys
from selfpab_jax.probe.baselines.config import BaselinePrediction, BaselineSettings, Progress, TrainingSettings
from selfpab_jax.probe.baselines.rows import (
    Reads,
    Series,
    class_weights,
    first_frames,
    frame_of_rows,
    macro_f1,
    rows_of,
    series_of,
    training_rows,
)
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold

# A network as compiled functions of flat parameters, made once for each architecture in a process.

BETAS = (0.9, 0.98)  # the original's, upstream and downstream


class Architecture(Protocol):
    """A network's kind and sizes: hashable, so that what is compiled for it is found again."""

    @property
    def reads(self) -> Reads:
        """Spectrogram frames or raw signals."""
        ...

    @property
    def learning_rate(self) -> float:
        """Its own peak rate."""
        ...

    @property
    def trained(self) -> tuple[str, ...]:
        """First names of the parameters that are trained; all where empty."""
        ...

    def build(self, rngs: nnx.Rngs) -> Any:
        """The module: called with values (B, N, X) and dropout keys (B,) or None, it gives logits (B, T, Y)."""
        ...


class TrainingState(NamedTuple):
    """Parameters by dotted names, their moving average, and Adam's moments by the parameters' first names."""

    parameters: Parameters
    average: Parameters
    moments: dict[str, Any]


class Rates(NamedTuple):
    """Numbers of the optimizer; arguments of the compiled step."""

    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    clip_norm: Float[Array, ""]
    averaging: Float[Array, ""]


class CompiledNetwork:
    """Initialization, training step and prediction of an architecture; each is compiled once a shape."""

    def __init__(self, architecture: Architecture):
        abstract = nnx.eval_shape(lambda: architecture.build(nnx.Rngs(params=0)))
        graph, state = nnx.split(abstract, nnx.Param)
        shapes, tree = jax.tree.flatten(state)
        self.names = [".".join(str(part) for part in path) for path, _ in nnx.to_flat_state(state)]
        self.parameter_count = sum(shape.size for shape in shapes)
        self._adam = optax.scale_by_adam(*BETAS)
        groups = sorted({name.split(".")[0] for name in self.names})
        self._trained = architecture.trained or tuple(groups)

        def initialize(seed: Array) -> TrainingState:
            state = nnx.state(architecture.build(nnx.Rngs(params=jax.random.key(seed))), nnx.Param)
            return self.start(dict(zip(self.names, jax.tree.leaves(state), strict=True)))

        def logits(parameters: Parameters, x_BxNxX: Array, keys_B: Array | None) -> Array:
            module = nnx.merge(graph, jax.tree.unflatten(tree, [parameters[name] for name in self.names]))
            return module(x_BxNxX, keys_B).astype(jnp.float32)

        self._logits = logits
        self.initialize = jax.jit(initialize)
        self.predict = jax.jit(lambda parameters, x_BxNxX: jax.nn.softmax(logits(parameters, x_BxNxX, None)))
        self.step = jax.jit(self._step, donate_argnums=0)

    def start(self, parameters: Parameters) -> TrainingState:
        """A state that begins from these parameters."""
        groups = {name.split(".")[0] for name in parameters}
        moments = {group: self._adam.init(_of(parameters, (group,))) for group in sorted(groups)}
        # Copies, as the step takes its state over and must not be given one array twice.
        return TrainingState(parameters, jax.tree.map(jnp.copy, parameters), moments)

    def _step(
        self,
        state: TrainingState,
        x_BxNxX: Float[Array, "B N X"],
        labels_BxT: Int[Array, "B T"],
        weights_BxT: Float[Array, "B T"],
        rates: Rates,
        seed: Int[Array, ""],
        number: Int[Array, ""],
    ) -> tuple[TrainingState, Float[Array, ""]]:
        """One step of AdamW on the mean cross-entropy over weighted rows; takes over the state."""
        keys_B = sample_keys(jax.random.key(seed), number, jnp.arange(len(x_BxNxX)))

        def loss_of(trained: Parameters) -> Array:
            logits_BxTxY = self._logits(state.parameters | trained, x_BxNxX, keys_B)
            errors_BxT = optax.softmax_cross_entropy_with_integer_labels(logits_BxTxY, labels_BxT)
            return jnp.sum(errors_BxT * weights_BxT) / jnp.maximum(weights_BxT.sum(), 1e-6)

        trained = _of(state.parameters, self._trained)
        loss, gradient = jax.value_and_grad(loss_of)(trained)
        scale = jnp.minimum(1.0, rates.clip_norm / jnp.maximum(optax.tree.norm(gradient), 1e-12))
        gradient = jax.tree.map(lambda g: g * scale, gradient)
        moments, parameters = dict(state.moments), dict(state.parameters)
        for group in self._trained:
            # optax raises floats to whole powers, which strict dtype promotion, our tests' setting, refuses.
            with jax.numpy_dtype_promotion("standard"):
                change, moments[group] = self._adam.update(_of(gradient, (group,)), state.moments[group])
            for name, direction in cast(Parameters, change).items():
                old = parameters[name]
                parameters[name] = old - rates.learning_rate * (direction + rates.weight_decay * old)
        # Early on the average forgets faster, so that it does not carry the initial parameters along.
        seen = number.astype(jnp.float32)
        keep = jnp.minimum(rates.averaging, (1 + seen) / (10 + seen))
        average = jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, state.average, parameters)
        return TrainingState(parameters, average, moments), loss


@functools.cache
def compiled(architecture: Architecture) -> CompiledNetwork:
    """The network's functions; the same object for the same architecture."""
    return CompiledNetwork(architecture)


def _of(parameters: Parameters, groups: tuple[str, ...]) -> Parameters:
    return {name: value for name, value in parameters.items() if name.split(".")[0] in groups}


# Windows of a corpus in batches of one length: endless and shuffled for training, in order for prediction.


class Batch(NamedTuple):
    """Standardized windows with the label and the weight of each frame; weight 0 where a frame is not trained on."""

    x_BxNxX: Float32[np.ndarray, "B N X"]
    labels_BxT: Int32[np.ndarray, "B T"]
    weights_BxT: Float32[np.ndarray, "B T"]


@dataclass(frozen=True)
class Standardized:
    """A series with the mean and deviation that a fold goes by."""

    series: Series
    mean_X: Float32[np.ndarray, " X"]
    std_X: Float32[np.ndarray, " X"]

    def windows(
        self, recording_B: Int[np.ndarray, " B"], first_B: Int[np.ndarray, " B"], frames: int
    ) -> Float32[np.ndarray, "B N X"]:
        """Windows of so many frames, 0 beyond the recording's end."""
        return self.series.windows(recording_B, first_B, frames, self.mean_X, self.std_X)


def training_batches(
    corpus: Corpus,
    inputs: Standardized,
    rows_R: Bool[np.ndarray, " R"],
    *,
    batch_size: int,
    seed: int,
    random_starts: bool,
    balanced: bool,
) -> Iterator[Batch]:
    """Shuffled batches without end, each window as often as any other; a batch holds windows of one length.

    Args:
        corpus: the data set.
        inputs: what the network reads.
        rows_R: rows that are trained on; windows without one are left out.
        batch_size: windows; where there are fewer, they come more than once.
        seed: of order and starts.
        random_starts: move each window by up to half its length, within its recording.
        balanced: weigh classes inversely to their rows.
    """
    random = np.random.default_rng(seed)
    frames = frame_of_rows(corpus)[rows_R]
    labels_F = np.zeros(corpus.frame_counts.sum(), np.int32)
    weights_F = np.zeros(len(labels_F), np.float32)
    labels_F[frames] = corpus.label_R[rows_R]
    weights_F[frames] = class_weights(corpus.label_R[rows_R], len(corpus.classes), balanced)[labels_F[frames]]
    windows = np.unique(corpus.window_R[rows_R])
    lengths = corpus.windows.length_W[windows]
    groups = {int(length): _cycle(windows[lengths == length], random) for length in np.unique(lengths)}
    shares = [np.mean(lengths == length) for length in groups]
    while True:
        length = int(random.choice(list(groups), p=shares))
        chosen = np.array([next(groups[length]) for _ in range(batch_size)])
        recording_B, first_B = corpus.windows.recording_W[chosen], corpus.windows.first_W[chosen].astype(np.int64)
        count_B = corpus.frame_counts[recording_B]
        if random_starts:
            # A window that hangs over the end may stay there: at the test some do.
            latest_B = np.maximum(first_B, count_B - length)
            shift_B = random.integers(-(length // 2), length // 2 + 1, batch_size)
            first_B = np.clip(first_B + shift_B, 0, latest_B)
        place_BxT = first_B[:, None] + np.arange(length)
        within_BxT = place_BxT < count_B[:, None]
        flat_BxT = np.where(within_BxT, place_BxT + first_frames(corpus)[recording_B][:, None], 0)
        yield Batch(inputs.windows(recording_B, first_B, length), labels_F[flat_BxT], weights_F[flat_BxT] * within_BxT)


def prediction_batches(
    corpus: Corpus, inputs: Standardized, windows_W: Int[np.ndarray, " W"], batch_size: int
) -> Iterator[tuple[Int[np.ndarray, " b"], Float32[np.ndarray, "B N X"]]]:
    """Every window once, by length, and its values; the last batch of a length is filled up with its last window."""
    lengths = corpus.windows.length_W[windows_W]
    for length in np.unique(lengths):
        group = windows_W[lengths == length]
        for start in range(0, len(group), batch_size):
            part = group[start : start + batch_size]
            filled = np.concatenate([part, np.repeat(part[-1:], batch_size - len(part))])
            first_B = corpus.windows.first_W[filled].astype(np.int64)
            yield part, inputs.windows(corpus.windows.recording_W[filled], first_B, int(length))


def _cycle(items: Int[np.ndarray, " n"], random: np.random.Generator) -> Iterator[int]:
    while True:
        yield from random.permutation(items)


# The one training loop of the networks: stop by inner validation, train again on everything, predict.


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

    Inputs are standardized over all recordings of the training subjects, labeled or not. Training stops where the
    macro-F1 of held-out training subjects stops improving; with `refit` the network is then trained once more, on all
    training subjects, for as many steps as were best. With too few labels to validate, the number of steps is fixed.

    Raises:
        DataError: fewer than two classes to train on.
    """
    training = settings.training
    rows = training_rows(corpus, fold, settings.validation_share, seed, rows_mask_R)
    series = series_of(corpus, architecture.reads)
    own = [i for i, recording in enumerate(corpus.recordings) if recording.subject in fold.train]
    inputs = Standardized(series, *series.standardization(own))
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
    inputs: Standardized,
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
    """The optimizer's numbers at a step: a linear warm-up, then constant, as the moving average does the annealing."""
    peak = training.learning_rate or own_rate
    rate = peak * min(1.0, (number + 1) / max(1, training.warmup_steps))
    clip = math.inf if training.clip_norm is None else training.clip_norm
    return Rates(*(jnp.float32(value) for value in (rate, training.weight_decay, clip, training.averaging)))


@dataclass(frozen=True)
class _Trainer:
    """Training runs of one network on one fold."""

    corpus: Corpus
    inputs: Standardized
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
        state = self.network.initialize(self.seed)
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
