"""Random orders that keep when something is added or left out: by a hash of the seed and what is ordered."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int, UInt64

from selfpab_jax.data.splits import draw

GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
MIXERS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
LAST_SHIFT = np.uint64(31)


def number_keys(text_keys: UInt64[np.ndarray, " n"], numbers: Int[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """64 bits for each pair of a text's key and a number (SplitMix64's finaliser, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = text_keys + (numbers.astype(np.uint64) + np.uint64(1)) * GOLDEN_RATIO
        for shift, factor in MIXERS:
            mixed = (mixed ^ (mixed >> shift)) * factor
        return mixed ^ (mixed >> LAST_SHIFT)


def shuffled(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The names in a random order; leaving one out leaves the others' order as it is."""
    return sorted(set(names), key=lambda name: (draw(seed, f"{purpose}/{name}"), name))
