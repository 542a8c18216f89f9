"""Where activations live on a mesh. Without a mesh in force these functions do nothing."""

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Shaped

BATCH_AXES = ("data", "fsdp")
"""Mesh axes that a batch is spread over."""


def spread_over_batch(x: Shaped[Array, "B ..."]) -> Shaped[Array, "B ..."]:
    """Keep the first axis spread over devices and the others whole.

    Said once a layer, it makes FSDP gather a layer's weights instead of splitting its activations.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES))
