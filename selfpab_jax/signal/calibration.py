"""Calibration of an accelerometer by gravity, from the times at which it lay still."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from selfpab_jax.signal.epochs import EPOCH_SECONDS, STILL_G, EpochMoments

LARGEST_MEAN_G = 2.0
SPHERE_G = 0.3
"""Still means must lie beyond this on both sides of every axis."""
ACCEPTED_MG = 10.0
LEAST_EPOCHS = 10
LARGEST_WEIGHT = 100.0
"""Weights are the inverse of a point's distance from the sphere in g, up to this."""
ITERATIONS = 1000
CONVERGED = 1e-10


@dataclass(frozen=True)
class Calibration:
    """What makes still times lie on the sphere of 1 g: calibrated = signal * scale + offset, per axis.

    Attributes:
        offset_3: g.
        scale_3: gains.
        error_before_mg: mean distance of the still means' length from 1 g, NaN where there are none.
        error_after_mg: the same with offset and scale.
        hours: hours of recording that were looked at.
        still_epochs: epochs of 10 s that were used.
        reason: why offset and scale are 0 and 1 instead, or None where the calibration was accepted.
    """

    offset_3: Float64[np.ndarray, " 3"]
    scale_3: Float64[np.ndarray, " 3"]
    error_before_mg: float
    error_after_mg: float
    hours: float
    still_epochs: int
    reason: str | None

    def apply(self, signal_Nx3: Float[np.ndarray, "N 3"]) -> Float32[np.ndarray, "N 3"]:
        """The calibrated signal in g."""
        return (signal_Nx3 * self.scale_3 + self.offset_3).astype(np.float32)


def calibrate(moments: EpochMoments) -> Calibration:
    """Offset and gain of each axis by the still times of a recording (van Hees et al. 2014).

    Epochs of 10 s count as still where every axis has a standard deviation below 13 mg and a mean below 2 g. Their
    means should lie on the sphere of 1 g: axis by axis, weighted least squares fit them to their nearest points on it,
    again until nothing changes. Accepted where the error falls and ends below 10 mg.
    https://doi.org/10.1152/japplphysiol.00421.2014

    Args:
        moments: `epoch_moments` of one sensor's acceleration in g, in epochs of 10 s.
    """
    hours = len(moments.mean_ExC) * EPOCH_SECONDS / 3600
    still_Nx3 = still_means(moments)

    def refused(reason: str, before: float = np.nan, after: float = np.nan) -> Calibration:
        return Calibration(np.zeros(3), np.ones(3), before, after, hours, len(still_Nx3), reason)

    if len(still_Nx3) < LEAST_EPOCHS:
        return refused(f"too few still epochs: {len(still_Nx3)} of 10 s, {LEAST_EPOCHS} are needed")
    before = _error_mg(still_Nx3)
    low_3, high_3 = still_Nx3.min(axis=0), still_Nx3.max(axis=0)
    if missing := [axis for c, axis in enumerate("xyz") if low_3[c] > -SPHERE_G or high_3[c] < SPHERE_G]:
        return refused(
            f"too few orientations: still times on one side only of {', '.join(missing)} (beyond {SPHERE_G:g} g)",
            before,
        )
    offset_3, scale_3 = _fit(still_Nx3)
    after = _error_mg(still_Nx3 * scale_3 + offset_3)
    if not (after < before and after < ACCEPTED_MG):
        return refused(f"no better: error {before:.1f} mg before, {after:.1f} mg after", before, after)
    return Calibration(offset_3, scale_3, before, after, hours, len(still_Nx3), None)


def still_means(moments: EpochMoments) -> Float64[np.ndarray, "S 3"]:
    """Means of the epochs in which the sensor lay still and recorded.

    Args:
        moments: of one sensor in g.
    """
    mean_Ex3 = moments.mean_ExC.astype(np.float64)
    with np.errstate(invalid="ignore"):
        is_still_E = (moments.std_ExC < STILL_G).all(axis=1) & (np.abs(mean_Ex3) < LARGEST_MEAN_G).all(axis=1)
    # Constant values are idle sleep, filled in by the recorder or its software: they add no measurement.
    return mean_Ex3[is_still_E & ~moments.is_constant_E]


def _fit(still_Nx3: Float64[np.ndarray, "S 3"]) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
    offset_3, scale_3 = np.zeros(3), np.ones(3)
    weights_N, error = np.ones(len(still_Nx3)), np.inf
    for _ in range(ITERATIONS):
        current_Nx3 = still_Nx3 * scale_3 + offset_3
        length_Nx1 = np.linalg.norm(current_Nx3, axis=1, keepdims=True)
        nearest_Nx3 = current_Nx3 / np.maximum(length_Nx1, 1e-6)
        distance_N = np.abs(length_Nx1[:, 0] - 1)
        previous, error = error, float(np.average(distance_N**2, weights=weights_N))
        if abs(previous - error) < CONVERGED:
            break
        for c in range(3):
            # polyfit squares its weights.
            slope, shift = np.polyfit(current_Nx3[:, c], nearest_Nx3[:, c], 1, w=np.sqrt(weights_N))
            scale_3[c], offset_3[c] = scale_3[c] * slope, offset_3[c] * slope + shift
        weights_N = np.minimum(1 / np.maximum(distance_N, 1 / LARGEST_WEIGHT), LARGEST_WEIGHT)
    return offset_3, scale_3


def _error_mg(still_Nx3: Float64[np.ndarray, "S 3"]) -> float:
    return 1000 * float(np.abs(np.linalg.norm(still_Nx3, axis=1) - 1).mean())
