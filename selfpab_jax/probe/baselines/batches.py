"""What a baseline trains on, validates with and predicts: rows of a corpus, and batches of windows cut from them."""

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32
from sklearn.metrics import f1_score

from selfpab_jax.errors import DataError
from selfpab_jax.features.windows import valid_frames
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold, inner_split
from selfpab_jax.signal.stft import spectrogram

P = ParamSpec("P")
Result = TypeVar("Result")


def cached_per_corpus(function: Callable[Concatenate[Corpus, P], Result]) -> Callable[Concatenate[Corpus, P], Result]:
    """A decorator: results are computed once, and kept as long as the corpus is.

    Every fold, seed and label budget then shares them. Further arguments must be hashable.
    """
    cache: dict[int, dict[Any, Any]] = {}

    @functools.wraps(function)
    def cached(corpus: Corpus, *args: P.args, **kwargs: P.kwargs) -> Result:
        # By identity: a corpus is frozen, and its arrays cannot be hashed.
        if id(corpus) not in cache:
            cache[id(corpus)] = {}
            weakref.finalize(corpus, cache.pop, id(corpus), None)
        results = cache[id(corpus)]
        key = (args, tuple(sorted(kwargs.items())))
        if key not in results:
            results[key] = function(corpus, *args, **kwargs)
        return results[key]

    return cached


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a fold that may be trained on, and their split for stopping and for selection.

    Attributes:
        all_R: all of them.
        fit_R: inner training rows; None if there are too few labels to validate with.
        validation_R: rows of other subjects; None if there are too few labels to validate with.
        split: in words, for the description.
    """

    all_R: Bool[np.ndarray, " R"]
    fit_R: Bool[np.ndarray, " R"] | None
    validation_R: Bool[np.ndarray, " R"] | None
    split: str


def split_training_rows(
    corpus: Corpus, fold: Fold, fraction: float, seed: int, rows_mask_R: Bool[np.ndarray, " R"] | None
) -> TrainingRows:
    """The labeled rows of the fold's training subjects, split by subject.

    With a label budget, each class must be on both sides of the split; otherwise there is no validation.

    Args:
        corpus: the data set.
        fold: its training subjects.
        fraction: of them, for validation.
        seed: of the split.
        rows_mask_R: rows whose labels may be used; all if None.

    Raises:
        DataError: fewer than two classes to train on.
    """
    all_R = trainable_rows(corpus, fold, rows_mask_R)
    present = np.unique(corpus.label_R[all_R])
    if len(fold.train) < 2:
        return TrainingRows(all_R, None, None, "none: one training subject")
    fit, validation = inner_split(fold.train, fraction, seed)
    fit_R, validation_R = all_R & rows_of(corpus, fit), all_R & rows_of(corpus, validation)
    counts = [len(np.unique(corpus.label_R[part_R])) for part_R in (fit_R, validation_R)]
    enough = min(counts) == len(present) if rows_mask_R is not None else min(counts) > 1
    if not enough:
        return TrainingRows(all_R, None, None, "none: too few labels")
    return TrainingRows(all_R, fit_R, validation_R, f"inner subjects {', '.join(validation)}")


def trainable_rows(corpus: Corpus, fold: Fold, rows_mask_R: Bool[np.ndarray, " R"] | None) -> Bool[np.ndarray, " R"]:
    """The labeled rows of the fold's training subjects that are in the unpadded signal and in the mask.

    Args:
        corpus: the data set.
        fold: its training subjects.
        rows_mask_R: rows whose labels may be used; all if None.

    Raises:
        DataError: fewer than two classes to train on.
    """
    rows_R = rows_of(corpus, fold.train) & (corpus.label_R >= 0) & corpus.whole_R
    if rows_mask_R is not None:
        rows_R &= rows_mask_R
    present = np.unique(corpus.label_R[rows_R])
    if len(present) < 2:
        names = ", ".join(corpus.classes[i] for i in present) or "none"
        raise DataError(f"fold {fold.name}: the training rows have fewer than two classes ({names})")
    return rows_R


def rows_of(corpus: Corpus, subjects: Iterable[str]) -> Bool[np.ndarray, " R"]:
    """The rows of these subjects."""
    return np.isin(corpus.subject_R, [corpus.subjects.index(subject) for subject in subjects])


def class_weights(labels: Int[np.ndarray, " N"], classes: int, balanced: bool) -> Float32[np.ndarray, " Y"]:
    """Weight of each class; 0 for classes without a label.

    Args:
        labels: class indices.
        classes: number of classes Y.
        balanced: inversely to how often a class occurs, with a mean of 1 over the labels; otherwise 1.
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    if not balanced:
        return present.astype(np.float32)
    return np.where(present, len(labels) / np.maximum(counts, 1) / present.sum(), 0).astype(np.float32)


def present_macro_f1(truth: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"]) -> float:
    """Mean F1 over the classes that occur in the truth: the score for stopping and selection."""
    return float(f1_score(truth, predicted, labels=np.unique(truth), average="macro"))


# Network inputs: signals or spectrogram frames of a corpus, cut into batches of windows of the same length.

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
        """Windows of this many frames; 0 beyond the recording's end.

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
    """Windows, and what is trained on.

    Attributes:
        x_BxNxX: values.
        targets_BxTxY: share of each class in each frame: 1 for its label, unless the corpus has densities.
        weights_BxT: of the frames; 0 if a frame is not trained on.
        valid_B: frames that may be attended to; None for all of them.
    """

    x_BxNxX: Float32[np.ndarray, "B N X"]
    targets_BxTxY: Float32[np.ndarray, "B T Y"]
    weights_BxT: Float32[np.ndarray, "B T"]
    valid_B: Int32[np.ndarray, " B"] | None = None


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
    frames, labels_r = corpus.frame_of_rows[rows_R], corpus.label_R[rows_R]
    weights_F = np.zeros(corpus.frame_counts.sum(), np.float32)
    weights_F[frames] = class_weights(labels_r, len(corpus.classes), balanced)[labels_r]
    targets_FxY = np.zeros((len(weights_F), len(corpus.classes)), np.float32)
    density_RxY = corpus.density_RxY
    targets_FxY[frames] = np.eye(len(corpus.classes))[labels_r] if density_RxY is None else density_RxY[rows_R]
    windows, trained_w = corpus.windows, np.unique(corpus.window_R[rows_R])
    lengths = windows.length_W[trained_w]
    by_length = {int(length): _cycle(trained_w[lengths == length], random) for length in np.unique(lengths)}
    fractions = [np.mean(lengths == length) for length in by_length]
    while True:
        length = int(random.choice(list(by_length), p=fractions))
        chosen = np.array([next(by_length[length]) for _ in range(batch_size)])
        recording_B, first_B = windows.recording_W[chosen], windows.first_W[chosen].astype(np.int64)
        count_B = corpus.frame_counts[recording_B]
        if random_starts:
            # A window that extends beyond the recording's end may do so after the shift too: test windows do.
            latest_B = np.maximum(first_B, count_B - length)
            shift_B = random.integers(-(length // 2), length // 2 + 1, batch_size)
            first_B = np.clip(first_B + shift_B, 0, latest_B)
        frame_BxT = first_B[:, None] + np.arange(length)
        within_BxT = frame_BxT < count_B[:, None]
        index_BxT = np.where(within_BxT, frame_BxT + corpus.first_frames[recording_B][:, None], 0)
        weights_BxT = weights_F[index_BxT] * within_BxT
        x_BxNxX, valid_B = inputs.windows(recording_B, first_B, length), valid_frames(windows, count_B, first_B, length)
        yield WindowBatch(x_BxNxX, targets_FxY[index_BxT], weights_BxT, valid_B)


def prediction_batches(
    corpus: Corpus, inputs: NetworkInputs, windows_W: Int[np.ndarray, " W"], batch_size: int
) -> Iterator[tuple[Int[np.ndarray, " b"], Float32[np.ndarray, "B N X"], Int32[np.ndarray, " B"] | None]]:
    """Every window once, by length: indices, values and valid frames. The last batch of a length repeats a window.

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
            recording_B, first_B = corpus.windows.recording_W[filled], corpus.windows.first_W[filled].astype(np.int64)
            valid_B = valid_frames(corpus.windows, corpus.frame_counts[recording_B], first_B, int(length))
            yield part, inputs.windows(recording_B, first_B, int(length)), valid_B


def _cycle(items: Int[np.ndarray, " n"], random: np.random.Generator) -> Iterator[int]:
    while True:
        yield from random.permutation(items)
