"""A subject's recordings from end to end: what was done, what was predicted, and where they differ."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from selfpab_jax.probe.report.figures import RIGHT, TRUTH, UNKNOWN, WRONG, brief, picture

COLUMNS = 1200  # of time; shorter stretches within a column are drawn paler


@dataclass(frozen=True)
class Timeline:
    """Truth and prediction of one subject, recordings joined in order.

    Attributes:
        subject: whose.
        truth_N: class index of each sample, -1 where there is no label.
        predicted_N: class index of each sample.
        rate_hz: of the samples.
        starts: the sample at which each recording begins; the first is 0.
    """

    subject: str
    truth_N: Int[np.ndarray, " N"]
    predicted_N: Int[np.ndarray, " N"]
    rate_hz: float
    starts: tuple[int, ...] = (0,)

    @property
    def seconds(self) -> float:
        """Length of all recordings."""
        return len(self.truth_N) / self.rate_hz

    @property
    def wrong(self) -> float:
        """Share of the labeled samples that were predicted as another class; 0 where none is labeled."""
        labeled = self.truth_N >= 0
        return float((self.truth_N != self.predicted_N)[labeled].mean()) if labeled.any() else 0.0


def shares(
    indices_N: Int[np.ndarray, " N"], keep_N: np.ndarray, classes: int, columns: int
) -> Float64[np.ndarray, "Y P"]:
    """What share of the samples of each of P columns of time is of each class, counting only those kept."""
    column_N = np.arange(len(indices_N)) * columns // len(indices_N)
    length_P = np.bincount(column_N, minlength=columns)
    flat = indices_N[keep_N].astype(np.int64) * columns + column_N[keep_N]
    return np.bincount(flat, minlength=classes * columns).reshape(classes, columns) / length_P


def draw_timeline(timeline: Timeline, classes: tuple[str, ...], path: Path, *, columns: int = COLUMNS) -> None:
    """A row for each class that occurs: truth in its upper lane, prediction in its lower one; errors in orange.

    The strip below shows what share of each column of time is wrong. Raises ValueError without samples.
    """
    truth_N, predicted_N = np.asarray(timeline.truth_N), np.asarray(timeline.predicted_N)
    if not len(truth_N) or len(truth_N) != len(predicted_N):
        raise ValueError(f"{timeline.subject}: {len(truth_N)} samples and {len(predicted_N)} predictions")
    labeled_N, right_N = truth_N >= 0, truth_N == predicted_N
    columns, count = min(columns, len(truth_N)), len(classes)
    truth_YxP = shares(truth_N, labeled_N, count, columns)
    right_YxP = shares(predicted_N, labeled_N & right_N, count, columns)
    wrong_YxP = shares(predicted_N, labeled_N & ~right_N, count, columns)
    unknown_YxP = shares(predicted_N, ~labeled_N, count, columns)
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
    with picture(path, 12.5, 1.7 + 0.27 * len(shown)) as figure:
        rows, errors = figure.subplots(2, 1, sharex=True, height_ratios=[len(shown), 0.9])
        extent = (0, length, len(shown), 0)
        rows.imshow(np.concatenate(lanes), aspect="auto", extent=extent, interpolation="nearest")
        rows.set_yticks(np.arange(len(shown)) + 0.5, [brief(classes[y]) for y in shown], fontsize=8)
        rows.hlines(np.arange(1, len(shown)), 0, length, color="0.85", lw=0.5)
        errors.fill_between(
            (np.arange(columns) + 0.5) * length / columns, wrong_YxP.sum(axis=0), step="mid", color=WRONG, lw=0
        )
        errors.set(ylim=(0, 1), xlim=(0, length), xlabel=unit)
        errors.set_yticks([0.5], ["share wrong"], fontsize=8)
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


def _tint(share_P: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """White where the share is 0; what is there at all stays visible. A (1, P, 3) row of an image."""
    strength_Px1 = np.where(share_P > 0, 0.3 + 0.7 * np.minimum(share_P, 1), 0)[:, None]
    return (1 + (rgb - 1) * strength_Px1)[None]


def _time_unit(seconds: float) -> tuple[str, float]:
    if seconds < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 3 * 3600 else ("hours", 3600.0)


def _headline(timeline: Timeline) -> str:
    unit, scale = _time_unit(timeline.seconds)
    joined = f", {len(timeline.starts)} recordings end to end" if len(timeline.starts) > 1 else ""
    wrong = f"{timeline.wrong:.1%} of the labeled time is predicted wrong"
    return f"{brief(timeline.subject, 20)}: {timeline.seconds / scale:.3g} {unit}{joined}; {wrong}"
