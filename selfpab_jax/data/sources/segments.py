"""Continuous segments of recordings: breaks in time, and short runs of missing samples."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from selfpab_jax.data.sources.base import Recording, UnusableError

# Where recordings break into continuous stretches, which windows never cross.

RATE_TOLERANCE = 0.05
CHUNKS = 20
LEAST_ROWS = 50
ROUNDING_MS = 2


def continuous_segments(
    rows: int,
    times_N: Float64[np.ndarray, " N"] | None,
    segments_N: Int[np.ndarray, " N"] | None,
    gap_limit: float,
) -> list[tuple[int, int]]:
    """(first, last + 1) of every run of rows without a change of segment or a step in time above gap_limit seconds.

    Raises:
        UnusableError: time runs backwards within a segment (between segments it may: they need not be in order).
    """
    breaks_n = np.zeros(max(rows - 1, 0), bool)
    if segments_N is not None:
        breaks_n |= np.diff(segments_N) != 0
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


def check_rate(times_N: Float64[np.ndarray, " N"], pieces: list[tuple[int, int]], rate_hz: float) -> None:
    """Compares the rows a second of the longest stretch, if it has a thousand rows, with the rate that was given.

    Raises:
        UnusableError: they differ by more than 5%.
    """
    first, last = max(pieces, key=lambda piece: piece[1] - piece[0])
    marks = np.linspace(first, last - 1, CHUNKS + 1).astype(int)
    spans = np.diff(times_N[marks])
    if last - first < CHUNKS * LEAST_ROWS or not (spans > 0).all():
        return
    # The median of many parts: a gap that was let pass, or a clock in whole seconds, disturbs few of them.
    measured = float(np.median(np.diff(marks) / spans))
    if abs(measured / rate_hz - 1) > RATE_TOLERANCE:
        raise UnusableError(f"wrong rate: the timestamps say {measured:.4g} Hz, not {rate_hz:g} Hz (--rate)")


def first_windows(
    subject: np.ndarray, recording: np.ndarray, start_ms: Int64[np.ndarray, " R"], shift_seconds: float
) -> Bool[np.ndarray, " R"]:
    """Which windows, listed as they were built, are the first of a stretch: others add only their shift to the hours.

    Stretches of one file have different names. Two files of one name (in two folders, or CSV beside Parquet) are told
    apart by time, where it is known.
    """
    follows = (subject[1:] == subject[:-1]) & (recording[1:] == recording[:-1])
    late_ms = np.abs(np.diff(start_ms) - 1000 * shift_seconds)
    follows &= ((start_ms[1:] < 0) & (start_ms[:-1] < 0)) | (late_ms <= ROUNDING_MS)
    return np.concatenate([np.ones(min(len(subject), 1), bool), ~follows])


# Samples that are not numbers: short gaps are bridged, longer ones end a recording.

BRIDGED_SECONDS = 0.2
"""Longest gap that a straight line fills: a lost radio packet or two, a fifth of a published frame."""
LARGEST_G = 1e6
"""Beyond it is no acceleration, whatever the unit, and squares of it would leave float32: as if it were NaN."""


def bridge_gaps(recording: Recording, channels: tuple[str, ...], note: Callable[[str, str], None]) -> list[Recording]:
    """The recording without NaN and absurd numbers: itself, or its stretches between gaps longer than BRIDGED_SECONDS.

    The original drops such rows and joins what is left, which makes steps in time; here time is kept.

    Args:
        recording: any; its labels go along.
        channels: a name per column.
        note: told (subject and name, what was found), where something was.
    """
    there_NxC = np.abs(recording.signal_NxC) <= LARGEST_G
    if there_NxC.all():
        return [recording]
    bad_N = np.asarray(~there_NxC.all(axis=1))
    what, rate = f"{recording.subject}, {recording.name}", recording.rate_hz
    if bad_N.all():
        seen_C = np.asarray(there_NxC.any(axis=0))
        never = ", ".join(channel for channel, seen in zip(channels, seen_C, strict=True) if not seen)
        missing = f" ({never} never has: is a sensor missing?)" if never else ""
        note(what, f"no row has numbers in all channels{missing}")
        return []
    absurd = np.isfinite(recording.signal_NxC[bad_N]).all(axis=1).any()
    kind = f"NaN or more than {LARGEST_G:.0e} g" if absurd else "NaN"
    first_g, last_g = _runs(bad_N)
    at_edge_g = (first_g == 0) | (last_g == len(bad_N))
    long_g = ((last_g - first_g) > BRIDGED_SECONDS * rate) | at_edge_g
    filled = int((last_g - first_g)[~long_g].sum())
    note(
        what,
        f"{kind} in {int(bad_N.sum())} of {len(bad_N)} rows: {filled} bridged in gaps up to {BRIDGED_SECONDS:g} s, "
        f"{int(bad_N.sum()) - filled} left out",
    )
    signal_NxC = recording.signal_NxC.copy()
    if filled:
        _fill(signal_NxC, bad_N, first_g, last_g)
    removed_N = np.zeros(len(bad_N), bool)
    for first, last in zip(first_g[long_g], last_g[long_g], strict=True):
        removed_N[first:last] = True
    pieces = []
    for first, last in zip(*_runs(~removed_N), strict=True):
        start = recording.start
        pieces.append(
            replace(
                recording,
                name=f"{recording.name}+{first}" if first else recording.name,
                start=None if start is None else start + timedelta(seconds=int(first) / rate),
                signal_NxC=signal_NxC[first:last],
                labels_N=None if recording.labels_N is None else recording.labels_N[first:last],
            )
        )
    return pieces


def _runs(true_N: Bool[np.ndarray, " N"]) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true_N, [False]]).astype(np.int8)))
    return edges[::2], edges[1::2]


def _fill(signal_NxC: np.ndarray, bad_N: np.ndarray, first_g: np.ndarray, last_g: np.ndarray) -> None:
    """Straight lines over the gaps' rows, in place; gaps at the ends get the nearest sample (they are cut away)."""
    rows = np.concatenate([np.arange(first, last) for first, last in zip(first_g, last_g, strict=True)])
    good = np.flatnonzero(~bad_N)
    for column_N in signal_NxC.T:
        column_N[rows] = np.interp(rows, good, column_N[good])
