"""Continuous segments of recordings: where time breaks, and short runs of missing samples."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int64

from selfpab_jax.data.sources.base import Recording, UnusableError

Segment = tuple[int, int]
"""First row, and one past the last."""

RATE_TOLERANCE = 0.05
SHORT_TOLERANCE = 0.25
RATE_CHUNKS = 20
ROWS_PER_CHUNK = 50
"""The rate is measured as a median over this many chunks, each of at least this many rows."""

OVERLAPPING_ROWS = 3
"""Where there are this many rows more than there is time for, a clock was set back; fewer are a matter of rounding."""
BRIDGED_SECONDS = 0.2
"""Longest gap that a straight line fills: a lost radio packet or two, a fifth of a published frame."""
LARGEST_G = 1e6
"""Larger values are treated as missing: no unit of acceleration has them, and their squares would overflow float32."""


def runs(true_N: Bool[np.ndarray, " N"]) -> tuple[Int64[np.ndarray, " R"], Int64[np.ndarray, " R"]]:
    """First index, and one past the last, of every run of True, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true_N, [False]]).astype(np.int8)))
    return edges[::2], edges[1::2]


def continuous_segments(
    rows: int,
    times_N: Float64[np.ndarray, " N"] | None,
    codes_N: Int[np.ndarray, " N"] | None,
    gap_limit: float,
) -> list[Segment]:
    """Segments without a change of code or a large step in time; windows never cross their edges.

    Args:
        rows: number of rows.
        times_N: seconds of each row, where known.
        codes_N: a number per row that changes where a new segment begins, if the recording has such marks.
        gap_limit: seconds; a longer step in time ends a segment.

    Raises:
        UnusableError: time runs backwards within a segment (segments themselves may be in any order).
    """
    breaks_n = np.zeros(max(rows - 1, 0), bool)
    if codes_N is not None:
        breaks_n |= np.diff(codes_N) != 0
    if times_N is not None:
        steps_n = np.diff(times_N)
        backwards_n = (steps_n < 0) & ~breaks_n
        if backwards_n.any():
            raise UnusableError(
                f"timestamps out of order: row {int(backwards_n.argmax()) + 1} is earlier than the one before"
            )
        breaks_n |= steps_n > gap_limit
    edges = [0, *(np.flatnonzero(breaks_n) + 1).tolist(), rows]
    return list(pairwise(edges))


def repeated_rows(times_N: Float64[np.ndarray, " N"], signal_NxC: Float32[np.ndarray, "N C"]) -> Bool[np.ndarray, " N"]:
    """Rows that have the time and the values of the row before, as tables that were joined have."""
    same_N = np.diff(times_N, prepend=np.nan) == 0
    same_N[1:] &= (signal_NxC[1:] == signal_NxC[:-1]).all(axis=1)
    return same_N


def time_order(
    times_N: Float64[np.ndarray, " N"], rate_hz: float, before_s: float
) -> tuple[Int64[np.ndarray, " M"], list[float]]:
    """Rows in the order of time, without those that a clock that was set back counted a second time.

    Swapped rows fill a hole in the time before them. Behind a clock that was set back there is no hole: its rows would
    come to lie between those that are there, so they are left out until time is where it was.

    Args:
        times_N: seconds of each row; all steps back are short.
        rate_hz: sampling rate.
        before_s: the latest time before the first row, or -infinity.

    Returns:
        Indices of the rows, and the seconds of each step back of the clock.
    """
    order_N = np.argsort(times_N, kind="stable")
    sorted_N = times_N[order_N]
    peak_N = np.maximum.accumulate(np.concatenate([[before_s], times_N]))[:-1]
    kept_N, back_s, end = np.ones(len(times_N), bool), [], 0
    for row in np.flatnonzero(np.diff(times_N, prepend=before_s) < 0).tolist():
        if row < end:
            continue
        span = float(peak_N[row] - times_N[row])
        held = np.searchsorted(sorted_N, peak_N[row], "right") - np.searchsorted(sorted_N, times_N[row], "left")
        held += round(max(0.0, before_s - times_N[row]) * rate_hz)  # rows of the block before
        if held - (span * rate_hz + 1) < OVERLAPPING_ROWS:
            continue
        end = row + int(np.argmax(np.append(times_N[row:] > peak_N[row], True)))
        kept_N[row:end] = False
        back_s.append(span)
    return order_N[kept_N[order_N]], back_s


def measured_rate(times_N: Float64[np.ndarray, " N"], segments: list[Segment]) -> tuple[float | None, float]:
    """The sampling rate by the timestamps of the longest segment, or of all where it is short, and its tolerance.

    Args:
        times_N: seconds of each row.
        segments: continuous segments of the rows.

    Returns:
        Hz, or None where it cannot be measured; and by which fraction it may differ from the declared rate.
    """
    first, last = max(segments, key=lambda segment: segment[1] - segment[0])
    if last - first < RATE_CHUNKS * ROWS_PER_CHUNK:
        # All segments together; their ends are uncertain by a tick, so only a gross error shows.
        rows_s = np.array([last - first - 1 for first, last in segments])
        spans_s = np.array([times_N[last - 1] - times_N[first] for first, last in segments])
        if rows_s.sum() < RATE_CHUNKS * ROWS_PER_CHUNK or not spans_s.sum() > 0:
            return None, SHORT_TOLERANCE
        return float(rows_s.sum() / spans_s.sum()), SHORT_TOLERANCE
    marks = np.linspace(first, last - 1, RATE_CHUNKS + 1).astype(int)
    spans = np.diff(times_N[marks])
    if not (spans > 0).all():
        return None, RATE_TOLERANCE
    # A median over chunks: a gap below the limit, or a clock in whole seconds, affects few of them.
    return float(np.median(np.diff(marks) / spans)), RATE_TOLERANCE


def check_rate(
    times_N: Float64[np.ndarray, " N"], segments: list[Segment], rate_hz: float, *, option: str | None = None
) -> None:
    """Compare the declared sampling rate with that of the timestamps.

    Args:
        times_N: seconds of each row.
        segments: continuous segments of the rows.
        rate_hz: declared rate.
        option: where the user set the rate, for the message.

    Raises:
        UnusableError: they differ by more than 5%, or by more than 25% in segments of fewer than a thousand rows.
    """
    measured, tolerance = measured_rate(times_N, segments)
    if measured is not None and abs(measured / rate_hz - 1) > tolerance:
        hint = f" ({option})" if option else ""
        raise UnusableError(f"wrong rate: the timestamps show {measured:.4g} Hz, not {rate_hz:g} Hz{hint}")


def bridge_gaps(recording: Recording, channels: tuple[str, ...], note: Callable[[str, str], None]) -> list[Recording]:
    """The recording without NaN and absurd numbers: short gaps are interpolated, longer ones split it.

    The original drops such rows and joins the rest, which makes steps in time; here time is kept.

    Args:
        recording: any recording; its labels are cut along.
        channels: a name per column, for the note.
        note: called with the recording's name and what was found, if anything was.

    Returns:
        The recording itself, or its segments between gaps longer than `BRIDGED_SECONDS`.
    """
    usable_NxC = np.abs(recording.signal_NxC) <= LARGEST_G
    if usable_NxC.all():
        return [recording]
    bad_N = np.asarray(~usable_NxC.all(axis=1))
    what, rate = f"{recording.subject}, {recording.name}", recording.rate_hz
    if bad_N.all():
        seen_C = np.asarray(usable_NxC.any(axis=0))
        never = ", ".join(channel for channel, seen in zip(channels, seen_C, strict=True) if not seen)
        missing = f" ({never} never has: is a sensor missing?)" if never else ""
        note(what, f"no row has numbers in all channels{missing}")
        return []
    absurd = np.isfinite(recording.signal_NxC[bad_N]).all(axis=1).any()
    kind = f"NaN or more than {LARGEST_G:.0e} g" if absurd else "NaN"
    first_g, last_g = runs(bad_N)
    at_edge_g = (first_g == 0) | (last_g == len(bad_N))
    long_g = ((last_g - first_g) > BRIDGED_SECONDS * rate) | at_edge_g
    filled = int((last_g - first_g)[~long_g].sum())
    note(
        what,
        f"{kind} in {int(bad_N.sum())} of {len(bad_N)} rows: {filled} bridged in gaps up to "
        f"{BRIDGED_SECONDS:g} s, {int(bad_N.sum()) - filled} left out",
    )
    signal_NxC = recording.signal_NxC.copy()
    if filled:
        _interpolate(signal_NxC, bad_N)
    removed_N = np.zeros(len(bad_N), bool)
    for first, last in zip(first_g[long_g], last_g[long_g], strict=True):
        removed_N[first:last] = True
    kept = replace(recording, signal_NxC=signal_NxC)
    return [cut(kept, int(first), int(last)) for first, last in zip(*runs(~removed_N), strict=True)]


def cut(recording: Recording, first: int, last: int) -> Recording:
    """The samples first to last - 1 as a recording of their own, with `+<first>` added to its name."""
    start, labels_N = recording.start, recording.labels_N
    return replace(
        recording,
        name=f"{recording.name}+{first}" if first else recording.name,
        start=None if start is None else start + timedelta(seconds=first / recording.rate_hz),
        signal_NxC=recording.signal_NxC[first:last],
        labels_N=None if labels_N is None else labels_N[first:last],
    )


def _interpolate(signal_NxC: np.ndarray, bad_N: np.ndarray) -> None:
    """Straight lines over the bad rows, in place; at the ends the nearest sample (those rows are cut away later)."""
    bad, good = np.flatnonzero(bad_N), np.flatnonzero(~bad_N)
    for column_N in signal_NxC.T:
        column_N[bad] = np.interp(bad, good, column_N[good])
