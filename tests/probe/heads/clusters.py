"""Class clusters with shifts of each subject: rows that heads can learn, but not perfectly."""

import numpy as np

from selfpab_jax.probe.heads.batch import LabeledFeatures


def cluster_rows(
    rows: int = 1200,
    width: int = 16,
    layers: int = 1,
    classes: int = 4,
    subjects: int = 5,
    *,
    separation: float = 0.4,
    unlabeled: float = 0.0,
    seed: int = 0,
) -> LabeledFeatures:
    """Features of unequal scale and offset; `unlabeled` is the share of rows without a label."""
    draw = np.random.default_rng(seed)
    subject_R = np.sort(draw.integers(0, subjects, rows)).astype(np.int32)
    label_R = draw.choice(classes, rows, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    centers = separation * draw.standard_normal((classes, layers, width))
    shifts = 0.5 * separation * draw.standard_normal((subjects, classes, layers, width))
    features = centers[label_R] + shifts[subject_R, label_R] + draw.standard_normal((rows, layers, width))
    features = features * np.exp(draw.normal(0, 0.7, width)) + draw.normal(0, 2, width)
    label_R[draw.random(rows) < unlabeled] = -1
    return LabeledFeatures(features.astype(np.float16), label_R.astype(np.int16), subject_R)


def leave_one_out(subjects: int) -> np.ndarray:
    """Training masks of all folds."""
    return ~np.eye(subjects, dtype=bool)
