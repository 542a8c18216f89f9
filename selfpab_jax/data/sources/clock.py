"""Samples with timestamps onto an even clock, so that a frame's time is right however a recorder's rate drifts."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.signal
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy.interpolate import CubicSpline

from selfpab_jax.data.sources.base import UnusableError

CHUNK_ROWS = 2**18
"""Rows that `to_even_clock` works on at once: memory beyond input and output does not depend on the length."""
MEASURED_ROWS = 2**11
MEASURED_TICKS = 8
MEASURED_CHUNKS = 16
"""The samples' own rate is a median over this many chunks of the first rows, with at least this many timestamps."""
STILL_SECONDS = 150.0
"""A clock in minutes is read; one that shows the same time for longer stands still."""
LARGEST_UNMEASURED = 10**6
"""This many rows with fewer times than that stand still, too."""
LONGEST_GAP_DAYS = 31
"""A longer one is a clock that was reset."""
TOLERANCE = 1e-3
"""Fraction of a sample by which a row may lie outside of the samples: float64 holds seconds since 1970 to 2e-7 s."""
TICK = 0.5
"""A timestamp less than this fraction of a sample after the one before is not a new tick of the clock."""
COARSE = 1.5
"""A step of up to this many ticks is not a gap: a clock in whole seconds cannot show one."""
ALIASED = 1.05
"""From this ratio of the rates on, the signal is low-pass filtered first; below, hardly anything can alias."""
SPLINE_MARGIN = 24
"""A sample's influence on a cubic spline falls by 0.27 with every sample: to 1e-14 over this many."""
FILTER_HALF = 10
"""Half length of the low-pass filter, in samples of the lower rate (that of scipy's polyphase resampling)."""


class EvenSignal(NamedTuple):
    """Samples on an even clock: row m is at `start_s` + m / rate.

    Attributes:
        start_s: time of the first row, in the seconds of the timestamps.
        signal_MxC: the samples; NaN where nothing was recorded.
        is_missing_M: where nothing was recorded.
    """

    start_s: float
    signal_MxC: Float32[np.ndarray, "M C"]
    is_missing_M: Bool[np.ndarray, " M"]


def to_even_clock(
    times_N: Float64[np.ndarray, " N"],
    signal_NxC: Float[np.ndarray, "N C"],
    rate_hz: float,
    gap_limit: float,
    start_s: float | None = None,
) -> EvenSignal:
    """The signal at even times, by its own timestamps.

    Between samples the signal follows a cubic spline (a straight line would take 3% off a tone of 5 Hz at 50 Hz); where
    the rate decreases it is low-pass filtered first. Where several samples share a timestamp (a clock in whole
    seconds), or come in bursts, the first of each group is at its time and the others are spread evenly up to the next
    group. `EvenClock` does the same block by block.

    Args:
        times_N: seconds of each sample, never decreasing.
        signal_NxC: samples; rows with NaN count as not recorded (call this per sensor where sensors may fail alone).
        rate_hz: rate of the even clock.
        gap_limit: seconds; where samples are further apart, the rows between are missing.
        start_s: time of row 0; of the first sample if not given.

    Raises:
        UnusableError: timestamps decrease or are not finite, or no row has numbers.
    """
    clock = EvenClock(rate_hz, gap_limit, start_s)
    blocks = [
        clock.add(times_N[first : first + CHUNK_ROWS], signal_NxC[first : first + CHUNK_ROWS])
        for first in range(0, len(times_N), CHUNK_ROWS)
    ]
    blocks.append(clock.finish())
    return EvenSignal(
        clock.first_s,
        np.concatenate([block.signal_MxC for block in blocks]),
        np.concatenate([block.is_missing_M for block in blocks]),
    )


class EvenClock:
    """Moves consecutive blocks of one recording onto an even clock; the results follow each other without a seam.

    `add` returns the rows that no later sample changes (possibly none), `finish` the rest. Between the calls it keeps
    the last group of equal timestamps and about 50 samples (more where the rate decreases).

    Args:
        rate_hz: rate of the even clock.
        gap_limit: seconds; where samples are further apart, the rows between are missing.
        start_s: time of row 0; of the first sample if not given.
        from_hz: rate of the samples, to 10% or so; measured on the first rows if not given.
    """

    def __init__(self, rate_hz: float, gap_limit: float, start_s: float | None = None, from_hz: float | None = None):
        self.rate_hz, self.gap_limit, self._start_s, self.from_hz = rate_hz, gap_limit, start_s, from_hz
        self._times_n = np.empty(0)
        self._signal_nxC = np.empty((0, 0), np.float32)
        self._measured: tuple[float, float] | None = None
        self._filter: Float64[np.ndarray, " taps"] | None = None
        self._begins = True  # whether the first held sample begins a segment
        self._rows = 0

    @property
    def first_s(self) -> float:
        """Time of row 0; NaN until it is known."""
        return np.nan if self._start_s is None else self._start_s

    def add(self, times_N: Float64[np.ndarray, " N"], signal_NxC: Float[np.ndarray, "N C"]) -> EvenSignal:
        """The rows that became certain.

        Args:
            times_N: seconds of each sample, not before those of the last block.
            signal_NxC: samples; rows with NaN count as not recorded.

        Raises:
            UnusableError: timestamps decrease or are not finite.
        """
        self._hold(times_N, signal_NxC)
        return self._joined(self._certain(is_last=False))

    def finish(self) -> EvenSignal:
        """The rows up to the last sample.

        Raises:
            UnusableError: no row had numbers.
        """
        if not len(self._times_n):
            raise UnusableError("NaN: no row has a number in every channel")
        return self._joined(self._certain(is_last=True))

    def _hold(self, times_N: np.ndarray, signal_NxC: np.ndarray) -> None:
        usable_N = np.isfinite(signal_NxC).all(axis=1)
        if not usable_N.all():
            times_N, signal_NxC = times_N[usable_N], signal_NxC[usable_N]
        if not np.isfinite(times_N).all():
            raise UnusableError("timestamps missing: some rows have none")
        times_n = np.concatenate([self._times_n, times_N])
        if (backwards_n := np.diff(times_n) < 0).any():
            row = int(backwards_n.argmax())
            raise UnusableError(f"timestamps out of order: {times_n[row + 1]:.3f} s comes after {times_n[row]:.3f} s")
        held_nxC = self._signal_nxC if len(self._times_n) else np.empty((0, signal_NxC.shape[1]), np.float32)
        self._times_n, self._signal_nxC = times_n, np.concatenate([held_nxC, signal_NxC.astype(np.float32, copy=False)])

    def _certain(self, is_last: bool) -> Iterator[Float32[np.ndarray, "m C"]]:
        """The rows that the held samples determine: of each segment between gaps, those before it and those in it."""
        self._measure_when_possible(is_last)
        if self._measured is None:
            return
        period, tick_s = self._measured
        times_n = self._times_n
        ticks_k = np.flatnonzero(np.diff(times_n, prepend=-np.inf) >= TICK * period)
        groups_k = np.diff(ticks_k, append=len(times_n))
        if groups_k.max() * period > STILL_SECONDS:
            raise UnusableError(
                f"timestamps stand still: {groups_k.max()} rows at {times_n[ticks_k[groups_k.argmax()]]:.3f} s"
            )
        steps_k = np.diff(times_n[ticks_k])
        is_gap_k = (steps_k > self.gap_limit + (groups_k[:-1] - 1) * period) & (steps_k > COARSE * tick_s)
        edges = [0, *(np.flatnonzero(is_gap_k) + 1).tolist(), len(ticks_k)]
        for first, last in pairwise(edges):
            is_open = last == len(ticks_k) and not is_last
            rows = slice(ticks_k[first], None if last == len(ticks_k) else ticks_k[last])
            ticks = ticks_k[first:last] - ticks_k[first]
            spread_n = _spread(times_n[rows], ticks, period, self._begins)
            # The samples after the last tick, and the spline near it, depend on what follows.
            upto = ticks[-1] - self._margin if is_open else len(spread_n) - 1
            if upto >= 0:
                yield from self._interpolated(spread_n, self._signal_nxC[rows], float(spread_n[upto]))
            if is_open:
                kept = int(ticks[np.searchsorted(ticks, max(0, upto - self._margin), side="right") - 1])
                self._times_n, self._signal_nxC = times_n[rows][kept:], self._signal_nxC[rows][kept:]
                self._begins = self._begins and kept == 0
            else:
                self._begins = True

    def _measure_when_possible(self, is_last: bool) -> None:
        """Measure the samples' period and the clock's tick, once there are samples enough."""
        if self._measured is None and len(self._times_n):
            firsts = np.flatnonzero(np.diff(self._times_n, prepend=-np.inf) > 0)
            if is_last or (len(self._times_n) >= MEASURED_ROWS and len(firsts) >= MEASURED_TICKS):
                used = firsts[: max(MEASURED_TICKS, int(np.searchsorted(firsts, MEASURED_ROWS)))]
                self._measured = _measure(self._times_n, used, 1 / (self.from_hz or self.rate_hz), not self.from_hz)
                self._filter = _low_pass(self.rate_hz * self._measured[0])
            elif len(self._times_n) > LARGEST_UNMEASURED:
                raise UnusableError(f"timestamps stand still: {len(self._times_n)} rows have {len(firsts)} times")

    @property
    def _margin(self) -> int:
        return SPLINE_MARGIN + (0 if self._filter is None else len(self._filter) // 2)

    def _interpolated(
        self, times_n: Float64[np.ndarray, " n"], signal_nxC: Float32[np.ndarray, "n C"], upto_s: float
    ) -> Iterator[Float32[np.ndarray, "m C"]]:
        """The rows not given yet up to a time; those before the first sample are NaN."""
        if self._start_s is None:
            self._start_s = float(times_n[0])
        last = int(np.floor((upto_s - self._start_s) * self.rate_hz + TOLERANCE))
        if last < self._rows:
            return
        first = max(self._rows, int(np.ceil((times_n[0] - self._start_s) * self.rate_hz - TOLERANCE)))
        if (first - self._rows) / self.rate_hz > LONGEST_GAP_DAYS * 86400:
            raise UnusableError(f"wrong clock: the timestamps jump by more than {LONGEST_GAP_DAYS} days")
        yield np.full((first - self._rows, signal_nxC.shape[1]), np.nan, np.float32)
        at_m = np.interp(self._start_s + np.arange(first, last + 1) / self.rate_hz, times_n, np.arange(len(times_n)))
        self._rows = last + 1
        if not len(at_m):
            return
        begin = max(0, int(at_m[0]) - self._margin)
        used_nxC = signal_nxC[begin : int(at_m[-1]) + self._margin + 2].astype(np.float64)
        if self._filter is not None:
            used_nxC = scipy.ndimage.convolve1d(used_nxC, self._filter, axis=0, mode="nearest")
        if len(used_nxC) == 1:
            yield np.repeat(used_nxC.astype(np.float32), len(at_m), axis=0)
        else:
            yield CubicSpline(np.arange(len(used_nxC)), used_nxC)(at_m - begin).astype(np.float32)

    def _joined(self, rows: Iterator[np.ndarray]) -> EvenSignal:
        first, channels = self._rows, self._signal_nxC.shape[1]
        signal_MxC = np.concatenate([np.empty((0, channels), np.float32), *rows])
        return EvenSignal(self.first_s + first / self.rate_hz, signal_MxC, np.isnan(signal_MxC[:, 0]))


def _measure(
    times_n: Float64[np.ndarray, " n"], firsts: Int64[np.ndarray, " k"], period: float, measures_period: bool
) -> tuple[float, float]:
    """Seconds from sample to sample, and from tick to tick of the clock.

    Args:
        times_n: seconds of each sample.
        firsts: the first rows of the first timestamps.
        period: seconds from sample to sample as expected.
        measures_period: measure it instead, where there are samples enough.
    """
    if measures_period and len(firsts) > 2:
        # A median over chunks: gaps affect few of them. The first timestamp's samples may be an incomplete group.
        marks = firsts[np.unique(np.linspace(1, len(firsts) - 1, MEASURED_CHUNKS + 1).astype(int))]
        period = float(np.median(np.diff(times_n[marks]) / np.diff(marks)))
    ticks = times_n[firsts]
    ticks = ticks[np.diff(ticks, prepend=-np.inf) >= TICK * period]
    return period, float(np.median(np.diff(ticks))) if len(ticks) > 1 else period


def _spread(
    times_n: Float64[np.ndarray, " n"], ticks: Int64[np.ndarray, " k"], period: float, begins: bool
) -> Float64[np.ndarray, " n"]:
    """The timestamps, with those of samples that share a tick of the clock spread up to the next tick.

    Args:
        times_n: seconds of each sample of a segment.
        ticks: indices of the samples at which the clock ticks; the first is 0.
        period: seconds from sample to sample.
        begins: whether the segment begins here, perhaps in the middle of a tick.
    """
    if len(ticks) == len(times_n):
        return times_n
    knots_k, groups_k = times_n[ticks], np.diff(ticks, append=len(times_n))
    if begins and groups_k[0] > 1 and len(ticks) > 1:
        knots_k = knots_k.copy()
        knots_k[0] = max(knots_k[0], knots_k[1] - groups_k[0] * period)
    spacing_k = np.minimum(np.diff(knots_k, append=np.inf) / groups_k, COARSE * period)
    spacing_k[-1] = period
    within_n = np.arange(len(times_n)) - np.repeat(ticks, groups_k)
    return np.repeat(knots_k, groups_k) + within_n * np.repeat(spacing_k, groups_k)


def _low_pass(ratio: float) -> Float64[np.ndarray, " taps"] | None:
    """A zero-phase filter that keeps the band of the lower rate, or None where the rate hardly decreases.

    Args:
        ratio: the new rate as a fraction of the old one.
    """
    if ratio * ALIASED > 1:
        return None
    half = int(np.ceil(FILTER_HALF / ratio))
    return np.asarray(scipy.signal.firwin(2 * half + 1, ratio, window=("kaiser", 5.0)))  # pyright: ignore[reportArgumentType]
