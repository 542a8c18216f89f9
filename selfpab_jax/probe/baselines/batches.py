"""Network inputs: signals or spectrogram frames of a corpus, cut into batches of windows of the same length."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32

from selfpab_jax.probe.baselines.rows import cached_per_corpus, class_weights, first_frames, frame_of_rows
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.signal.stft import spectrogram

InputKind = Literal["frames", "signal"]
"""Spectrogram frames, or raw signals."""
MIN_STD = 1e-6
"""A feature whose standard deviation is at most this is constant, and is not rescaled."""


class InputSpec(NamedTuple):
    """Sizes that the data set gives a network.

    Attributes:
        features: of a value (a frame or a sample).
        classes: Y.
        window: values that a frame spans.
        hop: values from one frame to the next.
    """

    features: int
    classes: int
    window: int
    hop: int


@dataclass(frozen=True)
class NetworkInputs:
    """Values of all recordings, one after another: samples, or frames.

    Attributes:
        values_NxX: samples in g, or magnitudes of frames.
        counts: values of each recording.
        window: values that a frame spans; 1 if the values are frames.
        hop: values from one frame to the next; 1 if the values are frames.
        mean_X: subtracted from windows; None for values as they are.
        std_X: windows are divided by it; None for values as they are.
    """

    values_NxX: Float32[np.ndarray, "N X"]
    counts: Int[np.ndarray, " recordings"]
    window: int = 1
    hop: int = 1
    mean_X: Float32[np.ndarray, " X"] | None = None
    std_X: Float32[np.ndarray, " X"] | None = None

    def spec(self, classes: int) -> InputSpec:
        """Sizes for a network."""
        return InputSpec(self.values_NxX.shape[1], classes, self.window, self.hop)

    @cached_property
    def firsts(self) -> Int[np.ndarray, " recordings"]:
        """Index of each recording's first value."""
        return np.cumsum(self.counts) - self.counts

    def standardized(self, recordings: Iterable[int]) -> "NetworkInputs":
        """The inputs, standardized with mean and standard deviation of these recordings."""
        chosen = list(recordings)
        count = self.counts[chosen].sum()
        mean_X, square_X = (sums[chosen].sum(0) / count for sums in self._sums)
        std_X = np.sqrt(np.maximum(square_X - mean_X**2, 0))
        std_X = np.where(std_X > MIN_STD, std_X, 1).astype(np.float32)
        return replace(self, mean_X=mean_X.astype(np.float32), std_X=std_X)

    def windows(
        self, recording_B: Int[np.ndarray, " B"], first_B: Int[np.ndarray, " B"], frames: int
    ) -> Float32[np.ndarray, "B N X"]:
        """Windows of so many frames; 0 beyond the recording's end.

        Args:
            recording_B: recording of each window.
            first_B: first frame of each window.
            frames: of each window.
        """
        index_BxN = first_B[:, None] * self.hop + np.arange((frames - 1) * self.hop + self.window)
        beyond_BxN = index_BxN >= self.counts[recording_B][:, None]
        index_BxN += self.firsts[recording_B][:, None]
        x_BxNxX = self.values_NxX[np.where(beyond_BxN, 0, index_BxN)]
        if self.mean_X is not None and self.std_X is not None:
            x_BxNxX = (x_BxNxX - self.mean_X) / self.std_X
        x_BxNxX[beyond_BxN] = 0
        return x_BxNxX

    @cached_property
    def _sums(self) -> tuple[Float64[np.ndarray, "recordings X"], Float64[np.ndarray, "recordings X"]]:
        """Of values and of their squares, for each recording."""
        parts = [self.values_NxX[first : first + n] for first, n in zip(self.firsts, self.counts, strict=True)]
        totals = [part.sum(0, dtype=np.float64) for part in parts]
        return np.stack(totals), np.stack([np.einsum("nx,nx->x", part, part, dtype=np.float64) for part in parts])


@cached_per_corpus
def network_inputs(corpus: Corpus, kind: InputKind) -> NetworkInputs:
    """The signals of a corpus, or the frames of the zero-padded signals (as many as there are labels)."""
    settings = corpus.spectrogram
    signals = [recording.signal_NxC for recording in corpus.recordings]
    if kind == "signal":
        counts = np.array([len(signal) for signal in signals])
        return NetworkInputs(np.concatenate(signals), counts, settings.fft_window, settings.fft_hop)
    frames = []
    for signal_NxC, count in zip(signals, corpus.frame_counts, strict=True):
        samples = (int(count) - 1) * settings.fft_hop + settings.fft_window
        padding = ((0, max(0, samples - len(signal_NxC))), (0, 0))
        frames.append(spectrogram(np.pad(signal_NxC, padding)[:samples], settings))
    return NetworkInputs(np.concatenate(frames), corpus.frame_counts.astype(np.int64))


class WindowBatch(NamedTuple):
    """Windows with the label and the weight of each frame; the weight is 0 if the frame is not trained on."""

    x_BxNxX: Float32[np.ndarray, "B N X"]
    labels_BxT: Int32[np.ndarray, "B T"]
    weights_BxT: Float32[np.ndarray, "B T"]


def training_batches(
    corpus: Corpus,
    inputs: NetworkInputs,
    rows_R: Bool[np.ndarray, " R"],
    *,
    batch_size: int,
    seed: int,
    random_starts: bool,
    balanced: bool,
) -> Iterator[WindowBatch]:
    """Shuffled batches without end, each window as often as any other; a batch has windows of one length.

    Args:
        corpus: the data set.
        inputs: what the network reads.
        rows_R: rows that are trained on; windows without one are left out.
        batch_size: windows; if there are fewer, some come more than once.
        seed: of order and starts.
        random_starts: shift each window by up to half its length, within its recording.
        balanced: weight classes inversely to their number of rows.
    """
    random = np.random.default_rng(seed)
    frames = frame_of_rows(corpus)[rows_R]
    labels_F = np.zeros(corpus.frame_counts.sum(), np.int32)
    weights_F = np.zeros(len(labels_F), np.float32)
    labels_F[frames] = corpus.label_R[rows_R]
    weights_F[frames] = class_weights(corpus.label_R[rows_R], len(corpus.classes), balanced)[labels_F[frames]]
    windows = np.unique(corpus.window_R[rows_R])
    lengths = corpus.windows.length_W[windows]
    by_length = {int(length): _cycle(windows[lengths == length], random) for length in np.unique(lengths)}
    fractions = [np.mean(lengths == length) for length in by_length]
    while True:
        length = int(random.choice(list(by_length), p=fractions))
        chosen = np.array([next(by_length[length]) for _ in range(batch_size)])
        recording_B, first_B = corpus.windows.recording_W[chosen], corpus.windows.first_W[chosen].astype(np.int64)
        count_B = corpus.frame_counts[recording_B]
        if random_starts:
            # A window that extends beyond the recording's end may do so after the shift too: test windows do.
            latest_B = np.maximum(first_B, count_B - length)
            shift_B = random.integers(-(length // 2), length // 2 + 1, batch_size)
            first_B = np.clip(first_B + shift_B, 0, latest_B)
        frame_BxT = first_B[:, None] + np.arange(length)
        within_BxT = frame_BxT < count_B[:, None]
        index_BxT = np.where(within_BxT, frame_BxT + first_frames(corpus)[recording_B][:, None], 0)
        weights_BxT = weights_F[index_BxT] * within_BxT
        yield WindowBatch(inputs.windows(recording_B, first_B, length), labels_F[index_BxT], weights_BxT)


def prediction_batches(
    corpus: Corpus, inputs: NetworkInputs, windows_W: Int[np.ndarray, " W"], batch_size: int
) -> Iterator[tuple[Int[np.ndarray, " b"], Float32[np.ndarray, "B N X"]]]:
    """Every window once, by length: indices and values. The last batch of a length repeats its last window.

    Args:
        corpus: the data set.
        inputs: what the network reads.
        windows_W: indices of windows.
        batch_size: windows of a batch.
    """
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
