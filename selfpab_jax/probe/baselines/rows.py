"""Results that every fold, seed and label budget of a corpus shares, kept as long as the corpus is."""

import functools
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from selfpab_jax.errors import DataError
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold, inner_split
from selfpab_jax.signal.stft import spectrogram

# Results that every fold, seed and label budget of a corpus shares, kept as long as the corpus is.

P = ParamSpec("P")
Result = TypeVar("Result")


def once_per_corpus(function: Callable[Concatenate[Corpus, P], Result]) -> Callable[Concatenate[Corpus, P], Result]:
    """The function, computing each answer once; further arguments must be hashable."""
    kept: dict[int, dict[Any, Any]] = {}

    @functools.wraps(function)
    def remembering(corpus: Corpus, *args: P.args, **kwargs: P.kwargs) -> Result:
        # By identity: a corpus is frozen, and its arrays cannot be hashed.
        if id(corpus) not in kept:
            kept[id(corpus)] = {}
            weakref.finalize(corpus, kept.pop, id(corpus), None)
        answers = kept[id(corpus)]
        question = (args, tuple(sorted(kwargs.items())))
        if question not in answers:
            answers[question] = function(corpus, *args, **kwargs)
        return answers[question]

    return remembering


# Which rows a baseline trains on, validates with and predicts.


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a fold that may be trained on, and how they are split to stop and to choose.

    Attributes:
        all_R: every one of them.
        fit_R, validation_R: of other subjects each; None where the labels are too few to validate with.
        split: in words, for the description.
    """

    all_R: Bool[np.ndarray, " R"]
    fit_R: Bool[np.ndarray, " R"] | None
    validation_R: Bool[np.ndarray, " R"] | None
    split: str


def training_rows(
    corpus: Corpus, fold: Fold, share: float, seed: int, rows_mask_R: Bool[np.ndarray, " R"] | None
) -> TrainingRows:
    """The labeled rows of the fold's training subjects, split by subject.

    With a label budget each class must be on both sides of the split; where it is not, there is no validation.

    Args:
        corpus: the data set.
        fold: its training subjects.
        share: of them, for validation.
        seed: of the split.
        rows_mask_R: rows whose labels may be used; all where None.

    Raises:
        DataError: fewer than two classes to train on.
    """
    all_R = trainable_rows(corpus, fold, rows_mask_R)
    present = np.unique(corpus.label_R[all_R])
    if len(fold.train) < 2:
        return TrainingRows(all_R, None, None, "none: one training subject")
    fit, validation = inner_split(fold.train, share, seed)
    fit_R, validation_R = all_R & rows_of(corpus, fit), all_R & rows_of(corpus, validation)
    parts = [np.unique(corpus.label_R[part_R]) for part_R in (fit_R, validation_R)]
    enough = all(len(part) == len(present) for part in parts) if rows_mask_R is not None else min(map(len, parts)) > 1
    if not enough:
        return TrainingRows(all_R, None, None, "none: too few labels")
    return TrainingRows(all_R, fit_R, validation_R, f"inner subjects {', '.join(validation)}")


def trainable_rows(corpus: Corpus, fold: Fold, rows_mask_R: Bool[np.ndarray, " R"] | None) -> Bool[np.ndarray, " R"]:
    """The labeled rows of the fold's training subjects, in the unpadded signal and in the mask where there is one.

    Raises:
        DataError: fewer than two classes to train on.
    """
    rows_R = rows_of(corpus, fold.train) & (corpus.label_R >= 0) & corpus.whole_R
    if rows_mask_R is not None:
        rows_R &= rows_mask_R
    present = np.unique(corpus.label_R[rows_R])
    if len(present) < 2:
        names = ", ".join(corpus.classes[i] for i in present) or "none"
        raise DataError(f"fold {fold.name}: the training rows hold fewer than two classes ({names})")
    return rows_R


def rows_of(corpus: Corpus, subjects: Iterable[str]) -> Bool[np.ndarray, " R"]:
    """The rows of these subjects."""
    wanted = [corpus.subjects.index(subject) for subject in subjects]
    return np.isin(corpus.subject_R, wanted)


@once_per_corpus
def first_frames(corpus: Corpus) -> Int[np.ndarray, " recordings"]:
    """Where each recording begins among the frames of all recordings, one after another."""
    counts = corpus.frame_counts.astype(np.int64)
    return np.cumsum(counts) - counts


@once_per_corpus
def frame_of_rows(corpus: Corpus) -> Int[np.ndarray, " R"]:
    """Each row's place among the frames of all recordings, one after another."""
    return first_frames(corpus)[corpus.recording_R] + corpus.frame_R


def class_weights(labels: Int[np.ndarray, " N"], classes: int, balanced: bool) -> Float32[np.ndarray, " Y"]:
    """Weight of each class: 1, or inverse to how often it occurs (mean 1 over the labels); 0 where it does not."""
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    if not balanced:
        return present.astype(np.float32)
    return np.where(present, len(labels) / np.maximum(counts, 1) / present.sum(), 0).astype(np.float32)


def macro_f1(truth: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"]) -> float:
    """Mean F1 over the classes that occur in the truth: what stopping and choosing go by."""
    scores = []
    for label in np.unique(truth):
        hits = np.sum((truth == label) & (predicted == label))
        scores.append(2 * hits / (np.sum(truth == label) + np.sum(predicted == label)))
    return float(np.mean(scores))


# Signals or spectrogram frames of all recordings, one after another, from which batches of windows are cut.

Reads = Literal["frames", "signal"]
SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class Series:
    """Values of all recordings.

    Attributes:
        values_NxX: magnitudes of frames, or samples in g.
        counts: values of each recording.
        stride: values from one frame to the next.
        reach: values that a frame spans.
    """

    values_NxX: Float32[np.ndarray, "N X"]
    counts: Int[np.ndarray, " recordings"]
    stride: int
    reach: int

    @cached_property
    def firsts(self) -> Int[np.ndarray, " recordings"]:
        """Where each recording begins."""
        return np.cumsum(self.counts) - self.counts

    def windows(
        self,
        recording_B: Int[np.ndarray, " B"],
        first_B: Int[np.ndarray, " B"],
        frames: int,
        mean_X: Float32[np.ndarray, " X"],
        std_X: Float32[np.ndarray, " X"],
    ) -> Float32[np.ndarray, "B N X"]:
        """Standardized values of windows of so many frames; 0 beyond the recording's end."""
        place_BxN = first_B[:, None] * self.stride + np.arange((frames - 1) * self.stride + self.reach)
        beyond_BxN = place_BxN >= self.counts[recording_B][:, None]
        place_BxN += self.firsts[recording_B][:, None]
        x_BxNxX = (self.values_NxX[np.where(beyond_BxN, 0, place_BxN)] - mean_X) / std_X
        x_BxNxX[beyond_BxN] = 0
        return x_BxNxX

    def standardization(self, recordings: Iterable[int]) -> tuple[Float32[np.ndarray, " X"], Float32[np.ndarray, " X"]]:
        """Mean and standard deviation of each feature over these recordings; features that never vary keep 1."""
        chosen = list(recordings)
        count = self.counts[chosen].sum()
        first_X, second_X = (sums[chosen].sum(0) / count for sums in self._sums)
        std_X = np.sqrt(np.maximum(second_X - first_X**2, 0))
        return first_X.astype(np.float32), np.where(std_X > SMALLEST_STD, std_X, 1).astype(np.float32)

    @cached_property
    def _sums(self) -> tuple[Float64[np.ndarray, "recordings X"], Float64[np.ndarray, "recordings X"]]:
        parts = [self.values_NxX[first : first + n] for first, n in zip(self.firsts, self.counts, strict=True)]
        totals = [part.sum(0, dtype=np.float64) for part in parts]
        return np.stack(totals), np.stack([np.einsum("nx,nx->x", part, part, dtype=np.float64) for part in parts])


@once_per_corpus
def series_of(corpus: Corpus, reads: Reads) -> Series:
    """What a network reads: the signals, or the frames of the zero-padded signals (as many as there are labels)."""
    settings = corpus.spectrogram
    signals = [recording.signal_NxC for recording in corpus.recordings]
    if reads == "signal":
        counts = np.array([len(signal) for signal in signals])
        return Series(np.concatenate(signals), counts, settings.fft_hop, settings.fft_window)
    frames = []
    for signal_NxC, count in zip(signals, corpus.frame_counts, strict=True):
        samples = (int(count) - 1) * settings.fft_hop + settings.fft_window
        padding = ((0, max(0, samples - len(signal_NxC))), (0, 0))
        frames.append(spectrogram(np.pad(signal_NxC, padding)[:samples], settings))
    return Series(np.concatenate(frames), corpus.frame_counts.astype(np.int64), 1, 1)
