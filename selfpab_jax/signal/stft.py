"""Magnitude spectrograms (short-time Fourier transform), in the layout that SelfPAB's encoder reads."""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Float32, Shaped
from numpy.lib.stride_tricks import sliding_window_view

from selfpab_jax.errors import ConfigError


@dataclass(frozen=True)
class SpectrogramSettings:
    """How a signal becomes frames of magnitudes: sampling rate in Hz, window and hop in samples.

    The defaults are the published ones: one-second windows, half overlapping, at 50 Hz.

    Raises:
        ConfigError: a rate, window or hop is out of range.
    """

    rate_hz: float = 50.0
    fft_window: int = 50
    fft_hop: int = 25

    def __post_init__(self) -> None:
        if not self.rate_hz > 0:
            raise ConfigError(f"rate_hz is {self.rate_hz}: a sampling rate must be above 0")
        if self.fft_window < 2:
            raise ConfigError(f"fft_window is {self.fft_window}: a spectrogram needs at least 2 samples per frame")
        if not 1 <= self.fft_hop <= self.fft_window:
            raise ConfigError(f"fft_hop is {self.fft_hop}: it must be from 1 to fft_window ({self.fft_window}) samples")

    @property
    def bins(self) -> int:
        """F, frequency bins of the one-sided transform."""
        return self.fft_window // 2 + 1

    def frame_count(self, samples: int) -> int:
        """T, number of complete frames in this many samples (no padding: a signal shorter than a window has none)."""
        return max(0, (samples - self.fft_window) // self.fft_hop + 1)

    def features(self, channels: int) -> int:
        """X = C * F, features of a frame."""
        return channels * self.bins


def periodic_hann(window: int) -> Float32[np.ndarray, " W"]:
    """The periodic Hann window (the default of torch.hann_window)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)


def spectrogram(signal_NxC: Shaped[np.ndarray, "N C"], settings: SpectrogramSettings) -> Float32[np.ndarray, "T X"]:
    """Short-time Fourier magnitudes of a signal.

    Per channel: periodic Hann window, no centering, no padding, one-sided, unnormalized magnitude. Feature
    ``c * F + f`` is bin f of channel c. A real FFT over strided frames is as fast
    as a matrix product with windowed cosines and sines for windows of 50 samples, and 15 times faster for 3,000.

    Args:
        signal_NxC: samples in g; computed in float32.
        settings: window and hop; T follows from them and N.

    Returns:
        Magnitudes in g * samples.
    """
    samples, channels = signal_NxC.shape
    frames = settings.frame_count(samples)
    if frames == 0:
        return np.zeros((0, settings.features(channels)), np.float32)
    signal_CxN = np.ascontiguousarray(signal_NxC.T, dtype=np.float32)
    frames_CxTxW = sliding_window_view(signal_CxN, settings.fft_window, axis=1)[:, :: settings.fft_hop]
    spectrum_CxTxF = np.asarray(scipy.fft.rfft(frames_CxTxW * periodic_hann(settings.fft_window), axis=-1))
    magnitude_TxCxF = np.abs(spectrum_CxTxF).transpose(1, 0, 2)
    return magnitude_TxCxF.reshape(frames, -1)
