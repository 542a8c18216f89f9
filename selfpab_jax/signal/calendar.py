"""When frames are: month, day, weekday, hour and minute on the recorder's clock, for LTA2V's calendar positions."""

import numpy as np
from jaxtyping import Int32, Int64

from selfpab_jax.signal.stft import SpectrogramSettings

UNKNOWN_START = -1
"""In place of ms since 1970 where a recording does not know when it began."""
DAY_MS = 86_400_000
FIRST_WEEKDAY = 3
"""1970-01-01 was a Thursday; weeks begin on Monday, 0."""


def frame_timestamps(
    start_ms_B: Int64[np.ndarray, " B"], frames: int, spectrogram: SpectrogramSettings
) -> Int32[np.ndarray, "B T 5"]:
    """Month (1-12), day (1-31), weekday (Monday 0), hour and minute of the center of each frame, as in the original.

    Args:
        start_ms_B: start of each window, in ms since 1970 on the recorder's clock.
        frames: T of a window.
        spectrogram: settings of the frames.
    """
    center_s_T = (np.arange(frames) * spectrogram.fft_hop + spectrogram.fft_window / 2) / spectrogram.rate_hz
    ms_BxT = start_ms_B[:, None] + np.round(1000 * center_s_T).astype(np.int64)
    days_BxT = ms_BxT.astype("datetime64[ms]").astype("datetime64[D]")
    months_BxT = days_BxT.astype("datetime64[M]")
    fields = (
        months_BxT.astype(np.int64) % 12 + 1,
        (days_BxT - months_BxT).astype(np.int64) + 1,
        (days_BxT.astype(np.int64) + FIRST_WEEKDAY) % 7,
        ms_BxT % DAY_MS // 3_600_000,
        ms_BxT % 3_600_000 // 60_000,
    )
    return np.stack(fields, axis=-1).astype(np.int32)
