"""Checks that a signal can be believed before it enters the records.

The limits err towards keeping: a motionless sensor at night still has noise (about 3 mg on an AX3), running brings
genuine peaks of 8 g on a thigh, and a few clipped peaks in a long recording do no harm. What is set aside is what no
body-worn accelerometer delivers.
"""

import numpy as np
from jaxtyping import Bool, Float

from selfpab_jax.data.sources.base import UnusableError

LIMIT_G = 16.0
"""No accelerometer in use for activity measures more."""
WRONG_UNIT_G = 4.0
"""A sensor's median magnitude is about 1 g (gravity) for people; 9.8 means m/s^2."""
DEAD_SHARE = 0.5
"""A channel is dead when it stays at one value, to the bit, for this share of the recording without a break ..."""
DEAD_SECONDS = 10.0
"""... and at least this long."""
CLIPPED_G = 1.5
"""Plateaus count as clipping beyond this level only (ranges begin at 2 g); below, they are rest on a coarse grid."""
CLIPPED_TOLERANCE_G = 0.002
CLIPPED_RUN = 3
"""Samples at the extreme in a row that count: a genuine peak seldom has two equal ones."""
CLIPPED_SHARE = 0.01
"""A channel with more than this share of its samples on such plateaus is clipped."""


def check_signal(signal_NxC: Float[np.ndarray, "N C"], channels: tuple[str, ...], rate_hz: float) -> None:
    """Looks for NaN and infinity, values beyond 16 g, a wrong unit, dead and clipped channels, in that order.

    Args:
        signal_NxC: all samples of a recording, in g, before any resampling.
        channels: a name per column, for the message.
        rate_hz: sampling rate, for durations.

    Raises:
        UnusableError: the first thing found, with the channel's name.
    """
    _check_finite(signal_NxC, channels)
    _check_range(signal_NxC, channels)
    steps_NxC = np.diff(signal_NxC, axis=0) != 0
    moving_C = steps_NxC.mean(axis=0) if len(steps_NxC) else np.ones(len(channels))
    high_C, low_C = signal_NxC.max(axis=0), signal_NxC.min(axis=0)
    for c, channel in enumerate(channels):
        # Both faults need repeated values, so that most channels are done after this look at the steps.
        if moving_C[c] < 1 - DEAD_SHARE:
            _check_dead(steps_NxC[:, c], channel, rate_hz)
        if moving_C[c] < 1 and max(high_C[c], -low_C[c]) >= CLIPPED_G:
            _check_clipped(signal_NxC[:, c], channel)


def longest_run(true_N: Bool[np.ndarray, " N"]) -> int:
    """Length of the longest run of True."""
    runs = run_lengths(true_N)
    return int(runs.max()) if len(runs) else 0


def run_lengths(true_N: Bool[np.ndarray, " N"]) -> np.ndarray:
    """Lengths of the runs of True, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true_N, [False]]).astype(np.int8)))
    return edges[1::2] - edges[::2]


def _check_finite(signal_NxC: np.ndarray, channels: tuple[str, ...]) -> None:
    # A sum is a fast witness: it is finite only where all of the samples are.
    if np.isfinite(signal_NxC.sum(dtype=np.float64)):
        return
    bad_NxC = ~np.isfinite(signal_NxC)
    c = int(bad_NxC.any(axis=0).argmax())
    raise UnusableError(f"NaN or infinity: {int(bad_NxC[:, c].sum())} of {len(signal_NxC)} samples of {channels[c]}")


def _check_range(signal_NxC: np.ndarray, channels: tuple[str, ...]) -> None:
    largest_C = np.abs(signal_NxC).max(axis=0)
    middle_C = np.median(np.abs(signal_NxC[:: max(1, len(signal_NxC) // 2000)]), axis=0)
    c = int(largest_C.argmax())
    if middle_C.max() > WRONG_UNIT_G:
        raise UnusableError(
            f"wrong unit: half of the samples of {channels[int(middle_C.argmax())]} lie beyond {WRONG_UNIT_G:g} g; "
            "is it m/s^2 (--unit m/s2)?"
        )
    if largest_C[c] > LIMIT_G:
        raise UnusableError(f"beyond {LIMIT_G:g} g: {channels[c]} reaches {largest_C[c]:.4g} g")


def _check_dead(steps_N: Bool[np.ndarray, " N"], channel: str, rate_hz: float) -> None:
    still = longest_run(~steps_N) + 1
    samples = len(steps_N) + 1
    if still >= DEAD_SHARE * samples and still >= min(DEAD_SECONDS * rate_hz, samples):
        raise UnusableError(f"dead channel: {channel} stays at one value for {still / rate_hz:.4g} s")


def _check_clipped(signal_N: Float[np.ndarray, " N"], channel: str) -> None:
    for extreme in (signal_N.max(), signal_N.min()):
        if abs(extreme) < CLIPPED_G:
            continue
        runs = run_lengths(np.abs(signal_N - extreme) <= CLIPPED_TOLERANCE_G)
        share = runs[runs >= CLIPPED_RUN].sum() / len(signal_N)
        if share > CLIPPED_SHARE:
            raise UnusableError(f"clipped channel: {100 * share:.3g}% of {channel} lies on plateaus at {extreme:.4g} g")
