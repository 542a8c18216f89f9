"""The head of all subjects: what it is trained with, and that it comes back from its folder as it was."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from selfpab_jax.errors import ConfigError
from selfpab_jax.features.cache import FeatureTable
from selfpab_jax.features.sensors import SensorEncoder
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.probe.budgets import label_budgets
from selfpab_jax.probe.config import ProbeSettings
from selfpab_jax.probe.heads.batch import LabeledFeatures, make_head_batch, rows_around
from selfpab_jax.probe.heads.model import HeadSettings, predict_rows
from selfpab_jax.probe.heads.saved import load_head, write_head
from selfpab_jax.probe.heads.selection import SelectionSettings
from selfpab_jax.probe.heads.training import train_heads
from selfpab_jax.probe.methods import ProbeSetup, run_methods
from selfpab_jax.probe.refit import agreed_choice, check_refit, refit_head
from selfpab_jax.probe.splits import check_folds, leave_one_subject_out

QUICK = HeadSettings(epochs=3, min_steps=30, batch_size=256, hidden=8)


def choice(rate: float, decay: float, point: int, score: float | None = 0.5) -> dict:
    return {"learning_rate": rate, "weight_decay": decay, "point": point, "macro_f1": score}


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ([choice(1e-3, 0, 4), choice(1e-2, 0, 9), choice(1e-3, 0, 6), choice(1e-3, 0, 8)], (1e-3, 0, 6)),
        ([choice(1e-3, 0, 4), choice(1e-3, 1e-2, 5)], (1e-3, 1e-2, 5)),  # of equals, the larger decay
        ([choice(1e-2, 0, 4), choice(1e-3, 0, 5)], (1e-3, 0, 5)),  # then the smaller rate
        ([choice(1e-3, 0, 2), choice(1e-3, 0, 7)], (1e-3, 0, 2)),  # the lower of two middle points
        ([choice(1e-2, 0, 15, None), choice(1e-2, 0, 15, None), choice(1e-3, 0, 3)], (1e-3, 0, 3)),
        ([choice(1e-2, 0, 15, None)], (1e-2, 0, 15)),
        # The layer comes first, the lower one of equals.
        ([*[choice(1e-3, 0, 2) | {"layer": 2}] * 2, choice(1e-2, 0, 9) | {"layer": 1}], (1e-3, 0, 2)),
        ([choice(1e-3, 0, 2) | {"layer": 2}, choice(1e-2, 0, 9) | {"layer": 1}], (1e-2, 0, 9)),
    ],
)
def test_where_folds_disagree(choices: list[dict], expected: tuple) -> None:
    agreed = agreed_choice(choices)
    assert (agreed.learning_rate, agreed.weight_decay, agreed.point) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "mlp", "temporal"])
def test_a_saved_head_predicts_as_the_trained_one(kind: str, corpus, synthetic, tmp_path: Path, monkeypatch) -> None:
    """Its class without a row ("lying" is unlabeled here) is left out; the others keep their order and odds."""
    monkeypatch.setattr("selfpab_jax.probe.refit.encoder_digests", lambda _: ("digest",))
    labels = tuple(np.where(labels_T == 3, -1, labels_T).astype(np.int16) for labels_T in corpus.frame_labels)
    corpus = replace(corpus, frame_labels=labels)
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((5, 2, 12))
    features = (centers[corpus.label_R] + rng.standard_normal((len(corpus.label_R), 2, 12))).astype(np.float16)
    settings = ProbeSettings(
        heads=("linear", "mlp", "temporal"),
        linear=QUICK,
        mlp=replace(QUICK, kind="mlp"),
        temporal=replace(QUICK, kind="temporal", taps=3, reach_seconds=1),
        selection=SelectionSettings(learning_rates=(1e-2, 1e-3), weight_decays=(0.0,)),
        mlp_selection=SelectionSettings(learning_rates=(1e-2,), weight_decays=(0.0,)),
        temporal_selection=SelectionSettings(learning_rates=(1e-2,), weight_decays=(0.0,)),
    )
    folds = check_folds(leave_one_subject_out(corpus.subjects), corpus)
    budgets, _ = label_budgets(corpus, folds, (None,), (0,))
    encoder = Mock(spec=SensorEncoder, sensors=("back",), encoder=Mock())
    encoder.encoder.config.model = ModelSettings()
    encoders = (encoder,)
    setup = ProbeSetup(settings, corpus, encoders, FeatureTable(features, "", {}), budgets, tmp_path, False)
    methods = [outcome.result for outcome in run_methods(setup) if outcome.result]
    card = synthetic().card
    head = refit_head(setup, methods, card, kind)  # pyright: ignore[reportArgumentType]
    assert head.kind == kind
    assert head.classes == ("walking", "running", "standing")
    assert head.labels == (0, 1, 2)
    assert head.trained["subjects"] == 4
    method = next(method for method in methods if method.name == kind)
    best = max(methods, key=lambda each: each.summary.macro_f1.mean)
    assert refit_head(setup, methods, card).kind == best.name
    assert head.scores["macro_f1"] == pytest.approx(method.summary.macro_f1.mean, abs=1e-6)

    label_R = np.where(corpus.whole_R, corpus.label_R, -1)
    agreed = agreed_choice(list(method.chosen[0].values()))
    assert agreed.layer is not None
    assert head.extraction.layers == (agreed.layer,)
    features = features[:, agreed.layer : agreed.layer + 1]
    around = rows_around(corpus.rows_of_windows, (-2, 0, 2)) if kind == "temporal" else None
    data = LabeledFeatures(features, label_R, corpus.subject_R, around_RxW=around)
    batch = make_head_batch(
        np.ones((1, 4), bool), data, learning_rate_J=agreed.learning_rate, weight_decay_J=agreed.weight_decay,
        stop_J=agreed.point,
    )  # fmt: skip
    trained = train_heads(data, batch, getattr(settings, kind), 4)
    rows = np.arange(len(features))
    expected = predict_rows(data, trained, np.array([0]), rows)[0][:, :3]
    write_head(tmp_path / "head", head)
    loaded, ends = load_head(tmp_path / "head"), np.cumsum(corpus.rows_of_windows)[:-1]
    windows = [window[None] for window in np.split(features, ends)]
    found = np.concatenate([loaded.window_probabilities(window)[0] for window in windows])
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)
    assert (found.argmax(axis=1) == label_R)[label_R >= 0].mean() > 0.8


@pytest.mark.parametrize(
    ("settings", "which", "keyword"),
    [
        (ProbeSettings(heads=("linear",)), "mlp", "heads"),
        (ProbeSettings(heads=(), baselines=("forest",)), "best", "heads"),
    ],
)
def test_a_head_that_will_not_be_there_is_refused_first(settings: ProbeSettings, which: str, keyword: str) -> None:
    with pytest.raises(ConfigError, match=keyword):
        check_refit(settings, which)  # pyright: ignore[reportArgumentType]
