import numpy as np
import pytest

from selfpab_jax.data.har.base import TURNS, axis_matrix, check_orientation, turned_upright
from selfpab_jax.errors import ConfigError


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1, 1])
def test_gravity_comes_to_lie_on_x_downwards(axis, sign):
    signal_NxC = np.random.default_rng(1).normal(0, 0.05, (50, 6)).astype(np.float32)
    signal_NxC[:, axis] += sign
    signal_NxC[:, 3] -= 1
    turned = turned_upright(signal_NxC, signal_NxC.mean(axis=0))
    np.testing.assert_allclose(turned[:, [0, 3]].mean(axis=0), [-1, -1], atol=0.05)
    np.testing.assert_array_equal(turned[:, 3:], signal_NxC[:, 3:])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(signal_NxC, axis=1), rtol=1e-6)


def test_every_turn_is_a_rotation():
    for axes in TURNS.values():
        assert np.linalg.det(axis_matrix(axes)) == pytest.approx(1)


def test_unknown_orientation():
    with pytest.raises(ConfigError, match="give gravity or declared"):
        check_orientation("up")
