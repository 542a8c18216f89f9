"""Parameters: how they are drawn, the names of their axes, the product they go into, and its padding.

Parameters, checkpoints and exports always have the exact sizes. With the padded layout, zeros are added where a product
is made, so that matrix units see sizes that they like; the function stays the same.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

LayoutName = Literal["exact", "padded"]

MULTIPLE_OF = {
    # 16-byte loads of bf16 need multiples of 8; 128 are the lanes of a TPU's and the tile of a GPU's matrix unit.
    "width": 128,
    "head": 64,
    "hidden": 128,
    "features": 32,
    "frames": 16,
}


def laid_out(size: int, axis: str, layout: LayoutName) -> int:
    """The size of an axis in the layout: 1500 of width are 1536 where it is padded."""
    multiple = MULTIPLE_OF[axis] if layout == "padded" else 1
    return -(-size // multiple) * multiple


def zero_padded(x: Float[Array, "..."], *sizes: int | None) -> Float[Array, "..."]:
    """The array with zeros behind its entries up to these sizes; None leaves an axis as it is."""
    more = [0 if size is None else size - old for size, old in zip(sizes, x.shape, strict=True)]
    return jnp.pad(x, [(0, count) for count in more]) if any(more) else x


def parameter(value: Array, *axes: str | None) -> nnx.Param:
    """A float32 parameter that carries the names of its axes."""
    return nnx.Param(value, axes=axes)


def uniform(rngs: nnx.Rngs, shape: tuple[int, ...], bound: float) -> Array:
    """Uniform in [-bound, bound), as torch.nn initializes."""
    return jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)


def multiply(equation: str, x: Array, kernel: Array, compute: str, result: str | None = None) -> Array:
    """A matrix product with operands in the compute dtype; the result is in it too unless `result` says otherwise."""
    precision = jax.lax.Precision.HIGHEST if compute == "float32" else None
    return jnp.einsum(
        equation, x.astype(compute), kernel.astype(compute), precision=precision, preferred_element_type=result
    )
