"""Masking: what is hidden from the encoder, and the two pretext tasks (the papers call it alteration).

Frames are masked or swapped, and bands of bins masked, for one sample at a time and with static shapes. The model then
reconstructs what was hidden, from the same sensors (SelfPAB) or another one (MonoSelfPAB). Optionally half of a sample
is permuted or warped in time before, and a second head finds out which half.
"""

import itertools
import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from selfpab_jax.errors import ConfigError
from selfpab_jax.model.losses import LossName


@dataclass(frozen=True)
class MaskingSettings:
    """How much is hidden; the defaults are SelfPAB's. A share or width of 0 turns that axis off.

    Args:
        time_share: of frames covered by the drawn segments, overlaps not counted.
        time_width: frames in a segment.
        mask_probability: probability that a sample's segments are set to 0.
        swap_probability: probability that they are overwritten by other segments of the same sample.
        reverse_probability: probability that a finished time mask is mirrored in time (0.5 in LTA2V).
        frequency_share: share of bins covered by the drawn bands.
        frequency_width: bins in a band.
        frequency_probability: probability that a sample's bands are set to 0.
        disjoint: segments do not overlap, so that the share of frames is covered exactly, and any frame may be. As
            published they may overlap: a share of 0.8 covers 55%.
        channel_probability: probability that one channel of a sample, drawn at random, is set to 0 as a whole.
        sensor_probability: probability that all channels of one sensor, drawn at random, are.
    """

    time_share: float = 0.15
    time_width: int = 3
    mask_probability: float = 0.8
    swap_probability: float = 0.1
    reverse_probability: float = 0.0
    frequency_share: float = 0.2
    frequency_width: int = 3
    frequency_probability: float = 0.9
    disjoint: bool = False
    channel_probability: float = 0.0
    sensor_probability: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith(("_share", "_probability")) and not 0 <= value <= 1:
                raise ConfigError(f"task.masking.{name} is {value}; it must be in [0, 1]")
            if name.endswith("_width") and value < 0:
                raise ConfigError(f"task.masking.{name} is {value}; it must not be negative")
        if self.mask_probability + self.swap_probability > 1:
            raise ConfigError("task.masking.mask_probability and task.masking.swap_probability add up to more than 1")


class MaskedSample(NamedTuple):
    """A sample with parts hidden, and where: that is where the loss counts."""

    frames: Float[Array, "T X"]
    mask: Bool[Array, "T X"]


def segment_count(length: int, share: float, width: int) -> int:
    """Number of segments drawn along an axis: 29 of 3 frames in 599, 1 of 3 bins in 26.

    Args:
        length: of the axis.
        share: of it to be covered, overlaps not counted.
        width: of a segment.
    """
    if share == 0 or width == 0:
        return 0
    return min(int(share * (length / width)), max(length - width, 0))


class ValidPart(NamedTuple):
    """The valid frames of a padded sample, and how many segments are drawn in them."""

    length: Int[Array, ""]
    count: Int[Array, ""]


def draw_segments(
    key: Key[Array, ""], length: int, count: int, width: int, part: ValidPart | None = None
) -> Int[Array, "count width"]:
    """Positions of segments with distinct starts in [0, length - width), so that the last position is never covered.

    The original draws from the same half-open range, so its last frame and last bin are never masked either.

    Args:
        key: of the sample.
        length: of the axis.
        count: of segments.
        width: of a segment.
        part: of the axis to draw in: the segments are those drawn for an axis of its length, and the others are at
            `length`, which is no position. Random numbers depend on their place alone, not on how many there are.
    """
    drawn = jax.random.uniform(key, (length - width,))
    if part is not None:
        drawn = jnp.where(jnp.arange(length - width) < part.length - width, drawn, -1)
    _, starts = jax.lax.top_k(drawn, count)
    positions = starts[:, None] + jnp.arange(width)
    return positions if part is None else jnp.where(jnp.arange(count)[:, None] < part.count, positions, length)


def draw_disjoint(
    key: Key[Array, ""], length: int, count: int, width: int, part: ValidPart | None = None
) -> Int[Array, "count width"]:
    """Positions of segments that do not overlap: blocks of an axis that begins at a random position and wraps around.

    Args:
        key, length, count, width, part: see `draw_segments`.
    """
    block_key, offset_key = jax.random.split(key)
    blocks = length // width
    valid = length if part is None else jnp.maximum(part.length, 1)
    drawn = jax.random.uniform(block_key, (blocks,))
    drawn = jnp.where(jnp.arange(blocks) < valid // width, drawn, -1)
    _, chosen = jax.lax.top_k(drawn, count)
    offset = jnp.floor(jax.random.uniform(offset_key) * valid).astype(jnp.int32)
    positions = (chosen[:, None] * width + jnp.arange(width) + offset) % valid
    return positions if part is None else jnp.where(jnp.arange(count)[:, None] < part.count, positions, length)


def covered(positions: Int[Array, "count width"], length: int) -> Bool[Array, " length"]:
    """True at the given positions; those beyond the length are left out."""
    return jnp.zeros(length, bool).at[positions.reshape(-1)].set(True)


def swap_frames(
    frames: Float[Array, "T X"], source: Int[Array, " S"], target: Int[Array, " S"]
) -> tuple[Float[Array, "T X"], Bool[Array, " T"]]:
    """Copy frame source[i] of the original sample to target[i]; where targets coincide, the last one wins.

    Returns the new frames and which of them are targets: those beyond the last frame are left out.

    Args:
        frames: of a sample.
        source: positions to copy from.
        target: positions to copy to.
    """
    order = jnp.arange(1, target.shape[0] + 1)
    last = jnp.zeros(frames.shape[0], order.dtype).at[target].max(order)
    is_target = last > 0
    return jnp.where(is_target[:, None], frames[source[last - 1]], frames), is_target


def mask_sample(
    frames: Float[Array, "T X"],
    key: Key[Array, ""],
    channels: int,
    settings: MaskingSettings,
    valid: Int[Array, ""] | None = None,
    *,
    sensors: int = 1,
) -> MaskedSample:
    """Mask one normalized sample, in which 0 is each feature's mean (as the original's masked data set).

    Args:
        frames: T frames of X = channels * bins features, channel-major.
        key: of the sample.
        channels: channels C; a masked band covers the same bins in all of them.
        settings: shares, widths, probabilities.
        valid: valid frames; padding after them is neither masked nor in the mask, and the others are masked as in a
            sample without it. All where not given.
        sensors: sensors of equally many channels, one after the other.
    """
    bins = frames.shape[1] // channels
    frames_key, bands_key = jax.random.split(key)
    masked, in_time = _mask_time(frames, frames_key, settings, valid)

    count = segment_count(bins, settings.frequency_share, settings.frequency_width)
    in_band = jnp.zeros(bins, bool)
    if count:
        chance_key, start_key = jax.random.split(bands_key)
        bands = covered(draw_segments(start_key, bins, count, settings.frequency_width), bins)
        in_band = bands & (jax.random.uniform(chance_key) < settings.frequency_probability)
    hidden_X = jnp.tile(in_band, channels)
    if settings.channel_probability or settings.sensor_probability:
        hidden_X |= _hidden_channels(key, channels, sensors, settings).repeat(bins)
    sample = MaskedSample(jnp.where(hidden_X, 0, masked), in_time[:, None] | hidden_X)
    if valid is None:
        return sample
    return sample._replace(mask=sample.mask & (jnp.arange(len(frames))[:, None] < valid))


def _hidden_channels(key: Array, channels: int, sensors: int, settings: MaskingSettings) -> Array:
    """Which channels are set to 0 as a whole; with keys of their own, so that other draws stay what they are."""
    hidden = jnp.zeros(channels, bool)
    groups = ((2, settings.channel_probability, channels), (3, settings.sensor_probability, sensors))
    for number, probability, parts in groups:
        if probability:
            chance_key, part_key = jax.random.split(jax.random.fold_in(key, number))
            part = jax.random.randint(part_key, (), 0, parts)
            is_hidden = jax.random.uniform(chance_key) < probability
            hidden |= is_hidden & (jnp.arange(channels) // (channels // parts) == part)
    return hidden


def _mask_time(frames: Array, key: Array, settings: MaskingSettings, valid: Array | None) -> tuple[Array, Array]:
    length = frames.shape[0]
    count = segment_count(length, settings.time_share, settings.time_width)
    if not count:
        return frames, jnp.zeros(length, bool)
    kind_key, mask_key, reverse_key, source_key, target_key = jax.random.split(key, 5)
    width = settings.time_width
    part = None if valid is None else _part(valid, length, settings)

    draw = draw_disjoint if settings.disjoint else draw_segments
    hidden = covered(draw(mask_key, length, count, width, part), length)
    if settings.reverse_probability:
        mirrored = jax.random.uniform(reverse_key) < settings.reverse_probability
        reverse = hidden[::-1] if valid is None else jnp.roll(hidden[::-1], valid - length)
        hidden = jnp.where(mirrored, reverse, hidden)
    source = draw(source_key, length, count, width, part).reshape(-1)
    target = draw(target_key, length, count, width, part).reshape(-1)
    swapped, is_target = swap_frames(frames, source, target)

    u = jax.random.uniform(kind_key)
    is_mask = u < settings.mask_probability
    is_swap = ~is_mask & (u < settings.mask_probability + settings.swap_probability)
    masked = jnp.where((is_mask & hidden)[:, None], 0, jnp.where(is_swap, swapped, frames))
    return masked, (is_mask & hidden) | (is_swap & is_target)


def _part(valid: Array, length: int, settings: MaskingSettings) -> ValidPart:
    counts = [segment_count(valid, settings.time_share, settings.time_width) for valid in range(length + 1)]
    return ValidPart(valid, jnp.asarray(np.array(counts, np.int32))[valid])


def alter_half(
    frames_TxX: Float[Array, "T X"],
    key: Key[Array, ""],
    kind: Literal["permuted", "warped"],
    valid: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "T X"], Int[Array, ""]]:
    """Permute or warp one half of a sample, drawn at random; returns the frames, and which half: 0 or 1.

    `permuted`: the half's quarters change places. `warped`: it plays at a growing or falling speed (place^p, p from 1.5
    to 2.5 or its inverse); frames are repeated or left out.

    Args:
        frames_TxX: of a sample.
        key: of the sample.
        kind: of alteration.
        valid: frames before the padding; all where not given.
    """
    half_key, order_key, speed_key, sign_key = jax.random.split(key, 4)
    length = len(frames_TxX)
    half = (length if valid is None else valid) // 2
    second = jax.random.bernoulli(half_key).astype(jnp.int32)
    position_T = jnp.arange(length) - second * half
    if kind == "permuted":
        quarter = jnp.maximum(half // 4, 1)
        # Every order of the quarters but the one that changes nothing.
        orders = jnp.asarray(np.array(list(itertools.permutations(range(4)))[1:], np.int32))
        order = orders[jax.random.randint(order_key, (), 0, len(orders))]
        source_T = order[jnp.clip(position_T // quarter, 0, 3)] * quarter + position_T % quarter
        moved_T = (position_T >= 0) & (position_T < 4 * quarter) & (4 * quarter <= half)
    else:
        exponent = jax.random.uniform(speed_key, minval=math.log(1.5), maxval=math.log(2.5))
        power = jnp.exp(jnp.where(jax.random.bernoulli(sign_key), exponent, -exponent))
        last = jnp.maximum(half - 1, 1)
        source_T = jnp.round(last * (jnp.clip(position_T, 0, last) / last) ** power).astype(jnp.int32)
        moved_T = (position_T >= 0) & (position_T < half)
    index_T = jnp.where(moved_T, source_T, position_T) + second * half
    return frames_TxX[index_T], second


@dataclass(frozen=True)
class TaskSettings:
    """What is reconstructed, and from what.

    Args:
        kind: `masked`, all sensors in and out (SelfPAB), or `cross_sensor`, one in, the other out (MonoSelfPAB).
        input_sensor: the input sensor for `cross_sensor`; the other one is the target.
        switch_probability: probability, for each sample, that they are exchanged.
        loss: `masked_l1` as published, `masked_l2`, or `log_spectral` (`model/losses.py`).
        masking: what is hidden.
        second_head: what else is asked of the model: `none` as published; or which half of a window was `permuted` or
            `warped` in time, by a linear head on the difference of the halves' mean features.
        second_probability: probability that a window is altered for it.
        second_weight: of its cross-entropy beside the reconstruction's loss.
    """

    kind: Literal["masked", "cross_sensor"] = "masked"
    input_sensor: str = ""
    switch_probability: float = 0.5
    loss: LossName = "masked_l1"
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    second_head: Literal["none", "permuted", "warped"] = "none"
    second_probability: float = 0.5
    second_weight: float = 0.1

    def __post_init__(self) -> None:
        for name in ("switch_probability", "second_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"task.{name} is {getattr(self, name)}; it must be in [0, 1]")
        if self.second_weight < 0:
            raise ConfigError(f"task.second_weight is {self.second_weight}; it must not be negative")
        if self.kind == "cross_sensor" and self.second_head != "none":
            raise ConfigError("task.second_head needs task.kind masked; set it to none")
        if self.kind == "cross_sensor" and self.masking.sensor_probability:
            raise ConfigError(
                "task.masking.sensor_probability needs task.kind masked: of cross_sensor it would hide the whole input"
            )
        if self.kind == "cross_sensor" and self.loss == "log_spectral":
            raise ConfigError("task.loss log_spectral needs task.kind masked; set task.loss masked_l1")


class MaskedBatch(NamedTuple):
    """A batch as the model sees it: masked input, target, and where the loss counts."""

    input: Float[Array, "B T X"]
    target: Float[Array, "B T O"]
    mask: Bool[Array, "B T O"]
    altered_half: Int[Array, " B"] | None = None
    """For a second head: the half that was altered before the masking, 0 or 1, or -1 for neither."""


def features_of(task: TaskSettings, features: int, sensors: tuple[str, ...], channels: tuple[str, ...]) -> int:
    """Number of features of the model's input, and of its output: all of them, or those of one sensor.

    Args:
        task: the pretext task.
        features: of the records.
        sensors: their names, in the order of the features.
        channels: their names, likewise.

    Raises:
        ConfigError: the cross-sensor task needs two sensors, `input_sensor` among them, with as many channels each.
    """
    if task.kind == "masked":
        return features
    if len(sensors) != 2:
        raise ConfigError(f"task.kind cross_sensor needs records of two sensors; these have {', '.join(sensors)}")
    if task.input_sensor and task.input_sensor not in sensors:
        raise ConfigError(f"task.input_sensor {task.input_sensor!r} is not one of {', '.join(sensors)}")
    half = len(channels) // 2
    of_first = [name.rsplit("_", 1)[0] == sensors[0] for name in channels]
    if of_first != [True] * half + [False] * half:
        raise ConfigError(
            f"task.kind cross_sensor needs the channels of {sensors[0]} first and then as many of {sensors[1]}; "
            f"these are {', '.join(channels)}"
        )
    return features // 2


def mask_batch(
    frames_BxTxX: Float[Array, "B T X"],
    keys_B: Key[Array, " B"],
    task: TaskSettings,
    *,
    channels: int,
    sensors: tuple[str, ...],
    valid_B: Int[Array, " B"] | None = None,
) -> MaskedBatch:
    """Mask a normalized batch for the pretext task.

    Args:
        frames_BxTxX: normalized frames, channel-major features, sensor after sensor.
        keys_B: one key per sample.
        task: the pretext task.
        channels: channels C of all sensors together.
        sensors: names of the sensors in the order of the features.
        valid_B: valid frames of each sample, see `mask_sample`.
    """
    if task.kind == "masked":

        def masked_sample(frames: Array, key: Array, valid: Array | None) -> MaskedBatch:
            altered = None
            if task.second_head != "none":
                chance_key, alter_key = jax.random.split(jax.random.fold_in(key, 4))
                altered_frames, half = alter_half(frames, alter_key, task.second_head, valid)
                is_altered = jax.random.uniform(chance_key) < task.second_probability
                frames, altered = jnp.where(is_altered, altered_frames, frames), jnp.where(is_altered, half, -1)
            masked = mask_sample(frames, key, channels, task.masking, valid, sensors=len(sensors))
            return MaskedBatch(masked.frames, frames, masked.mask, altered)

        return jax.vmap(masked_sample)(frames_BxTxX, keys_B, valid_B)

    half = frames_BxTxX.shape[-1] // 2
    input_first = task.input_sensor in ("", sensors[0])

    def one(frames: Array, key: Array, valid: Array | None) -> MaskedBatch:
        switch_key, mask_key = jax.random.split(key)
        sides = (frames[:, :half], frames[:, half:]) if input_first else (frames[:, half:], frames[:, :half])
        switched = jax.random.uniform(switch_key) < task.switch_probability
        source, target = (jnp.where(switched, a, b) for a, b in (sides[::-1], sides))
        masked = mask_sample(source, mask_key, channels // 2, task.masking, valid)
        return MaskedBatch(masked.frames, target, masked.mask)

    return jax.vmap(one)(frames_BxTxX, keys_B, valid_B)
