"""The original's three learning-rate schedules as functions of the step, counted from 0."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

ScheduleName = Literal["linear_warmup", "inverse_sqrt", "exponential", "constant"]
Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]

FINAL_SHARE = 0.01
"""`linear_warmup` starts from and ends at this share of the peak."""


def linear_warmup(peak: float, total_steps: int, warmup_share: float) -> Schedule:
    """Linear up over `warmup_share` of the steps, then linear down (`LinearWUSchedule`, SelfPAB's pre-training).

    The original divides by the warm-up share plus 1e-6; so does this, to stay on its values.
    """
    floor = FINAL_SHARE * peak

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        progress = jnp.minimum((step + 1).astype(jnp.float32) / total_steps, 1.0)
        # From the steps that are left, because 1 - progress loses its digits near the end.
        left = jnp.maximum(total_steps - 1 - step, 0).astype(jnp.float32) / total_steps
        height = jnp.where(progress < warmup_share, progress / (warmup_share + 1e-6), left / (1 - warmup_share))
        return floor + height * (peak - floor)

    return rate


def inverse_sqrt(width: int, total_steps: int, warmup_share: float) -> Schedule:
    """Vaswani et al. (2017): width^-0.5 * min(n^-0.5, n * warmup^-1.5); the peak follows from the width."""
    warmup = max(warmup_share * total_steps, 1.0)

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        n = jnp.maximum(step, 1).astype(jnp.float32)
        return width**-0.5 * jnp.minimum(n**-0.5, n * warmup**-1.5)

    return rate


def exponential(peak: float, factor: float = 0.8, steps: int = 200) -> Schedule:
    """peak * factor^(n / steps), continuous in n (`ExponentialTFDecay`, the original's downstream training)."""
    return lambda step: peak * jnp.power(jnp.float32(factor), step.astype(jnp.float32) / steps)


def with_full_first_step(schedule: Schedule, peak: float) -> Schedule:
    """The original's quirk: its scheduler acts only after the first step, which therefore runs at the full rate."""
    return lambda step: jnp.where(step == 0, jnp.float32(peak), schedule(step))
