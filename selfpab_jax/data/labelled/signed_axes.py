"""Axes that are permuted and turned round, so that a sensor's x, y, z become HUNT4's."""

import numpy as np
from jaxtyping import Float, Float32

from selfpab_jax.data.labelled.dataset import AXES
from selfpab_jax.errors import ConfigError


def axis_matrix(axes: tuple[str, str, str]) -> Float32[np.ndarray, "3 3"]:
    """The matrix that brings published x, y, z (columns) to ours (rows): `("-y", "+x", "+z")` -> signed permutation.

    Raises:
        ConfigError: something else than a sign and an axis, each axis once.
    """
    if len(axes) != len(AXES) or sorted(axis[1:] for axis in axes) != list(AXES) or {a[0] for a in axes} - {"+", "-"}:
        raise ConfigError(f"axes {axes}: give x, y and z once each with a sign, e.g. ('-y', '+x', '+z')")
    matrix = np.zeros((3, 3), np.float32)
    for ours, axis in enumerate(axes):
        matrix[ours, AXES.index(axis[1:])] = -1.0 if axis[0] == "-" else 1.0
    return matrix


def to_hunt4_axes(signal_Nx3: Float[np.ndarray, "N 3"], axes: tuple[str, str, str]) -> Float[np.ndarray, "N 3"]:
    """The signal with its axes permuted and turned round as declared, of the same dtype; no value is changed otherwise.

    Raises:
        ConfigError: see `axis_matrix`.
    """
    matrix = axis_matrix(axes)
    order, signs = np.abs(matrix).argmax(axis=1), matrix.sum(axis=1)
    # `+ 0` turns the -0.0 that a change of sign makes into 0.0, so that equal signals have equal bytes.
    return signal_Nx3[:, order] * signs.astype(signal_Nx3.dtype) + signal_Nx3.dtype.type(0)
