"""Signals or spectrogram frames of all recordings, one after another, from which batches of windows are cut."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int

from selfpab_jax.probe.baselines.memo import once_per_corpus
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.signal.stft import spectrogram

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
        """Standardised values of windows of so many frames; 0 beyond the recording's end."""
        place_BxN = first_B[:, None] * self.stride + np.arange((frames - 1) * self.stride + self.reach)
        beyond_BxN = place_BxN >= self.counts[recording_B][:, None]
        place_BxN += self.firsts[recording_B][:, None]
        x_BxNxX = (self.values_NxX[np.where(beyond_BxN, 0, place_BxN)] - mean_X) / std_X
        x_BxNxX[beyond_BxN] = 0
        return x_BxNxX

    def standardisation(self, recordings: Iterable[int]) -> tuple[Float32[np.ndarray, " X"], Float32[np.ndarray, " X"]]:
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
