"""What a device file holds: blocks of samples with a time per block, and the samples' times made from them."""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from selfpab_jax.data.sources.base import EPOCH, UnusableError

MISSING_FRACTION = 0.01
"""A file that holds less of its samples than this fraction below what it announces gets a note."""
GAP_SECONDS = 1.0
"""A longer step in time is noted as a gap."""
SPREAD_RATES = 0.1
"""A block's samples are spread up to the next block where that changes their rate by less than this fraction."""
DRIFT = 0.02
"""A recorder whose rate is further from its nominal rate gets a note (Axivity's are within 1%, by its manual)."""


@dataclass(frozen=True)
class DeviceSamples:
    """The samples of a device file, in order of time; where nothing was recorded, the times have a gap.

    Attributes:
        times_N: seconds since 1970 on the recorder's clock (no time zone).
        signal_Nx3: acceleration in g along the device's x, y and z, as calibrated by the maker.
        rate_hz: nominal rate.
        measured_hz: rate by the device's timestamps.
        start: time of the first sample.
        serial: the device's number.
        device: kind of device.
        idle: start and end, in seconds since 1970, of each time that an ActiGraph slept because it lay still.
        notes: what is wrong with the file, with the amount, one line each.
    """

    times_N: Float64[np.ndarray, " N"]
    signal_Nx3: Float32[np.ndarray, "N 3"]
    rate_hz: float
    measured_hz: float
    start: datetime
    serial: str
    device: str
    idle: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceBlocks:
    """A device file as read.

    Attributes:
        starts_B: seconds since 1970 of each block's first sample.
        counts_B: samples of each block.
        signal_Nx3: all samples in g.
        rate_hz: nominal rate.
        serial: the device's number.
        device: kind of device.
        expected: samples that the file announces, if it does.
        idle: start and end of idle sleep.
        notes: what was found while reading.
    """

    starts_B: Float64[np.ndarray, " B"]
    counts_B: Int64[np.ndarray, " B"]
    signal_Nx3: Float32[np.ndarray, "N 3"]
    rate_hz: float
    serial: str
    device: str
    expected: float | None = None
    idle: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()


def to_samples(blocks: DeviceBlocks) -> DeviceSamples:
    """The samples with a time each, in order; what is missing or left out is noted.

    Args:
        blocks: a file as read.

    Raises:
        UnusableError: there are no samples.
    """
    starts_B, counts_B, signal_Nx3 = blocks.starts_B, blocks.counts_B, blocks.signal_Nx3
    if not len(signal_Nx3):
        raise UnusableError(
            f"no samples: the {blocks.device} file has none that can be read; download it from the device again, "
            "or export it as CSV with the maker's software"
        )
    notes = [*blocks.notes]
    found = len(signal_Nx3)
    if (np.diff(starts_B) < 0).any():
        kept_B = _longest_in_order(starts_B)
        kept_N = np.repeat(kept_B, counts_B)
        left_out = int((~kept_N).sum())
        starts_B, counts_B, signal_Nx3 = starts_B[kept_B], counts_B[kept_B], signal_Nx3[kept_N]
        notes.append(
            f"clock jumps: {int((~kept_B).sum())} blocks out of the order of time left out "
            f"({_amount(left_out, found, blocks.rate_hz)})"
        )
    times_N, measured_hz = _times(starts_B, counts_B, blocks.rate_hz)
    if blocks.expected and found < (1 - MISSING_FRACTION) * blocks.expected:
        missing = blocks.expected - found
        notes.append(
            f"incomplete: {_amount(missing, blocks.expected, blocks.rate_hz)} of what the file announces are missing"
        )
    if blocks.idle:
        hours = sum(end - begin for begin, end in blocks.idle) / 3600
        notes.append(f"idle sleep: nothing was recorded in {len(blocks.idle)} times of {hours:.2f} h in all")
    pauses_n = np.diff(times_N)
    pauses_n = pauses_n[pauses_n > GAP_SECONDS]
    if len(pauses_n) > len(blocks.idle):
        notes.append(f"gaps: {len(pauses_n)} gaps, {pauses_n.sum() / 3600:.3g} h in all (with idle sleep)")
    if abs(measured_hz / blocks.rate_hz - 1) > DRIFT:
        notes.append(f"rate: {measured_hz:.4g} Hz by the device's clock, nominal {blocks.rate_hz:g} Hz")
    return DeviceSamples(
        times_N=times_N,
        signal_Nx3=signal_Nx3,
        rate_hz=blocks.rate_hz,
        measured_hz=measured_hz,
        start=EPOCH + timedelta(seconds=float(times_N[0])),
        serial=blocks.serial,
        device=blocks.device,
        idle=blocks.idle,
        notes=tuple(notes),
    )


def _amount(samples: float, of: float, rate_hz: float) -> str:
    return f"{samples:.0f} of {of:.0f} samples, {samples / rate_hz / 3600:.3g} h"


def _times(
    starts_B: Float64[np.ndarray, " B"], counts_B: Int64[np.ndarray, " B"], rate_hz: float
) -> tuple[Float64[np.ndarray, " N"], float]:
    """Times of all samples, and the rate between the blocks that follow each other without a gap.

    The blocks' own rate is nominal, but their clock is right: samples are spread up to the next block.
    """
    durations_B = np.diff(starts_B, append=np.inf)
    spacing_B = durations_B / np.maximum(counts_B, 1)
    follows_B = np.abs(spacing_B * rate_hz - 1) < SPREAD_RATES
    measured_hz = rate_hz
    if follows_B.any():
        measured_hz = float(counts_B[follows_B].sum() / durations_B[follows_B].sum())
    # A block before a gap has the recorder's own rate, unless the next one would begin before its end.
    spacing_B = np.where(follows_B, spacing_B, np.minimum(spacing_B, 1 / measured_hz))
    within_N = np.arange(counts_B.sum()) - np.repeat(np.cumsum(counts_B) - counts_B, counts_B)
    return np.repeat(starts_B, counts_B) + within_N * np.repeat(spacing_B, counts_B), measured_hz


def _longest_in_order(starts_B: Float64[np.ndarray, " B"]) -> Bool[np.ndarray, " B"]:
    """Which blocks form the longest series that never runs backwards (patience sorting)."""
    tails: list[float] = []
    at: list[int] = []
    before = np.full(len(starts_B), -1)
    for b, start in enumerate(starts_B.tolist()):
        length = bisect_right(tails, start)
        if length == len(tails):
            tails.append(start)
            at.append(b)
        else:
            tails[length], at[length] = start, b
        before[b] = at[length - 1] if length else -1
    kept_B, b = np.zeros(len(starts_B), bool), at[-1]
    while b >= 0:
        kept_B[b], b = True, int(before[b])
    return kept_B
