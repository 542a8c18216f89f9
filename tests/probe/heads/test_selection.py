from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.features.cache import FeatureTable
from selfpab_jax.probe.config import ProbeSettings, ProtocolSettings
from selfpab_jax.probe.heads.batch import LabeledFeatures
from selfpab_jax.probe.heads.model import HeadSettings, predict_rows
from selfpab_jax.probe.heads.pairs import pair_folds_and_seeds
from selfpab_jax.probe.heads.selection import SelectionSettings, probe_heads, select_hyperparameters
from selfpab_jax.probe.heads.training import train_heads
from selfpab_jax.probe.metrics import confusion, macro_f1
from selfpab_jax.probe.splits import Fold, leave_one_subject_out

from .clusters import cluster_rows

CLASSES, NAMES = 4, ("a", "b", "c", "d", "e")
FOLDS = leave_one_subject_out(NAMES).folds
HEAD = HeadSettings(hidden=8, batch_size=256, epochs=5, min_steps=100)
QUICK = SelectionSettings(learning_rates=(1e-3, 1e-2), weight_decays=(0.0,))


def table_of(corpus, seed=0):
    """Features that separate the classes, as an encoder's would."""
    draw = np.random.default_rng(seed)
    centers = draw.standard_normal((len(corpus.classes) + 1, 2, 12))
    features = centers[corpus.label_R] + 1.5 * draw.standard_normal((len(corpus.label_R), 2, 12))
    return FeatureTable(features.astype(np.float16), "key", {})


def fold_scores(rows, trained):
    """Macro-F1 of each fold's head on its test subject."""
    scores = []
    for subject in range(len(NAMES)):
        chosen = np.flatnonzero(rows.subject_R == subject)
        predicted = predict_rows(rows, trained, np.array([subject]), chosen)[0].argmax(-1)
        scores.append(float(macro_f1(confusion(rows.label_R[chosen], predicted, CLASSES))))
    return scores


@pytest.mark.slow
def test_the_selected_head_is_within_a_point_of_logistic_regression():
    rows = cluster_rows(rows=2500, width=24, separation=0.3)
    pairs, notes = pair_folds_and_seeds(FOLDS, [0], NAMES, rows, None)
    head = replace(HEAD, epochs=8, min_steps=400)
    choices = select_hyperparameters(rows, pairs, NAMES, head, SelectionSettings(), CLASSES)
    ours = np.mean(fold_scores(rows, train_heads(rows, pairs.selected_heads(rows, choices), head, CLASSES)))
    x, theirs = rows.features_RxE.astype(np.float32), []
    for subject in range(len(NAMES)):
        test = rows.subject_R == subject
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(x[~test], rows.label_R[~test])
        theirs.append(macro_f1(confusion(rows.label_R[test], model.predict(x[test]), CLASSES)))
    assert not notes
    assert 0.5 < np.mean(theirs) < 0.95  # neither hopeless nor trivial
    assert ours > np.mean(theirs) - 0.01


def test_the_test_subject_has_no_part_in_an_inner_choice():
    rows = cluster_rows()
    labels = rows.label_R.copy()
    labels[rows.subject_R == 0] = (labels[rows.subject_R == 0] + 1) % CLASSES
    other = LabeledFeatures(rows.features_RxLxD, labels, rows.subject_R)
    fold = FOLDS[:1]
    one, changed = (
        select_hyperparameters(
            some, pair_folds_and_seeds(fold, [0, 1], NAMES, some, None)[0], NAMES, HEAD, QUICK, CLASSES
        )
        for some in (rows, other)
    )
    assert one == changed
    assert [choice.chosen_on for choice in one] == ["inner", "inner"]
    on_test = replace(QUICK, choose="test")
    one, changed = (
        select_hyperparameters(
            some, pair_folds_and_seeds(fold, [0], NAMES, some, None)[0], NAMES, HEAD, on_test, CLASSES
        )
        for some in (rows, other)
    )
    assert one[0].macro_f1 > changed[0].macro_f1 + 0.2


def test_a_choice_on_the_test_subject_is_the_score_that_comes_out():
    rows = cluster_rows()
    pairs, _ = pair_folds_and_seeds(FOLDS, [0], NAMES, rows, None)
    choices = select_hyperparameters(rows, pairs, NAMES, HEAD, replace(QUICK, choose="test"), CLASSES)
    scores = fold_scores(rows, train_heads(rows, pairs.selected_heads(rows, choices), HEAD, CLASSES))
    np.testing.assert_allclose(scores, [choice.macro_f1 for choice in choices], atol=0.02)
    assert {choice.chosen_on for choice in choices} == {"test"}


@pytest.mark.parametrize("inner_folds", [1, 3])
def test_a_candidate_that_diverges_loses(inner_folds):
    rows = cluster_rows()
    pairs, _ = pair_folds_and_seeds(FOLDS, [0], NAMES, rows, None)
    selection = replace(QUICK, learning_rates=(1e38, 1e-3), inner_folds=inner_folds)
    choices = select_hyperparameters(rows, pairs, NAMES, HEAD, selection, CLASSES)
    assert {choice.learning_rate for choice in choices} == {1e-3}
    only = select_hyperparameters(rows, pairs, NAMES, HEAD, replace(QUICK, learning_rates=(1e38,)), CLASSES)
    assert {choice.note for choice in only} == {"all candidates diverged"}


def test_with_too_few_labels_the_preferred_candidate_is_taken_and_noted():
    rows = cluster_rows()
    budget = np.zeros(len(rows.label_R), bool)
    for label in range(CLASSES):
        budget[np.flatnonzero(rows.label_R == label)[label]] = True  # one row per class, all of subject a
    masks = {(fold.name, 0): budget for fold in FOLDS}
    pairs, notes = pair_folds_and_seeds(FOLDS, [0], NAMES, rows, masks)
    assert notes == ("a, seed 0: skipped, no labeled row to train on",)
    choices = select_hyperparameters(rows, pairs, NAMES, HEAD, QUICK, CLASSES)
    assert {(c.learning_rate, c.point, c.chosen_on, c.note) for c in choices} == {
        (1e-3, 5, "fixed", "too few labels or subjects to select on")
    }
    one_class = {(fold.name, 0): rows.label_R == 2 for fold in FOLDS} | {("a", 0): rows.label_R > 0}
    pairs, notes = pair_folds_and_seeds(FOLDS, [0], NAMES, rows, one_class)
    assert [fold.name for fold in pairs.folds] == ["a"]
    assert notes[0] == "b, seed 0: skipped, one class only to train on"
    alone = (Fold("a", ("a",), ("b",)),)
    pairs, _ = pair_folds_and_seeds(alone, [0], NAMES, rows, None)
    assert select_hyperparameters(rows, pairs, NAMES, HEAD, QUICK, CLASSES)[0].note
    with pytest.raises(DataError, match="no fold has labeled rows"):
        pair_folds_and_seeds(FOLDS[:1], [0], NAMES, rows, masks)
    with pytest.raises(DataError, match="no label budget"):
        pair_folds_and_seeds(FOLDS, [1], NAMES, rows, masks)


def test_the_layer_is_selected_on_inner_folds(corpus):
    folds = leave_one_subject_out(corpus.subjects)
    features = np.random.default_rng(2).standard_normal((len(corpus.label_R), 3, 12)).astype(np.float16)
    features[:, 1] = table_of(corpus).features_RxLxD[:, 0]
    table = FeatureTable(features, "key", {})
    found = probe_heads(table, corpus, folds, {"linear": HEAD}, [0], selection=QUICK, select_layer=True)["linear"]
    assert {choice.layer for choice in found.choices} == {1}
    alone = FeatureTable(features[:, 1:2], "key", {})
    expected = probe_heads(alone, corpus, folds, {"linear": HEAD}, [0], selection=QUICK)["linear"]
    np.testing.assert_array_equal(found.probabilities_NxRxY, expected.probabilities_NxRxY)
    assert [choice.layer for choice in expected.choices] == [None] * len(folds.folds)


def test_where_no_layer_can_be_selected_it_is_the_middle_one_or_an_error(corpus):
    folds, table = leave_one_subject_out(corpus.subjects), table_of(corpus)
    three = FeatureTable(np.repeat(table.features_RxLxD[:, :1], 3, axis=1), "key", {})
    one_subject = np.array(corpus.subjects)[corpus.subject_R] == corpus.subjects[0]
    masks = {(fold.name, 0): one_subject for fold in folds.folds}
    heads = {"linear": HEAD}
    found = probe_heads(three, corpus, folds, heads, [0], selection=QUICK, select_layer=True, row_masks=masks)
    assert {(choice.layer, choice.note[:14]) for choice in found["linear"].choices} == {(1, "too few labels")}
    for choose in ("fixed", "test"):
        selection = replace(QUICK, choose=choose)
        with pytest.raises(ConfigError, match=f"inner folds, and selection.choose is {choose}"):
            probe_heads(table, corpus, folds, heads, [0], selection=selection, select_layer=True)
        with pytest.raises(ConfigError, match=r"name layers, such as last or \[2\]"):
            ProbeSettings(protocol=ProtocolSettings(choose=choose))


@pytest.mark.slow
def test_every_row_is_predicted_by_the_heads_of_the_fold_that_tests_it(corpus):
    folds = leave_one_subject_out(corpus.subjects)
    heads = {"linear": HEAD, "mlp": replace(HEAD, kind="mlp")}
    predictions = probe_heads(table_of(corpus), corpus, folds, heads, [3, 5], selection=QUICK)
    for name in heads:
        found = predictions[name]
        assert found.probabilities_NxRxY.shape == (2, len(corpus.label_R), len(corpus.classes))
        np.testing.assert_allclose(found.probabilities_NxRxY.sum(-1), 1, rtol=1e-4)
        known = corpus.label_R >= 0
        assert (found.probabilities_NxRxY.argmax(-1) == corpus.label_R)[:, known].mean() > 0.75
        assert [(c.fold, c.seed) for c in found.choices] == [(f.name, s) for f in folds.folds for s in (3, 5)]
        assert np.abs(found.probabilities_NxRxY[0] - found.probabilities_NxRxY[1]).max() > 1e-4


def test_a_budget_holds_for_each_fold_and_seed_and_rows_of_skipped_folds_are_not_predicted(corpus):
    folds = leave_one_subject_out(corpus.subjects)
    subject_R = np.array(corpus.subjects)[corpus.subject_R]
    masks = {(fold.name, seed): subject_R == corpus.subjects[1 + seed] for fold in folds.folds for seed in (0, 1)}
    found = probe_heads(table_of(corpus), corpus, folds, {"linear": HEAD}, [0, 1], selection=QUICK, row_masks=masks)
    unpredicted = np.isnan(found["linear"].probabilities_NxRxY).any(-1)
    for seed in (0, 1):
        np.testing.assert_array_equal(unpredicted[seed], subject_R == corpus.subjects[1 + seed])
    assert len(found["linear"].notes) == 2
    on_test = probe_heads(
        table_of(corpus),
        corpus,
        folds,
        {"linear": HEAD},
        [0, 1],
        selection=replace(QUICK, choose="test"),
        row_masks=masks,
    )
    assert {choice.chosen_on for choice in on_test["linear"].choices} == {"test"}
    assert "optimistic" in on_test["linear"].notes[-1]


def test_features_of_other_rows_and_impossible_settings_are_refused(corpus):
    table, folds = table_of(corpus), leave_one_subject_out(corpus.subjects)
    with pytest.raises(DataError, match="rows"):
        probe_heads(FeatureTable(table.features_RxLxD[:-1], "key", {}), corpus, folds, {"linear": HEAD}, [0])
    with pytest.raises(ConfigError, match="each once"):
        probe_heads(table, corpus, folds, {"linear": HEAD}, [1, 1])
    for name, value in (("choose", "best"), ("learning_rates", ()), ("weight_decays", (-1.0,)), ("share", 1.0)):
        settings = SelectionSettings()
        object.__setattr__(settings, name, value)  # past the type check of the test run, which knows the choices
        with pytest.raises(ConfigError, match=name):
            settings.__post_init__()
