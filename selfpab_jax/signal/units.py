"""Units of acceleration."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

Unit = Literal["g", "m/s2"]
STANDARD_GRAVITY = 9.80665
"""m/s^2 in 1 g (CGPM 1901)."""


def to_g(signal_NxC: Shaped[np.ndarray, "N C"], unit: Unit) -> Float[np.ndarray, "N C"]:
    """The signal in g; its own dtype where it is floating, else float32."""
    signal_NxC = signal_NxC if np.issubdtype(signal_NxC.dtype, np.floating) else signal_NxC.astype(np.float32)
    return signal_NxC if unit == "g" else signal_NxC / signal_NxC.dtype.type(STANDARD_GRAVITY)
