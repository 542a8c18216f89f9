"""Checks that a signal is plausible before it enters the records.

The limits err towards keeping: a motionless sensor at night still has noise (about 3 mg on an AX3), running brings
genuine peaks of 8 g on a thigh, and a few clipped peaks in a long recording do no harm. Only what no body-worn
accelerometer delivers is skipped.
"""

import numpy as np
from jaxtyping import Bool, Float

from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.segments import runs

LIMIT_G = 16.0
"""No accelerometer used for activity measures more."""
WRONG_UNIT_G = 4.0
"""The median magnitude of a body-worn sensor is about 1 g (gravity); 9.8 means m/s^2."""
DEAD_FRACTION = 0.5
"""A channel is dead when it stays at one value, to the bit, for this fraction of the recording without a break ..."""
DEAD_SECONDS = 10.0
"""... and at least this long."""
CLIPPED_G = 1.5
"""Plateaus count as clipping beyond this level only (ranges begin at 2 g); below, they are rest on a coarse grid."""
CLIPPED_TOLERANCE_G = 0.002
CLIPPED_RUN = 3
"""Least samples in a row at the extreme for a plateau: a genuine peak seldom has two equal ones."""
CLIPPED_FRACTION = 0.01
"""A channel with more than this fraction of its samples on such plateaus is clipped."""
SAMPLED_ROWS = 2000
"""The unit is checked on about so many rows."""


def check_signal(signal_NxC: Float[np.ndarray, "N C"], channels: tuple[str, ...], rate_hz: float) -> None:
    """Look for NaN and infinity, values beyond 16 g, a wrong unit, dead and clipped channels, in that order.

    Args:
        signal_NxC: all samples of a recording, in g, before any resampling.
        channels: a name per column, for the message.
        rate_hz: sampling rate, for durations.

    Raises:
        UnusableError: the first fault found, with the channel's name.
    """
    _check_finite(signal_NxC, channels)
    _check_range(signal_NxC, channels)
    moves_nxC = np.diff(signal_NxC, axis=0) != 0
    moving_C = moves_nxC.mean(axis=0) if len(moves_nxC) else np.ones(len(channels))
    high_C, low_C = signal_NxC.max(axis=0), signal_NxC.min(axis=0)
    for c, channel in enumerate(channels):
        # Both faults need repeated values, which most channels do not have.
        if moving_C[c] < 1 - DEAD_FRACTION:
            _check_dead(moves_nxC[:, c], channel, rate_hz)
        if moving_C[c] < 1 and max(high_C[c], -low_C[c]) >= CLIPPED_G:
            _check_clipped(signal_NxC[:, c], channel)


def _check_finite(signal_NxC: np.ndarray, channels: tuple[str, ...]) -> None:
    # A sum is quick, and finite only where all samples are.
    if np.isfinite(signal_NxC.sum(dtype=np.float64)):
        return
    bad_NxC = ~np.isfinite(signal_NxC)
    c = int(bad_NxC.any(axis=0).argmax())
    raise UnusableError(f"NaN or infinity: {int(bad_NxC[:, c].sum())} of {len(signal_NxC)} samples of {channels[c]}")


def _check_range(signal_NxC: np.ndarray, channels: tuple[str, ...]) -> None:
    largest_C = np.abs(signal_NxC).max(axis=0)
    median_C = np.median(np.abs(signal_NxC[:: max(1, len(signal_NxC) // SAMPLED_ROWS)]), axis=0)
    c = int(largest_C.argmax())
    if median_C.max() > WRONG_UNIT_G:
        raise UnusableError(
            f"wrong unit: half of the samples of {channels[int(median_C.argmax())]} are beyond {WRONG_UNIT_G:g} g; "
            "is the unit m/s2 or mg (--unit)?"
        )
    if largest_C[c] > LIMIT_G:
        raise UnusableError(f"beyond {LIMIT_G:g} g: {channels[c]} reaches {largest_C[c]:.4g} g")


def _check_dead(moves_n: Bool[np.ndarray, " n"], channel: str, rate_hz: float) -> None:
    first, last = runs(~moves_n)
    still = int((last - first).max(initial=0)) + 1
    samples = len(moves_n) + 1
    if still >= DEAD_FRACTION * samples and still >= min(DEAD_SECONDS * rate_hz, samples):
        raise UnusableError(f"dead channel: {channel} stays at one value for {still / rate_hz:.4g} s")


def _check_clipped(signal_N: Float[np.ndarray, " N"], channel: str) -> None:
    for extreme in (signal_N.max(), signal_N.min()):
        if abs(extreme) < CLIPPED_G:
            continue
        first, last = runs(np.abs(signal_N - extreme) <= CLIPPED_TOLERANCE_G)
        lengths = last - first
        fraction = lengths[lengths >= CLIPPED_RUN].sum() / len(signal_N)
        if fraction > CLIPPED_FRACTION:
            raise UnusableError(
                f"clipped channel: {100 * fraction:.3g}% of {channel} is on plateaus at {extreme:.4g} g"
            )
