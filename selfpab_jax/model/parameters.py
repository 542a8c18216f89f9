"""Parameters with named axes, how they are drawn, and the matrix product they go into."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array


def parameter(value: Array, *axes: str | None) -> nnx.Param:
    """A float32 parameter that carries the names of its axes."""
    return nnx.Param(value, axes=axes)


def uniform(rngs: nnx.Rngs, shape: tuple[int, ...], bound: float) -> Array:
    """Uniform in [-bound, bound), as torch.nn initialises."""
    return jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)


def multiply(equation: str, x: Array, kernel: Array, compute: str, result: str | None = None) -> Array:
    """A matrix product with operands in the compute dtype; the result is in it too unless `result` says otherwise."""
    precision = jax.lax.Precision.HIGHEST if compute == "float32" else None
    return jnp.einsum(
        equation, x.astype(compute), kernel.astype(compute), precision=precision, preferred_element_type=result
    )
