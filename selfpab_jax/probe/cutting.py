"""Recordings that come in parts, cut into windows of normalised frames."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np
from jaxtyping import Float32

from selfpab_jax.probe.branches import Branch, branch_frames
from selfpab_jax.probe.long_recordings import Part
from selfpab_jax.probe.windows import bucket_lengths


@dataclass(frozen=True)
class FrameWindow:
    """Normalised frames of a recording, and where they lie in it.

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
