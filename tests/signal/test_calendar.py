from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import numpy as np
from hypothesis import example, given, settings

from selfpab_jax.model.encoder import CALENDAR
from selfpab_jax.signal.calendar import frame_timestamps
from selfpab_jax.signal.stft import SpectrogramSettings

LTA2V = SpectrogramSettings(50.0, 3000, 1500)


@settings(max_examples=200, deadline=None)
@given(start=st.datetimes(datetime(1971, 1, 1), datetime(2099, 12, 1)), frames=st.integers(1, 200))
@example(start=datetime(2024, 2, 28, 23, 59), frames=200)  # into a leap day
@example(start=datetime(2023, 12, 31, 23, 30), frames=200)
@example(start=datetime(2000, 2, 28, 23, 0), frames=200)
def test_times_are_those_of_plain_calendar_arithmetic(start: datetime, frames: int) -> None:
    start = start.replace(microsecond=start.microsecond // 1000 * 1000)
    ms = round(start.replace(tzinfo=UTC).timestamp() * 1000)
    found = frame_timestamps(np.array([ms, ms + 7]), frames, LTA2V)
    assert found.shape == (2, frames, 5)
    for frame in range(frames):
        center = start + timedelta(seconds=30 + 30 * frame)
        expected = (center.month, center.day, center.weekday(), center.hour, center.minute)
        assert tuple(found[0, frame].tolist()) == expected
    assert (found < np.array(list(CALENDAR.values()))).all()


def test_the_center_counts() -> None:
    ms = round(datetime(2024, 5, 1, 9, 59, 31, tzinfo=UTC).timestamp() * 1000)
    assert frame_timestamps(np.array([ms]), 1, LTA2V)[0, 0].tolist() == [5, 1, 2, 10, 0]
    assert frame_timestamps(np.array([ms - 2000]), 1, LTA2V)[0, 0].tolist() == [5, 1, 2, 9, 59]
