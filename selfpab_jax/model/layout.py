"""The sizes that matrix units see: the model's own, or rounded up with zeros that change nothing.

Parameters, checkpoints and exports have the exact sizes in both layouts: zeros are added where a product is made.
"""

from typing import Literal

import jax.numpy as jnp
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
