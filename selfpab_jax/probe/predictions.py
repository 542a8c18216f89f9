"""Shares of classes in stretches of time: the score of tasks that ask for amounts (of sleep), not for moments."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int16

from selfpab_jax.errors import DataError
from selfpab_jax.probe.alignment import frame_probabilities, predict_recordings, sample_probabilities
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.metrics import subject_confusions
from selfpab_jax.probe.report.results import Confusions
from selfpab_jax.probe.report.timeline import Timeline

# Shares of classes in stretches of time: the score of tasks that ask for amounts (of sleep), not for moments.


def label_shares(labels_N: Int[np.ndarray, " N"], classes: int, length: int) -> Float64[np.ndarray, "M Y"]:
    """Each class' share of the labeled samples in each stretch of `length` samples; NaN where there are none.

    The last stretch may be shorter.
    """
    labeled_n = np.flatnonzero(labels_N >= 0)
    cell_n = labeled_n // length * classes + labels_N[labeled_n]
    stretches = -(-len(labels_N) // length)
    counts_MxY = np.bincount(cell_n, minlength=stretches * classes).reshape(stretches, classes)
    total_Mx1 = counts_MxY.sum(axis=1, keepdims=True)
    return np.divide(counts_MxY, total_Mx1, out=np.full(counts_MxY.shape, np.nan), where=total_Mx1 > 0)


def share_error(
    truth_N: Int[np.ndarray, " N"], probabilities_NxY: Float[np.ndarray, "N Y"], length: int
) -> Float64[np.ndarray, " Y"]:
    """The mean absolute error of each class' share per stretch; the original's figure is the mean of them.

    The predicted share is the mean probability, over the same labeled samples that the true share counts.

    Args:
        truth_N: class indices, -1 where there is none.
        probabilities_NxY: from `sample_probabilities`; for shares of decisions, their one-hot rows.
        length: samples of a stretch: 3,000 are a minute at 50 Hz.

    Raises:
        DataError: no labeled sample, or not as many predictions as samples.
    """
    if len(truth_N) != len(probabilities_NxY):
        raise DataError(f"{len(probabilities_NxY)} predictions for {len(truth_N)} samples")
    labeled_n = np.flatnonzero(truth_N >= 0)
    if not len(labeled_n):
        raise DataError("no sample has a label: there are no shares to compare with")
    true_MxY = label_shares(truth_N, probabilities_NxY.shape[1], length)
    stretch_n = labeled_n // length
    counts_M = np.bincount(stretch_n, minlength=len(true_MxY))
    known_M = counts_M > 0
    sums = [np.bincount(stretch_n, column_n, len(true_MxY)) for column_n in probabilities_NxY[labeled_n].T]
    predicted_mxY = np.stack(sums, axis=1)[known_M] / counts_M[known_M, None]
    return np.abs(true_MxY[known_M] - predicted_mxY).mean(axis=0)


# Probabilities of rows become an arm: predictions of samples, confusion matrices, shares.

Predictions = Mapping[int, Int16[np.ndarray, " N"]]


def predicted_subjects(corpus: Corpus, probabilities_RxY: Float[np.ndarray, "R Y"]) -> frozenset[str]:
    """Those whose rows all have a prediction (a fold that could not be trained leaves its test subjects out)."""
    missing_S = np.zeros(len(corpus.subjects), bool)
    np.logical_or.at(missing_S, corpus.subject_R, np.isnan(probabilities_RxY).any(1))
    return frozenset(name for name, missing in zip(corpus.subjects, missing_S, strict=True) if not missing)


def confusions_of(corpus: Corpus, probabilities_RxY: Float[np.ndarray, "R Y"]) -> tuple[Confusions, Predictions]:
    """A matrix for each predicted subject over samples, and the predictions by recording."""
    predictions = predict_recordings(corpus, probabilities_RxY, predicted_subjects(corpus, probabilities_RxY))
    return subject_confusions(corpus, predictions), predictions


def share_errors_of(
    corpus: Corpus, probabilities_RxY: Float[np.ndarray, "R Y"], subjects: Collection[str], minutes: float
) -> dict[str, float]:
    """The mean absolute error of the classes' shares in stretches of so many minutes, for each subject.

    The shares are those of the mean probabilities, as the original's downstream task for sleep is scored; stretches do
    not cross recordings, and those with a label count the same.
    """
    settings = corpus.spectrogram
    length = max(1, round(minutes * 60 * settings.rate_hz))
    errors: dict[str, list[tuple[float, int]]] = {subject: [] for subject in sorted(subjects)}
    for index, recording in enumerate(corpus.recordings):
        if recording.subject not in errors or not (recording.labels_N >= 0).any():
            continue
        rows_R = np.flatnonzero(corpus.recording_R == index)
        by_frame = frame_probabilities(
            probabilities_RxY[rows_R], corpus.frame_R[rows_R], int(corpus.frame_counts[index])
        )
        samples = len(recording.labels_N)
        by_sample = sample_probabilities(by_frame, samples, settings.fft_window, settings.fft_hop)
        error = float(share_error(recording.labels_N, by_sample, length).mean())
        scored = len(np.unique(np.flatnonzero(recording.labels_N >= 0) // length))
        errors[recording.subject].append((error, scored))
    return {
        subject: sum(error * count for error, count in parts) / sum(count for _, count in parts)
        for subject, parts in errors.items()
        if parts
    }


def timelines_of(corpus: Corpus, predictions: Predictions) -> list[Timeline]:
    """Truth and prediction of each predicted subject, recordings joined in order."""
    of_subject: dict[str, list[int]] = {}
    for index in sorted(predictions):
        of_subject.setdefault(corpus.recordings[index].subject, []).append(index)
    lines = []
    for subject, indices in of_subject.items():
        lengths = [len(predictions[index]) for index in indices]
        starts = tuple(int(start) for start in np.cumsum([0, *lengths[:-1]]))
        truth_N = np.concatenate([corpus.recordings[index].labels_N for index in indices])
        predicted_N = np.concatenate([predictions[index] for index in indices])
        lines.append(Timeline(subject, truth_N, predicted_N, corpus.spectrogram.rate_hz, starts))
    return lines


def by_fold(choices: Collection[Any], seed: int) -> dict[str, Any]:
    """Hyper-parameters of one seed by name of fold, ready for JSON."""
    return {
        choice.fold: {name: value for name, value in vars(choice).items() if name not in ("fold", "seed")}
        for choice in choices
        if choice.seed == seed
    }
