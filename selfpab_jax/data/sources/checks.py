"""Checks that a signal is plausible before it enters the records.

The limits err towards keeping: a motionless sensor at night still has noise (about 3 mg on an AX3), running brings
genuine peaks of 8 g on a thigh, and a few clipped peaks in a long recording do no harm. Only what no body-worn
accelerometer delivers is skipped.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32

from selfpab_jax.data.sources.base import UnusableError, sensors_of
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.segments import runs

LIMIT_G = 16.0
"""No accelerometer used for activity measures more."""
GRAVITY_G = (0.4, 2.5)
"""The mean acceleration over a few seconds is a vector of about 1 g, whatever the wearer does: on real backs and
thighs its median is within 5% of that, on a jogging wrist up to 1.8 g. Signals without gravity are near 0."""
GRAVITY_SECONDS = 5.0
WRONG_GRAVITY_SECONDS = 30.0
"""No movement keeps the mean acceleration of five seconds beyond these limits for so long."""
WRONG_UNIT_G = 4.0
"""For sensors with fewer than three axes: half of the samples beyond this mean another unit."""
STILL_SECONDS = 10.0
"""A sensor whose axes all stay at one value, to the bit, for so long recorded nothing: idle sleep, or no data."""
DEAD_FRACTION = 0.5
"""A channel is dead when it stays at one value, to the bit, for this fraction of the recording without a break ..."""
DEAD_SECONDS = 10.0
"""... and at least this long, or for all of it."""
CLIPPED_G = 1.5
"""Plateaus count as clipping beyond this level only (ranges begin at 2 g); below, they are rest on a coarse grid."""
CLIPPED_TOLERANCE_G = 0.002
CLIPPED_RUN = 3
"""Least samples in a row at the extreme for a plateau: a genuine peak seldom has two equal ones."""
CLIPPED_FRACTION = 0.01
"""A channel with more than this fraction of its samples on such plateaus is clipped."""


def usable_rows(
    signal_NxC: Float32[np.ndarray, "N C"], channels: tuple[str, ...], rate_hz: float, report: FileReport
) -> Bool[np.ndarray, " N"]:
    """Which rows can be used; the others are reported with their reason and amount.

    Not usable are rows with NaN, infinity or values beyond 16 g, a sensor that stands still for ten seconds, and the
    whole block if its unit is wrong or a channel is dead or clipped.

    Args:
        signal_NxC: a block of samples of about an hour, in g.
        channels: a name per column.
        rate_hz: sampling rate, for durations.
        report: to add to.

    Raises:
        UnusableError: the report is strict, and a row cannot be used.
    """
    finite_NxC = np.isfinite(signal_NxC)
    usable_N = np.asarray(finite_NxC.all(axis=1))
    if not usable_N.all():
        worst = channels[int((~finite_NxC).sum(axis=0).argmax())]
        report.cut("NaN", (~usable_N).sum() / rate_hz, f"{(~usable_N).sum()} rows without a number, most in {worst}")
    with np.errstate(invalid="ignore"):
        beyond_NxC = np.abs(signal_NxC) > LIMIT_G
    # First, because zeros or a sentinel in most rows say nothing about the unit of the others.
    still_N = usable_N & still_rows(signal_NxC, channels, rate_hz)
    if still_N.any():
        report.cut("stands still", still_N.sum() / rate_hz, f"{still_N.sum() / rate_hz:.4g} s at one value")
        usable_N &= ~still_N
    scale_doubt = unit_doubt(signal_NxC[usable_N], channels, rate_hz)
    if scale_doubt:
        report.cut("wrong unit", usable_N.sum() / rate_hz, scale_doubt)
        report.notes += [] if scale_doubt in report.notes else [scale_doubt]
        return np.zeros_like(usable_N)
    _cut_implausible(signal_NxC, usable_N, channels, rate_hz, report)
    beyond_N = usable_N & np.asarray((beyond_NxC & finite_NxC).any(axis=1))
    if beyond_N.any():
        c = int(beyond_NxC.sum(axis=0).argmax())
        largest = float(np.nanmax(np.abs(signal_NxC[finite_NxC[:, c], c])))
        report.cut(f"beyond {LIMIT_G:g} g", beyond_N.sum() / rate_hz, f"{channels[c]} reaches {largest:.4g} g")
        usable_N &= ~beyond_N
    try:
        _check_channels(signal_NxC[usable_N], channels, rate_hz)
    except UnusableError as error:
        report.cut(str(error).partition(":")[0], usable_N.sum() / rate_hz, str(error).partition(": ")[2])
        report.notes += [] if str(error) in report.notes else [str(error)]
        return np.zeros_like(usable_N)
    return usable_N


def _cut_implausible(
    signal_NxC: Float32[np.ndarray, "N C"],
    usable_N: Bool[np.ndarray, " N"],
    channels: tuple[str, ...],
    rate_hz: float,
    report: FileReport,
) -> None:
    """Take out the time in which the unit is another than in the rest of the block, and sensors that are one."""
    length = max(1, round(GRAVITY_SECONDS * rate_hz))
    count = len(signal_NxC) // length
    if not count or not usable_N.any():
        return
    sensors = [columns for columns in _columns_of_sensors(channels) if len(columns) == 3]
    filled_NxC = np.where(usable_N[:, None], signal_NxC, 0)
    usable_W = usable_N[: count * length].reshape(count, length).sum(axis=1)
    for columns in sensors:
        pieces_WxLx3 = filled_NxC[: count * length, columns].reshape(count, length, 3)
        gravity_W = np.linalg.norm(pieces_WxLx3.sum(axis=1, dtype=np.float64), axis=1) / np.maximum(usable_W, 1)
        is_wrong_W = (usable_W > 0) & ((gravity_W < GRAVITY_G[0]) | (gravity_W > GRAVITY_G[1]))
        for first, last in zip(*runs(is_wrong_W), strict=True):
            if (last - first) * GRAVITY_SECONDS < WRONG_GRAVITY_SECONDS:
                continue
            # The pieces beside it are partly so.
            rows = slice(max(0, first - 1) * length, len(signal_NxC) if last >= count - 1 else (last + 1) * length)
            median = float(np.median(gravity_W[first:last]))
            seconds = float(usable_N[rows].sum() / rate_hz)
            names = ", ".join(channels[c] for c in columns)
            report.cut("wrong unit", seconds, f"the mean acceleration of {names} is {median:.3g} g for {seconds:.4g} s")
            usable_N[rows] = False
    for place, columns in enumerate(sensors):
        for other in sensors[:place]:
            if usable_N.any() and (signal_NxC[usable_N][:, columns] == signal_NxC[usable_N][:, other]).all():
                doubt = (
                    f"{channels[columns[0]]} to {channels[columns[-1]]} equal those of {channels[other[0]]} throughout"
                )
                report.cut("two sensors are one", usable_N.sum() / rate_hz, doubt)
                report.notes += [] if doubt in report.notes else [doubt]
                usable_N[:] = False


def still_rows(
    signal_NxC: Float32[np.ndarray, "N C"], channels: tuple[str, ...], rate_hz: float
) -> Bool[np.ndarray, " N"]:
    """Rows in which all axes of a sensor stay at one value for `STILL_SECONDS` or longer.

    Args:
        signal_NxC: samples.
        channels: a name per column, `<sensor>_<axis>`.
        rate_hz: sampling rate.
    """
    still_N = np.zeros(len(signal_NxC), bool)
    for columns in _columns_of_sensors(channels):
        same_n = (np.diff(signal_NxC[:, columns], axis=0) == 0).all(axis=1)
        if not same_n.any():
            continue
        first_r, last_r = runs(np.asarray(same_n))
        for first, last in zip(first_r, last_r, strict=True):
            if last + 1 - first >= STILL_SECONDS * rate_hz:
                still_N[first : last + 1] = True
    return still_N


def _columns_of_sensors(channels: tuple[str, ...]) -> list[list[int]]:
    sensors = sensors_of(channels)
    return [[c for c, name in enumerate(channels) if (name.rpartition("_")[0] or name) == sensor] for sensor in sensors]


def unit_doubt(signal_NxC: Float32[np.ndarray, "N C"], channels: tuple[str, ...], rate_hz: float) -> str:
    """What is wrong with the size of the acceleration; empty if nothing is, or if it cannot be known.

    Args:
        signal_NxC: samples, in g.
        channels: a name per column, `<sensor>_<axis>`.
        rate_hz: sampling rate.
    """
    for columns in _columns_of_sensors(channels):
        names = ", ".join(channels[c] for c in columns)
        if len(columns) == 3:
            length = max(1, min(round(GRAVITY_SECONDS * rate_hz), len(signal_NxC)))
            count = len(signal_NxC) // length
            if not count:
                continue
            means = signal_NxC[: count * length, columns].reshape(count, length, 3).mean(axis=1, dtype=np.float64)
            gravity = float(np.median(np.linalg.norm(means, axis=1)))
            if GRAVITY_G[0] <= gravity <= GRAVITY_G[1] or not np.isfinite(gravity):
                continue
            unit = "mg" if 400 < gravity < 2500 else "m/s2" if 4 < gravity < 25 else None
            hint = f"is the unit {unit} (--unit {unit})?" if unit else "was gravity removed, or is a column not in g?"
            return f"wrong unit: the mean acceleration of {names} is {gravity:.3g} g, where gravity makes 1 g; {hint}"
        with np.errstate(invalid="ignore"):
            median = float(np.median(np.abs(signal_NxC[:, columns]))) if len(signal_NxC) else 0.0
        if median > WRONG_UNIT_G:
            return f"wrong unit: half of the samples of {names} are beyond {WRONG_UNIT_G:g} g (--unit)"
    return ""


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
    if doubt := unit_doubt(np.asarray(signal_NxC, np.float32), channels, rate_hz):
        raise UnusableError(doubt)
    _check_range(signal_NxC, channels)
    _check_channels(signal_NxC, channels, rate_hz)


def _check_channels(signal_NxC: Float[np.ndarray, "N C"], channels: tuple[str, ...], rate_hz: float) -> None:
    if not len(signal_NxC):
        return
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
    c = int(largest_C.argmax())
    if largest_C[c] > LIMIT_G:
        raise UnusableError(f"beyond {LIMIT_G:g} g: {channels[c]} reaches {largest_C[c]:.4g} g")


def _check_dead(moves_n: Bool[np.ndarray, " n"], channel: str, rate_hz: float) -> None:
    first, last = runs(~moves_n)
    still = int((last - first).max(initial=0)) + 1
    samples = len(moves_n) + 1
    if still == samples or still >= max(DEAD_FRACTION * samples, DEAD_SECONDS * rate_hz):
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
