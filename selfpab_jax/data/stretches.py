"""Where recordings break into continuous stretches, which windows never cross."""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from selfpab_jax.data.source import Rejected

RATE_TOLERANCE = 0.05
CHUNKS = 20
LEAST_ROWS = 50
ROUNDING_MS = 2


def stretches(
    rows: int,
    times_N: Float64[np.ndarray, " N"] | None,
    segments_N: Int[np.ndarray, " N"] | None,
    gap_limit: float,
) -> list[tuple[int, int]]:
    """(first, last + 1) of every run of rows without a change of segment or a step in time above gap_limit seconds.

    Raises:
        Rejected: time runs backwards within a segment (between segments it may: they need not be in order).
    """
    breaks_n = np.zeros(max(rows - 1, 0), bool)
    if segments_N is not None:
        breaks_n |= np.diff(segments_N) != 0
    if times_N is not None:
        steps_n = np.diff(times_N)
        backwards_n = (steps_n < 0) & ~breaks_n
        if backwards_n.any():
            raise Rejected(
                f"timestamps out of order: row {int(backwards_n.argmax()) + 1} is earlier than the one before"
            )
        breaks_n |= steps_n > gap_limit
    edges = [0, *(np.flatnonzero(breaks_n) + 1).tolist(), rows]
    return list(pairwise(edges))


def check_rate(times_N: Float64[np.ndarray, " N"], pieces: list[tuple[int, int]], rate_hz: float) -> None:
    """Compares the rows a second of the longest stretch, if it has a thousand rows, with the rate that was given.

    Raises:
        Rejected: they differ by more than 5%.
    """
    first, last = max(pieces, key=lambda piece: piece[1] - piece[0])
    marks = np.linspace(first, last - 1, CHUNKS + 1).astype(int)
    spans = np.diff(times_N[marks])
    if last - first < CHUNKS * LEAST_ROWS or not (spans > 0).all():
        return
    # The median of many parts: a gap that was let pass, or a clock in whole seconds, disturbs few of them.
    measured = float(np.median(np.diff(marks) / spans))
    if abs(measured / rate_hz - 1) > RATE_TOLERANCE:
        raise Rejected(f"wrong rate: the timestamps say {measured:.4g} Hz, not {rate_hz:g} Hz (--rate)")


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
