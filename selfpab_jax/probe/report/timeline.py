"""The timeline of a subject: true and predicted classes over all recordings, and where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from selfpab_jax.probe.alignment import Predictions
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.report.style import RIGHT, TRUTH, UNKNOWN, WRONG, brief, new_figure

COLUMNS = 1200
"""Columns of time; what fills only part of a column is drawn paler."""


@dataclass(frozen=True)
class Timeline:
    """Truth and prediction of one subject, recordings joined in order.

    Attributes:
        subject: name of the subject.
        truth_N: class index of each sample, -1 for no label.
        predicted_N: class index of each sample (M = N, which `draw_timeline` checks).
        rate_hz: of the samples.
        starts: first sample of each recording; the first is 0.
    """

    subject: str
    truth_N: Int[np.ndarray, " N"]
    predicted_N: Int[np.ndarray, " M"]
    rate_hz: float
    starts: tuple[int, ...] = (0,)

    @property
    def seconds(self) -> float:
        """Length of all recordings."""
        return len(self.truth_N) / self.rate_hz

    @property
    def wrong(self) -> float:
        """Fraction of the labeled samples that were predicted as another class; 0 if none is labeled."""
        labeled = self.truth_N >= 0
        return float((self.truth_N != self.predicted_N)[labeled].mean()) if labeled.any() else 0.0


def timelines_of(corpus: Corpus, predictions: Predictions) -> list[Timeline]:
    """Truth and prediction of each predicted subject, with the recordings joined in order."""
    of_subject: dict[str, list[int]] = {}
    for index in sorted(predictions):
        of_subject.setdefault(corpus.recordings[index].subject, []).append(index)
    return [_timeline(corpus, predictions, subject, indices) for subject, indices in of_subject.items()]


def _timeline(corpus: Corpus, predictions: Predictions, subject: str, indices: Sequence[int]) -> Timeline:
    lengths = [len(predictions[index]) for index in indices]
    starts = tuple(int(start) for start in np.cumsum([0, *lengths[:-1]]))
    truth_N = np.concatenate([corpus.recordings[index].labels_N for index in indices])
    predicted_N = np.concatenate([predictions[index] for index in indices])
    return Timeline(subject, truth_N, predicted_N, corpus.spectrogram.rate_hz, starts)


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

    The strip below shows which fraction of each column of time is wrong.

    Args:
        timeline: of one subject.
        classes: names by index.
        path: of the PNG file.
        columns: at most so many columns of time.

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
    with new_figure(path, 12.5, 1.7 + 0.27 * len(shown)) as figure:
        rows, errors = figure.subplots(2, 1, sharex=True, height_ratios=[len(shown), 0.9])
        extent = (0, length, len(shown), 0)
        rows.imshow(np.concatenate(lanes), aspect="auto", extent=extent, interpolation="nearest")
        rows.set_yticks(np.arange(len(shown)) + 0.5, [brief(classes[y]) for y in shown], fontsize=8)
        rows.hlines(np.arange(1, len(shown)), 0, length, color="0.85", lw=0.5)
        errors.fill_between(
            (np.arange(columns) + 0.5) * length / columns, wrong_YxP.sum(axis=0), step="mid", color=WRONG, lw=0
        )
        errors.set(ylim=(0, 1), xlim=(0, length), xlabel=unit)
        errors.set_yticks([0.5], ["fraction wrong"], fontsize=8)
        errors.tick_params(axis="y", length=0)
        if len(timeline.starts) <= 40:
            for start in timeline.starts[1:]:
                for axis in (rows, errors):
                    axis.axvline(start / timeline.rate_hz / scale, color="0.4", lw=0.7, ls=":")
        for axis in (rows, errors):
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
    return f"{brief(timeline.subject, 20)}: {timeline.seconds / scale:.3g} {unit}{joined}; {wrong}"
