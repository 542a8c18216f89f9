"""Temporal context: as plain NumPy computes it, within the window, and with a key of its own in the cache."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfpab_jax.errors import ConfigError
from selfpab_jax.features.cache import cached_features
from selfpab_jax.features.encoder import PretrainedEncoder
from selfpab_jax.features.extract import ExtractionSettings, context_frames, with_temporal_context
from selfpab_jax.features.sensors import sensor_encoders
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.signal.stft import SpectrogramSettings


@settings(deadline=None, max_examples=25)
@given(
    frames=st.integers(1, 30),
    padded=st.integers(0, 9),
    lengths=st.lists(st.integers(2, 12), max_size=3),
    seed=st.integers(0, 99),
)
def test_as_numpy_has_them(frames: int, padded: int, lengths: list[int], seed: int) -> None:
    features = np.random.default_rng(seed).normal(50, 3, (frames, 2, 3)).astype(np.float16)
    padding = np.full((padded, 2, 3), np.nan, np.float16)
    windows = np.stack([np.concatenate([features, padding]), np.concatenate([features + 1, padding])])
    found = np.asarray(with_temporal_context(windows, tuple(lengths), np.array([frames, frames])))[0, :frames]
    assert found.shape == (frames, 2, 3 * (1 + 2 * len(lengths)))
    for place in range(frames):
        expected = [features[place].astype(np.float64)]
        for length in lengths:
            first = place - length // 2
            around = features[max(0, first) : first + length].astype(np.float64)
            expected += [around.mean(axis=0), around.std(axis=0)]
        np.testing.assert_allclose(found[place], np.concatenate(expected, axis=-1), rtol=1e-5, atol=1e-4)


def test_seconds_become_the_frames_that_lie_within() -> None:
    spectrogram = SpectrogramSettings(50, 50, 25)
    assert (context_frames(5, spectrogram), context_frames(1.5, spectrogram)) == (9, 2)
    with pytest.raises(ConfigError, match=r"at least 1.5 s"):
        context_frames(1.4, spectrogram)


def test_the_cache_holds_them_window_by_window(overlapping: Corpus, encoder: PretrainedEncoder, tmp_path: Path) -> None:
    encoders = sensor_encoders(encoder, overlapping.channels)
    plain = cached_features(overlapping, encoders, ExtractionSettings(dtype="float32"), tmp_path)
    around = cached_features(overlapping, encoders, ExtractionSettings(dtype="float32", context_seconds=(5,)), tmp_path)
    assert around.key != plain.key
    assert around.width == 3 * plain.width
    for window in np.unique(overlapping.window_R)[:3]:
        rows = overlapping.window_R == window
        lengths = (context_frames(5, overlapping.spectrogram),)
        expected = with_temporal_context(np.asarray(plain.features_RxLxD[rows])[None], lengths)[0]
        np.testing.assert_allclose(around.features_RxLxD[rows], expected, rtol=1e-5, atol=1e-5)
