"""Shares of classes in stretches of time: the score of tasks that ask for amounts (of sleep), not for moments."""

import numpy as np
from jaxtyping import Float, Float64, Int

from selfpab_jax.errors import DataError


def label_shares(labels_N: Int[np.ndarray, " N"], classes: int, length: int) -> Float64[np.ndarray, "M Y"]:
    """Each class' share of the labelled samples in each stretch of `length` samples; NaN where there are none.

    The last stretch may be shorter.
    """
    labelled_n = np.flatnonzero(labels_N >= 0)
    cell_n = labelled_n // length * classes + labels_N[labelled_n]
    stretches = -(-len(labels_N) // length)
    counts_MxY = np.bincount(cell_n, minlength=stretches * classes).reshape(stretches, classes)
    total_Mx1 = counts_MxY.sum(axis=1, keepdims=True)
    return np.divide(counts_MxY, total_Mx1, out=np.full(counts_MxY.shape, np.nan), where=total_Mx1 > 0)


def share_error(
    truth_N: Int[np.ndarray, " N"], probabilities_NxY: Float[np.ndarray, "N Y"], length: int
) -> Float64[np.ndarray, " Y"]:
    """The mean absolute error of each class' share per stretch; the original's figure is the mean of them.

    The predicted share is the mean probability, over the same labelled samples that the true share counts.

    Args:
        truth_N: class indices, -1 where there is none.
        probabilities_NxY: from `sample_probabilities`; for shares of decisions, their one-hot rows.
        length: samples of a stretch: 3,000 are a minute at 50 Hz.

    Raises:
        DataError: no labelled sample, or not as many predictions as samples.
    """
    if len(truth_N) != len(probabilities_NxY):
        raise DataError(f"{len(probabilities_NxY)} predictions for {len(truth_N)} samples")
    labelled_n = np.flatnonzero(truth_N >= 0)
    if not len(labelled_n):
        raise DataError("no sample has a label: there are no shares to compare with")
    true_MxY = label_shares(truth_N, probabilities_NxY.shape[1], length)
    stretch_n = labelled_n // length
    counts_M = np.bincount(stretch_n, minlength=len(true_MxY))
    known_M = counts_M > 0
    sums = [np.bincount(stretch_n, column_n, len(true_MxY)) for column_n in probabilities_NxY[labelled_n].T]
    predicted_mxY = np.stack(sums, axis=1)[known_M] / counts_M[known_M, None]
    return np.abs(true_MxY[known_M] - predicted_mxY).mean(axis=0)
