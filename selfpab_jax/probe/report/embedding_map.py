"""A map of features: frames with similar features are close in the plane, colored by class and by subject."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from jaxtyping import Float, Float64, Int, Int64
from matplotlib.axes import Axes

from selfpab_jax.probe.report.style import brief, color, marker, new_figure

Method = Literal["tsne", "pca"]
NAMED_SUBJECTS = 12
"""More subjects than these cannot be distinguished by a legend."""


@dataclass(frozen=True)
class EmbeddingMap:
    """Frames in the plane.

    Attributes:
        points_Nx2: coordinates.
        labels_N: class index of each frame.
        subjects_N: name of each frame's subject.
        method: of the reduction to two dimensions.
    """

    points_Nx2: Float[np.ndarray, "N 2"]
    labels_N: Int[np.ndarray, " N"]
    subjects_N: tuple[str, ...]
    method: Method


def choose_rows(
    labels_R: Int[np.ndarray, " R"], subjects_R: Int[np.ndarray, " R"], *, count: int = 2000, seed: int = 0
) -> Int64[np.ndarray, " n"]:
    """At most `count` labeled rows in ascending order, taken in turn from every class of every subject.

    A plain random choice would lose rare classes.

    Args:
        labels_R: class index of each row, -1 for no label.
        subjects_R: index of each row's subject.
        count: rows to choose.
        seed: of the choice.
    """
    generator = np.random.default_rng(seed)
    rows = generator.permutation(np.flatnonzero(np.asarray(labels_R) >= 0))
    group = np.asarray(subjects_R)[rows].astype(np.int64) * (int(np.max(labels_R, initial=0)) + 1) + labels_R[rows]
    order = np.argsort(group, kind="stable")
    sizes = np.unique(group, return_counts=True)[1]
    turn = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # rank within its group
    rows, turn = rows[order], turn + generator.random(len(rows))  # in random order within one turn
    return np.sort(rows[np.argsort(turn)[:count]])


def project(features_NxD: Float[np.ndarray, "N D"], *, method: Method, seed: int = 0) -> Float64[np.ndarray, "N 2"]:
    """Standardized features in the plane: their first two principal components, or t-SNE of the first 50.

    Args:
        features_NxD: one row per frame.
        method: `pca` or `tsne`.
        seed: of the solver.

    Raises:
        ValueError: fewer than 3 frames, or values that are not finite.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = np.asarray(features_NxD, np.float64)
    if len(features) < 3 or not np.isfinite(features).all():
        raise ValueError("a map needs at least 3 frames with finite features")
    features = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    components = min(2 if method == "pca" else 50, *features.shape)
    reduced = PCA(components, svd_solver="randomized", random_state=seed).fit_transform(features)
    if method == "pca":
        return np.pad(reduced, ((0, 0), (0, 2 - components)))
    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced).astype(np.float64)


def draw_embedding(embedding: EmbeddingMap, classes: tuple[str, ...], path: Path) -> None:
    """Two panels of the same points: colored by class, and by subject."""
    labels, subjects = np.asarray(embedding.labels_N), np.asarray(embedding.subjects_N)
    names = sorted(set(embedding.subjects_N))
    with new_figure(path, 12.5, 6) as figure:
        by_class, by_subject = figure.subplots(1, 2)
        for y in np.unique(labels).tolist():
            _scatter(by_class, embedding.points_Nx2[labels == y], color(y), marker(y), brief(classes[y]))
        spectrum = matplotlib.colormaps["turbo"]
        for i, name in enumerate(names):
            shade = color(i) if len(names) <= NAMED_SUBJECTS else spectrum(i / len(names))
            _scatter(by_subject, embedding.points_Nx2[subjects == name], shade, marker(i), brief(name, 14))
        by_class.set_title("by class", loc="left", fontsize=10)
        title = "by subject" if len(names) <= NAMED_SUBJECTS else f"by subject ({len(names)} of them)"
        by_subject.set_title(title, loc="left", fontsize=10)
        _legend(by_class, len(np.unique(labels)))
        if len(names) <= NAMED_SUBJECTS:
            _legend(by_subject, len(names))
        for axis in (by_class, by_subject):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(True)
            axis.spines[:].set_color("0.8")
        method = "t-SNE" if embedding.method == "tsne" else "first two principal components"
        figure.suptitle(
            f"{method} of the features of {len(labels)} frames, balanced over classes and subjects", fontsize=10
        )


def _scatter(axis: Axes, points: np.ndarray, shade: object, mark: str, label: str) -> None:
    axis.scatter(*points.T, s=14, color=[shade], marker=mark, alpha=0.75, lw=0, label=label, rasterized=True)


def _legend(axis: Axes, entries: int) -> None:
    axis.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=min(4, max(entries // 2, 1)), fontsize=8,
        frameon=False, markerscale=1.6, handletextpad=0.2,
    )  # fmt: skip
