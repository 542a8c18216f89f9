"""Random draws per sample, so that they are the same on one device and on a thousand."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32


def sample_keys(seed_key: Key[Array, ""], step: Int[Array, ""], rows: Int[Array, " B"]) -> Key[Array, " B"]:
    """A key for each sample of a step, from the step and the sample's place in the global batch.

    Args:
        seed_key: of the run.
        step: from 0.
        rows: places in the global batch.
    """
    step_key = jax.random.fold_in(seed_key, step)
    return jax.vmap(lambda row: jax.random.fold_in(step_key, row))(rows)


def fold_each(keys_B: Key[Array, " B"], tag: int) -> Key[Array, " B"]:
    """Another key for each sample, one for each `tag`."""
    return jax.vmap(lambda key: jax.random.fold_in(key, tag))(keys_B)


def dropout(
    x: Float[Array, "B ..."],
    rate: float,
    keys_B: Key[Array, " B"] | None,
    extents: tuple[int, ...] | None = None,
    first: Int[Array, ""] | int = 0,
) -> Float[Array, "B ..."]:
    """Zero each entry with probability `rate` and scale the rest by 1 / (1 - rate); without keys, x is unchanged.

    Args:
        x: may be padded with zeros, or be a block of a longer array.
        rate: of entries set to zero.
        keys_B: one key per sample.
        extents: sizes of the whole array without padding, where they differ from x's: entries are numbered by them, so
            that the draw does not depend on padding or blocks.
        first: where a block begins on the second last axis.
    """
    if keys_B is None or rate == 0:
        return x
    kept = random_bits(keys_B, x.shape[1:], extents, first) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(kept, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def random_bits(
    keys_B: Key[Array, " B"],
    shape: tuple[int, ...],
    extents: tuple[int, ...] | None = None,
    first: Int[Array, ""] | int = 0,
) -> UInt32[Array, "B ..."]:
    """32 random bits for every entry of every sample: the entry's number, hashed with the sample's key.

    Two rounds of MurmurHash3's finalizer cost a tenth of Threefry and fuse into what reads them; with
    `jax.random.bits`, dropout took a sixth of a training step on CPUs.

    Args:
        keys_B: one key per sample.
        shape: of a sample's entries.
        extents: sizes by which entries are numbered, see `dropout`.
        first: where a block begins on the second last axis.
    """
    number = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        number += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        if axis == len(shape) - 2:
            number += jnp.asarray(first, jnp.uint32) * jnp.uint32(stride)
        stride *= (extents or shape)[axis]
    first_word, second_word = jnp.moveaxis(jax.random.key_data(keys_B), -1, 0).reshape(2, -1, *(1,) * len(shape))
    return _mix(_mix(number ^ first_word) + second_word)


def _mix(word: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    word = (word ^ (word >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> jnp.uint32(16))
