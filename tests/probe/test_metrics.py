import json

import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings

from selfpab_jax.errors import DataError
from selfpab_jax.probe.alignment import predict_recordings, subject_confusions
from selfpab_jax.probe.metrics import (
    balanced_accuracy,
    bootstrap_counts,
    class_fractions,
    confusion,
    kappa,
    macro_f1,
    score_subjects,
    segment_fractions,
)

CLASSES = tuple("abcd")


def answers(seed: int, samples: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, classes, samples)
    return truth, np.where(rng.random(samples) < 0.6, np.maximum(truth, 0), rng.integers(0, classes, samples))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), samples=st.integers(5, 60))
def test_figures_are_scikit_learns(seed, samples):
    truth, predicted = answers(seed, samples)
    known = truth >= 0
    matrix = confusion(truth, predicted, 4)
    if len(set(truth[known])) < 2:
        return
    expected = sklearn.metrics.confusion_matrix(truth[known], predicted[known], labels=range(4))
    np.testing.assert_array_equal(matrix, expected)
    # Without labels, scikit-learn too scores those classes only that are in truth or prediction.
    f1 = sklearn.metrics.f1_score(truth[known], predicted[known], average="macro")
    np.testing.assert_allclose(macro_f1(matrix), f1)
    np.testing.assert_allclose(kappa(matrix), sklearn.metrics.cohen_kappa_score(truth[known], predicted[known]))
    recalls = [np.mean(predicted[truth == label] == label) for label in sorted(set(truth[known]))]
    np.testing.assert_allclose(balanced_accuracy(matrix), np.mean(recalls))


def test_means_over_subjects_and_pooled_figures():
    confusions = {f"s{i}": confusion(*answers(i), 4) for i in range(6)}
    scores = score_subjects(confusions, CLASSES)
    each = [float(macro_f1(matrix)) for matrix in confusions.values()]
    assert scores.macro_f1_mean == pytest.approx(np.mean(each))
    assert scores.macro_f1_std == pytest.approx(np.std(each))
    pooled = np.sum(list(confusions.values()), axis=0)
    assert scores.pooled_macro_f1 == pytest.approx(float(macro_f1(pooled)))
    assert scores.accuracy == pytest.approx(np.trace(pooled) / pooled.sum())
    assert list(scores.subjects) == list(confusions)
    np.testing.assert_array_equal(scores.samples, pooled.sum(axis=1))


def test_intervals_are_those_of_drawing_subjects_one_by_one():
    confusions = {f"s{i}": confusion(*answers(i, 30 + 20 * i), 4) for i in range(5)}
    scores = score_subjects(confusions, CLASSES, draws=4000)
    rng, matrices = np.random.default_rng(7), list(confusions.values())
    means, pooled = [], []
    for _ in range(4000):
        drawn = [matrices[i] for i in rng.integers(0, 5, 5)]
        means.append(np.mean(macro_f1(np.array(drawn))))
        pooled.append(macro_f1(np.sum(drawn, axis=0)))
    np.testing.assert_allclose(scores.macro_f1_interval, np.quantile(means, [0.025, 0.975]), atol=0.006)
    np.testing.assert_allclose(scores.pooled_macro_f1_interval, np.quantile(pooled, [0.025, 0.975]), atol=0.006)
    for f1, (low, high) in zip(scores.f1, scores.f1_interval, strict=True):
        assert low < f1 < high
    assert scores == score_subjects(confusions, CLASSES, draws=4000)
    assert scores.macro_f1_interval != score_subjects(confusions, CLASSES, draws=4000, seed=1).macro_f1_interval


def test_bootstrap_samples_have_as_many_subjects_and_depend_on_the_seed_only():
    counts = bootstrap_counts(5, seed=3, draws=100)
    assert counts.shape == (100, 5)
    np.testing.assert_array_equal(counts.sum(axis=1), 5)
    np.testing.assert_array_equal(counts, bootstrap_counts(5, seed=3, draws=100))
    assert bootstrap_counts(1).shape == (0, 1)


def test_one_subject_has_no_interval_and_no_labels_no_score():
    alone = score_subjects({"s0": confusion(*answers(0), 4)}, CLASSES)
    assert np.isnan(alone.macro_f1_interval).all()
    assert alone.as_dict()["f1_interval"] == [[None, None]] * 4
    with_empty = score_subjects({"s0": confusion(*answers(0), 4), "s1": np.zeros((4, 4), int)}, CLASSES)
    assert with_empty.macro_f1_mean == alone.macro_f1_mean
    assert np.isnan(with_empty.subjects["s1"].macro_f1)
    json.dumps(with_empty.as_dict(), allow_nan=False)


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="no subject"):
        score_subjects({}, CLASSES)
    with pytest.raises(DataError, match=r"^s0"):
        score_subjects({"s0": np.zeros((3, 3), int)}, CLASSES)
    with pytest.raises(DataError, match="2 predictions"):
        confusion(np.zeros(3, int), np.zeros(2, int), 4)
    for truth, predicted in ((4, 0), (0, 4), (0, -1)):
        with pytest.raises(DataError, match="4 classes"):
            confusion(np.array([truth]), np.array([predicted]), 4)


def test_subjects_are_scored_over_all_their_recordings(corpus):
    perfect = np.eye(len(corpus.classes))[np.maximum(corpus.label_R, 0)]
    confusions = subject_confusions(corpus, predict_recordings(corpus, perfect, ["s0", "s2"]))
    assert list(confusions) == ["s0", "s2"]
    scores = score_subjects(confusions, corpus.classes)
    assert scores.macro_f1_mean > 0.95
    assert confusions["s0"].sum() == 7500


def test_duration_errors():
    truth = np.array([0, 0, 1, 1, -1, -1, 1, 0, -1, -1, -1, -1, 1])
    np.testing.assert_array_equal(class_fractions(truth, 2, 4), [[0.5, 0.5], [0.5, 0.5], [np.nan, np.nan], [0, 1]])
    certain = np.eye(2)[np.maximum(truth, 0)]
    np.testing.assert_allclose(segment_fractions(truth, certain, 4).error_Y, 0)
    half = np.full((13, 2), 0.5)
    of_half = segment_fractions(truth, half, 4)
    np.testing.assert_allclose(of_half.error_Y, [0.5 / 3, 0.5 / 3])
    assert (of_half.labeled, len(of_half.true_MxY)) == (3, 4)
    assert np.isnan(of_half.predicted_MxY[2]).all()
    with pytest.raises(DataError, match="no sample"):
        segment_fractions(np.full(13, -1), half, 4)
    with pytest.raises(DataError, match="13 predictions"):
        segment_fractions(truth[:3], half, 4)
