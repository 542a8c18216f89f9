"""What can be guessed without a model: the feature mean, and a straight line across what is hidden."""

import numpy as np
from jaxtyping import Bool, Float


def interpolate(
    target: Float[np.ndarray, "T X"], mask: Bool[np.ndarray, "T X"], channels: int
) -> Float[np.ndarray, "T X"]:
    """Fill hidden frames along time, then hidden bins along frequency, linearly between the nearest visible ones.

    At an edge the nearest visible value goes on. It is told which entries are hidden, swapped frames included,
    which the model is not; in the cross-sensor task it even sees the rest of the target.

    Args:
        target: unaltered frames, channel-major features.
        mask: entries to be guessed: whole frames, and bins that are the same in all channels.
        channels: channels C.
    """
    frames_hidden = np.asarray(mask.all(axis=1))
    bins_hidden = mask.all(axis=0).reshape(channels, -1)[0]
    filled = _fill(target, frames_hidden, axis=0)
    by_channel = filled.reshape(len(target), channels, -1)
    return _fill(by_channel, bins_hidden, axis=2).reshape(target.shape)


def _fill(values: np.ndarray, hidden: np.ndarray, axis: int) -> np.ndarray:
    visible = np.flatnonzero(~hidden)
    if not hidden.any() or not len(visible):
        return values
    at = np.flatnonzero(hidden)
    after = np.searchsorted(visible, at)
    left = visible[np.maximum(after - 1, 0)]
    right = visible[np.minimum(after, len(visible) - 1)]
    left, right = np.where(after == 0, right, left), np.where(after == len(visible), left, right)
    share = np.where(right > left, (at - left) / np.maximum(right - left, 1), 0.0).astype(values.dtype)
    share = share.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    filled = values.copy()
    guess = np.take(values, left, axis) * (1 - share) + np.take(values, right, axis) * share
    filled[(slice(None),) * axis + (at,)] = guess
    return filled
