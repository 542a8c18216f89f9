"""Parameters: how they are drawn, the names of their axes, matrix products with them, and padding.

Parameters, checkpoints and exports always have the exact sizes. With the padded layout, zeros are added for each
product, so that matrix units get sizes that suit them; the function stays the same.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

LayoutName = Literal["exact", "padded"]

MULTIPLE_OF = {
    # 16-byte loads of bf16 need multiples of 8; 128 is the lane count of a TPU and the tile of a GPU's matrix unit.
    "width": 128,
    "head": 64,
    "hidden": 128,
    "features": 32,
    "frames": 16,
}


def padded_size(size: int, axis: str, layout: LayoutName) -> int:
    """The size of an axis in the layout: a width of 1500 becomes 1536 where it is padded.

    Args:
        size: without padding.
        axis: a key of `MULTIPLE_OF`.
        layout: `exact` or `padded`.
    """
    multiple = MULTIPLE_OF[axis] if layout == "padded" else 1
    return -(-size // multiple) * multiple


def zero_padded(x: Float[Array, "..."], *sizes: int | None) -> Float[Array, "..."]:
    """The array with zeros appended up to these sizes; None leaves an axis as it is."""
    more = [0 if size is None else size - old for size, old in zip(sizes, x.shape, strict=True)]
    return jnp.pad(x, [(0, count) for count in more]) if any(more) else x


def parameter(value: Array, *axes: str | None) -> nnx.Param:
    """A float32 parameter that carries the names of its axes."""
    return nnx.Param(value, axes=axes)


def uniform(rngs: nnx.Rngs, shape: tuple[int, ...], bound: float) -> Array:
    """Uniform in [-bound, bound), as torch.nn initializes.

    Args:
        rngs: with a `params` stream.
        shape: of the array.
        bound: of the distribution.
    """
    return jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)


def multiply(equation: str, x: Array, kernel: Array, compute: str, result: str | None = None) -> Array:
    """A matrix product with operands in the compute dtype.

    Args:
        equation: as for `jnp.einsum`.
        x: first operand.
        kernel: second operand.
        compute: dtype of the operands.
        result: dtype of the result; that of the operands where not given.
    """
    precision = jax.lax.Precision.HIGHEST if compute == "float32" else None
    return jnp.einsum(
        equation, x.astype(compute), kernel.astype(compute), precision=precision, preferred_element_type=result
    )
