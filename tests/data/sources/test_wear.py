import numpy as np

from selfpab_jax.data.sources.wear import idle_sleep, non_wear
from selfpab_jax.signal.epochs import epoch_moments

RATE = 10


def _day() -> np.ndarray:
    """Four hours: worn, 45 min at rest on a table, worn, 20 min at rest, worn, 40 min of the last value, missing."""
    rng = np.random.default_rng(0)
    signal_Nx3 = rng.normal([0, 0, 1], 0.05, size=(4 * 3600 * RATE, 3))
    for begin, minutes in ((30, 45), (100, 20)):
        rest = slice(begin * 60 * RATE, (begin + minutes) * 60 * RATE)
        signal_Nx3[rest] = rng.normal([0, 0, 1], 0.004, size=signal_Nx3[rest].shape)
    signal_Nx3[150 * 60 * RATE : 190 * 60 * RATE] = signal_Nx3[150 * 60 * RATE]
    signal_Nx3[200 * 60 * RATE :] = np.nan
    return signal_Nx3


def test_intervals() -> None:
    moments = epoch_moments(np.array_split(_day(), 11), RATE)
    assert non_wear(moments, start_s=1000) == [(1000 + 1800, 1000 + 4500), (1000 + 9000, 1000 + 11400)]
    assert non_wear(moments, least_s=600) == [(1800, 4500), (6000, 7200), (9000, 11400)]
    assert idle_sleep(moments) == [(9000, 11400)]


def test_one_moving_axis_is_worn() -> None:
    signal_Nx3 = np.random.default_rng(0).normal(scale=[0.004, 0.004, 0.02], size=(3600 * RATE, 3))
    assert non_wear(epoch_moments([signal_Nx3], RATE)) == []
