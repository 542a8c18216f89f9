"""Samples that are not numbers: short gaps are bridged, longer ones end a recording."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
from jaxtyping import Bool

from selfpab_jax.data.recording import Recording

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
