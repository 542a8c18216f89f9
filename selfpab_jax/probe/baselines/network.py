"""A network as compiled functions of flat parameters, made once for each architecture in a process."""

import functools
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from selfpab_jax.model.blueprint import Parameters
from selfpab_jax.model.random import sample_keys
from selfpab_jax.probe.baselines.series import Reads

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
    """Numbers of the optimiser; arguments of the compiled step."""

    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    clip_norm: Float[Array, ""]
    averaging: Float[Array, ""]


class CompiledNetwork:
    """Initialisation, training step and prediction of an architecture; each is compiled once a shape."""

    def __init__(self, architecture: Architecture):
        abstract = nnx.eval_shape(lambda: architecture.build(nnx.Rngs(params=0)))
        graph, state = nnx.split(abstract, nnx.Param)
        shapes, tree = jax.tree.flatten(state)
        self.names = [".".join(str(part) for part in path) for path, _ in nnx.to_flat_state(state)]
        self.parameter_count = sum(shape.size for shape in shapes)
        self._adam = optax.scale_by_adam(*BETAS)
        groups = sorted({name.split(".")[0] for name in self.names})
        self._trained = architecture.trained or tuple(groups)

        def initialise(seed: Array) -> TrainingState:
            state = nnx.state(architecture.build(nnx.Rngs(params=jax.random.key(seed))), nnx.Param)
            return self.start(dict(zip(self.names, jax.tree.leaves(state), strict=True)))

        def logits(parameters: Parameters, x_BxNxX: Array, keys_B: Array | None) -> Array:
            module = nnx.merge(graph, jax.tree.unflatten(tree, [parameters[name] for name in self.names]))
            return module(x_BxNxX, keys_B).astype(jnp.float32)

        self._logits = logits
        self.initialise = jax.jit(initialise)
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
