"""The one trainer of the networks: compiled steps of AdamW, stopping by inner validation, and prediction."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, Key

from selfpab_jax.model.functional import Parameters
from selfpab_jax.model.rng import sample_keys
from selfpab_jax.probe.baselines.batches import (
    InputKind,
    InputSpec,
    NetworkInputs,
    WindowBatch,
    network_inputs,
    prediction_batches,
    present_macro_f1,
    rows_of,
    split_training_rows,
    training_batches,
)
from selfpab_jax.probe.baselines.config import BaselinePrediction, BaselineSettings, TrainingSettings
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold

BETAS = (0.9, 0.98)  # the original's, upstream and downstream


@runtime_checkable
class Network(Protocol):
    """A module that classifies frames."""

    def __call__(
        self,
        x_BxNxX: Float[Array, "B N X"],
        keys_B: Key[Array, " B"] | None,
        valid_B: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B T Y"]:
        """Logits of each frame; with keys, dropout is on.

        Args:
            x_BxNxX: windows.
            keys_B: one key per window, or None.
            valid_B: frames of each window that are attended to, all where None; without attention, a network reads the
                zeros that follow them.
        """
        ...


@dataclass(frozen=True)
class NetworkConfig(ABC):
    """A network's kind and sizes; hashable, as compiled functions are cached by it.

    Args:
        learning_rate: the network's own peak rate.
    """

    learning_rate: float = 1e-3

    @property
    def trained(self) -> tuple[str, ...]:
        """First names of the parameters that are trained; empty for all."""
        return ()

    @abstractmethod
    def build(self, inputs: InputSpec, rngs: nnx.Rngs) -> Network:
        """The module, an `nnx.Module` that has `nnx.Param` as its only variables."""


class NetworkState(NamedTuple):
    """Parameters by dotted names, their moving average, and Adam's moments by the parameters' first names."""

    parameters: Parameters
    average: Parameters
    moments: dict[str, Any]


class StepRates(NamedTuple):
    """The optimizer's hyper-parameters at a step; arguments of the compiled step."""

    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    clip_norm: Float[Array, ""]
    averaging: Float[Array, ""]


class CompiledNetwork:
    """A network as compiled functions of flat parameters.

    Args:
        config: kind and sizes.
        inputs: sizes that the data set gives.
    """

    def __init__(self, config: NetworkConfig, inputs: InputSpec):
        abstract = nnx.eval_shape(lambda: config.build(inputs, nnx.Rngs(params=0)))
        graph, state = nnx.split(abstract, nnx.Param)
        shapes, tree = jax.tree.flatten(state)
        self.names = [".".join(str(part) for part in path) for path, _ in nnx.to_flat_state(state)]
        self.parameter_count = sum(shape.size for shape in shapes)
        self._adam = optax.scale_by_adam(*BETAS)
        self._trained = config.trained or tuple(sorted({name.split(".")[0] for name in self.names}))

        def initialize(seed: Array) -> NetworkState:
            state = nnx.state(config.build(inputs, nnx.Rngs(params=jax.random.key(seed))), nnx.Param)
            return self.start(dict(zip(self.names, jax.tree.leaves(state), strict=True)))

        def logits(parameters: Parameters, x_BxNxX: Array, keys_B: Array | None, valid_B: Array | None) -> Array:
            module = nnx.merge(graph, jax.tree.unflatten(tree, [parameters[name] for name in self.names]))
            return module(x_BxNxX, keys_B, valid_B).astype(jnp.float32)

        def predict(parameters: Parameters, x_BxNxX: Array, valid_B: Array | None = None) -> Array:
            return jax.nn.softmax(logits(parameters, x_BxNxX, None, valid_B))

        self._logits = logits
        self.initialize = jax.jit(initialize)
        self.predict = jax.jit(predict)
        self.step = jax.jit(self._step, donate_argnums=0)

    def start(self, parameters: Parameters) -> NetworkState:
        """A state that begins with these parameters."""
        groups = {name.split(".")[0] for name in parameters}
        moments = {group: self._adam.init(_of_groups(parameters, (group,))) for group in sorted(groups)}
        # Copies, as the step donates its state and must not be given the same array twice.
        return NetworkState(parameters, jax.tree.map(jnp.copy, parameters), moments)

    def _step(
        self,
        state: NetworkState,
        x_BxNxX: Float[Array, "B N X"],
        targets_BxTxY: Float[Array, "B T Y"],
        weights_BxT: Float[Array, "B T"],
        valid_B: Int[Array, " B"] | None,
        rates: StepRates,
        seed: Int[Array, ""],
        number: Int[Array, ""],
    ) -> tuple[NetworkState, Float[Array, ""]]:
        """One step of AdamW on the mean cross-entropy over weighted rows; donates the state."""
        keys_B = sample_keys(jax.random.key(seed), number, jnp.arange(len(x_BxNxX)))

        def loss_of(trained: Parameters) -> Array:
            logits_BxTxY = self._logits(state.parameters | trained, x_BxNxX, keys_B, valid_B)
            errors_BxT = optax.softmax_cross_entropy(logits_BxTxY, targets_BxTxY)
            return jnp.sum(errors_BxT * weights_BxT) / jnp.maximum(weights_BxT.sum(), 1e-6)

        trained = _of_groups(state.parameters, self._trained)
        loss, gradient = jax.value_and_grad(loss_of)(trained)
        scale = jnp.minimum(1.0, rates.clip_norm / jnp.maximum(optax.tree.norm(gradient), 1e-12))
        gradient = jax.tree.map(lambda g: g * scale, gradient)
        moments, parameters = dict(state.moments), dict(state.parameters)
        for group in self._trained:
            # optax raises floats to integer powers, which strict dtype promotion, our tests' setting, refuses.
            with jax.numpy_dtype_promotion("standard"):
                change, moments[group] = self._adam.update(_of_groups(gradient, (group,)), state.moments[group])
            for name, direction in cast(Parameters, change).items():
                old = parameters[name]
                parameters[name] = old - rates.learning_rate * (direction + rates.weight_decay * old)
        # Early on the average forgets faster, so that it does not retain the initial parameters.
        seen = number.astype(jnp.float32)
        keep = jnp.minimum(rates.averaging, (1 + seen) / (10 + seen))
        average = jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, state.average, parameters)
        return NetworkState(parameters, average, moments), loss


@functools.cache
def compiled(config: NetworkConfig, inputs: InputSpec) -> CompiledNetwork:
    """The network's functions; the same object for the same sizes, so that they are compiled once in a process."""
    return CompiledNetwork(config, inputs)


def _of_groups(parameters: Parameters, groups: tuple[str, ...]) -> Parameters:
    return {name: value for name, value in parameters.items() if name.split(".")[0] in groups}


def training_steps(
    network: Callable[[int], CompiledNetwork],
    state: NetworkState,
    batches: Iterable[WindowBatch],
    rates: Callable[[int], StepRates],
    *,
    steps: int,
    seed: int,
) -> Iterator[tuple[int, NetworkState, Float[Array, ""]]]:
    """The training loop of baselines and fine-tuning.

    Args:
        network: whose step is run, by the number of steps taken.
        state: to begin with; donated.
        batches: at least as many as steps.
        rates: of the optimizer, by the number of steps taken.
        steps: to run.
        seed: of dropout.

    Yields:
        Number of steps taken, state and loss; a state is gone once the next one is asked for.
    """
    for number, batch in zip(range(steps), batches, strict=False):
        state, loss = network(number).step(state, *batch, rates(number), seed, number)
        yield number + 1, state, loss


def predict_windows(
    corpus: Corpus,
    inputs: NetworkInputs,
    network: CompiledNetwork,
    parameters: Parameters,
    windows_W: Int[np.ndarray, " W"],
    batch_size: int,
) -> Float32[np.ndarray, "R Y"]:
    """Probabilities of the rows of some windows, in the corpus' order.

    Args:
        corpus: the data set.
        inputs: what the network reads.
        network: compiled.
        parameters: of the network.
        windows_W: indices of windows, ascending.
        batch_size: windows of a batch.
    """
    rows_W = corpus.rows_of_windows[windows_W]
    first_W = np.cumsum(rows_W) - rows_W
    out_RxY = np.empty((rows_W.sum(), len(corpus.classes)), np.float32)
    for part, x_BxNxX, valid_B in prediction_batches(corpus, inputs, windows_W, batch_size):
        probabilities_BxTxY = np.asarray(network.predict(parameters, x_BxNxX, valid_B))
        for at, probabilities_TxY in zip(np.searchsorted(windows_W, part), probabilities_BxTxY, strict=False):
            out_RxY[first_W[at] : first_W[at] + rows_W[at]] = probabilities_TxY[: rows_W[at]]
    return out_RxY


def fit_predict_network(
    config: NetworkConfig,
    kind: InputKind,
    corpus: Corpus,
    fold: Fold,
    settings: BaselineSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None = None,
    progress: Callable[[str], None] | None = None,
) -> BaselinePrediction:
    """Train a network from scratch on a fold and predict its test subjects.

    Inputs are standardized over all recordings of the training subjects, labeled or not. Training stops when the
    macro-F1 of held-out training subjects stops improving; with `refit` the network is then trained again on all
    training subjects, for the best number of steps. With too few labels to validate, the number of steps is fixed.

    Args:
        config: of the network.
        kind: what it reads.
        corpus: the data set.
        fold: test and training subjects.
        settings: of training and validation.
        seed: of initial parameters, dropout, order of windows, and inner split.
        rows_mask_R: rows whose labels may be used; all if None.
        progress: called with a line at every validation.

    Raises:
        DataError: fewer than two classes to train on.
    """
    training = settings.training
    rows = split_training_rows(corpus, fold, settings.validation_share, seed, rows_mask_R)
    train_recordings = [i for i, recording in enumerate(corpus.recordings) if recording.subject in fold.train]
    inputs = network_inputs(corpus, kind).standardized(train_recordings)
    network = compiled(config, inputs.spec(len(corpus.classes)))
    trainer = _FoldTrainer(corpus, inputs, network, config.learning_rate, settings, seed, fold.name, progress)
    description: dict[str, Any] = {"parameters": network.parameter_count, "validation": rows.split}
    if rows.fit_R is None or rows.validation_R is None:
        steps = training.steps if rows_mask_R is None else min(training.few_label_steps, training.steps)
        parameters = trainer.train(rows.all_R, steps)
        description |= {"steps": steps, "stopping": "fixed number of steps"}
    else:
        parameters, steps, score = trainer.train_until_best(rows.fit_R, rows.validation_R)
        description |= {"steps": steps, "stopping": "inner validation", "validation_macro_f1": score}
        if training.refit:
            parameters = trainer.train(rows.all_R, steps)
    windows_W = np.unique(corpus.window_R[rows_of(corpus, fold.test)])
    return BaselinePrediction(trainer.predict(parameters, windows_W), description)


def step_rates(training: TrainingSettings, own_rate: float, number: int) -> StepRates:
    """The optimizer's hyper-parameters at a step: a linear warm-up, then constant, as the average does the annealing.

    Args:
        training: settings.
        own_rate: the network's peak learning rate, used if the settings have none.
        number: steps taken.
    """
    peak = training.learning_rate or own_rate
    rate = peak * min(1.0, (number + 1) / max(1, training.warmup_steps))
    clip = math.inf if training.clip_norm is None else training.clip_norm
    return StepRates(*(jnp.float32(value) for value in (rate, training.weight_decay, clip, training.averaging)))


@dataclass(frozen=True)
class _FoldTrainer:
    """Training of one network on one fold."""

    corpus: Corpus
    inputs: NetworkInputs
    network: CompiledNetwork
    own_rate: float
    settings: BaselineSettings
    seed: int
    fold: str
    progress: Callable[[str], None] | None

    def train(self, rows_R: Bool[np.ndarray, " R"], steps: int) -> Parameters:
        """Parameters after this many steps."""
        parameters = {}
        for number, state, loss in self._steps(rows_R, steps):
            parameters = state.average
            if number % self.settings.training.check_every == 0 or number == steps:
                self._report(f"step {number} of {steps}, loss {float(loss):.3f}")
        return parameters

    def train_until_best(
        self, fit_R: Bool[np.ndarray, " R"], validation_R: Bool[np.ndarray, " R"]
    ) -> tuple[Parameters, int, float]:
        """Parameters with the best macro-F1 on the validation rows, the number of steps, and the score."""
        training, corpus = self.settings.training, self.corpus
        windows_W = np.unique(corpus.window_R[validation_R])
        scored = validation_R[np.isin(corpus.window_R, windows_W)]
        best: tuple[Parameters, int, float] = ({}, 0, -1.0)
        for number, state, loss in self._steps(fit_R, training.steps):
            if number % training.check_every and number != training.steps:
                continue
            predicted = self.predict(state.average, windows_W)[scored].argmax(1)
            score = present_macro_f1(corpus.label_R[validation_R], predicted)
            self._report(f"step {number}, loss {float(loss):.3f}, validation macro-F1 {score:.3f}")
            if score > best[2]:
                best = ({name: jnp.copy(value) for name, value in state.average.items()}, number, score)
            elif number - best[1] >= training.patience * training.check_every:
                break
        return best

    def predict(self, parameters: Parameters, windows_W: Int[np.ndarray, " W"]) -> Float32[np.ndarray, "R Y"]:
        """Probabilities of the rows of these windows."""
        size = self.settings.training.batch_size
        return predict_windows(self.corpus, self.inputs, self.network, parameters, windows_W, size)

    def _steps(
        self, rows_R: Bool[np.ndarray, " R"], steps: int
    ) -> Iterator[tuple[int, NetworkState, Float[Array, ""]]]:
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
        return training_steps(
            lambda number: self.network,
            self.network.initialize(self.seed),
            batches,
            lambda number: step_rates(training, self.own_rate, number),
            steps=steps,
            seed=self.seed,
        )

    def _report(self, line: str) -> None:
        if self.progress is not None:
            self.progress(f"{self.fold}: {line}")
