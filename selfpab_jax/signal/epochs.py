"""Mean and standard deviation of a signal in short epochs, from which still times are found."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

EPOCH_SECONDS = 10.0
STILL_G = 0.013
"""A sensor is still where the standard deviation of every axis is below this in an epoch (van Hees et al. 2014)."""


class EpochMoments(NamedTuple):
    """One row per epoch, side by side; of NaN where a sample of the epoch is.

    Attributes:
        mean_ExC: means.
        std_ExC: standard deviations.
        is_constant_E: whether no channel changes at all.
    """

    mean_ExC: Float32[np.ndarray, "E C"]
    std_ExC: Float32[np.ndarray, "E C"]
    is_constant_E: Bool[np.ndarray, " E"]


def epoch_moments(
    blocks: Iterable[Float[np.ndarray, "_ C"]], rate_hz: float, seconds: float = EPOCH_SECONDS
) -> EpochMoments:
    """Moments of all whole epochs of a continuous signal.

    Args:
        blocks: the signal in consecutive blocks of any length (one block is fine); one at a time is held.
        rate_hz: its rate.
        seconds: length of an epoch.
    """
    samples = max(1, round(seconds * rate_hz))
    rest_nxC: np.ndarray | None = None
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for block in blocks:
        held = block if rest_nxC is None else np.concatenate([rest_nxC, block])
        epochs = len(held) // samples
        # A copy, so that the rest does not keep the block in memory.
        rest_nxC = held[epochs * samples :].copy()
        signal_ExNxC = held[: epochs * samples].reshape(epochs, samples, held.shape[1])
        parts.append(
            (
                signal_ExNxC.mean(axis=1, dtype=np.float64).astype(np.float32),
                signal_ExNxC.std(axis=1, dtype=np.float64).astype(np.float32),
                (signal_ExNxC == signal_ExNxC[:, :1]).all(axis=(1, 2)),
            )
        )
    if not parts:
        return EpochMoments(np.empty((0, 3), np.float32), np.empty((0, 3), np.float32), np.empty(0, bool))
    means, stds, constants = zip(*parts, strict=True)
    return EpochMoments(np.concatenate(means), np.concatenate(stds), np.concatenate(constants))
