"""Where the windows over recordings lie."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from selfpab_jax.errors import ConfigError
from selfpab_jax.probe.corpus import Windows

Short = Literal["pad", "fit"]


def make_windows(frame_counts: Sequence[int] | np.ndarray, frames: int, shift: int, short: Short = "pad") -> Windows:
    """Windows over recordings of so many frames each, by recording, then start; every frame lies in one at least.

    Args:
        frame_counts: T of each recording; one of 0 frames has no window.
        frames: of a window.
        shift: frames from one window's start to the next one's.
        short: "pad" is the original's way at test time: a window starts every `shift` frames up to the last one
            (ceil(T / shift) of them), all of `frames` frames, with nothing beyond the recording's end. "fit" never
            leaves the recording: the last window is moved back to end with it, and a recording shorter than a window
            gets one or two overlapping windows of the longest of `bucket_lengths` that fits into it.

    Raises:
        ConfigError: no frames, or a shift that would leave frames out.
    """
    if frames < 1:
        raise ConfigError(f"frames is {frames}: a window needs at least 1 frame")
    if not 1 <= shift <= frames:
        raise ConfigError(f"shift is {shift}: give 1 to {frames} frames (a window), or frames between are left out")
    if short not in ("pad", "fit"):
        raise ConfigError(f"short is {short!r}: give pad or fit")
    recordings, firsts, lengths = [], [], []
    buckets = np.array(bucket_lengths(frames))
    for index, count in enumerate(frame_counts):
        length, first_w = (frames, np.arange(0, count, shift)) if short == "pad" else _fitting(count, shift, buckets)
        recordings.append(np.full(len(first_w), index))
        firsts.append(first_w)
        lengths.append(np.full(len(first_w), length))
    return Windows(*(np.concatenate([[], *parts]).astype(np.int32) for parts in (recordings, firsts, lengths)))


def bucket_lengths(frames: int) -> tuple[int, ...]:
    """Lengths that windows of short recordings may have, longest first: about 1, 3/4, 1/2, 3/8, ... of `frames`.

    Few, because an encoder is compiled for each that occurs; so close that two windows cover any recording between
    two of them, and so that no frame loses more than a third of the recording that it could have seen.
    """
    lengths, whole = {frames}, frames
    while whole:
        lengths |= {whole * 3 // 4, whole // 2}
        whole //= 2
    return tuple(sorted(lengths - {0}, reverse=True))


def _fitting(count: int, shift: int, buckets_b: np.ndarray) -> tuple[int, np.ndarray]:
    """Length and starts of the windows that cover so many frames without leaving them."""
    if count < 1:
        return 0, np.zeros(0, int)
    length = int(buckets_b[buckets_b <= count][0])
    last = count - length
    step = shift if length == buckets_b[0] else length
    return length, np.unique(np.append(np.arange(0, last, step), last))
