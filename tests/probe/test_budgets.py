from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from selfpab_jax.errors import ConfigError
from selfpab_jax.probe.budgets import Budget, choose_subjects, choose_windows

TRAIN = ("s0", "s1", "s3")


@pytest.fixture(scope="module")
def small(synthetic, make_corpus):
    """Windows of 4 frames: about 70 in each subject."""
    return make_corpus(synthetic(), frames=4, shift=4)


def chosen(corpus, mask_R):
    return set(np.unique(corpus.window_R[mask_R]).tolist())


def activities(corpus, windows):
    labels = [corpus.label_R[(corpus.window_R == w) & (corpus.label_R >= 0) & corpus.whole_R] for w in sorted(windows)]
    return [int(np.bincount(label).argmax()) for label in labels]


def test_as_many_windows_an_activity_as_asked_for(small):
    for per_class in (1, 5):
        mask, notes = choose_windows(small, TRAIN, per_class, None, seed=0)
        assert not notes
        np.testing.assert_array_equal(np.bincount(activities(small, chosen(small, mask))), [per_class] * 4)
        assert set(np.unique(small.subject_R[mask])) <= {0, 1, 3}
        assert (small.label_R[mask] >= 0).all()
        assert small.whole_R[mask].all()


def test_a_fraction_of_each_activitys_windows(small):
    everything, _ = choose_windows(small, TRAIN, None, 1.0, seed=0)
    tenth, notes = choose_windows(small, TRAIN, None, 0.1, seed=0)
    all_of = np.bincount(activities(small, chosen(small, everything)))
    np.testing.assert_array_equal(np.bincount(activities(small, chosen(small, tenth))), np.ceil(all_of / 10))
    np.testing.assert_array_equal(everything, small.whole_R & (small.label_R >= 0) & (small.subject_R != 2))
    assert not everything[small.frame_R == 299].any()
    np.testing.assert_array_equal(everything, choose_windows(small, TRAIN, None, None, seed=3)[0])
    assert not notes


def test_larger_budgets_hold_smaller_ones(small):
    for budgets in ([(k, None) for k in (1, 2, 5, 20)], [(None, fraction) for fraction in (0.05, 0.2, 0.5, 1.0)]):
        masks = [choose_windows(small, TRAIN, per_class, fraction, seed=4)[0] for per_class, fraction in budgets]
        for smaller, larger in pairwise(masks):
            assert (smaller <= larger).all()
            assert smaller.sum() < larger.sum()


def test_the_choice_is_the_seeds_and_spreads_over_subjects(small):
    first, _ = choose_windows(small, TRAIN, 8, None, seed=0)
    np.testing.assert_array_equal(first, choose_windows(small, TRAIN[::-1], 8, None, seed=0)[0])
    assert chosen(small, first) != chosen(small, choose_windows(small, TRAIN, 8, None, seed=1)[0])
    assert set(np.unique(small.subject_R[first])) == {0, 1, 3}
    # Neither the first nor the last windows of recordings are preferred.
    assert 0.25 < (small.frame_R[first] / 300).mean() < 0.75


def test_the_others_windows_stay_when_a_subject_leaves(small):
    with_s3, _ = choose_windows(small, TRAIN, 5, None, seed=0)
    without_s3, _ = choose_windows(small, TRAIN[:2], 5, None, seed=0)
    assert (with_s3[small.subject_R != 3] <= without_s3[small.subject_R != 3]).all()


def test_the_order_does_not_depend_on_other_recordings(small, synthetic, make_corpus):
    fewer = make_corpus(synthetic(subjects=2), frames=4, shift=4)
    both, _ = choose_windows(small, ("s0", "s1"), 5, None, seed=0)
    np.testing.assert_array_equal(both[: len(fewer.label_R)], choose_windows(fewer, ("s0", "s1"), 5, None, seed=0)[0])


def test_fewer_windows_than_asked_for_are_all_taken_and_noted(synthetic, make_corpus):
    def little_lying(recording):
        labels = recording.labels_N.copy()
        lying = np.flatnonzero(labels == 3)
        labels[lying[200:]] = 0
        return [replace(recording, labels_N=labels)]

    corpus = make_corpus(synthetic(subjects=2, damage={"s0": little_lying}), frames=4, shift=4)
    mask, notes = choose_windows(corpus, ["s0"], 5, None, seed=0)
    of_class = np.bincount(activities(corpus, chosen(corpus, mask)), minlength=4)
    assert of_class[3] in (1, 2)
    np.testing.assert_array_equal(of_class[:3], 5)
    (note,) = notes
    assert note.startswith(f"lying: only {of_class[3]} of 5 windows")


def test_subject_budgets_are_nested():
    names = [f"S{i:02}" for i in range(20)]
    before: set[str] = set()
    for count in (1, 3, 10, 20):
        subjects, notes = choose_subjects(names, count, seed=1)
        assert before <= set(subjects)
        assert (len(subjects), notes) == (count, ())
        before = set(subjects)
    assert choose_subjects(names, 3, seed=1) != choose_subjects(names, 3, seed=2)
    subjects, notes = choose_subjects(names[:2], 5, seed=1)
    assert subjects == ("S00", "S01")
    assert "only 2 of 5" in notes[0]


@pytest.mark.parametrize(
    ("per_class", "fraction", "message"),
    [(1, 0.5, "not both"), (0, None, "windows is 0"), (None, 0.0, "fractions is 0.0"), (None, 1.5, "fractions is 1.5")],
)
def test_invalid_budgets_are_refused(small, per_class, fraction, message):
    with pytest.raises(ConfigError, match=message):
        choose_windows(small, TRAIN, per_class, fraction, seed=0)


def test_unknown_subjects_are_refused(small):
    with pytest.raises(ConfigError, match="no subject s9"):
        choose_windows(small, ["s0", "s9"], 1, None, seed=0)
    with pytest.raises(ConfigError, match="subjects is 0"):
        choose_subjects(["a"], 0, seed=0)


def test_budgets_in_words():
    words = [str(Budget(*budget)) for budget in (("windows", 1), ("windows", 20), ("fraction", 0.1), ("subjects", 1))]
    assert words == [
        "1 window per activity", "20 windows per activity", "10% of the windows of each activity", "1 training subject",
    ]  # fmt: skip
