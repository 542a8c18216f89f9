import numpy as np
import pytest

from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.checks import check_signal
from selfpab_jax.data.sources.hunt4 import CHANNELS
from selfpab_jax.data.sources.segments import runs


def check(signal: np.ndarray) -> None:
    check_signal(signal.astype(np.float32), CHANNELS, 50.0)


def spoiled(signal: np.ndarray, rows: slice, channel: int, value: float) -> np.ndarray:
    signal = signal.copy()
    signal[rows, channel] = value
    return signal


@pytest.mark.parametrize(
    ("rows", "channel", "value", "reason"),
    [
        (slice(7, 8), 1, np.nan, "NaN or infinity: 1 of 3000 samples of back_y"),
        (slice(0, 2), 5, -np.inf, "NaN or infinity: 2 of 3000 samples of thigh_z"),
        (slice(0, 1), 3, 16.5, "beyond 16 g: thigh_x"),
        (slice(0, 1), 3, -17.0, "beyond 16 g: thigh_x"),
        (slice(None), 4, 0.3, "dead channel: thigh_y"),
        (slice(1000, None), 4, -1.0, "dead channel: thigh_y"),
    ],
)
def test_what_no_sensor_delivers_is_refused(moving, rows, channel, value, reason):
    with pytest.raises(UnusableError, match=reason):
        check(spoiled(moving, rows, channel, value))


@pytest.mark.parametrize("level", [2.0, 4.0, 8.0])
def test_a_clipped_channel_is_refused(moving, level):
    running = moving.copy()
    running[:600, 0] = (running[:600, 0] + 1) * 4 * level
    running = np.clip(running, -level, level)
    with pytest.raises(UnusableError, match="clipped channel"):
        check(running)


def test_a_wrong_unit_is_refused(moving):
    with pytest.raises(UnusableError, match=r"wrong unit.*--unit"):
        check(moving * 9.80665)


def test_a_motionless_sensor_is_kept(moving):
    """Asleep, on the coarse grid of an 8 g AX3 (1/128 g): noise flips the last bit only now and then."""
    rng = np.random.default_rng(0)
    asleep = np.array([-0.05, 0.1, -0.98, -0.05, 0.1, 0.98]) + rng.normal(0, 0.003, (15000, 6))
    check(asleep)
    check(np.round(asleep * 128) / 128)
    check(np.round(asleep * 64) / 64)


def test_genuine_peaks_are_kept(moving):
    rng = np.random.default_rng(1)
    running = moving + np.where(rng.random((3000, 6)) < 0.02, rng.uniform(2, 8, (3000, 6)), 0)
    check(running)
    check(np.clip(running, -6, 6))


def test_a_few_still_seconds_are_kept(moving):
    """Some recorders write the last value again while they sleep."""
    check(spoiled(moving, slice(0, 1400), 2, -0.97))


def test_runs():
    first, last = runs(np.array([1, 1, 0, 1, 0, 0, 1, 1, 1], bool))
    assert (last - first).tolist() == [2, 1, 3]
    assert first.tolist() == [0, 3, 6]
    assert len(runs(np.zeros(4, bool))[0]) == 0
