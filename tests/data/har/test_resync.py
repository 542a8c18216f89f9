import numpy as np
import pytest

from selfpab_jax.data.har.resync import (
    SampleStream,
    continuous_spans,
    nearest,
    rate_notes,
    sample_stream,
    synced_segments,
    unrounded_times,
)
from selfpab_jax.data.sources.base import UnusableError


def line(times: np.ndarray) -> np.ndarray:
    """Straight lines of time, which linear interpolation keeps exactly."""
    return np.stack([times, -2 * times, 3 * times], axis=1)


def test_sensors_with_their_own_clocks_are_resampled_onto_one():
    rng = np.random.default_rng(0)
    back = np.arange(0, 10, 1 / 50) + rng.uniform(-0.004, 0.004, 500)
    thigh = np.arange(3.01, 14, 1 / 48) + rng.uniform(-0.004, 0.004, len(np.arange(3.01, 14, 1 / 48)))
    streams = [SampleStream(np.sort(back), line(np.sort(back))), SampleStream(np.sort(thigh), line(np.sort(thigh)))]
    (segment,) = synced_segments(streams, 50.0)
    assert segment.times_N[0] == pytest.approx(streams[1].times_N[0])
    assert streams[0].times_N[-1] - 0.02 <= segment.times_N[-1] <= streams[0].times_N[-1]
    np.testing.assert_allclose(np.diff(segment.times_N), 0.02, atol=1e-9)
    for signal in segment.signals:
        np.testing.assert_allclose(signal, line(segment.times_N), atol=1e-9)


def test_long_gaps_end_segments_and_short_ones_are_bridged():
    times = np.arange(1000) / 100
    held = np.delete(times, [*range(200, 215), *range(500, 540)])
    assert continuous_spans(held, 0.2) == [(0.0, 4.99), (5.4, 9.99)]
    first, second = synced_segments([SampleStream(held, line(held)), SampleStream(times, line(times))], 100.0)
    assert len(first.times_N) == 500
    assert len(second.times_N) == 460
    np.testing.assert_allclose(first.signals[0], line(times[:500]), atol=1e-9)


def test_unrounded_times_undo_rounding_but_not_unevenness():
    rounded = np.round(np.arange(300) * 1000 / 30) / 1000
    np.testing.assert_allclose(unrounded_times(rounded, 30.0), np.arange(300) / 30, atol=1e-9)
    uneven = np.array([0.0, 0.001, 0.05])
    assert unrounded_times(uneven, 30.0) is uneven


def test_nearest_takes_the_earlier_of_two():
    assert nearest(np.array([0.0, 1.0, 3.0]), np.array([-1.0, 0.5, 0.6, 2.0, 2.1, 9.0])).tolist() == [0, 0, 1, 1, 2, 2]
    assert nearest(np.array([4.0]), np.array([0.0, 9.0])).tolist() == [0, 0]


def test_incomplete_rows_are_dropped_and_others_sorted():
    stream = sample_stream(
        np.array([2.0, 1.0, np.nan, 2.0, 3.0]), np.array([[1.0] * 3, [2] * 3, [3] * 3, [4] * 3, [np.nan, 0, 0]])
    )
    assert stream.times_N.tolist() == [1.0, 2.0]
    assert stream.signal_Nx3[:, 0].tolist() == [2.0, 1.0]
    with pytest.raises(UnusableError, match="no values"):
        sample_stream(np.array([1.0]), np.full((1, 3), np.nan))


def test_another_rate_is_noted_and_a_far_too_low_one_refused():
    times = np.arange(100) / 100
    assert rate_notes(SampleStream(times, line(times)), 100.0, "the phone") == ()
    (note,) = rate_notes(SampleStream(times, line(times)), 200.0, "the phone")
    assert "100 Hz" in note
    assert "200 Hz" in note
    with pytest.raises(UnusableError, match="wrong rate: the phone has 100 Hz"):
        rate_notes(SampleStream(times, line(times)), 500.0, "the phone")
