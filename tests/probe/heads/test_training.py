from dataclasses import replace

import numpy as np
import pytest

from selfpab_jax.errors import DataError
from selfpab_jax.probe.heads.batch import LabeledFeatures, make_head_batch, rows_around
from selfpab_jax.probe.heads.model import HeadSettings, predict_rows
from selfpab_jax.probe.heads.training import train_heads, validation_rows

from .clusters import cluster_rows, leave_one_out

CLASSES, SUBJECTS = 4, 5
SETTINGS = HeadSettings(hidden=8, batch_size=256, epochs=5, min_steps=60)


def differences(one, other):
    """Of each parameter, relative to its norm, the worst head's."""
    for name, a in one.head.items():
        a, b = (x.reshape(len(x), -1) for x in (a, other.head[name]))
        yield float((np.linalg.norm(a - b, axis=1) / np.maximum(np.linalg.norm(b, axis=1), 1e-3)).max())


@pytest.mark.parametrize(
    ("kind", "class_weights", "standardize"), [("linear", True, True), ("mlp", False, False), ("temporal", False, True)]
)
@pytest.mark.slow
def test_heads_side_by_side_are_heads_one_after_another(kind, class_weights, standardize):
    rows = cluster_rows(layers=2, unlabeled=0.1)
    if kind == "temporal":
        rows = replace(rows, around_RxW=rows_around(np.full(12, 100), (-1, 0, 1)))
    folds, seeds = (a.ravel() for a in np.indices((SUBJECTS, 3)))
    train = leave_one_out(SUBJECTS)[folds]
    rates = np.where(seeds == 1, 1e-4, 1e-3)
    heads = make_head_batch(
        train, rows, seed_J=seeds, learning_rate_J=rates, weight_decay_J=1e-3, validation_JxS=~train
    )
    settings = replace(SETTINGS, kind=kind, taps=3, class_weights=class_weights, standardize=standardize)
    together, apart = (train_heads(rows, heads, settings, CLASSES, sequential=way) for way in (False, True))
    assert max(differences(together, apart)) < 1e-5
    every = np.arange(len(rows.label_R))
    p, q = (predict_rows(rows, trained, np.arange(len(heads)), every) for trained in (together, apart))
    np.testing.assert_allclose(p, q, rtol=1e-5)
    np.testing.assert_allclose(together.validation_JxPxYxY, apart.validation_JxPxYxY, atol=2)
    # HeadBatch differ, or all of the above would say little.
    assert np.abs(p[0] - p[3]).max() > 1e-2


def test_a_temporal_head_sees_what_a_frame_alone_does_not_show():
    draw = np.random.default_rng(0)
    frames = draw.standard_normal((2000, 1, 4)).astype(np.float16)
    around = rows_around(np.full(20, 100), (-2, 0, 2))
    label_R = (frames[around[:, 0], 0, 1] > frames[around[:, 2], 0, 1]).astype(np.int16)
    rows = LabeledFeatures(frames, label_R, np.repeat([0, 1], 1000).astype(np.int32), around_RxW=around)
    heads = make_head_batch(np.array([[True, False]]), rows, learning_rate_J=1e-2)
    scores = {}
    for kind in ("mlp", "temporal"):
        seen = rows if kind == "temporal" else replace(rows, around_RxW=None)
        settings = replace(SETTINGS, kind=kind, taps=3, min_steps=200, hidden=16)
        trained = train_heads(seen, heads, settings, 2)
        found = predict_rows(seen, trained, np.array([0]), np.arange(1000, 2000))[0].argmax(-1)
        scores[kind] = (found == label_R[1000:]).mean()
    assert scores["temporal"] > 0.9
    assert scores["mlp"] < 0.6


@pytest.mark.slow
def test_groups_within_the_memory_change_nothing():
    rows = cluster_rows()
    heads = make_head_batch(leave_one_out(SUBJECTS), rows)
    one = train_heads(rows, heads, SETTINGS, CLASSES)
    lines = []
    small = replace(SETTINGS, memory_gib=3.1 * SETTINGS.training_bytes(1, 16, CLASSES) / 2**30)
    grouped = train_heads(rows, heads, small, CLASSES, progress=lines.append)
    assert max(differences(grouped, one)) < 1e-5
    assert "group 2 of 2" in lines[-1]


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_training_is_that_of_torch(optimizer):
    torch = pytest.importorskip("torch")
    rows = cluster_rows(rows=200)
    decay, rate, steps = 0.05, 0.01, 40
    settings = replace(SETTINGS, optimizer=optimizer, standardize=False, min_steps=steps, epochs=1, decay_steps=10)
    heads = make_head_batch(np.ones((1, SUBJECTS), bool), rows, learning_rate_J=rate, weight_decay_J=decay, seed_J=3)
    start = train_heads(rows, make_head_batch(heads.train_JxS, rows, learning_rate_J=0.0, seed_J=3), settings, CLASSES)
    ours = train_heads(rows, heads, settings, CLASSES)

    x = torch.from_numpy(rows.features_RxLxD[:, 0].astype(np.float32))
    weight, bias = (torch.from_numpy(start.head[n][0].copy()).requires_grad_() for n in ("weight_DxH", "bias_H"))
    groups = [{"params": [weight], "weight_decay": decay}, {"params": [bias], "weight_decay": 0.0}]
    rule = torch.optim.Adam if optimizer == "adam" else torch.optim.AdamW
    update = rule(groups, rate, (0.9, 0.98))
    for step in range(steps):
        for group in update.param_groups:
            group["lr"] = rate * 0.8 ** (step / 10)
        update.zero_grad()
        torch.nn.functional.cross_entropy(x @ weight + bias, torch.from_numpy(rows.label_R.astype(np.int64))).backward()
        update.step()
    np.testing.assert_allclose(ours.head["weight_DxH"][0], weight.detach().numpy(), rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(ours.head["bias_H"][0], bias.detach().numpy(), rtol=1e-3, atol=2e-5)


def test_a_head_that_is_trained_on_shares_predicts_them():
    rows = cluster_rows(rows=200)
    share_Y = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    same = replace(rows, features_RxLxD=np.ones_like(rows.features_RxLxD), density_RxY=np.tile(share_Y, (200, 1)))
    settings = replace(SETTINGS, standardize=False, min_steps=400, epochs=1, decay=1.0)
    trained = train_heads(
        same, make_head_batch(np.ones((1, SUBJECTS), bool), same, learning_rate_J=0.02), settings, CLASSES
    )
    found = predict_rows(same, trained, np.array([0]), np.array([0, 100]))
    np.testing.assert_allclose(found[0], np.tile(share_Y, (2, 1)), atol=5e-3)


@pytest.mark.parametrize("standardize", [True, False])
def test_nothing_of_the_test_subject_reaches_its_head(standardize):
    rows = cluster_rows()
    of_test = rows.subject_R == 0
    features, labels = rows.features_RxLxD.copy(), rows.label_R.copy()
    features[of_test] = 3 * features[of_test][::-1] + 5
    labels[of_test] = (labels[of_test] + 1) % CLASSES
    settings = replace(SETTINGS, standardize=standardize, class_weights=True)
    # Class weights and standardization of each head are tested; the shared center moves by rounding only.
    one, other = (
        train_heads(some, make_head_batch(leave_one_out(SUBJECTS), some, learning_rate_J=1e-3), settings, CLASSES)
        for some in (rows, LabeledFeatures(features, labels, rows.subject_R))
    )
    others = np.flatnonzero(~of_test)
    p, q = (predict_rows(rows, trained, np.arange(2), others) for trained in (one, other))
    np.testing.assert_allclose(p[0], q[0], rtol=1e-3, atol=1e-5)
    assert np.abs(p[1] - q[1]).max() > 0.05


def test_standardization_is_over_each_heads_own_rows():
    rows = cluster_rows(layers=2, unlabeled=0.2)
    budgets = np.random.default_rng(0).random((2, len(rows.label_R))) < 0.6
    group = np.array([0, 1, 0, 1, 1])
    heads = make_head_batch(leave_one_out(SUBJECTS), rows, budget_rows_GxR=budgets, budget_J=group)
    trained = train_heads(rows, heads, replace(SETTINGS, min_steps=1, epochs=1), CLASSES)
    for head in range(SUBJECTS):
        own = (rows.subject_R != head) & budgets[group[head]] & (rows.label_R >= 0)
        x = rows.features_RxE[own].astype(np.float64)
        np.testing.assert_allclose(trained.center_E + trained.mean_JxE[head], x.mean(0), atol=1e-4)
        np.testing.assert_allclose(trained.std_JxE[head], x.std(0), rtol=1e-4)


def test_constant_features_do_no_harm():
    rows = cluster_rows()
    rows.features_RxLxD[:, :, 3] = 7
    heads = make_head_batch(leave_one_out(SUBJECTS), rows)
    probabilities = predict_rows(rows, train_heads(rows, heads, SETTINGS, CLASSES), np.arange(2), np.arange(50))
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


def test_a_label_budget_is_a_smaller_data_set():
    rows = cluster_rows()
    budget = np.random.default_rng(0).random(len(rows.label_R)) < 0.1
    small = LabeledFeatures(rows.features_RxLxD[budget], rows.label_R[budget], rows.subject_R[budget])
    inside = train_heads(
        rows, make_head_batch(leave_one_out(SUBJECTS), rows, budget_rows_GxR=budget[None]), SETTINGS, CLASSES
    )
    alone = train_heads(small, make_head_batch(leave_one_out(SUBJECTS), small), SETTINGS, CLASSES)
    assert max(differences(inside, alone)) < 1e-5
    assert inside.steps_P[-1] == SETTINGS.min_steps  # however few the rows


def test_stopped_heads_stay_as_they_were(tmp_path):
    rows = cluster_rows()
    np.save(tmp_path / "features.npy", rows.features_RxLxD)
    mapped = LabeledFeatures(np.load(tmp_path / "features.npy", mmap_mode="r"), rows.label_R, rows.subject_R)
    train = leave_one_out(SUBJECTS)
    some = train_heads(mapped, make_head_batch(train, rows, stop_J=np.array([2, 0, 5, 1, 2])), SETTINGS, CLASSES)
    early = train_heads(rows, make_head_batch(train, rows, stop_J=2), SETTINGS, CLASSES)
    late = train_heads(rows, make_head_batch(train, rows), SETTINGS, CLASSES)
    for head, same in enumerate((early, late, late, None, early)):
        for other in (early, late):
            equal = np.allclose(some.head["weight_DxH"][head], other.head["weight_DxH"][head], rtol=1e-6, atol=1e-7)
            assert equal == (other is same)


def test_validation_counts_the_validation_rows_of_every_point():
    rows = cluster_rows(unlabeled=0.1)
    train = leave_one_out(SUBJECTS)
    heads = make_head_batch(train, rows, learning_rate_J=1e-2, validation_JxS=~train)
    trained = train_heads(rows, heads, SETTINGS, CLASSES)
    for head in range(SUBJECTS):
        own = np.flatnonzero((rows.subject_R == head) & (rows.label_R >= 0))
        predicted = predict_rows(rows, trained, np.array([head]), own)[0].argmax(-1)
        expected = np.zeros((CLASSES, CLASSES))
        np.add.at(expected, (rows.label_R[own], predicted), 1)
        np.testing.assert_allclose(trained.validation_JxPxYxY[head, -1], expected)
    hits = np.trace(trained.validation_JxPxYxY.sum(0), axis1=1, axis2=2)
    assert hits[-1] > hits[0]


def test_long_validation_is_thinned_and_weighted():
    rows = cluster_rows(rows=3000)
    train = leave_one_out(SUBJECTS)
    chosen, weights = validation_rows(rows, make_head_batch(train, rows, validation_JxS=~train), most=20)
    assert len(chosen) <= 20 * SUBJECTS * CLASSES
    keys = rows.subject_R * CLASSES + rows.label_R
    np.testing.assert_allclose(np.bincount(keys[chosen], weights), np.bincount(keys), rtol=1e-5)


def test_a_diverged_head_counts_nothing_and_harms_no_other():
    rows = cluster_rows()
    train = leave_one_out(SUBJECTS)
    rates = np.array([1e-3, np.inf, 1e-3, 1e-3, 1e-3])
    some = train_heads(
        rows, make_head_batch(train, rows, learning_rate_J=rates, validation_JxS=~train), SETTINGS, CLASSES
    )
    fine = train_heads(
        rows, make_head_batch(train, rows, learning_rate_J=1e-3, validation_JxS=~train), SETTINGS, CLASSES
    )
    assert not some.validation_JxPxYxY[1].any()
    others = np.array([0, 2, 3, 4])
    np.testing.assert_allclose(some.validation_JxPxYxY[others], fine.validation_JxPxYxY[others], atol=2)


def test_heads_without_rows_are_refused():
    rows = cluster_rows()
    train = leave_one_out(SUBJECTS)
    train[2] = False
    with pytest.raises(DataError, match="head 2"):
        train_heads(rows, make_head_batch(train, rows), SETTINGS, CLASSES)
