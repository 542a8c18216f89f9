"""Axes are permuted and turned, and nothing else happens to the samples."""

from itertools import permutations, product

import numpy as np
import pytest

from selfpab_jax.data.har.base import axis_matrix, to_hunt4_axes
from selfpab_jax.data.har.registry import DATASETS, dataset_class
from selfpab_jax.errors import ConfigError

ALL = [
    tuple(sign + axis for sign, axis in zip(signs, order, strict=True))
    for order in permutations("xyz")
    for signs in product("+-", repeat=3)
]


@pytest.mark.parametrize("axes", ALL)
def test_every_signed_permutation_is_its_matrix(axes):
    signal_Nx3 = np.random.default_rng(0).normal(size=(5, 3))
    matrix = axis_matrix(axes)
    np.testing.assert_array_equal(to_hunt4_axes(signal_Nx3, axes), signal_Nx3 @ matrix.T.astype(np.float64))
    np.testing.assert_array_equal(matrix @ matrix.T, np.eye(3))


def test_names_say_which_published_axis_is_ours():
    signal = np.array([[1.0, 2.0, 3.0]], np.float32)
    turned = to_hunt4_axes(signal, ("-y", "+x", "+z"))
    assert turned.tolist() == [[-2.0, 1.0, 3.0]]
    assert turned.dtype == np.float32


def test_no_negative_zeros():
    turned = to_hunt4_axes(np.zeros((1, 3)), ("-x", "-y", "+z"))
    assert not np.signbit(turned).any()


@pytest.mark.parametrize("axes", [("+x", "+x", "+z"), ("x", "y", "z"), ("+x", "+y"), ("+x", "*y", "+z")])
def test_other_axes_are_refused(axes):
    with pytest.raises(ConfigError, match="once each with a sign"):
        axis_matrix(axes)


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "tables"])
def test_declared_axes_are_rotations(name):
    """Sensors are turned, never mirrored: the publishers' frames are right-handed, and so is HUNT4's."""
    for card in dataset_class(name).CARDS:
        for sensor in card.sensors:
            assert np.linalg.det(axis_matrix(sensor.axes)) == pytest.approx(1), (card.version, sensor.name)
