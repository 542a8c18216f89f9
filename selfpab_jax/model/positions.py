"""Fixed sinusoidal positions: by frame (SelfPAB) and by calendar (LTA2V)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

CALENDAR = {"month": 13, "day": 32, "weekday": 7, "hour": 24, "minute": 60}
"""Rows of LTA2V's five tables, in the order of the last axis of its timestamps."""


def sinusoids(rows: int, width: int) -> Float32[np.ndarray, "T D"]:
    """Sine on even and cosine on odd features, base 10,000, as the original builds its table.

    Every intermediate is float32, as there: the angle of frame 599 then differs from the float64 one by 2e-5, and
    a table in higher precision would miss the published encoder's positions by as much.
    """
    exponent = np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10_000.0) / width)
    # The nearest float32 to the exponential is what torch gets; NumPy's own is an ulp off for half of the rates.
    rate_of_pair = np.exp(exponent.astype(np.float64)).astype(np.float32)
    angle = np.arange(rows, dtype=np.float32)[:, None] * rate_of_pair
    table = np.empty((rows, width), np.float32)
    table[:, 0::2] = np.sin(angle)
    table[:, 1::2] = np.cos(angle)
    return table


def calendar_sinusoids(timestamps: Int[Array, "B T 5"], width: int) -> Float[Array, "B T D"]:
    """Sum of the five calendar tables at each frame's month, day, weekday, hour and minute (LTA2V)."""
    total = jnp.zeros((*timestamps.shape[:2], width))
    for column, rows in enumerate(CALENDAR.values()):
        total = total + jnp.asarray(sinusoids(rows, width))[timestamps[..., column]]
    return total
