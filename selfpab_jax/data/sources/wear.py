"""When a sensor was not worn, and when a recorder slept."""

import numpy as np
from jaxtyping import Bool

from selfpab_jax.data.sources.segments import runs
from selfpab_jax.signal.epochs import EPOCH_SECONDS, STILL_G, EpochMoments

Interval = tuple[float, float]
"""Start and end in seconds."""

NON_WEAR_SECONDS = 1800.0
IDLE_SECONDS = 60.0


def non_wear(moments: EpochMoments, start_s: float = 0.0, least_s: float = NON_WEAR_SECONDS) -> list[Interval]:
    """Times of 30 minutes or more in which a sensor lay still: every axis below 13 mg in every epoch of 10 s.

    After van Hees et al. (2011, https://doi.org/10.1371/journal.pone.0022922), who ask for 30 minutes as well; 13 mg
    are usual since 2013. A motionless sleeper still breathes, which most sensors see. Epochs in which nothing was
    recorded end such a time.

    Args:
        moments: of one sensor in g, in epochs of 10 s.
        start_s: time of the first epoch.
        least_s: shortest time.
    """
    with np.errstate(invalid="ignore"):
        return _intervals(np.asarray((moments.std_ExC < STILL_G).all(axis=1)), start_s, least_s)


def idle_sleep(moments: EpochMoments, start_s: float = 0.0, least_s: float = IDLE_SECONDS) -> list[Interval]:
    """Times in which no channel changes, to the bit (0, 0, 0 or the last value repeated).

    This is how exports of ActiGraph's software fill the idle sleep of the device; no accelerometer measures it.

    Args:
        moments: of one sensor.
        start_s: time of the first epoch.
        least_s: shortest time.
    """
    return _intervals(moments.is_constant_E, start_s, least_s)


def _intervals(is_still_E: Bool[np.ndarray, " E"], start_s: float, least_s: float) -> list[Interval]:
    begins, ends = runs(is_still_E)
    return [
        (start_s + EPOCH_SECONDS * begin, start_s + EPOCH_SECONDS * end)
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        if (end - begin) * EPOCH_SECONDS >= least_s
    ]
