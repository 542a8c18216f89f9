from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.probe.splits import check_folds, group_folds, inner_split, leave_one_subject_out

NAMES = [f"S{i:02}" for i in range(1, 32)]


@settings(max_examples=50, deadline=None)
@given(count=st.integers(2, 31), k=st.integers(2, 10), seed=st.integers(0, 99))
def test_everyone_is_tested_once_and_never_trained_on(count, k, seed):
    subjects = NAMES[:count]
    every = [leave_one_subject_out(subjects)] + ([group_folds(subjects, k, seed)] if k <= count else [])
    for folds in every:
        tested = [name for fold in folds.folds for name in fold.test]
        assert sorted(tested) == subjects
        for fold in folds.folds:
            assert not set(fold.test) & set(fold.train)
            assert sorted(fold.test + fold.train) == subjects
    sizes = [len(fold.test) for fold in every[-1].folds]
    assert max(sizes) - min(sizes) <= 1


def test_folds_are_drawn_by_the_seed():
    assert group_folds(NAMES, 5, 0) == group_folds(reversed(NAMES), 5, 0)
    assert group_folds(NAMES, 5, 0) != group_folds(NAMES, 5, 1)
    assert leave_one_subject_out(["b", "a"]).folds[0].name == "a"


@settings(max_examples=50, deadline=None)
@given(count=st.integers(2, 31), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_inner_splits_leave_someone_on_both_sides(count, fraction, seed):
    fit, validation = inner_split(NAMES[:count], fraction, seed)
    assert fit
    assert validation
    assert sorted(fit + validation) == NAMES[:count]
    assert abs(len(validation) - fraction * count) <= 1


def test_inner_splits_keep_their_order_when_someone_leaves():
    _, before = inner_split(NAMES, 0.3, 5)
    _, after = inner_split([name for name in NAMES if name != before[0]], 0.3, 5)
    assert set(before[1:]) <= set(after)


def test_what_cannot_be_split_is_refused():
    with pytest.raises(DataError, match="S01 alone"):
        inner_split(["S01"], 0.2, 0)
    with pytest.raises(ConfigError, match=r"is 1\.0"):
        inner_split(NAMES, 1.0, 0)
    with pytest.raises(DataError, match="too few for 2 folds"):
        leave_one_subject_out(["S01"])
    with pytest.raises(DataError, match="too few for 5 folds"):
        group_folds(NAMES[:3], 5, 0)
    with pytest.raises(ConfigError, match="folds is 1"):
        group_folds(NAMES, 1, 0)


def only_walking(recording):
    return [replace(recording, labels_N=np.zeros_like(recording.labels_N))]


def test_a_fold_with_one_class_to_train_on_is_skipped(synthetic, make_corpus, corpus):
    one_sided = make_corpus(synthetic(subjects=3, damage={"s1": only_walking, "s2": only_walking}))
    checked = check_folds(leave_one_subject_out(one_sided.subjects), one_sided)
    assert [fold.name for fold in checked.folds] == ["s1", "s2"]
    (note,) = checked.notes
    assert note.startswith("s0: skipped")
    assert check_folds(leave_one_subject_out(corpus.subjects), corpus).notes == ()


def test_classes_that_cannot_be_learned_are_noted(synthetic, make_corpus):
    def never_lying(recording):
        return [replace(recording, labels_N=np.where(recording.labels_N == 3, -1, recording.labels_N))]

    lopsided = make_corpus(synthetic(subjects=3, damage={"s0": never_lying, "s1": never_lying}))
    checked = check_folds(leave_one_subject_out(lopsided.subjects), lopsided)
    assert len(checked.folds) == 3
    (note,) = checked.notes
    assert note.startswith("s2: lying")
    without = make_corpus(synthetic(subjects=3, damage=dict.fromkeys(("s0", "s1", "s2"), never_lying)))
    assert check_folds(leave_one_subject_out(without.subjects), without).notes == ()


def test_no_fold_left_is_an_error(synthetic, make_corpus, corpus):
    alike = make_corpus(synthetic(subjects=2, damage={"s0": only_walking, "s1": only_walking}))
    with pytest.raises(DataError, match="no fold can be trained; s1"):
        check_folds(leave_one_subject_out(alike.subjects), alike)
    with pytest.raises(DataError, match="no class"):
        check_folds(leave_one_subject_out(corpus.subjects), corpus, np.zeros(len(corpus.label_R), bool))
