"""Windows of recordings: their lengths, and how streams are cut into them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float32

from selfpab_jax.data.sources.streaming import Part
from selfpab_jax.errors import ConfigError
from selfpab_jax.features.sensors import Branch, branch_frames
from selfpab_jax.probe.dataset import Windows

# Where the windows over recordings lie.

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


# Recordings that come in parts, cut into windows of normalized frames.


@dataclass(frozen=True)
class FrameWindow:
    """Normalized frames of a recording, and where they lie in it.

    Attributes:
        file, recording, start: whose, and when the recording began.
        first: its first frame's number in the recording.
        skip: of its frames, the first ones, which the window before has too.
        x_TxX: frames.
    """

    file: str
    recording: str
    start: datetime | None
    first: int
    skip: int
    x_TxX: Float32[np.ndarray, "T X"]


def cut_windows(
    file: str, parts: Iterator[Part], branches: tuple[Branch, ...], too_short: Callable[[float], None]
) -> Iterator[FrameWindow]:
    """Windows of recordings that come in parts; the same whatever the parts are.

    Args:
        file: name for the windows.
        parts: at the encoder's rate.
        branches: for their frames.
        too_short: told the seconds of each recording that is shorter than a frame.
    """
    cutter: Cutter | None = None
    for part in parts:
        if part.begins:
            if cutter is not None:
                yield from cutter.rest(too_short)
            cutter = Cutter(file, part, branches)
        assert cutter is not None
        yield from cutter.whole(part.signal_NxC)
    if cutter is not None:
        yield from cutter.rest(too_short)


class Cutter:
    """One recording on its way to windows: holds the samples after the last whole window, and that window."""

    def __init__(self, file: str, part: Part, branches: tuple[Branch, ...]):
        config = branches[0].encoder.config
        self.window = partial(FrameWindow, file, part.recording, part.start)
        self.branches, self.settings, self.length = branches, config.spectrogram, config.frames
        self.held_NxC: np.ndarray = np.zeros((0, part.signal_NxC.shape[1]), np.float32)
        self.first, self.last_TxX = 0, None

    def whole(self, signal_NxC: Float32[np.ndarray, "N C"]) -> Iterator[FrameWindow]:
        """The windows that these samples complete."""
        held_NxC = np.concatenate([self.held_NxC, signal_NxC])
        hop, length = self.settings.fft_hop, self.length
        count = self.settings.frame_count(len(held_NxC)) // length
        self.held_NxC = held_NxC[count * length * hop :]
        if count:
            samples = (count * length - 1) * hop + self.settings.fft_window
            frames_TxX = branch_frames(held_NxC[:samples], self.branches, pad=False)
            for x_TxX in frames_TxX.reshape(count, length, -1):
                yield self.window(self.first, 0, x_TxX)
                self.first, self.last_TxX = self.first + length, x_TxX

    def rest(self, too_short: Callable[[float], None]) -> Iterator[FrameWindow]:
        """The windows at the recording's end."""
        frames_TxX = branch_frames(self.held_NxC, self.branches, pad=False)
        left = len(frames_TxX)
        if self.last_TxX is not None:
            if left:
                x_TxX = np.concatenate([self.last_TxX, frames_TxX])[-self.length :]
                yield self.window(self.first + left - self.length, self.length - left, x_TxX)
        elif not left:
            too_short(len(self.held_NxC) / self.settings.rate_hz)
        else:
            length = next(length for length in bucket_lengths(self.length) if length <= left)
            yield self.window(0, 0, frames_TxX[:length])
            if left > length:
                yield self.window(left - length, 2 * length - left, frames_TxX[left - length :])
