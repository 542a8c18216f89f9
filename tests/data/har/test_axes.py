"""Axes are permuted and negated, and nothing else happens to the samples."""

from itertools import permutations, product

import numpy as np
import pytest

from selfpab_jax.data.har.axes import UPRIGHT_ROTATIONS, axis_matrix, check_orientation, rotate_upright, to_hunt4_axes
from selfpab_jax.data.har.registry import dataset_class, public_dataset_names
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


def test_names_are_of_the_published_axes():
    signal = np.array([[1.0, 2.0, 3.0]], np.float32)
    converted = to_hunt4_axes(signal, ("-y", "+x", "+z"))
    assert converted.tolist() == [[-2.0, 1.0, 3.0]]
    assert converted.dtype == np.float32


def test_no_negative_zeros():
    converted = to_hunt4_axes(np.zeros((1, 3)), ("-x", "-y", "+z"))
    assert not np.signbit(converted).any()


@pytest.mark.parametrize("axes", [("+x", "+x", "+z"), ("x", "y", "z"), ("+x", "+y"), ("+x", "*y", "+z")])
def test_other_axes_are_refused(axes):
    with pytest.raises(ConfigError, match="once each"):
        axis_matrix(axes)


@pytest.mark.parametrize("name", public_dataset_names())
def test_declared_axes_are_rotations(name):
    """Sensors are rotated, never mirrored: the publishers' frames are right-handed, and so is HUNT4's."""
    for card in dataset_class(name).CARDS:
        for sensor in card.sensors:
            assert np.linalg.det(axis_matrix(sensor.axes)) == pytest.approx(1), (card.version, sensor.name)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1, 1])
def test_gravity_is_rotated_to_minus_x(axis, sign):
    signal_NxC = np.random.default_rng(1).normal(0, 0.05, (50, 6)).astype(np.float32)
    signal_NxC[:, axis] += sign
    signal_NxC[:, 3] -= 1
    rotated = rotate_upright(signal_NxC, signal_NxC.mean(axis=0))
    np.testing.assert_allclose(rotated[:, [0, 3]].mean(axis=0), [-1, -1], atol=0.05)
    np.testing.assert_array_equal(rotated[:, 3:], signal_NxC[:, 3:])
    np.testing.assert_allclose(np.linalg.norm(rotated, axis=1), np.linalg.norm(signal_NxC, axis=1), rtol=1e-6)


def test_upright_rotations_are_rotations():
    for axes in UPRIGHT_ROTATIONS.values():
        assert np.linalg.det(axis_matrix(axes)) == pytest.approx(1)


def test_unknown_orientation():
    with pytest.raises(ConfigError, match="orientation"):
        check_orientation("up")
