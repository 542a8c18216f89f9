"""Sensor axes: from the published ones to HUNT4's, as a card declares them or as gravity shows them.

HUNT4 is the cohort of the published encoders. Its axes are x down, y left, z forward for the lower back, and x down,
y right, z backward for the thigh. An accelerometer at rest measures 1 g upward, so that an upright sensor reads about
-1 g on x.

Signals are only permuted and negated: every rotation is a multiple of 90 degrees, and no sample changes otherwise.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float32

from selfpab_jax.errors import ConfigError

AXES = ("x", "y", "z")
SignedAxes = tuple[str, str, str]
"""For each of HUNT4's x, y and z the published axis that it is, with its sign: `("-y", "+x", "+z")`."""
Orientation = Literal["gravity", "declared"]
"""`gravity` rotates a sensor so that gravity is on x; `declared` keeps the axes that the card declares."""
UPRIGHT_ROTATIONS: dict[str, SignedAxes] = {
    "-x": ("+x", "+y", "+z"),
    "+x": ("-x", "-y", "+z"),
    "-y": ("+y", "-x", "+z"),
    "+y": ("-y", "+x", "+z"),
    "-z": ("+z", "+y", "-x"),
    "+z": ("-z", "+y", "+x"),
}
"""By the axis that gravity is on, with the sign of its reading: the rotation after which x reads -1 g.

Each is a proper rotation that moves as few axes as possible. Gravity does not determine the rotation about the
vertical.
"""


def axis_matrix(axes: Sequence[str]) -> Float32[np.ndarray, "3 3"]:
    """The signed permutation matrix that takes published x, y, z (columns) to HUNT4's (rows).

    Raises:
        ConfigError: `axes` are not x, y and z, once each with a sign.
    """
    if len(axes) != len(AXES) or sorted(axis[1:] for axis in axes) != list(AXES) or {a[0] for a in axes} - {"+", "-"}:
        raise ConfigError(f"axes {axes}: give x, y and z once each with a sign, e.g. ('-y', '+x', '+z')")
    matrix = np.zeros((3, 3), np.float32)
    for row, axis in enumerate(axes):
        matrix[row, AXES.index(axis[1:])] = -1.0 if axis[0] == "-" else 1.0
    return matrix


def to_hunt4_axes(signal_Nx3: Float[np.ndarray, "N 3"], axes: Sequence[str]) -> Float[np.ndarray, "N 3"]:
    """The signal with its axes permuted and negated, in the same dtype.

    Raises:
        ConfigError: see `axis_matrix`.
    """
    matrix = axis_matrix(axes)
    order, signs = np.abs(matrix).argmax(axis=1), matrix.sum(axis=1)
    # `+ 0` turns -0.0, which a change of sign makes, into 0.0: equal signals have equal bytes.
    return signal_Nx3[:, order] * signs.astype(signal_Nx3.dtype) + signal_Nx3.dtype.type(0)


def check_orientation(orientation: str) -> None:
    """Check the option `orientation` of a data set.

    Raises:
        ConfigError: it is neither `gravity` nor `declared`.
    """
    if orientation not in get_args(Orientation):
        raise ConfigError(f"orientation is {orientation!r}: give {' or '.join(get_args(Orientation))}")


def gravity_axis(gravity_3: Float[np.ndarray, " 3"]) -> str:
    """The axis with the largest absolute reading, with the sign of the reading: `-x` for an upright sensor."""
    axis = int(np.abs(gravity_3).argmax())
    return ("-" if gravity_3[axis] < 0 else "+") + AXES[axis]


def rotate_upright(
    signal_NxC: Float[np.ndarray, "N C"], gravity_C: Float[np.ndarray, " C"]
) -> Float[np.ndarray, "N C"]:
    """The signal with each sensor rotated by multiples of 90 degrees so that gravity is about -1 g on x.

    The original swaps x with the axis whose mean is nearest to 1 g. Here it is the axis with the largest mean, and
    its sign counts too.

    Args:
        signal_NxC: x, y and z of each sensor.
        gravity_C: mean reading of the same channels while the subject is upright.
    """
    rotated = [
        to_hunt4_axes(signal_NxC[:, first : first + 3], UPRIGHT_ROTATIONS[gravity_axis(gravity_C[first : first + 3])])
        for first in range(0, signal_NxC.shape[1], 3)
    ]
    return np.concatenate(rotated, axis=1)
