"""Dates and hours of instants: on the recorder's clock as it is, or in a time zone with its clock changes.

Instants are microseconds: since 1970 on the recorder's clock, since 1970 in UTC where a zone is given, or since the
recording's start where that is not known.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from jaxtyping import Int64

from selfpab_jax.data.sources.base import EPOCH
from selfpab_jax.errors import ConfigError

SECOND = 1_000_000
QUARTER = 900 * SECOND
"""Clocks change at multiples of a quarter of an hour."""
DAY = 86_400 * SECOND

ClockKind = Literal["local", "utc"]


class Hour(NamedTuple):
    """An hour of a day; where clocks are set back, one hour occurs twice, with two offsets.

    Attributes:
        day: days since 1970, or since the start of the recording.
        hour: 0 to 23.
        offset: minutes ahead of UTC; 0 where there is no zone.
    """

    day: int
    hour: int
    offset: int


@dataclass(frozen=True)
class Clock:
    """How the times of one file are read and written.

    Attributes:
        known: whether the file has a start time; otherwise time counts from 0.
        zone: time zone, or None for the recorder's clock as it is.
        recorder_offset: minutes that the recorder's clock is ahead of UTC; 0 where there is no zone.
    """

    known: bool
    zone: ZoneInfo | None = None
    recorder_offset: int = 0

    @classmethod
    def of_file(cls, start: datetime | None, zone: ZoneInfo | None, kind: ClockKind) -> "Clock":
        """The clock of a file whose first recording starts at this time.

        A recorder's clock is set once and then runs on, so it keeps the offset that the zone had at the file's start.

        Args:
            start: of the first recording, on the recorder's clock; None where it is unknown.
            zone: that times are written in.
            kind: whether the recorder was set to the zone's `local` time or to `utc`.
        """
        if start is None:
            return cls(known=False)
        if zone is None or kind == "utc":
            return cls(True, zone)
        return cls(True, zone, _minutes(start.replace(tzinfo=zone).utcoffset()))

    def instant(self, time: datetime) -> int:
        """The instant of a time on the recorder's clock."""
        return (time - EPOCH) // timedelta(microseconds=1) - self.recorder_offset * 60 * SECOND

    def offsets(self, instant_N: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
        """Minutes ahead of UTC at each instant; 0 where there is no zone."""
        if self.zone is None:
            return np.zeros(len(instant_N), np.int64)
        quarter_U, place_N = np.unique(instant_N // QUARTER, return_inverse=True)
        return np.array([_offset(self.zone, int(quarter)) for quarter in quarter_U], np.int64)[place_N.reshape(-1)]

    def local(self, instant_N: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
        """The same instants as a clock on the wall shows them."""
        return instant_N + self.offsets(instant_N) * 60 * SECOND

    def hours_of(self, day: int) -> dict[Hour, float]:
        """The hours of a day in order, and the minutes that each has; a day with a clock change has 23 or 25 hours."""
        if self.zone is None:
            return {Hour(day, hour, 0): 60.0 for hour in range(24)}
        hours: dict[Hour, float] = {}
        for instant in range(self._midnight(day), self._midnight(day + 1), QUARTER):
            offset = _offset(self.zone, instant // QUARTER)
            key = Hour(day, (instant // SECOND // 60 + offset) // 60 % 24, offset)
            hours[key] = hours.get(key, 0.0) + 15.0
        return hours

    def day_name(self, day: int) -> str:
        """`2026-03-29`, or `day 0` where the start is unknown."""
        return (date(1970, 1, 1) + timedelta(days=day)).isoformat() if self.known else f"day {day}"

    def texts(self, instant_N: Int64[np.ndarray, " N"]) -> list[str]:
        """Instants as text, with the offset from UTC where there is a zone; seconds where the start is unknown."""
        if not self.known:
            return [str(instant // SECOND) for instant in instant_N.tolist()]
        offset_N = self.offsets(instant_N)
        texts = np.datetime_as_string((instant_N + offset_N * 60 * SECOND).astype("datetime64[us]"), unit="s").tolist()
        if self.zone is None:
            return texts
        return [text + offset_text(offset) for text, offset in zip(texts, offset_N.tolist(), strict=True)]

    def _midnight(self, day: int) -> int:
        midnight = (EPOCH + timedelta(days=day)).replace(tzinfo=self.zone)
        return (midnight.astimezone(UTC).replace(tzinfo=None) - EPOCH) // timedelta(microseconds=1)


def offset_text(minutes: int) -> str:
    """`+02:00`."""
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def time_zone(name: str | None) -> ZoneInfo | None:
    """The zone of this name.

    Raises:
        ConfigError: there is none.
    """
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f"zone is {name!r}, which is not a time zone known here: give an IANA name such as Europe/Oslo (on a "
            "system without time zones, pip install tzdata)"
        ) from None


@lru_cache(maxsize=4096)
def _offset(zone: ZoneInfo, quarter: int) -> int:
    return _minutes(datetime.fromtimestamp(quarter * QUARTER // SECOND, zone).utcoffset())


def _minutes(offset: timedelta | None) -> int:
    assert offset is not None
    return offset // timedelta(minutes=1)
