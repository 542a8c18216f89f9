"""Masked reconstruction losses."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LossName = Literal["masked_l1", "masked_l2", "log_spectral"]
"""Of normalized frames, the mean of |error| or of its square; or of log(magnitude + 0.01), the mean of |error|."""


def masked_errors(
    output: Float[Array, "B T X"], target: Float[Array, "B T X"], mask: Bool[Array, "B T X"], loss: LossName
) -> Float[Array, " B"]:
    """Per sample: sum of |error| (for `masked_l2` error squared) where mask is true, over the number of such entries.

    A sample without a masked entry has loss 0, as in the original. The mean over a batch is what training minimizes.

    Args:
        output: reconstructed frames; for `log_spectral`, their log magnitudes.
        target: frames without masking, likewise.
        mask: entries that count.
        loss: which error.
    """
    error = jnp.square(output - target) if loss == "masked_l2" else jnp.abs(output - target)
    return jnp.where(mask, error, 0).sum((1, 2)) / jnp.maximum(mask.sum((1, 2)), 1).astype(error.dtype)
