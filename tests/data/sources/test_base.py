from datetime import datetime, timedelta

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from selfpab_jax.data.records.format import frame_labels
from selfpab_jax.data.records.usage import segment_usage
from selfpab_jax.data.sources.base import Recording, Windowing, milliseconds, resample_recording, windows
from selfpab_jax.signal.stft import SpectrogramSettings

START = datetime(2020, 5, 17, 23, 59, 50)


def recording(samples: int, start: datetime | None = START, rate: float = 50.0) -> Recording:
    signal = np.arange(samples, dtype=np.float32)[:, None].repeat(2, axis=1)
    return Recording("s", "r", start, rate, signal, np.arange(samples, dtype=np.int32))


@settings(deadline=None)
@given(samples=st.integers(0, 500), window=st.integers(1, 200), shift=st.integers(1, 300))
def test_windows_are_whole_in_order_and_as_many_as_fit(samples, window, shift):
    cut = list(windows(recording(samples), Windowing(window, shift)))
    assert len(cut) == len(range(0, samples - window + 1, shift))
    for number, piece in enumerate(cut):
        np.testing.assert_array_equal(piece.signal_NxC[:, 0], np.arange(number * shift, number * shift + window))
        np.testing.assert_array_equal(piece.labels_N, piece.signal_NxC[:, 0])
        assert piece.start == START + timedelta(seconds=number * shift / 50)


@settings(deadline=None)
@given(
    samples=st.integers(1, 500),
    window=st.integers(10, 200),
    shift=st.integers(1, 300),
    shortest=st.integers(1, 300),
    least=st.integers(1, 10),
)
def test_every_sample_is_in_a_window_or_counted_as_left_out(samples, window, shift, shortest, least):
    windowing = Windowing(window, shift, shortest, least)
    cut = list(windows(recording(samples), windowing))
    whole = len(range(0, samples - window + 1, shift))
    seen = set()
    for number, piece in enumerate(cut):
        inside = piece.signal_NxC[:, 0].astype(int)
        assert len(inside) == min(window, samples)
        assert inside[0] == (number * shift if number < whole else samples - len(inside))
        assert piece.start == START + timedelta(seconds=inside[0] / 50)
        assert piece.new_samples == len(set(inside) - seen) > 0
        seen |= set(inside)
    used = segment_usage([recording(samples)], windowing).scaled(50)
    assert used.used == pytest.approx(len(seen))
    assert used.recorded == pytest.approx(samples)
    assert used.too_short + used.ends + used.between == pytest.approx(samples - len(seen), abs=1e-6)
    if samples < window:
        assert bool(cut) == (samples >= max(shortest, least))
    elif shift <= window:
        assert used.ends < least
        assert not used.between
    assert bool(used.too_short) == (not cut)


def test_time_is_the_recorders():
    assert milliseconds(datetime(1970, 1, 2)) == 86_400_000
    assert milliseconds(None) == -1
    assert [w.start for w in windows(recording(100, start=None), Windowing(50, 50))] == [None, None]


def test_another_rate_keeps_duration_and_labels():
    slower = resample_recording(recording(1000, rate=100.0), 50.0)
    assert slower.signal_NxC.shape == (500, 2)
    np.testing.assert_array_equal(slower.labels_N, np.arange(0, 1000, 2))
    assert resample_recording(slower, 50.0) is slower


def test_frame_labels_equal_the_originals(golden):
    expected = np.load(golden / "frame_labels.npz")
    ours = frame_labels(expected["labels"].astype(np.int32), SpectrogramSettings())
    np.testing.assert_array_equal(ours, expected["frame_labels"])


@settings(max_examples=50, deadline=None)
@given(labels=st.lists(st.sampled_from([-1, 1, 3, 130]), min_size=20, max_size=60), hop=st.integers(1, 20))
def test_frame_labels_are_the_most_frequent_ties_to_the_smallest(labels, hop):
    config = SpectrogramSettings(50.0, 20, hop)
    ours = frame_labels(np.array(labels, np.int32), config)
    for t, label in enumerate(ours):
        frame = labels[t * hop : t * hop + 20]
        assert label == min(set(frame), key=lambda value: (-frame.count(value), value))
