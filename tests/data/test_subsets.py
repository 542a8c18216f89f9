import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from selfpab_jax.data.records.dataset import RecordIndex
from selfpab_jax.data.records.format import first_windows
from selfpab_jax.data.splits import hours_of, select
from selfpab_jax.errors import DataError


def index_of(counts: list[int], seconds: float = 300.0) -> RecordIndex:
    """This many files of one window for every subject."""
    subject = np.repeat([f"S{i}" for i in range(len(counts))], counts)
    rows = np.arange(len(subject))
    frames = np.full(len(rows), 599, np.int32)
    return RecordIndex(subject, rows.astype(str), 0 * rows, rows, np.full(len(rows), seconds, np.float32), frames)


def overlapping(counts: list[int], window: int, shift: int) -> RecordIndex:
    """This many windows in every segment, two segments per subject; unknown times in every third segment."""
    segment = np.repeat(np.arange(len(counts)), counts)
    within = np.concatenate([np.arange(count) for count in counts])
    subject, recording = (segment // 2).astype(str), segment.astype(str)
    start_ms = np.where(segment % 3 == 0, -1, 10**12 + 1000 * shift * within)
    first = first_windows(subject, recording, start_ms, shift)
    np.testing.assert_array_equal(np.cumsum(first) - 1, segment)
    seconds = np.where(first, window, min(window, shift)).astype(np.float32)
    return RecordIndex(subject, recording, start_ms, segment, seconds, np.full(len(segment), 599, np.int32))


COUNTS = st.lists(st.integers(1, 30), min_size=2, max_size=12)
SEEDS = st.integers(0, 2**31)


@settings(max_examples=100, deadline=None)
@given(counts=COUNTS, seed=SEEDS, shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
def test_hours_are_nested_and_met(counts, seed, shares):
    index = index_of(counts)
    there = len(index) / 12
    less, more = (select(index, hours=share * there, seed=seed) for share in sorted(shares))
    assert set(less) <= set(more)
    assert (np.diff(more) > 0).all()
    wanted = max(shares) * there
    assert wanted - 1e-6 <= hours_of(index, more) < wanted + 1 / 12 + 1e-6


@settings(max_examples=200, deadline=None)
@given(
    counts=COUNTS,
    window=st.integers(1, 60),
    shift=st.integers(1, 80),
    seed=SEEDS,
    shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_hours_are_hours_of_recording_where_windows_overlap(counts, window, shift, seed, shares):
    index = overlapping(counts, window, shift)
    within = np.concatenate([np.arange(count) for count in counts])
    there = hours_of(index, np.arange(len(index)))
    less, more = (select(index, hours=share * there, seed=seed) for share in sorted(shares))
    assert set(less) <= set(more)
    for rows, share in ((less, min(shares)), (more, max(shares))):
        covered = {
            (index.segment[row], shift * within[row] + second) for row in rows for second in range(window)
        }  # every second of recording that is in a window
        assert hours_of(index, rows) == pytest.approx(len(covered) / 3600)
        assert share * there - 1e-6 <= hours_of(index, rows) < share * there + window / 3600 + 1e-6


def test_files_of_one_name_differ_in_time():
    name = np.array(["S01:0"] * 5)
    start_ms = np.array([0, 10_000, 20_001, 0, 10_000])
    assert first_windows(name, name, start_ms, 10.0).tolist() == [True, False, False, True, False]
    assert first_windows(name[:0], name[:0], start_ms[:0], 10.0).tolist() == []


@settings(max_examples=100, deadline=None)
@given(counts=COUNTS, seed=SEEDS, data=st.data())
def test_subjects_are_nested_and_whole(counts, seed, data):
    index = index_of(counts)
    more = data.draw(st.integers(1, len(counts)))
    less = data.draw(st.integers(1, more))
    few, many = (select(index, subjects=n, seed=seed) for n in (less, more))
    assert set(few) <= set(many)
    chosen = set(index.subject[many])
    assert len(chosen) == more
    assert len(many) == np.isin(index.subject, list(chosen)).sum()


@settings(max_examples=50, deadline=None)
@given(counts=COUNTS, seed=SEEDS, share=st.floats(0.01, 1))
def test_hours_among_chosen_subjects(counts, seed, share):
    index = index_of(counts)
    chosen = select(index, subjects=2, seed=seed)
    both = select(index, subjects=2, hours=share * hours_of(index, chosen), seed=seed)
    assert set(both) <= set(chosen)


def test_everything_is_the_default():
    np.testing.assert_array_equal(select(index_of([2, 3])), np.arange(5))


def test_the_seed_matters():
    index = index_of([50, 50])
    assert set(select(index, hours=1, seed=0)) != set(select(index, hours=1, seed=1))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"hours": 2}, "has 0.9167"),
        ({"hours": 0}, "0 hours"),
        ({"subjects": 4}, "4 subjects were asked for; the split has 3"),
        ({"subjects": 0}, "0 subjects"),
        ({"subjects": 1, "hours": 0.9}, "of these 1 subjects has"),
    ],
)
def test_more_than_there_is(wanted, message):
    with pytest.raises(DataError, match=message):
        select(index_of([3, 4, 4]), **wanted)
