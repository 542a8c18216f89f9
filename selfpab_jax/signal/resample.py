"""Resampling to another rate, and conversion of units to g."""

from fractions import Fraction
from typing import Literal

import numpy as np
import scipy.signal
from jaxtyping import Float, Float32, Int, Shaped

DENOMINATORS = (1000, 20_000, 100_000, 1_000_000)
"""The first that is precise enough: the cost of a filter grows with it."""
RATIO_ERROR = 5e-7
"""Relative; 0.3 s in a week, less than the step from frame to frame."""


def ratio(from_hz: float, to_hz: float) -> Fraction:
    """to_hz / from_hz as a fraction, within 5e-7 of it; exact for usual rates (102.4 Hz, 99.97 Hz)."""
    exact = Fraction(to_hz / from_hz)
    fractions = (exact.limit_denominator(denominator) for denominator in DENOMINATORS)
    return next(
        (each for each in fractions if abs(each - exact) <= RATIO_ERROR * exact),
        exact.limit_denominator(DENOMINATORS[-1]),
    )


def resample(signal_NxC: Float[np.ndarray, "N C"], from_hz: float, to_hz: float) -> Float32[np.ndarray, "M C"]:
    """The signal at another rate, through scipy's polyphase filter (zero-phase, cut off at the lower Nyquist rate).

    Beyond its ends the signal is extrapolated along the straight line between its first and last samples, so that
    gravity causes no edge. Polyphase rather than Fourier resampling, because recordings are not periodic and the cost
    is linear in the length. M = ceil(N * to_hz / from_hz); sample m is at time m / to_hz.

    Args:
        signal_NxC: samples.
        from_hz: their rate.
        to_hz: wanted rate.
    """
    factor = ratio(from_hz, to_hz)
    if factor == 1 or not len(signal_NxC):
        return signal_NxC.astype(np.float32, copy=False)
    up, down = factor.numerator, factor.denominator
    return scipy.signal.resample_poly(signal_NxC, up, down, axis=0, padtype="line").astype(np.float32)


def resample_labels(labels_N: Int[np.ndarray, " N"], from_hz: float, to_hz: float) -> Int[np.ndarray, " M"]:
    """The label of the nearest sample in time (ties to the earlier one), one for each sample of `resample`.

    Args:
        labels_N: one per sample.
        from_hz: rate of the samples.
        to_hz: wanted rate.
    """
    factor = ratio(from_hz, to_hz)
    if factor == 1:
        return labels_N
    count = -(-len(labels_N) * factor.numerator // factor.denominator)
    nearest_M = (2 * np.arange(count) * factor.denominator + factor.numerator - 1) // (2 * factor.numerator)
    return labels_N[np.minimum(nearest_M, len(labels_N) - 1)]


def fourier_resample(signal_NxC: Float[np.ndarray, "N C"], from_hz: float, to_hz: float) -> Float[np.ndarray, "M C"]:
    """The signal at another rate by truncating its spectrum, as scipy.signal.resample and the original do.

    M = round(N * to_hz / from_hz); sample m is at m * N / M in the old samples. The signal is assumed to be periodic,
    so a step between its end and its beginning rings at both. `resample` is better; this is for comparison with the
    original. Keeps the dtype.

    Args:
        signal_NxC: samples.
        from_hz: their rate.
        to_hz: wanted rate.
    """
    count = fourier_count(len(signal_NxC), from_hz, to_hz)
    if from_hz == to_hz or not count:
        return signal_NxC[:count]
    return np.asarray(scipy.signal.resample(signal_NxC, count, axis=0), signal_NxC.dtype)


def fourier_resample_labels(labels_N: Int[np.ndarray, " N"], from_hz: float, to_hz: float) -> Int[np.ndarray, " M"]:
    """The label of sample round(m * N / M) (halves to even), as the original picks it, one per sample.

    Args:
        labels_N: one per sample.
        from_hz: rate of the samples.
        to_hz: wanted rate.
    """
    count = fourier_count(len(labels_N), from_hz, to_hz)
    if from_hz == to_hz or not count:
        return labels_N[:count]
    nearest_M = np.round(len(labels_N) / count * np.arange(count)).astype(np.int64)
    return labels_N[np.minimum(nearest_M, len(labels_N) - 1)]


def fourier_count(samples: int, from_hz: float, to_hz: float) -> int:
    """M, the number of samples that `fourier_resample` returns.

    Args:
        samples: N.
        from_hz: their rate.
        to_hz: wanted rate.
    """
    return round(samples * (to_hz / from_hz))


Unit = Literal["g", "mg", "m/s2"]
STANDARD_GRAVITY = 9.80665
"""m/s^2 in 1 g (CGPM 1901)."""
UNITS_PER_G: dict[str, float] = {"g": 1.0, "mg": 1000.0, "m/s2": STANDARD_GRAVITY}
"""How many of each `Unit` make 1 g."""


def to_g(signal_NxC: Shaped[np.ndarray, "N C"], unit: Unit) -> Float[np.ndarray, "N C"]:
    """The signal in g; its own dtype where it is floating, else float32."""
    signal_NxC = signal_NxC if np.issubdtype(signal_NxC.dtype, np.floating) else signal_NxC.astype(np.float32)
    return signal_NxC if unit == "g" else signal_NxC / signal_NxC.dtype.type(UNITS_PER_G[unit])
