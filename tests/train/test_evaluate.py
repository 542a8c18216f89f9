"""Linear interpolation as a baseline."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from selfpab_jax.train.evaluate import interpolate


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_plane_is_filled_exactly_away_from_the_edges(data: st.DataObject) -> None:
    frames, channels, bins = 12, 2, 8
    time, frequency = np.arange(frames, dtype=np.float32), np.arange(bins, dtype=np.float32)
    plane = 2 * time[:, None, None] + np.array([0.0, 5.0], np.float32)[None, :, None] + 3 * frequency[None, None, :]
    target = plane.reshape(frames, -1)
    hidden_frames = data.draw(st.sets(st.integers(1, frames - 2), max_size=5))
    hidden_bins = data.draw(st.sets(st.integers(1, bins - 2), max_size=3))
    mask = np.zeros((frames, channels, bins), bool)
    mask[sorted(hidden_frames)] = True
    mask[:, :, sorted(hidden_bins)] = True
    mask = mask.reshape(frames, -1)
    spoilt = np.where(mask, np.float32(1e6), target)
    np.testing.assert_allclose(interpolate(spoilt, mask, channels), target, rtol=1e-5, atol=1e-4)


def test_edges_take_the_nearest_visible_value() -> None:
    target = np.arange(5, dtype=np.float32)[:, None].repeat(4, 1)
    mask = np.zeros_like(target, bool)
    mask[[0, 4]] = True
    filled = interpolate(target, mask, 1)
    np.testing.assert_array_equal(filled[:, 0], [1, 1, 2, 3, 3])


def test_nothing_hidden_changes_nothing() -> None:
    target = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    np.testing.assert_array_equal(interpolate(target, np.zeros_like(target, bool), 2), target)
