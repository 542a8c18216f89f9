"""The pretext task: frames masked or swapped and bins masked, one sample at a time, with static shapes."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


@dataclass(frozen=True)
class AlterationSettings:
    """How much is hidden; the defaults are SelfPAB's. A share or width of 0 turns that axis off.

    Args:
        time_share: share of frames covered by the drawn stretches, overlaps not counted.
        time_width: frames in a stretch.
        mask_probability: probability that a sample's stretches are set to 0.
        swap_probability: probability that they are overwritten by other stretches of the same sample.
        reverse_probability: probability that a finished time mask is mirrored in time (0.5 in LTA2V).
        frequency_share: share of bins covered by the drawn bands.
        frequency_width: bins in a band.
        frequency_probability: probability that a sample's bands are set to 0.
    """

    time_share: float = 0.15
    time_width: int = 3
    mask_probability: float = 0.8
    swap_probability: float = 0.1
    reverse_probability: float = 0.0
    frequency_share: float = 0.2
    frequency_width: int = 3
    frequency_probability: float = 0.9

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith(("_share", "_probability")) and not 0 <= value <= 1:
                raise ValueError(f"alteration.{name} is {value}; it must lie in [0, 1]")
            if name.endswith("_width") and value < 0:
                raise ValueError(f"alteration.{name} is {value}; it must not be negative")
        if self.mask_probability + self.swap_probability > 1:
            raise ValueError("alteration.mask_probability and alteration.swap_probability add up to more than 1")


class Altered(NamedTuple):
    """An altered sample and where it was altered, which is where the loss counts."""

    frames: Float[Array, "T X"]
    mask: Bool[Array, "T X"]


def stretch_count(length: int, share: float, width: int) -> int:
    """Stretches drawn along an axis of `length`: 29 of 3 frames in 599, 1 of 3 bins in 26."""
    if share == 0 or width == 0:
        return 0
    return min(int(share * (length / width)), max(length - width, 0))


def draw_stretches(key: Key[Array, ""], length: int, count: int, width: int) -> Int[Array, "count width"]:
    """Positions covered by `count` distinct starts from [0, length - width): the last position never is.

    The original draws from the same half-open range, so its last frame and last bin are never altered either.
    """
    _, starts = jax.lax.top_k(jax.random.uniform(key, (length - width,)), count)
    return starts[:, None] + jnp.arange(width)


def covered(positions: Int[Array, "count width"], length: int) -> Bool[Array, "length"]:
    """True at the positions given."""
    return jnp.zeros(length, bool).at[positions.reshape(-1)].set(True)


def swap_frames(
    frames: Float[Array, "T X"], source: Int[Array, "S"], target: Int[Array, "S"]
) -> tuple[Float[Array, "T X"], Bool[Array, "T"]]:
    """Copy frame source[i] of the unaltered sample onto target[i]; where targets meet, the last one wins.

    Returns the new frames and which of them are targets. `swap_tensor` of the original does the same.
    """
    order = jnp.arange(1, target.shape[0] + 1)
    last = jnp.zeros(frames.shape[0], order.dtype).at[target].max(order)
    is_target = last > 0
    return jnp.where(is_target[:, None], frames[source[last - 1]], frames), is_target


def alter(frames: Float[Array, "T X"], key: Key[Array, ""], channels: int, settings: AlterationSettings) -> Altered:
    """Alter one normalised sample; 0 is then each feature's mean (reference: the original's masked data set).

    Args:
        frames: T frames of X = channels * bins features, channel-major.
        key: the sample's own key.
        channels: channels C; a masked band covers the same bins in all of them.
        settings: shares, widths, probabilities.
    """
    bins = frames.shape[1] // channels
    frames_key, bands_key = jax.random.split(key)
    altered, in_time = _alter_time(frames, frames_key, settings)

    count = stretch_count(bins, settings.frequency_share, settings.frequency_width)
    in_band = jnp.zeros(bins, bool)
    if count:
        chance_key, start_key = jax.random.split(bands_key)
        bands = covered(draw_stretches(start_key, bins, count, settings.frequency_width), bins)
        in_band = bands & (jax.random.uniform(chance_key) < settings.frequency_probability)
    in_band_X = jnp.tile(in_band, channels)
    return Altered(jnp.where(in_band_X, 0, altered), in_time[:, None] | in_band_X)


def _alter_time(frames: Array, key: Array, settings: AlterationSettings) -> tuple[Array, Array]:
    length = frames.shape[0]
    count = stretch_count(length, settings.time_share, settings.time_width)
    if not count:
        return frames, jnp.zeros(length, bool)
    kind_key, mask_key, reverse_key, source_key, target_key = jax.random.split(key, 5)
    width = settings.time_width

    hidden = covered(draw_stretches(mask_key, length, count, width), length)
    if settings.reverse_probability:
        mirrored = jax.random.uniform(reverse_key) < settings.reverse_probability
        hidden = jnp.where(mirrored, hidden[::-1], hidden)
    source = draw_stretches(source_key, length, count, width).reshape(-1)
    target = draw_stretches(target_key, length, count, width).reshape(-1)
    swapped, is_target = swap_frames(frames, source, target)

    u = jax.random.uniform(kind_key)
    is_mask = u < settings.mask_probability
    is_swap = ~is_mask & (u < settings.mask_probability + settings.swap_probability)
    altered = jnp.where((is_mask & hidden)[:, None], 0, jnp.where(is_swap, swapped, frames))
    return altered, (is_mask & hidden) | (is_swap & is_target)
