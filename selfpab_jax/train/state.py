"""The state of a run as a pytree, created sharded: no host ever holds a whole copy it does not need."""

from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from selfpab_jax.model.blueprint import Blueprint, Parameters
from selfpab_jax.train.sharding import parameter_shardings, replicated


class TrainState(NamedTuple):
    """Steps taken, parameters, and the optimiser's own state."""

    step: Int[Array, ""]
    parameters: Parameters
    optimiser: optax.OptState


def _fresh(blueprint: Blueprint, update: optax.GradientTransformation, key: Key[Array, ""]) -> TrainState:
    parameters = blueprint.initialise(key)
    return TrainState(jax.numpy.zeros((), "int32"), parameters, update.init(parameters))


def state_shardings(blueprint: Blueprint, update: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """A sharding for every leaf of the state: moments lie as their parameters, scalars everywhere."""
    of_parameter = parameter_shardings(blueprint, mesh)
    abstract = jax.eval_shape(lambda key: _fresh(blueprint, update, key), jax.random.key(0))

    def of_leaf(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.sharding.NamedSharding:
        names = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]
        return of_parameter[names[-1]] if names and leaf.ndim else replicated(mesh)

    return jax.tree_util.tree_map_with_path(of_leaf, abstract)


def create_state(
    blueprint: Blueprint, update: optax.GradientTransformation, mesh: Mesh, key: Key[Array, ""]
) -> TrainState:
    """Fresh parameters and moments, drawn where they will live; the same on any mesh."""
    shardings = state_shardings(blueprint, update, mesh)
    with jax.set_mesh(mesh):
        return jax.jit(lambda key: _fresh(blueprint, update, key), out_shardings=shardings)(key)


def abstract_state(blueprint: Blueprint, update: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state: what a checkpoint is restored into."""
    abstract = jax.eval_shape(lambda key: _fresh(blueprint, update, key), jax.random.key(0))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        state_shardings(blueprint, update, mesh),
    )
