"""The encoder as scikit-learn uses transformers."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import selfpab_jax
from selfpab_jax.errors import ConfigError, ModelError
from selfpab_jax.features.sklearn import SelfPABFeatures
from selfpab_jax.signal.stft import SpectrogramSettings

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def signals() -> np.ndarray:
    """12 signals of 12 s (23 frames); odd ones shake."""
    rng = np.random.default_rng(0)
    shaking = np.sin(np.arange(600) / 50 * 2 * np.pi * 3)[None, :, None] * (np.arange(12) % 2)[:, None, None]
    return (shaking + rng.normal([-1, 0, 0] * 2, 0.1, (12, 600, 6))).astype(np.float32)


def test_features_are_the_pooled_frames_of_windows(signals: np.ndarray, model_directory: Path) -> None:
    encoder = selfpab_jax.load_encoder(model_directory)
    found = selfpab_jax.SelfPABFeatures(model_directory).fit_transform(signals)
    assert found.shape == (12, 16)
    # 23 frames in windows of 20: the second window is the last 20 frames, of which 3 are new.
    first = encoder.encode_signal(signals[3, :525], rate_hz=50)[0]
    second = encoder.encode_signal(signals[3, 75:], rate_hz=50)[0]
    expected = np.concatenate([first[:3], second])
    np.testing.assert_allclose(found[3], expected.mean(axis=0), **CLOSE)
    both = SelfPABFeatures(model_directory, pool="mean_std", layers=(0, -1)).fit_transform(signals[3:4])
    assert both.shape == (1, 64)
    np.testing.assert_allclose(both[0, 16:32], expected.mean(axis=0), **CLOSE)
    np.testing.assert_allclose(both[0, 48:], expected.std(axis=0), **CLOSE)


def test_the_forms_of_x_agree(signals: np.ndarray, model_directory: Path) -> None:
    transformer = SelfPABFeatures(model_directory)
    expected = transformer.fit_transform(signals)
    for form in (signals.reshape(12, -1), list(signals), signals.astype(np.float64)):
        np.testing.assert_allclose(transformer.fit_transform(form), expected, **CLOSE)
    found = transformer.fit_transform([signals[0], signals[1, :300], signals[2, :60]])
    np.testing.assert_allclose(found[0], expected[0], **CLOSE)
    alone = transformer.fit_transform(signals[1:2, :300])
    np.testing.assert_allclose(found[1:2], alone, **CLOSE)


def test_other_rates_are_resampled(signals: np.ndarray, model_directory: Path) -> None:
    fine = np.repeat(signals, 2, axis=1)
    at_100 = SelfPABFeatures(model_directory, rate_hz=100).fit_transform(fine)
    encoder = selfpab_jax.load_encoder(model_directory)
    expected = encoder.encode_signal(fine[0, :1050], rate_hz=100)[0].mean(axis=0)
    np.testing.assert_allclose(
        SelfPABFeatures(model_directory, 100).fit_transform(fine[:1, :1050])[0], expected, **CLOSE
    )
    assert at_100.shape == (12, 16)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_in_a_pipeline_with_groups_and_a_grid(signals: np.ndarray, model_directory: Path) -> None:
    pipeline = make_pipeline(SelfPABFeatures(model_directory), LogisticRegression(max_iter=500))
    grid = {"selfpabfeatures__pool": ["mean", "max"], "selfpabfeatures__layers": ["last", "all"]}
    search = GridSearchCV(pipeline, grid, cv=GroupKFold(3), error_score="raise")
    search.fit(signals.reshape(12, -1), np.arange(12) % 2, groups=np.arange(12) // 2)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_score_ == 1.0


def test_clones_pickles_and_names(signals: np.ndarray, model_directory: Path) -> None:
    transformer = SelfPABFeatures(str(model_directory), layers=1, pool="max").fit(signals)
    expected = transformer.transform(signals)
    stored = pickle.dumps(transformer)
    assert len(stored) < 2000, "the encoder's arrays went into the pickle"
    np.testing.assert_array_equal(pickle.loads(stored).transform(signals), expected)
    assert clone(transformer).get_params() == transformer.get_params()
    names = transformer.get_feature_names_out()
    assert list(names) == [f"selfpabfeatures{i}" for i in range(16)]
    frame = transformer.set_output(transform="pandas").transform(signals)
    assert list(frame.columns) == list(names)
    np.testing.assert_array_equal(frame.to_numpy(), expected)


def test_a_model_that_changed_under_a_pickle_is_refused(signals: np.ndarray, write_tiny, tmp_path: Path) -> None:
    directory = write_tiny(tmp_path / "model", seed=2)
    stored = pickle.dumps(SelfPABFeatures(directory).fit(signals))
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    write_tiny(directory, seed=3)
    with pytest.raises(ModelError, match="another encoder"):
        pickle.loads(stored).transform(signals)


def test_what_does_not_fit_is_refused(signals: np.ndarray, model_directory: Path, mono_directory: Path) -> None:
    fitted = SelfPABFeatures(model_directory).fit(signals)
    for wrong, message in (
        (signals[:, :40], "a minimum of 1 s is required"),
        (signals[:, :, :5], r"must be \(N, 6\)"),
        (signals.reshape(12, -1)[:, :-1], "flat signals need a multiple of 6"),
        (np.where(np.arange(600)[:, None] == 5, np.nan, signals), "NaN"),
        ([signals[0], signals[0, :300, :4]], "signal 1 has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            SelfPABFeatures(model_directory).fit(wrong)
    with pytest.raises(ValueError, match="3600 features"):
        fitted.fit(signals.reshape(12, -1)).transform(signals.reshape(12, -1)[:, :1800])
    with pytest.raises(ValueError, match="pool is 'sum'"):
        SelfPABFeatures(model_directory, pool="sum").fit(signals)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="layers"):
        SelfPABFeatures(model_directory, layers=5).fit(signals)
    with pytest.raises(ModelError, match="not a model directory"):
        SelfPABFeatures(model_directory / "nowhere").fit(signals)
    with pytest.raises(ModelError, match="one of back, thigh"):
        SelfPABFeatures(mono_directory).fit(signals)


def test_scikit_learns_own_checks(write_tiny, tiny_config, tmp_path: Path) -> None:
    """On an encoder of one channel and frames of two samples: any flat X of two columns or more is a signal to it."""
    config = replace(
        tiny_config, channels=("hip_x",), sensors=("hip",), features=2, outputs=2, frames=2,
        spectrogram=SpectrogramSettings(50.0, 2, 1),
    )  # fmt: skip
    estimator = SelfPABFeatures(write_tiny(tmp_path / "one_channel", config))
    checks = check_estimator(estimator, on_skip=None, on_fail=None)
    failed = {check["check_name"]: repr(check["exception"]) for check in checks if check["status"] == "failed"}
    assert failed == {}
    assert len([check for check in checks if check["status"] == "passed"]) > 30
