"""Samples with times of their own, brought onto one even clock: short gaps bridged, recordings ended at long ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce

import numpy as np
from jaxtyping import Float, Float64, Int

from selfpab_jax.data.har.base import Published, turned_upright
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError
from selfpab_jax.data.sources.checks import check_signal

GAP_LIMIT = 0.2
"""Seconds without a sample that a straight line bridges: a fifth of a spectrogram window, less than half a step."""
LEAST_SECONDS = 1.0
"""A stretch shorter than one spectrogram window is left out."""
RATE_TOLERANCE = 0.05
LEAST_RATE = 0.25
"""Share of the declared rate below which interpolation would make up too much of the signal."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Stream:
    """A sensor's samples: times in seconds, strictly increasing, not necessarily even; all values finite."""

    times_N: Float64[np.ndarray, " N"]
    signal_Nx3: Float[np.ndarray, "N 3"]

    @property
    def span(self) -> Span:
        """Times of the first and last sample."""
        return float(self.times_N[0]), float(self.times_N[-1])


@dataclass(frozen=True)
class Stretch:
    """A continuous part of several sensors on one even clock."""

    times_N: Float64[np.ndarray, " N"]
    signals: tuple[Float64[np.ndarray, "N 3"], ...]

    @property
    def span(self) -> Span:
        """Times of the first and last sample."""
        return float(self.times_N[0]), float(self.times_N[-1])


def stream_of(times_N: Float64[np.ndarray, " N"], signal_Nx3: Float[np.ndarray, "N 3"]) -> Stream:
    """The samples whose time and values are all there, in order of time, the first of those that share a time.

    Raises:
        UnusableError: nothing is left.
    """
    there_N = np.isfinite(times_N) & np.isfinite(signal_Nx3).all(axis=1)
    if not there_N.any():
        raise UnusableError(f"no values: each of the {len(times_N)} rows lacks its time or a part of its acceleration")
    times_N, first_N = np.unique(times_N[there_N], return_index=True)
    return Stream(times_N, signal_Nx3[there_N][first_N])


def steady_times(times_N: Float64[np.ndarray, " N"], rate_hz: float) -> Float64[np.ndarray, " N"]:
    """The times without the rounding of their text, where that puts each row on a tick of its own; else unchanged."""
    ticks_N = np.rint((times_N - times_N[0]) * rate_hz)
    return times_N[0] + ticks_N / rate_hz if (np.diff(ticks_N) >= 1).all() else times_N


def spans(times_N: Float64[np.ndarray, " N"], gap_limit: float) -> list[Span]:
    """(first, last) time of every run of samples without a step above gap_limit seconds."""
    ends_n = np.flatnonzero(np.diff(times_N) > gap_limit + 1e-6)
    firsts, lasts = np.concatenate([[0], ends_n + 1]), np.concatenate([ends_n, [len(times_N) - 1]])
    return [(float(times_N[first]), float(times_N[last])) for first, last in zip(firsts, lasts, strict=True)]


def overlaps(ours: Sequence[Span], theirs: Sequence[Span]) -> list[Span]:
    """Where two ordered lists of spans overlap, in order."""
    return [(max(a, c), min(b, d)) for a, b in ours for c, d in theirs if max(a, c) < min(b, d)]


def common_stretches(streams: Sequence[Stream], rate_hz: float, gap_limit: float = GAP_LIMIT) -> list[Stretch]:
    """What all sensors have at the same time, linearly interpolated onto one even clock a stretch.

    Args:
        streams: of the sensors, whose clocks tick differently but tell the same time.
        rate_hz: of the clock; it starts anew, with the first common time, in each stretch.
        gap_limit: seconds without a sample of one sensor that end a stretch.

    Returns:
        Stretches of at least `LEAST_SECONDS`, in order of time.
    """
    common = reduce(overlaps, [spans(stream.times_N, gap_limit) for stream in streams])
    stretches = []
    for start, end in common:
        if end - start < LEAST_SECONDS:
            continue
        # A tick that rounding puts just behind the end still counts.
        times_N = start + np.arange(int((end - start) * rate_hz + 1e-6) + 1) / rate_hz
        signals = tuple(
            np.stack([np.interp(times_N, stream.times_N, axis_N) for axis_N in stream.signal_Nx3.T], axis=1)
            for stream in streams
        )
        stretches.append(Stretch(times_N, signals))
    return stretches


def nearest(times_N: Float64[np.ndarray, " N"], at_M: Float64[np.ndarray, " M"]) -> Int[np.ndarray, " M"]:
    """Index of the nearest of the increasing times, the earlier of two as near."""
    after_M = np.clip(np.searchsorted(times_N, at_M), 1, max(len(times_N) - 1, 1))
    if len(times_N) == 1:
        return np.zeros(len(at_M), np.int64)
    return after_M - (at_M - times_N[after_M - 1] <= times_N[after_M] - at_M)


def rate_notes(stream: Stream, rate_hz: float, what: str) -> tuple[str, ...]:
    """A line where the samples come at another rate than declared; they are interpolated to it all the same.

    Raises:
        UnusableError: below a quarter of the declared rate.
    """
    steps_n = np.diff(stream.times_N)
    if not len(steps_n):
        raise UnusableError(f"{what}: a single sample")
    measured = 1 / float(np.median(steps_n))
    if measured < LEAST_RATE * rate_hz:
        raise UnusableError(f"wrong rate: {what} has {measured:.3g} samples a second, not about {rate_hz:g}")
    if abs(measured / rate_hz - 1) <= RATE_TOLERANCE:
        return ()
    return (f"{what} has {measured:.3g} samples a second: interpolated to the declared {rate_hz:g}",)


def left_out(stretches: Sequence[Stretch], recorded: Sequence[Span], gap_limit: float) -> tuple[str, ...]:
    """A line on the recorded time that is in no stretch, where that is more than a second."""
    whole = sum(end - start for start, end in recorded)
    lost = whole - sum(stretch.span[1] - stretch.span[0] for stretch in stretches)
    if lost <= LEAST_SECONDS:
        return ()
    return (
        f"{lost:.4g} of {whole:.4g} s left out: a sensor has no values there for more than "
        f"{gap_limit:g} s at a time, or less than {LEAST_SECONDS:g} s lie between two such gaps",
    )


def believed(
    source: Published,
    file: SourceFile,
    stretches: Sequence[Stretch],
    labels_at: Callable[[Float64[np.ndarray, " N"]], Int[np.ndarray, " N"]],
    *,
    moment: Callable[[float], datetime | None] | None = None,
    gravity_C: Float[np.ndarray, " C"] | None = None,
) -> tuple[list[Recording], tuple[str, ...]]:
    """The stretches of a file whose signal can be believed as recordings, and a line on each of the others.

    Args:
        source: whose conversion to g and HUNT4's axes, channels and rate are taken.
        file: they come from.
        stretches: of the chosen sensors' published values.
        labels_at: class indices at some times.
        moment: date and time of a stretch's first time, where its clock tells them.
        gravity_C: what the channels show upright, where sensors are to be turned by it; None: axes as declared.

    Raises:
        UnusableError: none is left; with the reason of the first.
    """
    kept, notes, rate_hz = [], [], source.card.rate_hz
    for stretch in stretches:
        first = round((stretch.times_N[0] - stretches[0].times_N[0]) * rate_hz)
        name = f"{file.name}:{first}" if first else file.name
        signal_NxC = source.converted(stretch.signals)
        if gravity_C is not None:
            signal_NxC = turned_upright(signal_NxC, gravity_C)
        labels_N = labels_at(stretch.times_N).astype(np.int32)
        try:
            check_signal(signal_NxC, source.channels, rate_hz)
        except UnusableError as error:
            notes.append(f"{len(signal_NxC) / rate_hz:.4g} s of {name} left out: {error}")
        else:
            start = moment(float(stretch.times_N[0])) if moment else None
            kept.append(Recording(file.subject, name, start, rate_hz, signal_NxC, labels_N))
    if not kept:
        raise UnusableError(notes[0] if notes else f"never do all sensors have values for {LEAST_SECONDS:g} s without a gap")
    return kept, tuple(notes)
