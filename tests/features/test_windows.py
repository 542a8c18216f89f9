import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from jaxtyping import TypeCheckError

from selfpab_jax.errors import ConfigError
from selfpab_jax.features.windows import bucket_lengths, make_windows, whole_recordings

COUNTS = st.lists(st.integers(1, 90), min_size=1, max_size=5)


@st.composite
def frames_and_shift(draw) -> tuple[int, int]:
    frames = draw(st.integers(1, 40))
    return frames, draw(st.integers(1, frames))


@settings(max_examples=150, deadline=None)
@given(counts=COUNTS, shape=frames_and_shift(), short=st.sampled_from(["pad", "fit"]))
def test_every_frame_is_covered_in_order(counts, shape, short):
    frames, shift = shape
    windows = make_windows(counts, frames, shift, short)
    assert (np.diff(windows.recording_W) >= 0).all()
    for index, count in enumerate(counts):
        mine = windows.recording_W == index
        first, length = windows.first_W[mine], windows.length_W[mine]
        assert (np.diff(first) > 0).all()
        assert (first < count).all()
        covered = np.zeros(count + frames, int)
        for start, size in zip(first, length, strict=True):
            covered[start : start + size] += 1
        assert (covered[:count] > 0).all()
        if short == "fit":
            assert (first + length <= count).all()
            assert set(length) <= set(bucket_lengths(frames))
            if count < frames:
                assert len(first) <= 2
                assert 1.5 * length[0] >= count - 2
        else:
            assert len(first) == -(-count // shift)
            assert (length == frames).all()
            if shift == frames:
                assert (covered[:count] == 1).all()


def test_few_lengths_are_compiled():
    assert bucket_lengths(599)[:6] == (599, 449, 299, 224, 149, 111)
    assert len(bucket_lengths(599)) <= 20
    assert set(make_windows(range(1, 599), 599, 599, "fit").length_W) <= set(bucket_lengths(599))


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(0, 2000), max_size=8))
def test_a_whole_recording_is_one_window_of_few_lengths(counts):
    windows = whole_recordings(counts)
    kept = [index for index, count in enumerate(counts) if count]
    assert windows.recording_W.tolist() == kept
    assert windows.masked
    assert not windows.first_W.any()
    for length, index in zip(windows.length_W, kept, strict=True):
        assert counts[index] <= length <= max(1.5 * counts[index] + 2, max(counts) / 4)
    assert set(windows.length_W) <= set(bucket_lengths(max(counts, default=0)))
    assert len(set(windows.length_W)) <= 5


def test_recordings_without_frames_have_no_windows():
    windows = make_windows([0, 3, 0], 4, 2)
    np.testing.assert_array_equal(windows.recording_W, [1, 1])
    assert not len(make_windows([], 4, 2, "fit").first_W)


@pytest.mark.parametrize(
    ("frames", "shift", "short", "message"),
    [(0, 1, "pad", "frames is 0"), (4, 0, "pad", "shift is 0"), (4, 5, "fit", "shift is 5"), (4, 2, "cut", "short")],
)
def test_what_cannot_be_is_refused(frames, shift, short, message):
    with pytest.raises((ConfigError, TypeCheckError), match=message):
        make_windows([10], frames, shift, short)
