import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from selfpab_jax.signal.resample import (
    STANDARD_GRAVITY,
    fourier_resample,
    fourier_resample_labels,
    ratio,
    resample,
    resample_labels,
    to_g,
)

RATES = st.sampled_from([20.0, 25.0, 30.0, 50.0, 64.0, 100.0, 102.4, 200.0])


def sine(hz: float, rate: float, seconds: float) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)[:, None]


@settings(max_examples=30, deadline=None)
@given(rate=RATES, level=st.floats(-2, 2), seconds=st.floats(5, 20))
def test_gravity_is_kept_to_the_ends(rate, level, seconds):
    out = resample(np.full((round(seconds * rate), 2), level), rate, 50.0)
    np.testing.assert_allclose(out, level, atol=2e-3)


@settings(max_examples=30, deadline=None)
@given(rate=RATES, hz=st.floats(0.5, 6.0))
def test_a_slow_sine_is_kept(rate, hz):
    out = resample(sine(hz, rate, 20), rate, 50.0)[100:-100]
    expected = sine(hz, 50.0, 20)[100:-100]
    np.testing.assert_allclose(out[: len(expected)], expected[: len(out)], atol=0.01)


@settings(max_examples=30, deadline=None)
@given(rate=st.sampled_from([100.0, 128.0, 200.0]), hz=st.floats(32.0, 48.0))
def test_what_is_beyond_the_new_nyquist_rate_is_removed(rate, hz):
    out = resample(sine(hz, rate, 20), rate, 50.0)[100:-100]
    assert np.abs(out).max() < 0.01
    plainly_thinned = sine(hz, 100.0, 20)[::2]
    assert np.abs(plainly_thinned).max() > 0.5


@settings(max_examples=50, deadline=None)
@given(rate=RATES, samples=st.integers(1, 500))
def test_labels_are_as_many_as_samples_and_the_nearest(rate, samples):
    labels = np.arange(samples)
    out = resample_labels(labels, rate, 50.0)
    assert len(out) == len(resample(np.zeros((samples, 1)), rate, 50.0))
    distance = np.abs(out / rate - np.arange(len(out)) / 50.0)
    inside = np.arange(len(out)) / 50.0 <= (samples - 1) / rate
    assert (distance[inside] <= 0.5 / rate + 1e-9).all()


def test_the_same_rate_is_no_work():
    signal = np.ones((10, 3), np.float32)
    assert resample(signal, 50.0, 50.0) is signal
    assert ratio(100.0, 50.0) == 0.5
    assert float(ratio(102.4, 50.0)) == pytest.approx(50 / 102.4)


def test_units():
    np.testing.assert_allclose(to_g(np.full((1, 1), STANDARD_GRAVITY), "m/s2"), 1.0)
    assert to_g(np.full((1, 1), 9.8, np.float32), "m/s2").dtype == np.float32
    np.testing.assert_array_equal(to_g(np.full((1, 1), 2), "g"), 2.0)


def test_fourier_resampling_is_the_originals(golden):
    expected = np.load(golden / "resample.npz")
    out = fourier_resample(expected["signal"][:, None], 100.0, 50.0)
    np.testing.assert_allclose(out[:, 0], expected["out"], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(fourier_resample_labels(expected["label"], 100.0, 50.0), expected["out_label"])


@settings(max_examples=50, deadline=None)
@given(rate=RATES, samples=st.integers(0, 300))
def test_fourier_resampling_gives_as_many_labels_as_samples(rate, samples):
    out = fourier_resample(np.ones((samples, 2), np.float32), rate, 50.0)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, 1, atol=1e-5)
    labels = fourier_resample_labels(np.arange(samples), rate, 50.0)
    assert len(labels) == len(out) == round(samples * 50 / rate)
    places = np.arange(len(out)) * samples / max(len(out), 1)
    assert (np.abs(labels - np.minimum(places, samples - 1)) <= 0.5 + 1e-9).all()
