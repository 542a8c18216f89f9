"""From samples to frames."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def mean_of_frames(h_BxNxD: Float[Array, "B N D"], window: int, hop: int) -> Float[Array, "B T D"]:
    """The mean over each frame's samples."""
    return jax.lax.reduce_window(h_BxNxD, 0.0, jax.lax.add, (1, window, 1), (1, hop, 1), "VALID") / window


def max_of_frames(h_BxNxD: Float[Array, "B N D"], window: int, hop: int) -> Float[Array, "B T D"]:
    """The largest over each frame's samples."""
    return jax.lax.reduce_window(h_BxNxD, -jnp.inf, jax.lax.max, (1, window, 1), (1, hop, 1), "VALID")
