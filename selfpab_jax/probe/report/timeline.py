"""The timeline of a subject: true and predicted classes over all recordings, where they differ, and the signal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from selfpab_jax.data.sources.base import EPOCH
from selfpab_jax.probe.alignment import Predictions
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.metrics import SegmentFractions
from selfpab_jax.probe.report.style import RIGHT, TRUTH, UNKNOWN, WRONG, brief, color, new_figure
from selfpab_jax.signal.calendar import UNKNOWN_START

COLUMNS = 1200
"""Columns of time; what fills only part of a column is drawn paler."""
CLOCK_STEPS = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
"""Seconds between two labels of the clock."""
MOST_CLOCK_LABELS = 12


@dataclass(frozen=True)
class SignalColumns:
    """What is drawn of a signal: its range and mean in each of P columns of time, in g.

    Attributes:
        channels: `<sensor>_<axis>`.
        low_PxC: least values.
        mean_PxC: means.
        high_PxC: largest values.
    """

    channels: tuple[str, ...]
    low_PxC: Float32[np.ndarray, "P C"]
    mean_PxC: Float32[np.ndarray, "P C"]
    high_PxC: Float32[np.ndarray, "P C"]

    @property
    def sensors(self) -> dict[str, list[int]]:
        """Columns of each sensor."""
        found: dict[str, list[int]] = {}
        for column, channel in enumerate(self.channels):
            found.setdefault(channel.rpartition("_")[0], []).append(column)
        return found


@dataclass(frozen=True)
class Timeline:
    """Truth and prediction of one subject, recordings joined in order.

    Attributes:
        subject: name of the subject.
        truth_N: class index of each sample, -1 for no label.
        predicted_N: class index of each sample (M = N, which `draw_timeline` checks).
        rate_hz: of the samples.
        starts: first sample of each recording; the first is 0.
        start_ms: ms since 1970 on the recorder's clock, for a single recording that knows it; otherwise -1.
        signal: None for no picture of it.
        fractions: that classes take of segments, for each recording; empty where they are not scored.
    """

    subject: str
    truth_N: Int[np.ndarray, " N"]
    predicted_N: Int[np.ndarray, " M"]
    rate_hz: float
    starts: tuple[int, ...] = (0,)
    start_ms: int = UNKNOWN_START
    signal: SignalColumns | None = None
    fractions: tuple[SegmentFractions | None, ...] = ()

    @property
    def seconds(self) -> float:
        """Length of all recordings."""
        return len(self.truth_N) / self.rate_hz

    @property
    def wrong(self) -> float:
        """Fraction of the labeled samples that were predicted as another class; 0 if none is labeled."""
        labeled = self.truth_N >= 0
        return float((self.truth_N != self.predicted_N)[labeled].mean()) if labeled.any() else 0.0


def timelines_of(
    corpus: Corpus, predictions: Predictions, fractions: Mapping[int, SegmentFractions] | None = None
) -> list[Timeline]:
    """Truth and prediction of each predicted subject, with the recordings joined in order.

    Args:
        corpus: with truth and signal.
        predictions: by index of recording.
        fractions: that classes take of segments, by index of recording, where they are scored.
    """
    of_subject: dict[str, list[int]] = {}
    for index in sorted(predictions):
        of_subject.setdefault(corpus.recordings[index].subject, []).append(index)
    fractions = fractions or {}
    return [_timeline(corpus, predictions, fractions, subject, indices) for subject, indices in of_subject.items()]


def _timeline(
    corpus: Corpus,
    predictions: Predictions,
    fractions: Mapping[int, SegmentFractions],
    subject: str,
    indices: Sequence[int],
) -> Timeline:
    lengths = [len(predictions[index]) for index in indices]
    starts = tuple(int(start) for start in np.cumsum([0, *lengths[:-1]]))
    truth_N = np.concatenate([corpus.recordings[index].labels_N for index in indices])
    predicted_N = np.concatenate([predictions[index] for index in indices])
    signals = [corpus.recordings[index].signal_NxC for index in indices]
    signal_NxC = signals[0] if len(signals) == 1 else np.concatenate(signals)
    return Timeline(
        subject,
        truth_N,
        predicted_N,
        corpus.spectrogram.rate_hz,
        starts,
        corpus.recordings[indices[0]].start_ms if len(indices) == 1 else UNKNOWN_START,
        signal_columns(signal_NxC, corpus.channels, min(COLUMNS, len(signal_NxC))),
        tuple(fractions.get(index) for index in indices) if fractions else (),
    )


def signal_columns(signal_NxC: Float32[np.ndarray, "N C"], channels: tuple[str, ...], columns: int) -> SignalColumns:
    """Range and mean of a signal in columns of time.

    Args:
        signal_NxC: in g.
        channels: names.
        columns: number of columns P, at most N.
    """
    edges_P = -(-np.arange(columns) * len(signal_NxC) // columns)  # the first sample of each column
    counts_Px1 = np.diff(edges_P, append=len(signal_NxC))[:, None].astype(np.float32)
    mean_PxC = np.add.reduceat(signal_NxC, edges_P) / counts_Px1
    low_PxC, high_PxC = (bound.reduceat(signal_NxC, edges_P) for bound in (np.minimum, np.maximum))
    return SignalColumns(channels, low_PxC, mean_PxC, high_PxC)


def column_fractions(
    indices_N: Int[np.ndarray, " N"], keep_N: Bool[np.ndarray, " N"], classes: int, columns: int
) -> Float64[np.ndarray, "Y P"]:
    """The fraction of each class in each of P columns of time.

    Args:
        indices_N: class index of each sample.
        keep_N: samples that are counted; the others count in no class.
        classes: number of classes Y.
        columns: number of columns P.
    """
    column_N = np.arange(len(indices_N)) * columns // len(indices_N)
    length_P = np.bincount(column_N, minlength=columns)
    flat = indices_N[keep_N].astype(np.int64) * columns + column_N[keep_N]
    return np.bincount(flat, minlength=classes * columns).reshape(classes, columns) / length_P


def draw_timeline(timeline: Timeline, classes: tuple[str, ...], path: Path, *, columns: int = COLUMNS) -> None:
    """One row per class that occurs: truth in its upper lane, prediction in its lower one; errors in orange.

    The strip below shows which fraction of each column of time is wrong. Then follow, where they are scored, the
    fractions of segments (true above predicted), and the signal of each sensor.

    Args:
        timeline: of one subject.
        classes: names by index.
        path: of the PNG file.
        columns: at most this many columns of time.

    Raises:
        ValueError: there are no samples, or another number of predictions.
    """
    truth_N, predicted_N = np.asarray(timeline.truth_N), np.asarray(timeline.predicted_N)
    if not len(truth_N) or len(truth_N) != len(predicted_N):
        raise ValueError(f"{timeline.subject}: {len(truth_N)} samples and {len(predicted_N)} predictions")
    labeled_N, right_N = truth_N >= 0, truth_N == predicted_N
    columns, count = min(columns, len(truth_N)), len(classes)
    truth_YxP = column_fractions(truth_N, labeled_N, count, columns)
    right_YxP = column_fractions(predicted_N, labeled_N & right_N, count, columns)
    wrong_YxP = column_fractions(predicted_N, labeled_N & ~right_N, count, columns)
    unknown_YxP = column_fractions(predicted_N, ~labeled_N, count, columns)
    shown = np.flatnonzero((truth_YxP + right_YxP + wrong_YxP + unknown_YxP).any(axis=1))
    lanes = []
    for y in shown:
        parts = np.stack([right_YxP[y], wrong_YxP[y], unknown_YxP[y]])
        palette = np.array([to_rgb(RIGHT), to_rgb(WRONG), to_rgb(UNKNOWN)])
        gap = np.ones((1, columns, 3))
        lanes += [gap] + 4 * [_tint(truth_YxP[y], np.array(to_rgb(TRUTH)))]
        lanes += 4 * [_tint(parts.sum(axis=0), palette[parts.argmax(axis=0)])] + [gap]
    unit, scale = _time_unit(timeline.seconds)
    length = timeline.seconds / scale
    sensors = timeline.signal.sensors if timeline.signal else {}
    heights = [len(shown), 0.9] + [2.4] * bool(timeline.fractions) + [2.4] * len(sensors)
    with new_figure(path, 12.5, 1.7 + 0.27 * (sum(heights) - 0.9)) as figure:
        axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        rows, errors, *others = axes
        extent = (0, length, len(shown), 0)
        rows.imshow(np.concatenate(lanes), aspect="auto", extent=extent, interpolation="nearest")
        rows.set_yticks(np.arange(len(shown)) + 0.5, [brief(classes[y]) for y in shown], fontsize=8)
        rows.hlines(np.arange(1, len(shown)), 0, length, color="0.85", lw=0.5)
        errors.fill_between(
            (np.arange(columns) + 0.5) * length / columns, wrong_YxP.sum(axis=0), step="mid", color=WRONG, lw=0
        )
        errors.set(ylim=(0, 1), xlim=(0, length))
        axes[-1].set_xlabel(_label_clock(axes[-1], timeline, scale) or unit)
        errors.set_yticks([0.5], ["fraction wrong"], fontsize=8)
        errors.tick_params(axis="y", length=0)
        if timeline.fractions:
            _draw_fractions(others.pop(0), timeline, classes, scale)
        for axis, (sensor, columns_c) in zip(others, sensors.items(), strict=True):
            assert timeline.signal is not None
            _draw_signal(axis, timeline.signal, sensor, columns_c, length)
        if len(timeline.starts) <= 40:
            for start in timeline.starts[1:]:
                for axis in axes:
                    axis.axvline(start / timeline.rate_hz / scale, color="0.4", lw=0.7, ls=":")
        for axis in axes:
            axis.spines["left"].set_visible(False)
        rows.tick_params(axis="both", length=0)
        figure.suptitle(_headline(timeline), x=0.01, ha="left", fontsize=10)
        rows.legend(
            handles=[
                Patch(color=TRUTH, label="truth (upper lane)"),
                Patch(color=RIGHT, label="predicted, right"),
                Patch(color=WRONG, label="predicted, wrong"),
                *([Patch(color=UNKNOWN, label="predicted, no label")] if not labeled_N.all() else []),
            ],
            loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=8, frameon=False, borderaxespad=0.2,
        )  # fmt: skip


def timeline_caption(timeline: Timeline) -> str:
    """How to read `draw_timeline`'s picture."""
    parts = ["Each class has two lanes: truth above, prediction below, errors in orange; the strip sums them up."]
    if timeline.fractions:
        parts.append("Then the fraction of each segment that a class takes, truth above prediction.")
    if timeline.signal is not None:
        parts.append("Below: the mean of each axis of a sensor, over its range in a paler color.")
    return " ".join(parts)


def _draw_fractions(axis: Axes, timeline: Timeline, classes: tuple[str, ...], scale: float) -> None:
    """Stacked fractions of segments in their classes' colors: true in the upper half, predicted in the lower one."""
    handles = {}
    for start, of_recording in zip(timeline.starts, timeline.fractions, strict=True):
        if of_recording is None:
            continue
        last = (*timeline.starts[1:], len(timeline.truth_N))[timeline.starts.index(start)]
        edges_M = np.append(np.arange(len(of_recording.true_MxY)) * of_recording.length + start, last)
        for floor, of_MxY in ((1.1, of_recording.true_MxY), (0.0, of_recording.predicted_MxY)):
            tops_MxY = floor + np.cumsum(of_MxY, axis=1)
            bottom_M = np.full(len(of_MxY), floor)
            for y in np.flatnonzero(np.nansum(of_MxY, axis=0) > 0).tolist():
                axis.stairs(
                    tops_MxY[:, y], edges_M / timeline.rate_hz / scale, baseline=bottom_M, fill=True, color=color(y)
                )
                bottom_M = tops_MxY[:, y]
                handles[y] = Patch(color=color(y), label=brief(classes[y], 16))
    axis.set(ylim=(0, 2.1))
    axis.set_yticks([0.5, 1.6], ["predicted", "true fraction"], fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.legend(
        handles=[handles[y] for y in sorted(handles)], loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7,
        frameon=False,
    )  # fmt: skip


def _draw_signal(axis: Axes, signal: SignalColumns, sensor: str, columns_c: Sequence[int], length: float) -> None:
    """The mean of each axis over its range."""
    at_P = (np.arange(len(signal.mean_PxC)) + 0.5) * length / len(signal.mean_PxC)
    for place, column in enumerate(columns_c):
        ink = color(place)
        axis.fill_between(at_P, signal.low_PxC[:, column], signal.high_PxC[:, column], color=ink, alpha=0.25, lw=0)
        axis.plot(at_P, signal.mean_PxC[:, column], color=ink, lw=0.8, label=signal.channels[column][len(sensor) + 1 :])
    axis.set_ylim(-2.2, 2.2)
    axis.set_yticks([-1, 1], ["-1", f"{brief(sensor, 16)} (g)  1"], fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, frameon=False)


def _label_clock(axis: Axes, timeline: Timeline, scale: float) -> str:
    """Label the time with the recorder's clock, if it is known; the axis' title, or nothing."""
    if timeline.start_ms == UNKNOWN_START:
        return ""
    start_s = timeline.start_ms / 1000
    step = next((s for s in CLOCK_STEPS if timeline.seconds <= MOST_CLOCK_LABELS * s), CLOCK_STEPS[-1])
    moments = np.arange(-(-start_s // step), (start_s + timeline.seconds) // step + 1) * step
    shown = "%H:%M" if step < CLOCK_STEPS[-1] else "%m-%d"
    axis.set_xticks((moments - start_s) / scale, [_moment(1000 * moment).strftime(shown) for moment in moments])
    return "time on the recorder's clock"


def _moment(ms: float) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


def _tint(fraction_P: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """A (1, P, 3) row of an image, white where the fraction is 0; small fractions stay visible."""
    strength_Px1 = np.where(fraction_P > 0, 0.3 + 0.7 * np.minimum(fraction_P, 1), 0)[:, None]
    return (1 + (rgb - 1) * strength_Px1)[None]


def _time_unit(seconds: float) -> tuple[str, float]:
    if seconds < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


def _headline(timeline: Timeline) -> str:
    unit, scale = _time_unit(timeline.seconds)
    joined = f", {len(timeline.starts)} recordings end to end" if len(timeline.starts) > 1 else ""
    wrong = f"{timeline.wrong:.1%} of the labeled time is predicted wrongly"
    known = timeline.start_ms != UNKNOWN_START
    since = f" from {_moment(timeline.start_ms):%Y-%m-%d %H:%M}" if known else ""
    return f"{brief(timeline.subject, 20)}: {timeline.seconds / scale:.3g} {unit}{since}{joined}; {wrong}"
