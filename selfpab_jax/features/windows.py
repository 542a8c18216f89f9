"""Where the windows over recordings are: which frames of which recording the encoder sees together.

Windows are counted in frames of the spectrogram, not in samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, Int32

from selfpab_jax.errors import ConfigError
from selfpab_jax.signal.stft import SpectrogramSettings

Short = Literal["pad", "fit"]


@dataclass(frozen=True)
class WindowIndex:
    """Window w holds `length_W[w]` frames of recording `recording_W[w]`, starting at frame `first_W[w]`.

    A window may reach beyond the end of its recording; the encoder sees zeros there, after normalization. It attends
    to them, as the original does, unless they are `masked`.
    """

    recording_W: Int32[np.ndarray, " W"]
    first_W: Int32[np.ndarray, " W"]
    length_W: Int32[np.ndarray, " W"]
    masked: bool = False


@runtime_checkable
class SignalHolder(Protocol):
    """A recording, as far as features need it."""

    @property
    def signal_NxC(self) -> Float32[np.ndarray, "N C"]:
        """Acceleration in g."""
        ...


@runtime_checkable
class WindowedRecordings(Protocol):
    """Recordings with windows over them, as far as features need them; `selfpab_jax.probe.dataset.Corpus` is one.

    A row is a frame of a window that is within its recording; rows are ordered by window, then frame.
    """

    @property
    def name(self) -> str:
        """Of the data set."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the signals' columns."""
        ...

    @property
    def spectrogram(self) -> SpectrogramSettings:
        """How signals become frames."""
        ...

    @property
    def recordings(self) -> Sequence[SignalHolder]:
        """At the sampling rate of the spectrogram."""
        ...

    @property
    def windows(self) -> WindowIndex:
        """Over the frames of the recordings."""
        ...

    @property
    def frame_counts(self) -> Int32[np.ndarray, " recordings"]:
        """Frames T of each recording, with the signal zero-padded so that every sample is in one."""
        ...

    @property
    def rows_of_windows(self) -> Int32[np.ndarray, " W"]:
        """Number of rows of each window."""
        ...


def make_windows(
    frame_counts: Sequence[int] | Int[np.ndarray, " recordings"], frames: int, shift: int, short: Short = "pad"
) -> WindowIndex:
    """Windows over recordings, ordered by recording, then start; every frame is in at least one.

    Args:
        frame_counts: number of frames T of each recording; a recording of 0 frames has no window.
        frames: length of a window.
        shift: frames from the start of one window to the start of the next.
        short: `pad` is what the original does at test time: a window starts every `shift` frames (ceil(T / shift)
            windows), each of `frames` frames, with nothing beyond the end of the recording. `fit` stays within the
            recording, see `fitting_windows`.

    Raises:
        ConfigError: windows without frames, or a shift that would skip frames.
    """
    if frames < 1:
        raise ConfigError(f"frames is {frames}: a window needs at least 1 frame")
    if not 1 <= shift <= frames:
        raise ConfigError(f"shift is {shift}: it must be from 1 to {frames} frames (one window), or frames are skipped")
    if short not in ("pad", "fit"):
        raise ConfigError(f"short is {short!r}: it must be pad or fit")
    recordings, firsts, lengths = [], [], []
    for index, count in enumerate(frame_counts):
        length, first_w = frames, np.arange(0, count, shift)
        if short == "fit":
            length, first_w = fitting_windows(int(count), frames, shift)
        recordings.append(np.full(len(first_w), index))
        firsts.append(first_w)
        lengths.append(np.full(len(first_w), length))
    recording_W, first_W, length_W = (
        np.concatenate([[], *arrays]).astype(np.int32) for arrays in (recordings, firsts, lengths)
    )
    return WindowIndex(recording_W, first_W, length_W)


def whole_recordings(frame_counts: Sequence[int] | Int[np.ndarray, " recordings"]) -> WindowIndex:
    """One window for each recording, of all its frames.

    Windows are as long as the next of 1, 3/4, 1/2, 3/8 and 1/4 of the longest recording, so that few lengths are
    compiled. What is beyond a recording's end is masked: the encoder's output is that of the recording alone.
    """
    count_W = np.asarray(frame_counts, np.int32)
    recording_W = np.flatnonzero(count_W).astype(np.int32)
    lengths = np.array(bucket_lengths(int(count_W.max(initial=0)))[4::-1], np.int32)
    length_W = lengths[np.searchsorted(lengths, count_W[recording_W])]
    return WindowIndex(recording_W, np.zeros_like(recording_W), length_W, masked=True)


def valid_frames(
    windows: WindowIndex, count_B: Int[np.ndarray, " B"], first_B: Int[np.ndarray, " B"], length: int
) -> Int32[np.ndarray, " B"] | None:
    """Frames of windows that the encoder attends to; None for all of them.

    Args:
        windows: of the data set, masked or not.
        count_B: frames of each window's recording.
        first_B: first frame of each window.
        length: frames of each window.
    """
    return np.minimum(length, count_B - first_B).astype(np.int32) if windows.masked else None


def fitting_windows(count: int, frames: int, shift: int | None = None) -> tuple[int, Int[np.ndarray, " w"]]:
    """Windows that cover a recording without leaving it: their common length, and where each starts.

    The last window is moved back so that it ends with the recording. A recording shorter than a window gets one or two
    overlapping windows of the longest of `bucket_lengths` that fits into it.

    Args:
        count: frames of the recording.
        frames: length of a full window.
        shift: frames from one full window to the next; side by side by default.
    """
    if count < 1:
        return 0, np.zeros(0, int)
    length = next(length for length in bucket_lengths(frames) if length <= count)
    last = count - length
    step = (shift or frames) if length == frames else length
    return length, np.unique(np.append(np.arange(0, last, step), last))


def bucket_lengths(frames: int) -> tuple[int, ...]:
    """Lengths that windows of short recordings may have, longest first: about 1, 3/4, 1/2, 3/8, ... of `frames`.

    They are few, because an encoder is compiled for each length that occurs. They are close enough that two windows
    cover any recording, and that no frame loses more than a third of its temporal context.
    """
    lengths, whole = {frames}, frames
    while whole:
        lengths |= {whole * 3 // 4, whole // 2}
        whole //= 2
    return tuple(sorted(lengths - {0}, reverse=True))
