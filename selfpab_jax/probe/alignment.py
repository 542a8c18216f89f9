"""From samples to frames and back: labels of frames, then predictions and scores of samples.

Encoders and heads work on frames, and windows and frames overlap. Scores are per sample: the probabilities of a frame
are averaged over the windows that cover it, those of a sample over the frames that cover it.
"""

from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int16, Int64

from selfpab_jax.errors import DataError
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.metrics import Confusions, SegmentFractions, confusion, segment_fractions

Predictions = Mapping[int, Int16[np.ndarray, " _N"]]
"""The predicted class of every sample, by index of recording."""


# Samples to frames.


def padded_frame_count(samples: int, hop: int) -> int:
    """T = floor((N - 1) / hop) + 1: frames of a signal that is zero-padded until every sample is in a frame."""
    return (samples - 1) // hop + 1 if samples > 0 else 0


def frame_labels(
    labels_N: Int[np.ndarray, " N"], classes: int, fft_window: int, hop: int, frames: int
) -> Int16[np.ndarray, " T"]:
    """The most frequent label among each frame's samples; ties go to the smallest index.

    -1 (no label) counts as the smallest label: a frame in which it is the most frequent has no label. Frame t covers
    samples t * hop to t * hop + fft_window; those beyond the last sample do not count (as in the original, where the
    last chunk is shorter).

    Args:
        labels_N: class indices below `classes`, or -1.
        classes: number of classes Y.
        fft_window: samples per frame.
        hop: samples from one frame to the next.
        frames: number of frames T; the original trains on whole frames and tests on `padded_frame_count` of them.
    """
    counts_TxY = _label_counts(labels_N, classes, fft_window, hop, frames)
    return (counts_TxY.argmax(axis=1) - 1).astype(np.int16)


def frame_densities(
    labels_N: Int[np.ndarray, " N"], classes: int, fft_window: int, hop: int, frames: int
) -> Float32[np.ndarray, "T Y"]:
    """The share of each class in the labeled samples of each frame; 0 in frames without a labeled sample.

    Args:
        labels_N: class indices below `classes`, or -1; here and below, see `frame_labels`.
        classes: number of classes Y.
        fft_window: samples per frame.
        hop: samples from one frame to the next.
        frames: number of frames T.
    """
    counts_TxY = _label_counts(labels_N, classes, fft_window, hop, frames)[:, 1:]
    return (counts_TxY / np.maximum(counts_TxY.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def _label_counts(labels_N: np.ndarray, classes: int, fft_window: int, hop: int, frames: int) -> np.ndarray:
    """Samples of each frame without a label (column 0) and of each class."""
    whole, rest = divmod(fft_window, hop)
    blocks = frames + whole + 1
    used_N = np.asarray(labels_N[: blocks * hop])
    columns = classes + 1
    block_N = np.arange(len(used_N), dtype=np.int64) // hop
    entry_N = block_N * columns + used_N + 1
    counts_TxY = _sum_of_neighbors(_counts(entry_N, blocks, columns), frames, whole)
    if rest:
        within_N = np.arange(len(used_N)) - block_N * hop < rest
        counts_TxY += _counts(entry_N[within_N], blocks, columns)[whole : whole + frames]
    return counts_TxY


def _counts(entry_N: np.ndarray, blocks: int, columns: int) -> np.ndarray:
    return np.bincount(entry_N, minlength=blocks * columns).reshape(blocks, columns)


def _sum_of_neighbors(blocks_BxY: np.ndarray, frames: int, whole: int) -> np.ndarray:
    """Row t is the sum of rows t to t + whole - 1, added in this order."""
    total_TxY = np.zeros((frames, blocks_BxY.shape[1]), blocks_BxY.dtype)
    for later in range(whole):
        total_TxY += blocks_BxY[later : later + frames]
    return total_TxY


# Rows to frames to samples, for one recording.


def frame_probabilities(
    probabilities_RxY: Float[np.ndarray, "R Y"], frame_R: Int[np.ndarray, " R"], frames: int
) -> Float64[np.ndarray, "T Y"]:
    """The mean over the windows that cover each frame of one recording, in the order of the rows and in float64.

    Args:
        probabilities_RxY: of the recording's rows.
        frame_R: frame of each row.
        frames: number of frames T.

    Raises:
        DataError: no row covers a frame.
    """
    covering_T = np.bincount(frame_R, minlength=frames)
    if len(covering_T) != frames or not covering_T.all():
        raise DataError(f"{int((covering_T == 0).sum())} of {frames} frames have no prediction: no window covers them")
    sums_YxT = [np.bincount(frame_R, weights=column_R, minlength=frames) for column_R in probabilities_RxY.T]
    return np.stack(sums_YxT, axis=1) / covering_T[:, None]


def sample_probabilities(
    probabilities_TxY: Float[np.ndarray, "T Y"], samples: int, fft_window: int, hop: int
) -> Float64[np.ndarray, "N Y"]:
    """The mean over the frames that cover each sample, earlier frames added first, in float64.

    Args:
        probabilities_TxY: of the recording's frames.
        samples: number of samples N.
        fft_window: samples per frame.
        hop: samples from one frame to the next.

    Raises:
        DataError: the frames do not reach the last sample.
    """
    runs_UxY, lengths_U = _runs(probabilities_TxY, samples, fft_window, hop)
    return np.repeat(runs_UxY, lengths_U, axis=0)


def sample_predictions(
    probabilities_TxY: Float[np.ndarray, "T Y"], samples: int, fft_window: int, hop: int
) -> Int16[np.ndarray, " N"]:
    """The class of the largest of `sample_probabilities`, which are not all computed; ties go to the smallest index.

    Args:
        probabilities_TxY: of the recording's frames.
        samples: number of samples N.
        fft_window: samples per frame.
        hop: samples from one frame to the next.

    Raises:
        DataError: the frames do not reach the last sample.
    """
    runs_UxY, lengths_U = _runs(probabilities_TxY, samples, fft_window, hop)
    return np.repeat(runs_UxY.argmax(axis=1).astype(np.int16), lengths_U)


def _runs(
    probabilities_TxY: Float[np.ndarray, "T Y"], samples: int, fft_window: int, hop: int
) -> tuple[Float64[np.ndarray, "U Y"], Int64[np.ndarray, " U"]]:
    """Probabilities of runs of samples that are in the same frames, and the lengths of the runs.

    If the window is a multiple of the hop, a run is a hop; otherwise every hop is divided into a head and a tail.
    """
    frames, classes = probabilities_TxY.shape
    if samples > (frames - 1) * hop + fft_window:
        raise DataError(f"{frames} frames reach {(frames - 1) * hop + fft_window} samples, not all of the {samples}")
    whole, rest = divmod(fft_window, hop)
    blocks = -(-samples // hop)
    before = whole if rest else whole - 1
    padded_BxY = np.zeros((before + max(blocks, frames), classes))
    padded_BxY[before : before + frames] = probabilities_TxY
    present_Bx1 = np.zeros((len(padded_BxY), 1))
    present_Bx1[before : before + frames] = 1
    tail_BxY = _block_mean(padded_BxY, present_Bx1, before - whole + 1, whole, blocks)
    if not rest:
        means_UxY, lengths_U = tail_BxY, np.full(blocks, hop)
    else:
        head_BxY = _block_mean(padded_BxY, present_Bx1, 0, whole + 1, blocks)
        means_UxY = np.stack([head_BxY, tail_BxY], axis=1).reshape(2 * blocks, classes)
        lengths_U = np.tile([rest, hop - rest], blocks)
    excess = int(lengths_U.sum()) - samples
    ends_U = np.minimum(np.cumsum(lengths_U), lengths_U.sum() - excess)
    return means_UxY, np.diff(ends_U, prepend=0)


def _block_mean(padded_BxY: np.ndarray, present_Bx1: np.ndarray, first: int, whole: int, blocks: int) -> np.ndarray:
    sums_BxY = _sum_of_neighbors(padded_BxY[first:], blocks, whole)
    counts_Bx1 = _sum_of_neighbors(present_Bx1[first:], blocks, whole)
    return sums_BxY / np.maximum(counts_Bx1, 1)


# Rows to predictions and scores, for a whole corpus.


def predict_recordings(
    corpus: Corpus, probabilities_RxY: Float[np.ndarray, "R Y"], subjects: Collection[str] | None = None
) -> dict[int, Int16[np.ndarray, " _N"]]:
    """The class of every sample by index of recording, from the probabilities of the corpus' rows.

    Args:
        corpus: with the rows.
        probabilities_RxY: after softmax; rows of other subjects are ignored.
        subjects: whose recordings are predicted; all where None.

    Raises:
        DataError: a row has no finite probability, or the corpus has another number of rows.
    """
    if len(probabilities_RxY) != len(corpus.recording_R):
        raise DataError(f"{len(probabilities_RxY)} rows of probabilities for {len(corpus.recording_R)} rows of data")
    settings, predictions = corpus.spectrogram, {}
    for index, recording in enumerate(corpus.recordings):
        if subjects is not None and recording.subject not in subjects:
            continue
        by_frame_TxY = _frame_probabilities_of(corpus, probabilities_RxY, index)
        predictions[index] = sample_predictions(
            by_frame_TxY, len(recording.labels_N), settings.fft_window, settings.fft_hop
        )
    return predictions


def predicted_subjects(corpus: Corpus, probabilities_RxY: Float[np.ndarray, "R Y"]) -> frozenset[str]:
    """Subjects all of whose rows have a prediction; the test subjects of a fold that was not trained have none."""
    missing_S = np.zeros(len(corpus.subjects), bool)
    np.logical_or.at(missing_S, corpus.subject_R, np.isnan(probabilities_RxY).any(1))
    return frozenset(name for name, missing in zip(corpus.subjects, missing_S, strict=True) if not missing)


def subject_confusions(corpus: Corpus, predictions: Predictions) -> dict[str, Int64[np.ndarray, "Y Y"]]:
    """A confusion matrix over samples for each subject with a predicted recording.

    Args:
        corpus: with the true labels.
        predictions: from `predict_recordings`.
    """
    classes, matrices = len(corpus.classes), {}
    for index in sorted(predictions):
        recording = corpus.recordings[index]
        matrix = confusion(recording.labels_N, predictions[index], classes)
        matrices[recording.subject] = matrices.get(recording.subject, 0) + matrix
    return matrices


def score_rows(corpus: Corpus, probabilities_RxY: Float[np.ndarray, "R Y"]) -> tuple[Confusions, Predictions]:
    """A confusion matrix for each predicted subject, and the predictions by recording."""
    predictions = predict_recordings(corpus, probabilities_RxY, predicted_subjects(corpus, probabilities_RxY))
    return subject_confusions(corpus, predictions), predictions


def recording_fractions(
    corpus: Corpus, probabilities_RxY: Float[np.ndarray, "R Y"], subjects: Collection[str], minutes: float
) -> dict[int, SegmentFractions]:
    """The fraction that each class takes of each segment, by index of recording; without recordings that have no label.

    Predicted fractions are mean probabilities, as the original scores its sleep task. Segments do not cross
    recordings.

    Args:
        corpus: with the true labels.
        probabilities_RxY: of all rows.
        subjects: whose recordings.
        minutes: length of a segment.
    """
    settings, fractions = corpus.spectrogram, {}
    length = max(1, round(minutes * 60 * settings.rate_hz))
    for index, recording in enumerate(corpus.recordings):
        if recording.subject not in subjects or not (recording.labels_N >= 0).any():
            continue
        by_frame_TxY = _frame_probabilities_of(corpus, probabilities_RxY, index)
        by_sample_NxY = sample_probabilities(
            by_frame_TxY, len(recording.labels_N), settings.fft_window, settings.fft_hop
        )
        fractions[index] = segment_fractions(recording.labels_N, by_sample_NxY, length)
    return fractions


def subject_duration_errors(corpus: Corpus, fractions: Mapping[int, SegmentFractions]) -> dict[str, float]:
    """The mean absolute error of the fractions, over classes and a subject's segments with a label, for each subject.

    Args:
        corpus: with the subjects.
        fractions: from `recording_fractions`.
    """
    sums: dict[str, tuple[float, int]] = {}
    for index, of_recording in fractions.items():
        error, segments = sums.get(corpus.recordings[index].subject, (0.0, 0))
        labeled = of_recording.labeled
        sums[corpus.recordings[index].subject] = (
            error + labeled * float(of_recording.error_Y.mean()), segments + labeled
        )  # fmt: skip
    return {subject: error / segments for subject, (error, segments) in sorted(sums.items())}


def _frame_probabilities_of(
    corpus: Corpus, probabilities_RxY: Float[np.ndarray, "R Y"], index: int
) -> Float64[np.ndarray, "T Y"]:
    rows = slice(*np.searchsorted(corpus.recording_R, (index, index + 1)))
    recording = corpus.recordings[index]
    if not np.isfinite(probabilities_RxY[rows]).all():
        raise DataError(f"{recording.subject}, {recording.name}: some rows have no finite probability")
    return frame_probabilities(probabilities_RxY[rows], corpus.frame_R[rows], int(corpus.frame_counts[index]))
