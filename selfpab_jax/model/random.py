"""Random draws that belong to a sample, not to a device: the same on one device and on a thousand."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def sample_keys(seed_key: Key[Array, ""], step: Int[Array, ""], rows: Int[Array, "B"]) -> Key[Array, "B"]:
    """A key for each sample of a step, from the step and the sample's place in the global batch."""
    step_key = jax.random.fold_in(seed_key, step)
    return jax.vmap(lambda row: jax.random.fold_in(step_key, row))(rows)


def fold_each(keys_B: Key[Array, "B"], tag: int) -> Key[Array, "B"]:
    """A further key for each sample, told apart by `tag`."""
    return jax.vmap(lambda key: jax.random.fold_in(key, tag))(keys_B)


def dropout(x: Float[Array, "B ..."], rate: float, keys_B: Key[Array, "B"] | None) -> Float[Array, "B ..."]:
    """Zero each entry with probability `rate` and scale the rest by 1 / (1 - rate); without keys, x as it is.

    The rate is held to 1 / 65,536, so that 16 random bits an entry are enough.
    """
    if keys_B is None or rate == 0:
        return x
    threshold = round(rate * 65_536)
    bits = jax.vmap(lambda key: jax.random.bits(key, x.shape[1:], jnp.uint16))(keys_B)
    scale = jnp.asarray(65_536 / (65_536 - threshold), x.dtype)
    return jnp.where(bits >= threshold, x * scale, jnp.zeros((), x.dtype))
