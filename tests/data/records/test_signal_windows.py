from datetime import datetime, timedelta
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from selfpab_jax.data.records.format import frame_labels
from selfpab_jax.data.records.usage import Windowing, segment_usage
from selfpab_jax.data.records.windows import from_hour, signal_windows
from selfpab_jax.data.sources.base import UnusableError, milliseconds
from selfpab_jax.data.sources.blocks import SignalBlock
from selfpab_jax.data.sources.streaming import resample_blocks
from selfpab_jax.signal.resample import resample, resample_labels
from selfpab_jax.signal.stft import SpectrogramSettings

START = datetime(2020, 5, 17, 23, 59, 50)


def in_blocks(samples: int, sizes: list[int], start: datetime | None = START, rate: float = 50.0) -> list[SignalBlock]:
    """A recording whose values and labels are the samples' numbers, in blocks of the given sizes and the rest."""
    signal = np.arange(samples, dtype=np.float32)[:, None].repeat(2, axis=1)
    edges = [0, *(edge for edge in np.cumsum(sizes).tolist() if edge < samples), samples]
    return [
        SignalBlock("r", start, not first, rate, signal[first:last], np.arange(first, last, dtype=np.int32))
        for first, last in pairwise(edges)
    ]


SIZES = st.lists(st.integers(1, 200), max_size=8)


@settings(deadline=None)
@given(samples=st.integers(0, 500), window=st.integers(1, 200), shift=st.integers(1, 300), sizes=SIZES)
def test_windows_are_whole_in_order_and_as_many_as_fit(samples, window, shift, sizes):
    cut = list(signal_windows(iter(in_blocks(samples, sizes)), Windowing(window, shift)))
    assert len(cut) == len(range(0, samples - window + 1, shift))
    for number, piece in enumerate(cut):
        np.testing.assert_array_equal(piece.signal_NxC[:, 0], np.arange(number * shift, number * shift + window))
        np.testing.assert_array_equal(piece.labels_N, piece.signal_NxC[:, 0])
        assert piece.start == START + timedelta(seconds=number * shift / 50)
        assert piece.begins == (number == 0)


@settings(deadline=None)
@given(
    samples=st.integers(1, 500),
    window=st.integers(10, 200),
    shift=st.integers(1, 300),
    shortest=st.integers(1, 300),
    least=st.integers(1, 10),
    sizes=SIZES,
)
def test_every_sample_is_in_a_window_or_counted_as_left_out(samples, window, shift, shortest, least, sizes):
    windowing, lengths = Windowing(window, shift, shortest, least), []
    cut = list(signal_windows(iter(in_blocks(samples, sizes)), windowing, lengths.append))
    assert lengths == [samples]
    whole = len(range(0, samples - window + 1, shift))
    seen = set()
    for number, piece in enumerate(cut):
        inside = piece.signal_NxC[:, 0].astype(int)
        assert len(inside) == min(window, samples)
        assert inside[0] == (number * shift if number < whole else samples - len(inside))
        assert piece.start == START + timedelta(seconds=inside[0] / 50)
        assert piece.new_samples == len(set(inside) - seen) > 0
        seen |= set(inside)
    used = segment_usage(lengths, 50.0, windowing).scaled(50)
    assert used.used == pytest.approx(len(seen))
    assert used.recorded == pytest.approx(samples)
    assert used.too_short + used.ends + used.between == pytest.approx(samples - len(seen), abs=1e-6)
    if samples < window:
        assert bool(cut) == (samples >= max(shortest, least))
    elif shift <= window:
        assert used.ends < least
        assert not used.between
    assert bool(used.too_short) == (not cut)


def test_windows_never_reach_into_another_recording():
    blocks = [*in_blocks(70, [30]), *in_blocks(130, [60, 60])]
    cut = list(signal_windows(iter(blocks), Windowing(50, 50, shortest_samples=1)))
    assert [(int(piece.signal_NxC[0, 0]), piece.begins) for piece in cut] == [
        (0, True), (20, False), (0, True), (50, False), (80, False),
    ]  # fmt: skip


@pytest.mark.parametrize("hour", [0, 9, 23])
@pytest.mark.parametrize(
    "start", [datetime(2024, 2, 28, 9), datetime(2024, 2, 28, 9, 0, 30), datetime(2023, 12, 31, 22)]
)
def test_windows_start_at_the_hour(hour: int, start: datetime):
    rate, day = 0.05, 4320  # a sample every 20 s
    numbers = np.arange(3.3 * day, dtype=np.float32)
    blocks = [
        SignalBlock("a", start + timedelta(seconds=20 * first), first == 0, rate, numbers[first : first + 1000, None])
        for first in range(0, len(numbers), 1000)
    ]
    cut = []
    aligned = from_hour(iter(blocks), hour, cut.append)
    lengths, windowing = [], Windowing(5000, day, shortest_samples=100, move_back=False)
    windows = list(signal_windows(aligned, windowing, lengths.append))
    assert sum(cut) + sum(lengths) == len(numbers)
    assert sum(cut) < day
    assert len(windows) in (2, 3)
    for window in windows:
        assert window.start is not None
        assert (window.start.hour, window.start.minute, window.start.second) == (hour, 0, 0)
        # The sample that the clock shows then, to half a sample.
        since = (window.start - start).total_seconds() / 20
        assert abs(window.signal_NxC[0, 0] - since) <= 0.5


def test_windows_cannot_start_at_an_hour_that_is_unknown():
    with pytest.raises(UnusableError, match="timestamps"):
        list(from_hour(iter(in_blocks(100, [], start=None)), 4, lambda samples: None))


def test_time_is_the_recorders():
    assert milliseconds(datetime(1970, 1, 2)) == 86_400_000
    assert milliseconds(None) == -1
    cut = signal_windows(iter(in_blocks(100, [], start=None)), Windowing(50, 50))
    assert [window.start for window in cut] == [None, None]


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(1, 6000),
    sizes=st.lists(st.integers(1, 3000), max_size=4),
    rate=st.sampled_from([25.0, 64, 100]),
)
def test_another_rate_keeps_duration_and_labels_whatever_the_blocks(samples, sizes, rate):
    blocks = list(resample_blocks(iter(in_blocks(samples, sizes, rate=rate)), 50.0))
    assert [block.begins for block in blocks] == [True] + [False] * (len(blocks) - 1)
    signal = np.arange(samples, dtype=np.float32)[:, None].repeat(2, axis=1)
    joined = np.concatenate([block.signal_NxC for block in blocks])
    whole = resample(signal, rate, 50.0)
    assert joined.shape == whole.shape
    np.testing.assert_allclose(joined, whole, atol=0.05 + 1e-4 * samples)
    labels = np.concatenate([block.labels_N for block in blocks])
    np.testing.assert_array_equal(labels, resample_labels(np.arange(samples), rate, 50.0))


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
