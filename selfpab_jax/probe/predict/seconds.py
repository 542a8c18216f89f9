"""From probabilities of frames to the activity of each second of the clock."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from selfpab_jax.probe.alignment import sample_probabilities
from selfpab_jax.probe.predict.clock import SECOND
from selfpab_jax.signal.stft import SpectrogramSettings


@dataclass(frozen=True)
class ActivitySeconds:
    """Consecutive seconds of one recording; those at its ends may be shorter.

    Attributes:
        recording: name.
        instant_S: start of each second in microseconds, see `clock`; the first and only the first may begin within a
            second of the clock.
        seconds_S: length of each.
        probability_SxY: of the classes.
    """

    recording: str
    instant_S: Int64[np.ndarray, " S"]
    seconds_S: Float64[np.ndarray, " S"]
    probability_SxY: Float64[np.ndarray, "S Y"]

    def __len__(self) -> int:
        return len(self.seconds_S)


class RecordingSeconds:
    """Turns the frames of one recording, as they come, into seconds.

    The probabilities of a sample are the mean over the frames that cover it, as in the scores of a probe; those of a
    second are the mean over its samples. The samples after the last whole frame, less than half a second as published,
    take that frame's probabilities. Seconds are those of the clock.

    Args:
        recording: name.
        instant: of the first sample, see `clock`.
        settings: of the frames.
        classes: number of classes Y.
    """

    def __init__(self, recording: str, instant: int, settings: SpectrogramSettings, classes: int):
        self.recording, self.instant, self.settings = recording, instant, settings
        self.frames, self.given = 0, 0
        self.held_NxY = np.zeros((0, classes))
        self.tail_TxY = np.zeros((0, classes))

    def add(self, probability_TxY: Float32[np.ndarray, "T Y"]) -> ActivitySeconds:
        """The seconds that are complete with these frames, which follow those before.

        Args:
            probability_TxY: of the frames.
        """
        settings, before = self.settings, len(self.tail_TxY)
        frames_TxY = np.concatenate([self.tail_TxY, probability_TxY])
        hop, covering = settings.fft_hop, -(-settings.fft_window // settings.fft_hop)
        by_sample_NxY = sample_probabilities(frames_TxY, len(frames_TxY) * hop, settings.fft_window, hop)
        self.held_NxY = np.concatenate([self.held_NxY, by_sample_NxY[before * hop :]])
        self.frames += len(probability_TxY)
        self.tail_TxY = frames_TxY[max(0, len(frames_TxY) - covering + 1) :]
        self.last_1xY = frames_TxY[-1:]
        second_N = self._instants(len(self.held_NxY)) // SECOND
        return self._take(int(np.searchsorted(second_N, second_N[-1])) if len(second_N) else 0)

    def finish(self, samples: int) -> ActivitySeconds:
        """The rest of the recording.

        Args:
            samples: of the whole recording at the encoder's rate.
        """
        settings, before, start = self.settings, len(self.tail_TxY), self.frames * self.settings.fft_hop
        covered = min(samples, (self.frames - 1) * settings.fft_hop + settings.fft_window)
        if covered > start:  # by the last frames alone
            local = before * settings.fft_hop + covered - start
            tail_NxY = sample_probabilities(self.tail_TxY, local, settings.fft_window, settings.fft_hop)
            self.held_NxY = np.concatenate([self.held_NxY, tail_NxY[before * settings.fft_hop :]])
        missing = samples - self.given - len(self.held_NxY)
        self.held_NxY = np.concatenate([self.held_NxY, np.repeat(self.last_1xY, max(0, missing), axis=0)])
        return self._take(samples - self.given)

    def _instants(self, count: int) -> Int64[np.ndarray, " N"]:
        """Of the samples that are held."""
        sample_N = np.arange(self.given, self.given + count)
        return self.instant + np.round(sample_N * (SECOND / self.settings.rate_hz)).astype(np.int64)

    def _take(self, count: int) -> ActivitySeconds:
        """The first of the samples that are held, as seconds."""
        instant_N, taken_NxY = self._instants(count), self.held_NxY[:count]
        self.held_NxY, self.given = self.held_NxY[count:], self.given + count
        return _by_second(self.recording, instant_N, taken_NxY, self.settings.rate_hz)


def _by_second(
    recording: str, instant_N: Int64[np.ndarray, " N"], probability_NxY: Float[np.ndarray, "N Y"], rate_hz: float
) -> ActivitySeconds:
    if not len(instant_N):
        return ActivitySeconds(recording, instant_N, np.zeros(0), np.zeros((0, probability_NxY.shape[1])))
    first_S = np.flatnonzero(np.diff(instant_N // SECOND, prepend=-(2**62)))
    count_S = np.diff(first_S, append=len(instant_N))
    mean_SxY = np.add.reduceat(probability_NxY, first_S, axis=0) / count_S[:, None]
    return ActivitySeconds(recording, instant_N[first_S], count_S / rate_hz, mean_SxY)
