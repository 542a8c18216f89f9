"""Windows of recordings of any length, cut while they are read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
from jaxtyping import Float32, Int32

from selfpab_jax.data.records.usage import Windowing
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.blocks import SignalBlock

DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Window:
    """A window of a recording.

    Attributes:
        recording: its name.
        start: time of the window's first sample.
        signal_NxC: acceleration in g; of a recording shorter than a window, all of it.
        labels_N: a label per sample, or None.
        new_samples: how many samples it adds to those of the windows before it.
        begins: whether it is the recording's first window.
    """

    recording: str
    start: datetime | None
    signal_NxC: Float32[np.ndarray, "N C"]
    labels_N: Int32[np.ndarray, " N"] | None
    new_samples: int
    begins: bool


def signal_windows(
    blocks: Iterator[SignalBlock], windowing: Windowing, done: Callable[[int], None] = lambda _: None
) -> Iterator[Window]:
    """The windows of all recordings in order; not more than a block and two windows are held.

    Args:
        blocks: of recordings, one after another.
        windowing: how each is cut.
        done: called at the end of each recording with its number of samples.
    """
    held: _Held | None = None
    for block in blocks:
        if block.begins:
            if held is not None:
                yield from held.rest()
                done(held.samples)
            held = _Held(block, windowing)
        assert held is not None
        yield from held.add(block)
    if held is not None:
        yield from held.rest()
        done(held.samples)


def from_hour(blocks: Iterator[SignalBlock], hour: int, cut: Callable[[int], None]) -> Iterator[SignalBlock]:
    """Every recording from the first time on at which the recorder's clock shows this full hour.

    Args:
        blocks: of recordings, one after another.
        hour: 0 to 23.
        cut: called with numbers of samples that are left out.

    Raises:
        UnusableError: a recording does not know when it began.
    """
    waiting, begins, begins_at = 0, True, None
    for block in blocks:
        if block.begins:
            if block.start is None:
                raise UnusableError("it has no timestamps, so windows cannot start at --start_hour")
            midnight = block.start.replace(hour=0, minute=0, second=0, microsecond=0)
            wait_s = (3600 * hour - (block.start - midnight).total_seconds()) % DAY_SECONDS
            begins_at, waiting = block.start + timedelta(seconds=wait_s), round(wait_s * block.rate_hz)
            begins = True
        skipped = min(waiting, len(block.signal_NxC))
        if skipped:
            waiting -= skipped
            cut(skipped)
        if skipped < len(block.signal_NxC):
            labels_N = None if block.labels_N is None else block.labels_N[skipped:]
            signal_NxC = block.signal_NxC[skipped:]
            yield replace(block, signal_NxC=signal_NxC, labels_N=labels_N, begins=begins, start=begins_at)
            begins = False


@dataclass
class _Held:
    """The end of a recording that is being cut: what later windows may still need."""

    first_block: SignalBlock
    windowing: Windowing
    begin: int = 0  # number of the first sample that is held
    samples: int = 0  # of the recording so far
    given: int = 0  # windows so far
    end: int = 0  # of the last window
    signals: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)

    def add(self, block: SignalBlock) -> Iterator[Window]:
        """The windows that are whole with this block."""
        self.signals.append(block.signal_NxC)
        if block.labels_N is not None:
            self.labels.append(block.labels_N)
        self.samples += len(block.signal_NxC)
        length, shift = self.windowing.window_samples, self.windowing.shift_samples
        while (first := self.given * shift) + length <= self.samples:
            yield self._window(first, first + length)
        self._drop(min(first, self.samples - length))

    def rest(self) -> Iterator[Window]:
        """The windows that only the recording's end decides."""
        for first, last in self.windowing.spans(self.samples)[self.given :]:
            yield self._window(first, last)

    def _drop(self, before: int) -> None:
        if before <= self.begin:
            return
        self._join()
        unused = before - self.begin
        # A copy, or the whole block would be kept for the sake of its end.
        self.signals = [self.signals[0][unused:].copy()]
        self.labels = [labels[unused:].copy() for labels in self.labels]
        self.begin = before

    def _join(self) -> None:
        if len(self.signals) > 1:
            self.signals = [np.concatenate(self.signals)]
            self.labels = [np.concatenate(self.labels)] if self.labels else []

    def _window(self, first: int, last: int) -> Window:
        self._join()
        block, chosen = self.first_block, slice(first - self.begin, last - self.begin)
        window = Window(
            recording=block.recording,
            start=None if block.start is None else block.start + timedelta(seconds=first / block.rate_hz),
            signal_NxC=self.signals[0][chosen],
            labels_N=self.labels[0][chosen] if self.labels else None,
            new_samples=last - max(first, self.end),
            begins=not self.given,
        )
        self.given, self.end = self.given + 1, last
        return window
