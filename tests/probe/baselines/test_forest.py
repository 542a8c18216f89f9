"""Hand-crafted features against plain arithmetic, and the forest on them."""

from dataclasses import replace

import numpy as np
import pytest

from selfpab_jax.errors import DataError
from selfpab_jax.probe.baselines import BASELINES, BaselineSettings, ForestSettings, forest
from selfpab_jax.probe.baselines.batches import present_macro_f1, rows_of
from selfpab_jax.probe.baselines.forest import feature_names, features_of_frames, handcrafted_features
from selfpab_jax.probe.budgets import choose_windows
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold, leave_one_subject_out
from selfpab_jax.signal.stft import SpectrogramSettings

CHANNELS = ("thigh_x", "thigh_y", "thigh_z")
SETTINGS = SpectrogramSettings()
FOREST = BaselineSettings(forest=ForestSettings(trees=40))


def table(signal_NxC: np.ndarray, frames: int, seconds: float) -> list[dict[str, float]]:
    features_TxK = features_of_frames(signal_NxC.astype(np.float32), frames, SETTINGS, seconds)
    names = feature_names(CHANNELS)
    assert features_TxK.shape == (frames, len(names))
    assert features_TxK.dtype == np.float32
    assert len(set(names)) == len(names)
    return [dict(zip(names, row, strict=True)) for row in features_TxK]


@pytest.fixture(scope="module")
def noise_NxC() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (600, 3)).cumsum(axis=0) * 0.1


@pytest.mark.parametrize(("frame", "window"), [(0, slice(0, 250)), (12, slice(200, 450)), (23, slice(350, 600))])
def test_features_are_those_of_the_window_around_the_frame_shifted_inside(noise_NxC, frame: int, window: slice):
    got = table(noise_NxC, 24, 5.0)[frame]
    part = noise_NxC[window]
    y, magnitude = part[:, 1], np.linalg.norm(part, axis=1)
    for name, series in (("thigh_y", y), ("thigh_magnitude", magnitude)):
        quartiles = np.quantile(series, [0.25, 0.5, 0.75])
        expected = {
            "mean": series.mean(),
            "std": series.std(),
            "min": series.min(),
            "max": series.max(),
            "lower_quartile": quartiles[0],
            "median": quartiles[1],
            "upper_quartile": quartiles[2],
            "interquartile_range": quartiles[2] - quartiles[0],
            "energy": np.mean(series**2),
            "mean_absolute_difference": np.abs(np.diff(series)).mean(),
        }
        for feature, value in expected.items():
            assert got[f"{name}.{feature}"] == pytest.approx(value, rel=1e-4, abs=1e-5), feature
    assert got["thigh_x~thigh_z"] == pytest.approx(np.corrcoef(part[:, 0], part[:, 2])[0, 1], abs=1e-4)
    assert got["thigh_y~thigh_magnitude"] == pytest.approx(np.corrcoef(y, magnitude)[0, 1], abs=1e-4)


def test_a_sine_shows_its_frequency_its_power_and_little_entropy():
    time_N = np.arange(1000) / 50
    signal_NxC = np.stack([np.sin(2 * np.pi * 2 * time_N), np.random.default_rng(0).normal(0, 1, 1000), 0 * time_N], 1)
    got = table(signal_NxC, 39, 5.0)[20]
    assert got["thigh_x.dominant_hz"] == pytest.approx(2.0)
    bands = [f"power_from_{edge:g}_hz" for edge in forest.BANDS_HZ]
    power = {band: got[f"thigh_x.{band}"] for band in bands}
    assert max(power, key=lambda band: power[band]) == "power_from_1.75_hz"
    assert sum(power.values()) == pytest.approx(0.5, rel=0.01)  # a sine's variance
    assert got["thigh_x.spectral_entropy"] < 0.3 < 0.8 < got["thigh_y.spectral_entropy"]
    assert got["thigh_z.std"] == got["thigh_x~thigh_z"] == 0


def test_a_recording_shorter_than_the_window_is_one_window(noise_NxC):
    rows = table(noise_NxC[:120], 5, 5.0)
    assert all(row == rows[0] for row in rows)
    assert rows[0]["thigh_x.mean"] == pytest.approx(noise_NxC[:120, 0].mean(), rel=1e-4)


def test_memory_is_bounded_by_chunks_that_change_nothing(noise_NxC, monkeypatch: pytest.MonkeyPatch):
    whole = features_of_frames(noise_NxC.astype(np.float32), 24, SETTINGS, 5.0)
    monkeypatch.setattr(forest, "CHUNK_VALUES", 5 * 250 * 4)
    np.testing.assert_allclose(features_of_frames(noise_NxC.astype(np.float32), 24, SETTINGS, 5.0), whole, rtol=1e-5)


def test_features_of_a_corpus_are_computed_once(corpus: Corpus):
    assert handcrafted_features(corpus, 5.0) is handcrafted_features(corpus, 5.0)
    assert handcrafted_features(replace(corpus), 5.0) is not handcrafted_features(corpus, 5.0)
    assert len(handcrafted_features(corpus, 5.0)) == corpus.frame_counts.sum()
    with pytest.raises(DataError, match="lasts 1 s"):
        handcrafted_features(corpus, 0.5)


def test_forest_learns_activities_and_predicts_every_row_of_the_test_subject(corpus: Corpus):
    for fold in leave_one_subject_out(corpus.subjects).folds[:2]:
        answer = BASELINES["forest"](corpus, fold, FOREST, seed=0)
        test_R = rows_of(corpus, fold.test)
        assert answer.probabilities_RxY.shape == (test_R.sum(), 4)
        np.testing.assert_allclose(answer.probabilities_RxY.sum(1), 1, rtol=1e-5)
        assert present_macro_f1(corpus.label_R[test_R], answer.probabilities_RxY.argmax(1)) > 0.9
        assert answer.description["seconds"] == [5.0, 20.0]
        again = BASELINES["forest"](corpus, fold, FOREST, seed=0)
        np.testing.assert_array_equal(answer.probabilities_RxY, again.probabilities_RxY)


def test_window_length_is_chosen_by_held_out_subjects_unless_labels_are_few(corpus: Corpus):
    fold = leave_one_subject_out(corpus.subjects).folds[0]
    settings = BaselineSettings(forest=ForestSettings(seconds=(60.0, 3.0), lengths="best", trees=20))
    chosen = BASELINES["forest"](corpus, fold, settings, seed=0).description
    assert chosen["seconds"] == [3.0]  # bouts last 8 to 20 s
    assert set(chosen["validation_macro_f1"]) == {"60", "3"}
    assert chosen["validation"].startswith("inner subjects s")
    mask_R, _ = choose_windows(corpus, fold.train, 1, None, 0)
    few = BASELINES["forest"](corpus, fold, settings, seed=0, rows_mask_R=mask_R).description
    assert few["seconds"] == [60.0]
    assert "validation_macro_f1" not in few


def test_only_rows_of_the_mask_are_learned_from(corpus: Corpus):
    fold = leave_one_subject_out(corpus.subjects).folds[0]
    two_R = np.isin(corpus.label_R, (1, 3))
    answer = BASELINES["forest"](corpus, fold, FOREST, seed=0, rows_mask_R=two_R).probabilities_RxY
    assert (answer[:, [0, 2]] == 0).all()
    assert (answer[:, [1, 3]] > 0).any(axis=0).all()
    with pytest.raises(DataError, match=r"fold s0: .* fewer than two classes \(lying\)"):
        BASELINES["forest"](corpus, fold, FOREST, seed=0, rows_mask_R=corpus.label_R == 3)


def test_overlapping_windows_do_not_count_a_frame_twice(corpus: Corpus, make_corpus, synthetic):
    fold = Fold("s0", ("s0",), ("s1", "s2", "s3"))
    twice = make_corpus(synthetic(), shift=10)
    side_by_side = BASELINES["forest"](corpus, fold, FOREST, seed=0).probabilities_RxY
    overlapping = BASELINES["forest"](twice, fold, FOREST, seed=0).probabilities_RxY
    test_R = rows_of(twice, fold.test)
    of_frame = dict(zip(corpus.frame_R[rows_of(corpus, fold.test)], side_by_side, strict=True))
    expected = np.stack([of_frame[frame] for frame in twice.frame_R[test_R]])
    np.testing.assert_array_equal(overlapping, expected)
