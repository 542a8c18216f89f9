"""Recordings that are read in blocks, cut into windows of frames."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np
from jaxtyping import Float32

from selfpab_jax.data.sources.base import milliseconds
from selfpab_jax.data.sources.blocks import SignalBlock
from selfpab_jax.features.sensors import SensorEncoder, input_frames
from selfpab_jax.features.windows import bucket_lengths


@dataclass(frozen=True)
class FrameWindow:
    """Normalized frames of a recording, and where they are in it.

    Attributes:
        file: name of the file that the recording is from.
        recording: its name.
        start: when the recording began, or None.
        first: number of the window's first frame in the recording.
        skip: how many of the first frames the window before has too.
        x_TxX: frames.
        hop_s: seconds from one frame to the next.
    """

    file: str
    recording: str
    start: datetime | None
    first: int
    skip: int
    x_TxX: Float32[np.ndarray, "T X"]
    hop_s: float

    @property
    def start_ms(self) -> int | None:
        """Start of the first frame in ms since 1970 on the recorder's clock; None where it is unknown."""
        return None if self.start is None else milliseconds(self.start) + round(1000 * self.first * self.hop_s)


def cut_windows(
    file: str, blocks: Iterator[SignalBlock], encoders: tuple[SensorEncoder, ...], too_short: Callable[[float], None]
) -> Iterator[FrameWindow]:
    """Windows of recordings that are read in blocks; they do not depend on where the blocks begin.

    Args:
        file: name for the windows.
        blocks: at the encoders' rate.
        encoders: see `open_sensor_encoders`.
        too_short: called with the duration in seconds of each recording that is shorter than a frame.
    """
    cutter: WindowCutter | None = None
    for block in blocks:
        if block.begins:
            if cutter is not None:
                yield from cutter.finish(too_short)
            cutter = WindowCutter(file, block, encoders)
        assert cutter is not None
        yield from cutter.add(block.signal_NxC)
    if cutter is not None:
        yield from cutter.finish(too_short)


class WindowCutter:
    """Cuts one recording into windows; holds the samples after the last full window, and that window.

    Args:
        file: name for the windows.
        block: the first block of the recording.
        encoders: see `open_sensor_encoders`.
    """

    def __init__(self, file: str, block: SignalBlock, encoders: tuple[SensorEncoder, ...]):
        config = encoders[0].encoder.config
        self.encoders, self.settings, self.length = encoders, config.spectrogram, config.frames
        hop_s = self.settings.fft_hop / self.settings.rate_hz
        self.window = partial(FrameWindow, file, block.recording, block.start, hop_s=hop_s)
        self.held_NxC: np.ndarray = np.zeros((0, block.signal_NxC.shape[1]), np.float32)
        self.first, self.last_TxX = 0, None

    def add(self, signal_NxC: Float32[np.ndarray, "N C"]) -> Iterator[FrameWindow]:
        """The windows that are complete with these samples."""
        held_NxC = np.concatenate([self.held_NxC, signal_NxC])
        hop, length = self.settings.fft_hop, self.length
        count = self.settings.frame_count(len(held_NxC)) // length
        self.held_NxC = held_NxC[count * length * hop :]
        if count:
            samples = (count * length - 1) * hop + self.settings.fft_window
            frames_TxX = input_frames(held_NxC[:samples], self.encoders, pad=False)
            for x_TxX in frames_TxX.reshape(count, length, -1):
                yield self.window(self.first, 0, x_TxX)
                self.first, self.last_TxX = self.first + length, x_TxX

    def finish(self, too_short: Callable[[float], None]) -> Iterator[FrameWindow]:
        """The windows at the end of the recording."""
        frames_TxX = input_frames(self.held_NxC, self.encoders, pad=False)
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
