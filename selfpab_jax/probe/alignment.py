"""From samples to frames and back: labels of frames, and predictions of samples."""

from collections.abc import Collection

import numpy as np
from jaxtyping import Float, Float64, Int, Int16

from selfpab_jax.errors import DataError
from selfpab_jax.probe.dataset import Corpus


def padded_frame_count(samples: int, hop: int) -> int:
    """T = floor((N - 1) / hop) + 1: frames of a signal that is zero-padded until every sample lies in one."""
    return (samples - 1) // hop + 1 if samples > 0 else 0


def frame_labels(
    labels_N: Int[np.ndarray, " N"], classes: int, fft_window: int, hop: int, frames: int
) -> Int16[np.ndarray, " T"]:
    """The most frequent label among each frame's samples, ties to the smallest index.

    -1 (no label) counts as a label of its own, the smallest: where it is the most frequent the frame has none. Frame t
    covers samples t * hop to t * hop + fft_window; those beyond the last sample do not count (as in the original, where
    a chunk at the end is just shorter).

    Args:
        labels_N: class indices below `classes`, or -1.
        classes: Y.
        fft_window: samples of a frame.
        hop: samples from one frame to the next.
        frames: T; the original trains on whole frames and tests on `padded_frame_count` of them.
    """
    whole, rest = divmod(fft_window, hop)
    blocks = frames + whole + 1
    used_N = np.asarray(labels_N[: blocks * hop])
    columns = classes + 1
    block_N = np.arange(len(used_N), dtype=np.int64) // hop
    cell_N = block_N * columns + used_N + 1
    counts_TxY = _sum_of_neighbors(_counts(cell_N, blocks, columns), frames, whole)
    if rest:
        within_N = np.arange(len(used_N)) - block_N * hop < rest
        counts_TxY += _counts(cell_N[within_N], blocks, columns)[whole : whole + frames]
    return (counts_TxY.argmax(axis=1) - 1).astype(np.int16)


def _counts(cell_N: np.ndarray, blocks: int, columns: int) -> np.ndarray:
    return np.bincount(cell_N, minlength=blocks * columns).reshape(blocks, columns)


def _sum_of_neighbors(blocks_BxY: np.ndarray, frames: int, whole: int) -> np.ndarray:
    """Row t is the sum of rows t to t + whole - 1, added in this order."""
    total_TxY = np.zeros((frames, blocks_BxY.shape[1]), blocks_BxY.dtype)
    for later in range(whole):
        total_TxY += blocks_BxY[later : later + frames]
    return total_TxY


def training_window_count(frames_of_recording: int, frames: int, shift: int) -> int:
    """Windows that the original trains on: ceil((T + 1 - frames) / shift), at least 1; none is padded."""
    return max(1, -(-(frames_of_recording + 1 - frames) // shift))


def padded_window_count(frames_of_recording: int, shift: int) -> int:
    """Windows that the original predicts: ceil(T / shift), at least 1; those at the end are padded."""
    return max(1, -(-frames_of_recording // shift))


def frame_probabilities(
    probabilities_RxY: Float[np.ndarray, "R Y"], frame_R: Int[np.ndarray, " R"], frames: int
) -> Float64[np.ndarray, "T Y"]:
    """The mean over the windows that cover each frame of one recording, in the rows' order and in float64.

    Raises:
        DataError: a frame that no row predicts.
    """
    covering_T = np.bincount(frame_R, minlength=frames)
    if len(covering_T) != frames or not covering_T.all():
        raise DataError(f"{int((covering_T == 0).sum())} of {frames} frames have no prediction: windows leave them out")
    sums_YxT = [np.bincount(frame_R, weights=column_R, minlength=frames) for column_R in probabilities_RxY.T]
    return np.stack(sums_YxT, axis=1) / covering_T[:, None]


def sample_probabilities(
    probabilities_TxY: Float[np.ndarray, "T Y"], samples: int, fft_window: int, hop: int
) -> Float64[np.ndarray, "N Y"]:
    """The mean over the frames that cover each sample, earlier frames added first, in float64.

    Raises:
        DataError: frames that do not reach the last sample.
    """
    runs_UxY, lengths_U = _runs(probabilities_TxY, samples, fft_window, hop)
    return np.repeat(runs_UxY, lengths_U, axis=0)


def sample_predictions(
    probabilities_TxY: Float[np.ndarray, "T Y"], samples: int, fft_window: int, hop: int
) -> Int16[np.ndarray, " N"]:
    """The class of the largest of `sample_probabilities` (ties to the smallest index), without making all of them.

    Raises:
        DataError: frames that do not reach the last sample.
    """
    runs_UxY, lengths_U = _runs(probabilities_TxY, samples, fft_window, hop)
    return np.repeat(runs_UxY.argmax(axis=1).astype(np.int16), lengths_U)


def _runs(
    probabilities_TxY: np.ndarray, samples: int, fft_window: int, hop: int
) -> tuple[Float64[np.ndarray, "U Y"], Int[np.ndarray, " U"]]:
    """Probabilities of runs of samples that lie in the same frames, and the runs' lengths.

    Where the window is a multiple of the hop, a run is a hop; else every hop falls into a head and a tail.
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


def predict_recordings(
    corpus: Corpus, probabilities_RxY: Float[np.ndarray, "R Y"], subjects: Collection[str] | None = None
) -> dict[int, Int16[np.ndarray, " N"]]:
    """Every sample's class by index of recording, from probabilities of the corpus' rows.

    Args:
        corpus: whose rows they are.
        probabilities_RxY: after softmax; rows of other subjects are not looked at.
        subjects: whose recordings are wanted; None: all.

    Raises:
        DataError: a wanted row without a finite probability, or not as many rows as the corpus has.
    """
    if len(probabilities_RxY) != len(corpus.recording_R):
        raise DataError(f"{len(probabilities_RxY)} rows of probabilities for {len(corpus.recording_R)} of the corpus")
    first_row = np.searchsorted(corpus.recording_R, np.arange(len(corpus.recordings) + 1))
    settings, predictions = corpus.spectrogram, {}
    for index, recording in enumerate(corpus.recordings):
        if subjects is not None and recording.subject not in subjects:
            continue
        rows = slice(first_row[index], first_row[index + 1])
        if not np.isfinite(probabilities_RxY[rows]).all():
            raise DataError(f"{recording.subject}, {recording.name}: some rows have no finite probability")
        by_frame_TxY = frame_probabilities(
            probabilities_RxY[rows], corpus.frame_R[rows], int(corpus.frame_counts[index])
        )
        predictions[index] = sample_predictions(
            by_frame_TxY, len(recording.labels_N), settings.fft_window, settings.fft_hop
        )
    return predictions
