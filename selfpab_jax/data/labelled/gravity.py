"""Which way is down: axes of sensors whose mounting differs between people, found from gravity.

An accelerometer at rest shows 1 g upwards. Where each person fixed a sensor or phone in their own way, no one
permutation fits all. The original swaps MobiAct's x with the axis whose mean is nearest to 1 g; here it is the axis
with the largest mean, and the sign counts too. Turns are by 90 degrees, so that no value is changed otherwise.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from selfpab_jax.data.labelled.dataset import AXES
from selfpab_jax.data.labelled.signed_axes import to_hunt4_axes
from selfpab_jax.errors import ConfigError

Orientation = Literal["gravity", "declared"]
TURNS = {
    "-x": ("+x", "+y", "+z"),
    "+x": ("-x", "-y", "+z"),
    "-y": ("+y", "-x", "+z"),
    "+y": ("-y", "+x", "+z"),
    "-z": ("+z", "+y", "-x"),
    "+z": ("-z", "+y", "+x"),
}
"""For the axis that gravity shows on, with the sign of its reading: the rotation after which x reads -1 g, as HUNT4's
does upright. Each is a proper rotation that moves as few axes as it can; about the vertical it cannot decide."""


def check_orientation(orientation: str) -> None:
    """Raises ConfigError for what is no orientation."""
    if orientation not in get_args(Orientation):
        raise ConfigError(f"orientation is {orientation!r}: give {' or '.join(get_args(Orientation))}")


def gravity_axis(gravity_3: Float[np.ndarray, "3"]) -> str:
    """The axis with the largest reading, and its sign: `-x` where the sensor is upright already."""
    axis = int(np.abs(gravity_3).argmax())
    return ("-" if gravity_3[axis] < 0 else "+") + AXES[axis]


def turned_upright(
    signal_NxC: Float[np.ndarray, "N C"], gravity_C: Float[np.ndarray, " C"]
) -> Float[np.ndarray, "N C"]:
    """The signal with each sensor turned by quarter turns so that x reads about -1 g where gravity was measured.

    Args:
        signal_NxC: x, y, z of each sensor.
        gravity_C: what the same channels show upright, on average.
    """
    turned = [
        to_hunt4_axes(signal_NxC[:, first : first + 3], TURNS[gravity_axis(gravity_C[first : first + 3])])
        for first in range(0, signal_NxC.shape[1], 3)
    ]
    return np.concatenate(turned, axis=1)
