"""What lies around each frame: a frame of a second does not tell how its surroundings vary."""

import numpy as np
from jaxtyping import Float32, Shaped

from selfpab_jax.errors import ConfigError
from selfpab_jax.signal.stft import SpectrogramSettings


def frames_of(seconds: float, spectrogram: SpectrogramSettings) -> int:
    """Frames that lie wholly in a stretch of so many seconds around a frame's centre.

    Raises:
        ConfigError: fewer than two.
    """
    frames = int((seconds * spectrogram.rate_hz - spectrogram.fft_window) // spectrogram.fft_hop) + 1
    if frames < 2:
        least = (spectrogram.fft_window + spectrogram.fft_hop) / spectrogram.rate_hz
        raise ConfigError(f"surroundings of {seconds:g} s hold one frame only; give at least {least:g} s")
    return frames


def with_surroundings(
    features_TxLxD: Shaped[np.ndarray, "T L D"], lengths: tuple[int, ...]
) -> Float32[np.ndarray, "T L K"]:
    """Each frame's features, then for each length their mean and standard deviation over the frames around it.

    Args:
        features_TxLxD: of the frames of a window, in order.
        lengths: frames of the surroundings, the frame's own place in the middle; at the window's ends they are
            shorter, never filled up.

    Returns:
        K is D * (1 + 2 * len(lengths)).
    """
    own_TxLxD = features_TxLxD.astype(np.float32)
    # Sums run over the whole window: less its mean, so that squares lose no digits.
    centred_TxLxD = own_TxLxD.astype(np.float64) - own_TxLxD.mean(axis=0, dtype=np.float64)
    nothing = np.zeros((1, *own_TxLxD.shape[1:]))
    sums = np.concatenate([nothing, np.cumsum(centred_TxLxD, axis=0)])
    squares = np.concatenate([nothing, np.cumsum(centred_TxLxD**2, axis=0)])
    places_T = np.arange(len(own_TxLxD))
    parts = [own_TxLxD]
    for length in lengths:
        first_T = np.clip(places_T - length // 2, 0, None)
        end_T = np.clip(places_T - length // 2 + length, None, len(own_TxLxD))
        count_T = (end_T - first_T)[:, None, None]
        mean_TxLxD = (sums[end_T] - sums[first_T]) / count_T
        variance_TxLxD = (squares[end_T] - squares[first_T]) / count_T - mean_TxLxD**2
        parts.append((mean_TxLxD + own_TxLxD.mean(axis=0, dtype=np.float64)).astype(np.float32))
        parts.append(np.sqrt(np.maximum(variance_TxLxD, 0)).astype(np.float32))
    return np.concatenate(parts, axis=-1)
