from itertools import pairwise

import numpy as np
import pytest

from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.clock import EvenClock, to_even_clock

RNG = np.random.default_rng(0)
START = 1.7e9
TONE_HZ = 5.0


def _tone(times_N: np.ndarray) -> np.ndarray:
    angle_N = 2 * np.pi * TONE_HZ * (times_N - START)
    return np.stack([np.sin(angle_N), 0.5 * np.cos(angle_N) - 1], axis=1).astype(np.float32)


def _even(rate_hz: float, seconds: float) -> np.ndarray:
    return START + np.arange(round(rate_hz * seconds)) / rate_hz


def _drifting(times_N: np.ndarray) -> np.ndarray:
    rates_N = 50 * (1 + 0.03 * np.sin(np.arange(len(times_N)) / len(times_N) * 6))
    return START + np.concatenate([[0], np.cumsum(1 / rates_N)[:-1]])


CLOCKS = {
    "exact, 50 Hz": (_even(50, 120), lambda t: t, 1e-5),
    "100 Hz": (_even(100, 120), lambda t: t, 0.01),
    "30 Hz": (_even(30, 120), lambda t: t, 0.02),
    "3% too fast": (_even(51.5, 120), lambda t: t, 0.01),
    "drifts by 3%": (_drifting(_even(50, 120)), lambda t: t, 0.01),
    "in milliseconds": (_even(85.7, 120), lambda t: np.floor(t * 1000) / 1000, 0.03),
    "begins within a second, in whole seconds": (_even(64, 120)[20:], np.floor, 0.01),
    "in whole seconds, drifts": (_even(50.13, 120), np.floor, 0.7),
    "bursts of 10": (
        _even(50, 120),
        lambda t: np.repeat(t[::10], 10) + np.tile(np.arange(10) * 1e-3, len(t) // 10),
        0.01,
    ),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_tone_keeps_its_times_and_amplitude(clock: str) -> None:
    times_N, read, tolerance = CLOCKS[clock]
    start_s, signal_MxC, is_missing_M = to_even_clock(read(times_N), _tone(times_N), 50, 0.5)
    even_M = start_s + np.arange(len(signal_MxC)) / 50
    assert not is_missing_M.any()
    assert start_s == pytest.approx(times_N[0], abs=0.003)
    assert even_M[-1] == pytest.approx(times_N[-1], abs=0.04)
    inside = slice(50, -50)
    np.testing.assert_allclose(signal_MxC[inside], _tone(even_M)[inside], atol=tolerance)
    assert signal_MxC[inside, 0].std() == pytest.approx(np.sqrt(0.5), rel=0.02)


@pytest.mark.parametrize("clock", CLOCKS)
def test_blocks_give_what_the_whole_gives(clock: str) -> None:
    times_N, read, _ = CLOCKS[clock]
    times_N, signal_NxC = read(times_N), _tone(times_N)
    kept_N = np.ones(len(times_N), bool)
    kept_N[1000:1100] = kept_N[5000:5010] = False
    times_N, signal_NxC = times_N[kept_N], signal_NxC[kept_N]
    whole = to_even_clock(times_N, signal_NxC, 50, 0.5)
    even = EvenClock(50, 0.5)
    edges = np.unique(np.concatenate([[0, len(times_N)], RNG.integers(0, len(times_N), 60)]))
    blocks = [even.add(times_N[a:b], signal_NxC[a:b]) for a, b in pairwise(edges)]
    blocks.append(even.finish())
    np.testing.assert_allclose(np.concatenate([block.signal_MxC for block in blocks]), whole.signal_MxC, atol=1e-5)
    assert sum(len(block.signal_MxC) > 0 for block in blocks) > 5
    given = [block for block in blocks if len(block.signal_MxC)]
    for block, following in pairwise(given):
        assert following.start_s == pytest.approx(block.start_s + len(block.signal_MxC) / 50, abs=1e-6)


def test_a_frame_is_at_its_time_after_a_week_of_drift() -> None:
    hop = 0.5
    seconds_N = np.cumsum(np.full(7 * 86400 * 4, 0.25 * 1.03))
    times_N = START + seconds_N
    is_event_N = (np.arange(len(times_N)) % 4000 < 40).astype(np.float32)
    start_s, signal_MxC, _ = to_even_clock(times_N, is_event_N[:, None], 4, 2)
    risen = np.flatnonzero(np.diff(signal_MxC[:, 0] > 0.5) == 1)
    risen_s = (start_s + (risen + 1) / 4)[signal_MxC[risen + 1, 0] > 0.5]
    true_s = times_N[::4000]
    assert np.abs(risen_s - true_s[-len(risen_s) :]).max() < hop


def test_gaps() -> None:
    times_N = _even(50, 60)
    kept_N = np.ones(len(times_N), bool)
    kept_N[1000:1015] = False  # 0.3 s
    kept_N[2000:2100] = False  # 2 s
    start_s, signal_MxC, is_missing_M = to_even_clock(times_N[kept_N], _tone(times_N)[kept_N], 50, 1.0)
    assert np.flatnonzero(is_missing_M).tolist() == list(range(2000, 2100))
    assert np.array_equal(np.isnan(signal_MxC).all(axis=1), is_missing_M)
    even = _tone(start_s + np.arange(len(signal_MxC)) / 50)
    np.testing.assert_allclose(signal_MxC[1015:2000], even[1015:2000], atol=1e-4)
    np.testing.assert_allclose(signal_MxC[2100:], even[2100:], atol=1e-4)


def test_rows_of_nan_are_gaps_and_a_given_start_is_kept() -> None:
    times_N, signal_NxC = _even(50, 20), _tone(_even(50, 20))
    signal_NxC[500:600, 1] = np.nan
    start_s, signal_MxC, is_missing_M = to_even_clock(times_N, signal_NxC, 50, 1.0, start_s=START - 1.0)
    assert start_s == START - 1.0
    assert np.flatnonzero(is_missing_M).tolist() == [*range(50), *range(550, 650)]
    np.testing.assert_allclose(signal_MxC[50:550], signal_NxC[:500], atol=1e-5)


def test_low_pass_removes_what_the_new_rate_cannot_hold() -> None:
    times_N = _even(100, 60)
    above_Nx1 = np.sin(2 * np.pi * 40 * (times_N - START)).astype(np.float32)[:, None]
    assert np.abs(to_even_clock(times_N, above_Nx1, 50, 1.0).signal_MxC[50:-50]).max() < 0.02


@pytest.mark.parametrize(
    ("times_N", "keyword"),
    [
        (np.concatenate([_even(50, 10), _even(50, 10)]), "out of order"),
        (np.full(100_000, START), "stand still"),
        (np.concatenate([_even(50, 10), _even(50, 10) + 1e7]), "clock"),
        (np.concatenate([_even(50, 10), [np.nan]]), "timestamps"),
    ],
)
def test_wrong_clocks_are_refused(times_N: np.ndarray, keyword: str) -> None:
    with pytest.raises(UnusableError, match=keyword):
        to_even_clock(times_N, np.zeros((len(times_N), 1), np.float32), 50, 1.0)


def test_all_nan_is_refused() -> None:
    with pytest.raises(UnusableError, match="NaN"):
        to_even_clock(_even(50, 10), np.full((500, 1), np.nan, np.float32), 50, 1.0)
