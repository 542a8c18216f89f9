"""Parts of recordings at another sampling rate."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

from selfpab_jax.probe.long_recordings import Part
from selfpab_jax.signal.resample import ratio, resample

FILTER_HALF = 10
"""scipy's polyphase filter reaches this many samples of the lower rate to either side."""


def at_rate(parts: Iterator[Part], rate_hz: float) -> Iterator[Part]:
    """The parts at another rate; where parts of one recording meet, each is filtered with what lies around it."""
    held: Resampled | None = None
    for part in parts:
        if ratio(part.rate_hz, rate_hz) == 1:
            yield part
            continue
        if part.begins:
            if held is not None:
                yield from held.rest()
            held = Resampled(part, rate_hz)
        else:
            assert held is not None
            held.add(part.signal_NxC)
        yield from held.ready()
    if held is not None:
        yield from held.rest()


class Resampled:
    """One recording on its way to another rate: `ready` gives what the samples so far decide, `rest` what remains."""

    def __init__(self, part: Part, rate_hz: float):
        factor = ratio(part.rate_hz, rate_hz)
        self.part, self.rate_hz = part, rate_hz
        self.up, self.down = factor.numerator, factor.denominator
        # A multiple of `down`, so that parts begin on a sample of the new rate.
        self.margin = self.down * -(-FILTER_HALF * 2 * max(self.up, self.down) // (self.up * self.down))
        self.signal_NxC, self.given, self.begins = part.signal_NxC, 0, True

    def add(self, signal_NxC: Float32[np.ndarray, "N C"]) -> None:
        """More samples."""
        self.signal_NxC = np.concatenate([self.signal_NxC, signal_NxC])

    def ready(self) -> Iterator[Part]:
        """The samples that no later one changes."""
        upto = (len(self.signal_NxC) - self.margin) // self.down * self.down
        if upto > self.given:
            yield self._resampled(self.signal_NxC[: upto + self.margin], (upto - self.given) * self.up // self.down)
            kept = max(0, upto - self.margin)
            self.signal_NxC, self.given = self.signal_NxC[kept:], upto - kept

    def rest(self) -> Iterator[Part]:
        """Up to the end."""
        left = len(self.signal_NxC) - self.given
        if left > 0:
            yield self._resampled(self.signal_NxC, -(-left * self.up // self.down))

    def _resampled(self, signal_NxC: np.ndarray, count: int) -> Part:
        first = self.given * self.up // self.down
        whole = resample(signal_NxC, self.part.rate_hz, self.rate_hz)
        begins, self.begins = self.begins, False
        return Part(self.part.recording, self.part.start, begins, self.rate_hz, whole[first : first + count])
