"""The model as a function of flat parameters: their names, shapes and axes, without any array."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Key

from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.encoder import ReconstructionModel

Parameters = dict[str, Float[Array, "..."]]
"""Parameters under dotted names such as `encoder.layers.0.norm1.scale`: the names in checkpoints and exports."""


@dataclass(frozen=True)
class FunctionalModel:
    """A reconstruction model without its arrays.

    Args:
        settings: the model's sizes.
        features: features of an input frame.
        outputs: features of a reconstructed frame.
        abstract: shape and dtype of every parameter.
        axes: logical axes of every parameter, for sharding.
        second_head: whether it has one.
    """

    settings: ModelSettings
    features: int
    outputs: int
    abstract: dict[str, jax.ShapeDtypeStruct]
    axes: dict[str, tuple[str | None, ...]]
    second_head: bool
    _graph: Any
    _tree: Any

    def initialize(self, key: Key[Array, ""]) -> Parameters:
        """New parameters as torch.nn draws them, but each layer its own (the original copies the first)."""
        state = nnx.state(self._model(nnx.Rngs(params=key)), nnx.Param)
        return dict(zip(self.abstract, jax.tree.leaves(state), strict=True))

    def build(self, parameters: Parameters) -> ReconstructionModel:
        """The model that holds these parameters."""
        leaves = [parameters[name] for name in self.abstract]
        return nnx.merge(self._graph, jax.tree.unflatten(self._tree, leaves))

    def _model(self, rngs: nnx.Rngs) -> ReconstructionModel:
        return ReconstructionModel(self.features, self.outputs, self.settings, rngs, second_head=self.second_head)

    @property
    def parameter_count(self) -> int:
        """Trainable parameters: 61,107,848 at the published size with 156 features."""
        return sum(shape.size for shape in self.abstract.values())


def make_functional(
    settings: ModelSettings, features: int, outputs: int, *, second_head: bool = False
) -> FunctionalModel:
    """The model as a function of its parameters; allocates nothing.

    Args:
        settings: sizes and numerics.
        features: of an input frame.
        outputs: features of a reconstructed frame.
        second_head: with a head that compares the halves of a window.
    """

    def model() -> ReconstructionModel:
        return ReconstructionModel(features, outputs, settings, nnx.Rngs(params=0), second_head=second_head)

    abstract = nnx.eval_shape(model)
    graph, state = nnx.split(abstract, nnx.Param)
    leaves, tree = jax.tree.flatten(state)
    variables = jax.tree.leaves(state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    names = [".".join(str(part) for part in path) for path, _ in nnx.to_flat_state(state)]
    return FunctionalModel(
        settings=settings,
        features=features,
        outputs=outputs,
        abstract={name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in zip(names, leaves, strict=True)},
        axes={name: variable.get_metadata()["axes"] for name, variable in zip(names, variables, strict=True)},
        second_head=second_head,
        _graph=graph,
        _tree=tree,
    )


PACKED = {
    "attention.qkv_kernel": ("attention.query_kernel", "attention.key_kernel", "attention.value_kernel", 1),
    "attention.qkv_bias": ("attention.query_bias", "attention.key_bias", "attention.value_bias", 0),
}
"""Entries that version 0.1 kept in one array: the names of their three parts, and the axis that counts them."""


def split_packed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as this version names them, from those that version 0.1 wrote; others pass unchanged.

    Args:
        parameters: NumPy or JAX arrays under dotted names; the names of AdamW's moments are the same.
    """
    split: dict[str, Any] = {}
    for name, array in parameters.items():
        layer, _, kind = name.rpartition("attention.")
        if f"attention.{kind}" not in PACKED:
            split[name] = array
            continue
        *parts, axis = PACKED[f"attention.{kind}"]
        for place, part in enumerate(parts):
            split[f"{layer}{part}"] = array[(slice(None),) * axis + (place,)]
    return split


def packed_shapes(abstract: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes as version 0.1 stored them: what `split_packed` takes apart, put together again.

    Args:
        abstract: this version's shapes, dtypes and, where they have any, shardings.
    """
    packed = dict(abstract)
    for old, (*parts, axis) in PACKED.items():
        for name in [name for name in abstract if name.endswith(parts[0])]:
            layer = name.removesuffix(parts[0])
            one = packed[name]
            for part in parts:
                del packed[f"{layer}{part}"]
            shape = (*one.shape[:axis], len(parts), *one.shape[axis:])
            sharding = one.sharding
            if isinstance(sharding, jax.sharding.NamedSharding):
                spec = (*sharding.spec, *(None,) * (len(one.shape) - len(sharding.spec)))
                sharding = sharding.update(spec=jax.sharding.PartitionSpec(*spec[:axis], None, *spec[axis:]))
            packed[f"{layer}{old}"] = jax.ShapeDtypeStruct(shape, one.dtype, sharding=sharding)
    return packed
