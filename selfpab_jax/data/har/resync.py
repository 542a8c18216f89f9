"""Sensors with clocks of their own, or with lost samples, resampled onto one even clock.

Short gaps are bridged by straight lines; longer ones end a recording.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from selfpab_jax.data.har.axes import Orientation, check_orientation, rotate_upright
from selfpab_jax.data.har.base import PublishedDataset, with_notes
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError
from selfpab_jax.data.sources.checks import check_signal

GAP_LIMIT = 0.2
"""Seconds without a sample that a straight line bridges: a fifth of a spectrogram window, less than half a step."""
MIN_SECONDS = 1.0
"""A segment shorter than one spectrogram window is left out."""
RATE_TOLERANCE = 0.05
"""A relative difference from the declared sampling rate above this gets a note."""
MIN_RATE_FRACTION = 0.25
"""Fraction of the declared sampling rate below which interpolation would invent too much of the signal."""

Span = tuple[float, float]
"""Times of the first and the last sample, in seconds."""
LabelsAt = Callable[[Float64[np.ndarray, " M"]], Int[np.ndarray, " M"]]
"""Class indices at given times."""


@dataclass(frozen=True)
class SampleStream:
    """A sensor's samples: times in seconds, strictly increasing but not necessarily even; all values are finite."""

    times_N: Float64[np.ndarray, " N"]
    signal_Nx3: Float[np.ndarray, "N 3"]

    @property
    def span(self) -> Span:
        """Times of the first and the last sample."""
        return float(self.times_N[0]), float(self.times_N[-1])


@dataclass(frozen=True)
class SyncedSegment:
    """A continuous segment of several sensors on one even clock."""

    times_N: Float64[np.ndarray, " N"]
    signals: tuple[Float64[np.ndarray, "N 3"], ...]

    @property
    def span(self) -> Span:
        """Times of the first and the last sample."""
        return float(self.times_N[0]), float(self.times_N[-1])


@dataclass(frozen=True)
class ResyncedDataset(PublishedDataset):
    """A published data set whose sensors are resampled onto one clock of the card's sampling rate.

    Attributes:
        gap_limit: seconds without a sample that are bridged by a straight line; longer gaps end a recording.
    """

    gap_limit: float = GAP_LIMIT

    def resynced_recordings(
        self,
        file: SourceFile,
        streams: Sequence[SampleStream],
        labels_at: LabelsAt,
        *,
        recorded: Span,
        notes: tuple[str, ...] = (),
        start_at: Callable[[float], datetime | None] | None = None,
        gravity_C: Float[np.ndarray, " C"] | None = None,
    ) -> list[Recording]:
        """The recordings of a file, with notes on the first one.

        Args:
            file: the file.
            streams: published samples of the selected sensors.
            labels_at: class indices at given times.
            recorded: times of the file's first and last sample.
            notes: notes on the file so far.
            start_at: see `plausible_recordings`.
            gravity_C: see `plausible_recordings`.

        Raises:
            UnusableError: see `plausible_recordings`.
        """
        segments = synced_segments(streams, self.card.rate_hz, self.gap_limit)
        recordings, implausible = plausible_recordings(
            self, file, segments, labels_at, start_at=start_at, gravity_C=gravity_C
        )
        lost = lost_time_notes(segments, [recorded], self.gap_limit)
        return with_notes(recordings, notes + lost + implausible)


@dataclass(frozen=True)
class OrientedDataset(ResyncedDataset):
    """A resynced data set whose publishers do not state how the sensors were mounted.

    Attributes:
        orientation: `gravity` rotates each sensor by multiples of 90 degrees so that gravity is on x at about -1 g;
            y and z are then right up to a rotation about the vertical. `declared` keeps the card's axes.
    """

    orientation: Orientation = "gravity"

    def __post_init__(self) -> None:
        check_orientation(self.orientation)
        super().__post_init__()


def sample_stream(times_N: Float64[np.ndarray, " N"], signal_Nx3: Float[np.ndarray, "N 3"]) -> SampleStream:
    """The samples with a time and three values, in order of time; of those that share a time the first.

    Raises:
        UnusableError: none is left.
    """
    complete_N = np.isfinite(times_N) & np.isfinite(signal_Nx3).all(axis=1)
    if not complete_N.any():
        raise UnusableError(f"no values: each of the {len(times_N)} rows lacks its time or an axis of acceleration")
    times_M, first_M = np.unique(times_N[complete_N], return_index=True)
    return SampleStream(times_M, signal_Nx3[complete_N][first_M])


def unrounded_times(times_N: Float64[np.ndarray, " N"], rate_hz: float) -> Float64[np.ndarray, " N"]:
    """The times without the rounding of their text, if each row then has its own tick of an even clock; else as is."""
    ticks_N = np.rint((times_N - times_N[0]) * rate_hz)
    return times_N[0] + ticks_N / rate_hz if (np.diff(ticks_N) >= 1).all() else times_N


def continuous_spans(times_N: Float64[np.ndarray, " N"], gap_limit: float) -> list[Span]:
    """Spans of the samples without a step above gap_limit seconds."""
    ends_n = np.flatnonzero(np.diff(times_N) > gap_limit + 1e-6)
    firsts, lasts = np.concatenate([[0], ends_n + 1]), np.concatenate([ends_n, [len(times_N) - 1]])
    return [(float(times_N[first]), float(times_N[last])) for first, last in zip(firsts, lasts, strict=True)]


def overlaps(ours: Sequence[Span], theirs: Sequence[Span]) -> list[Span]:
    """Where two ordered lists of spans overlap, in order."""
    return [(max(a, c), min(b, d)) for a, b in ours for c, d in theirs if max(a, c) < min(b, d)]


def synced_segments(
    streams: Sequence[SampleStream], rate_hz: float, gap_limit: float = GAP_LIMIT
) -> list[SyncedSegment]:
    """What all sensors recorded at the same time, linearly interpolated onto an even clock.

    Args:
        streams: samples of the sensors, whose clocks tick differently but show the same time.
        rate_hz: rate of the even clock; it starts anew, at the first common time, in each segment.
        gap_limit: seconds without a sample of one sensor that end a segment.

    Returns:
        Segments of at least `MIN_SECONDS`, in order of time.
    """
    common = reduce(overlaps, [continuous_spans(stream.times_N, gap_limit) for stream in streams])
    segments = []
    for start, end in common:
        if end - start < MIN_SECONDS:
            continue
        # A tick that rounding puts just after the end still counts.
        times_N = start + np.arange(int((end - start) * rate_hz + 1e-6) + 1) / rate_hz
        signals = tuple(
            np.stack([np.interp(times_N, stream.times_N, axis_N) for axis_N in stream.signal_Nx3.T], axis=1)
            for stream in streams
        )
        segments.append(SyncedSegment(times_N, signals))
    return segments


def nearest(times_N: Float64[np.ndarray, " N"], at_M: Float64[np.ndarray, " M"]) -> Int64[np.ndarray, " M"]:
    """Index of the nearest of the increasing times; of two equally near the earlier."""
    if len(times_N) == 1:
        return np.zeros(len(at_M), np.int64)
    after_M = np.clip(np.searchsorted(times_N, at_M), 1, len(times_N) - 1)
    return after_M - (at_M - times_N[after_M - 1] <= times_N[after_M] - at_M)


def rate_notes(stream: SampleStream, rate_hz: float, device: str) -> tuple[str, ...]:
    """A note if the sampling rate is not the declared one, to which the samples are interpolated all the same.

    Args:
        stream: samples of a sensor.
        rate_hz: declared sampling rate.
        device: name of the sensor, for messages.

    Raises:
        UnusableError: the rate is below `MIN_RATE_FRACTION` of the declared one.
    """
    steps_n = np.diff(stream.times_N)
    if not len(steps_n):
        raise UnusableError(f"too short: {device} has a single sample")
    measured = 1 / float(np.median(steps_n))
    if measured < MIN_RATE_FRACTION * rate_hz:
        raise UnusableError(f"wrong rate: {device} has {measured:.3g} Hz, not about {rate_hz:g} Hz")
    if abs(measured / rate_hz - 1) <= RATE_TOLERANCE:
        return ()
    return (f"{device} has {measured:.3g} Hz: interpolated to the declared {rate_hz:g} Hz",)


def lost_time_notes(segments: Sequence[SyncedSegment], recorded: Sequence[Span], gap_limit: float) -> tuple[str, ...]:
    """A note on recorded time that is in no segment, if it is more than `MIN_SECONDS`.

    Args:
        segments: segments of the file.
        recorded: spans that the file recorded.
        gap_limit: the limit that the segments were made with.
    """
    total = sum(end - start for start, end in recorded)
    lost = total - sum(end - start for start, end in (segment.span for segment in segments))
    if lost <= MIN_SECONDS:
        return ()
    return (
        f"{lost:.4g} of {total:.4g} s left out: a sensor has no values for more than {gap_limit:g} s at a time, "
        f"or there are less than {MIN_SECONDS:g} s between two such gaps",
    )


def plausible_recordings(
    source: PublishedDataset,
    file: SourceFile,
    segments: Sequence[SyncedSegment],
    labels_at: LabelsAt,
    *,
    start_at: Callable[[float], datetime | None] | None = None,
    gravity_C: Float[np.ndarray, " C"] | None = None,
) -> tuple[list[Recording], tuple[str, ...]]:
    """The segments of a file with a plausible signal as recordings, and a note on each other segment.

    Args:
        source: data set whose unit, axes, channels and sampling rate apply.
        file: the file.
        segments: published values of the selected sensors.
        labels_at: class indices at given times.
        start_at: date and time of a segment's first sample, if the clock has them.
        gravity_C: mean reading of the converted channels while the subject is upright, by which sensors are rotated;
            None: axes as declared.

    Raises:
        UnusableError: no segment is left.
    """
    kept, notes, rate_hz = [], [], source.card.rate_hz
    for segment in segments:
        first = round((segment.times_N[0] - segments[0].times_N[0]) * rate_hz)
        name = f"{file.name}:{first}" if first else file.name
        signal_NxC = source.convert(segment.signals)
        if gravity_C is not None:
            signal_NxC = rotate_upright(signal_NxC, gravity_C)
        labels_N = labels_at(segment.times_N).astype(np.int32)
        try:
            check_signal(signal_NxC, source.channels, rate_hz)
        except UnusableError as error:
            notes.append(f"{len(signal_NxC) / rate_hz:.4g} s of {name} left out: {error}")
        else:
            start = start_at(float(segment.times_N[0])) if start_at else None
            kept.append(Recording(file.subject, name, start, rate_hz, signal_NxC, labels_N))
    if not kept:
        raise UnusableError(
            notes[0] if notes else f"no common time: the sensors never have values for {MIN_SECONDS:g} s without a gap"
        )
    return kept, tuple(notes)
