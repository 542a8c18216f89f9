import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from selfpab_jax.errors import ConfigError
from selfpab_jax.signal.stft import SpectrogramSettings, periodic_hann, spectrogram


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def test_equals_the_original(golden):
    expected = np.load(golden / "spectrogram.npz")
    ours = spectrogram(expected["signal"], SpectrogramSettings())
    assert ours.shape == (199, 156)
    assert ours.dtype == np.float32
    assert relative(ours, expected["spectrogram"]) < 1e-6
    np.testing.assert_allclose(ours, expected["spectrogram"], rtol=1e-5, atol=1e-5)


def direct(signal_NxC: np.ndarray, config: SpectrogramSettings) -> np.ndarray:
    """The definition, written out: a sum over samples for every frame, channel and bin."""
    window, hop, bins = config.fft_window, config.fft_hop, config.bins
    n = np.arange(window)
    kernel = np.exp(-2j * np.pi * np.outer(n, np.arange(bins)) / window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / window)
    frames = [signal_NxC[t * hop : t * hop + window] for t in range(config.frame_count(len(signal_NxC)))]
    return np.array([np.abs((frame * hann[:, None]).T @ kernel).reshape(-1) for frame in frames])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), window=st.integers(2, 64), channels=st.integers(1, 4), extra=st.integers(0, 200))
def test_equals_the_definition(data, window, channels, extra):
    config = SpectrogramSettings(50.0, window, data.draw(st.integers(1, window)))
    signal = np.random.default_rng(extra).normal(0, 2, (window + extra, channels)).astype(np.float32)
    ours = spectrogram(signal, config)
    expected = direct(signal.astype(np.float64), config)
    assert ours.shape == expected.shape == (config.frame_count(len(signal)), config.features(channels))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5 * window)


@settings(max_examples=40, deadline=None)
@given(half=st.integers(1, 40), seed=st.integers(0, 1000))
def test_energy_is_kept(half, seed):
    """Parseval: the power in the bins, both sides counted, is the power of the windowed samples."""
    window = 2 * half
    signal = np.random.default_rng(seed).normal(size=(window, 1)).astype(np.float32)
    magnitude_F = spectrogram(signal, SpectrogramSettings(50.0, window, window))[0].astype(np.float64)
    both_sides = 2 * (magnitude_F**2).sum() - magnitude_F[0] ** 2 - magnitude_F[-1] ** 2
    windowed = signal[:, 0].astype(np.float64) * periodic_hann(window)
    assert both_sides == pytest.approx(window * (windowed**2).sum(), rel=1e-4, abs=1e-6)


@given(window=st.integers(2, 300), data=st.data(), samples=st.integers(0, 3000))
def test_frames_lie_within_the_signal_and_no_further_one_fits(window, data, samples):
    hop = data.draw(st.integers(1, window))
    frames = SpectrogramSettings(50.0, window, hop).frame_count(samples)
    assert frames == len(range(0, samples - window + 1, hop))


def test_published_sizes():
    assert SpectrogramSettings().frame_count(15000) == 599
    assert SpectrogramSettings().features(6) == 156
    assert SpectrogramSettings(50.0, 3000, 1500).frame_count(5_400_000) == 3599
    assert SpectrogramSettings(50.0, 3000, 1500).features(6) == 9006


def test_a_signal_shorter_than_a_frame_has_none():
    assert spectrogram(np.zeros((49, 6), np.float32), SpectrogramSettings()).shape == (0, 156)


@pytest.mark.parametrize("wrong", [{"rate_hz": 0}, {"fft_window": 1}, {"fft_hop": 0}, {"fft_hop": 51}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SpectrogramSettings(**wrong)


def test_signal_needs_no_jax():
    code = (
        "import sys, selfpab_jax.signal.stft, selfpab_jax.signal.normalization, selfpab_jax.signal.resample;"
        "import selfpab_jax.data.sources.hunt4, selfpab_jax.data.tables.format, selfpab_jax.data.records.shards;"
        "sys.exit(any(m in sys.modules for m in ('jax', 'tensorflow_datasets', 'grain')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
