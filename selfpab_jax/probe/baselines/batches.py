"""Windows of a corpus in batches of one length: endless and shuffled for training, in order for prediction."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

from selfpab_jax.probe.baselines.rows import class_weights, first_frames, frame_of_rows
from selfpab_jax.probe.baselines.series import Series
from selfpab_jax.probe.corpus import Corpus


class Batch(NamedTuple):
    """Standardised windows with the label and the weight of each frame; weight 0 where a frame is not trained on."""

    x_BxNxX: Float32[np.ndarray, "B N X"]
    labels_BxT: Int32[np.ndarray, "B T"]
    weights_BxT: Float32[np.ndarray, "B T"]


@dataclass(frozen=True)
class Standardised:
    """A series with the mean and deviation that a fold goes by."""

    series: Series
    mean_X: Float32[np.ndarray, " X"]
    std_X: Float32[np.ndarray, " X"]

    def windows(
        self, recording_B: Int[np.ndarray, " B"], first_B: Int[np.ndarray, " B"], frames: int
    ) -> Float32[np.ndarray, "B N X"]:
        """Windows of so many frames, 0 beyond the recording's end."""
        return self.series.windows(recording_B, first_B, frames, self.mean_X, self.std_X)


def training_batches(
    corpus: Corpus,
    inputs: Standardised,
    rows_R: Bool[np.ndarray, " R"],
    *,
    batch_size: int,
    seed: int,
    random_starts: bool,
    balanced: bool,
) -> Iterator[Batch]:
    """Shuffled batches without end, each window as often as any other; a batch holds windows of one length.

    Args:
        corpus: the data set.
        inputs: what the network reads.
        rows_R: rows that are trained on; windows without one are left out.
        batch_size: windows; where there are fewer, they come more than once.
        seed: of order and starts.
        random_starts: move each window by up to half its length, within its recording.
        balanced: weigh classes inversely to their rows.
    """
    random = np.random.default_rng(seed)
    frames = frame_of_rows(corpus)[rows_R]
    labels_F = np.zeros(corpus.frame_counts.sum(), np.int32)
    weights_F = np.zeros(len(labels_F), np.float32)
    labels_F[frames] = corpus.label_R[rows_R]
    weights_F[frames] = class_weights(corpus.label_R[rows_R], len(corpus.classes), balanced)[labels_F[frames]]
    windows = np.unique(corpus.window_R[rows_R])
    lengths = corpus.windows.length_W[windows]
    groups = {int(length): _cycle(windows[lengths == length], random) for length in np.unique(lengths)}
    shares = [np.mean(lengths == length) for length in groups]
    while True:
        length = int(random.choice(list(groups), p=shares))
        chosen = np.array([next(groups[length]) for _ in range(batch_size)])
        recording_B, first_B = corpus.windows.recording_W[chosen], corpus.windows.first_W[chosen].astype(np.int64)
        count_B = corpus.frame_counts[recording_B]
        if random_starts:
            # A window that hangs over the end may stay there: at the test some do.
            latest_B = np.maximum(first_B, count_B - length)
            shift_B = random.integers(-(length // 2), length // 2 + 1, batch_size)
            first_B = np.clip(first_B + shift_B, 0, latest_B)
        place_BxT = first_B[:, None] + np.arange(length)
        within_BxT = place_BxT < count_B[:, None]
        flat_BxT = np.where(within_BxT, place_BxT + first_frames(corpus)[recording_B][:, None], 0)
        yield Batch(inputs.windows(recording_B, first_B, length), labels_F[flat_BxT], weights_F[flat_BxT] * within_BxT)


def prediction_batches(
    corpus: Corpus, inputs: Standardised, windows_W: Int[np.ndarray, " W"], batch_size: int
) -> Iterator[tuple[Int[np.ndarray, " b"], Float32[np.ndarray, "B N X"]]]:
    """Every window once, by length, and its values; the last batch of a length is filled up with its last window."""
    lengths = corpus.windows.length_W[windows_W]
    for length in np.unique(lengths):
        group = windows_W[lengths == length]
        for start in range(0, len(group), batch_size):
            part = group[start : start + batch_size]
            filled = np.concatenate([part, np.repeat(part[-1:], batch_size - len(part))])
            first_B = corpus.windows.first_W[filled].astype(np.int64)
            yield part, inputs.windows(corpus.windows.recording_W[filled], first_B, int(length))


def _cycle(items: Int[np.ndarray, " n"], random: np.random.Generator) -> Iterator[int]:
    while True:
        yield from random.permutation(items)
