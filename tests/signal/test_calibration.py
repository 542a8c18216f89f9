import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfpab_jax.signal.calibration import calibrate
from selfpab_jax.signal.epochs import epoch_moments

RATE = 20


def _still(orientations: int, seed: int, one_side: bool = False) -> np.ndarray:
    """Half a minute at rest in each of many orientations, with noise, and then movement."""
    rng = np.random.default_rng(seed)
    axes_Nx3 = rng.normal(size=(orientations, 3))
    if one_side:
        axes_Nx3[:, 2] = np.abs(axes_Nx3[:, 2])
    axes_Nx3 /= np.linalg.norm(axes_Nx3, axis=1, keepdims=True)
    rest_Nx3 = np.repeat(axes_Nx3, 30 * RATE, axis=0)
    rest_Nx3 += rng.normal(scale=0.004, size=rest_Nx3.shape)
    moving_Nx3 = rng.normal([0, 0, 1], 0.3, size=(300 * RATE, 3))
    return np.concatenate([rest_Nx3, moving_Nx3])


axis = st.floats(-1, 1)


@settings(max_examples=15, deadline=None)
@given(st.tuples(axis, axis, axis), st.tuples(axis, axis, axis), st.integers(0, 1000))
def test_offsets_and_gains_are_found(offsets: tuple, gains: tuple, seed: int) -> None:
    true_Nx3 = _still(120, seed)
    offset_3, gain_3 = 0.15 * np.array(offsets), 1 + 0.08 * np.array(gains)
    raw_Nx3 = ((true_Nx3 - offset_3) / gain_3).astype(np.float32)
    found = calibrate(epoch_moments([raw_Nx3], RATE))
    if found.reason is not None:  # nothing to mend
        assert found.error_before_mg < 2
        return
    assert found.error_after_mg < 2 < 10
    assert found.error_after_mg < found.error_before_mg
    np.testing.assert_allclose(found.offset_3, offset_3, atol=0.003)
    np.testing.assert_allclose(found.scale_3, gain_3, atol=0.004)
    assert np.abs(found.apply(raw_Nx3) - true_Nx3).max() < 0.02
    assert found.hours == pytest.approx(len(true_Nx3) / RATE / 3600, abs=0.01)


@pytest.mark.parametrize(
    ("signal_Nx3", "keyword"),
    [
        (np.random.default_rng(0).normal(size=(20_000, 3)), "still"),
        (_still(100, 0, one_side=True) * 1.1, "of z"),
        (_still(100, 0) * np.repeat(np.linspace(0.8, 1.2, 13_200 * 5), 1)[:, None], "better"),
        (np.zeros((20_000, 3)), "still"),
        (np.full((20_000, 3), np.nan), "still"),
        (np.zeros((0, 3)), "still"),
    ],
)
def test_what_cannot_be_calibrated_says_why(signal_Nx3: np.ndarray, keyword: str) -> None:
    found = calibrate(epoch_moments([signal_Nx3], RATE))
    assert found.reason is not None
    assert keyword in found.reason
    assert found.scale_3.tolist() == [1, 1, 1]
    assert found.offset_3.tolist() == [0, 0, 0]


def test_moments_do_not_depend_on_blocks() -> None:
    signal_NxC = np.random.default_rng(0).normal(size=(5_555, 4)).astype(np.float32)
    signal_NxC[1000:1400] = signal_NxC[999]
    whole = epoch_moments([signal_NxC], RATE)
    blocks = epoch_moments(np.array_split(signal_NxC, 37), RATE)
    for one, other in zip(whole, blocks, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(whole.mean_ExC) == 27
    assert np.flatnonzero(whole.is_constant_E).tolist() == [5, 6]
    np.testing.assert_allclose(whole.std_ExC[0], signal_NxC[:200].std(axis=0), rtol=1e-5)
