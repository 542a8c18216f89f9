"""Minutes of each class in each hour and day of a file, with what was not recorded."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from selfpab_jax.probe.predict.clock import DAY, SECOND, Clock, Hour, offset_text
from selfpab_jax.probe.predict.seconds import ActivitySeconds

NO_DATA = "no data"
"""The class of time without a recording."""
BIN_SECONDS = 10
BINS_PER_HOUR = 3600 // BIN_SECONDS
DECIMALS = 4


@dataclass
class ActivityTotals:
    """Adds up the seconds of a file. Memory depends on the number of days, not on the length of a day's recording.

    Attributes:
        classes: names.
        clock: of the file.
        seconds: of each class, in each bin of each hour that has any.
    """

    classes: tuple[str, ...]
    clock: Clock
    seconds: dict[Hour, Float64[np.ndarray, "P Y"]] = field(default_factory=dict)

    def add(self, rows: ActivitySeconds, class_S: Int[np.ndarray, " S"]) -> None:
        """Count seconds.

        Args:
            rows: what they are.
            class_S: class index of each.
        """
        if not len(rows):
            return
        offset_S = self.clock.offsets(rows.instant_S)
        local_S = rows.instant_S + offset_S * 60 * SECOND
        hour_S = local_S // (3600 * SECOND)
        bin_S = local_S // SECOND % 3600 // BIN_SECONDS
        for key in np.unique(np.stack([hour_S, offset_S]), axis=1).T.tolist():
            within_S = (hour_S == key[0]) & (offset_S == key[1])
            hour = Hour(key[0] // 24, key[0] % 24, key[1])
            counts_PxY = self.seconds.setdefault(hour, np.zeros((BINS_PER_HOUR, len(self.classes))))
            np.add.at(counts_PxY, (bin_S[within_S], class_S[within_S]), rows.seconds_S[within_S])

    @property
    def days(self) -> list[int]:
        """From the first to the last day with a recording."""
        days = [hour.day for hour in self.seconds]
        return list(range(min(days), max(days) + 1)) if days else []

    def minutes_of(self, hour: Hour) -> Float64[np.ndarray, " Y"]:
        """Minutes of each class in an hour."""
        counts_PxY = self.seconds.get(hour)
        return np.zeros(len(self.classes)) if counts_PxY is None else counts_PxY.sum(axis=0) / 60

    def by_hour(self, file: str) -> Iterator[dict[str, Any]]:
        """A row for each hour and class; every hour of every day adds up to its length, with `NO_DATA`."""
        for day in self.days:
            for hour, length in self.clock.hours_of(day).items():
                offset = "" if self.clock.zone is None else offset_text(hour.offset)
                key = {"file": file, "date": self.clock.day_name(day), "hour": hour.hour, "utc_offset": offset}
                for name, minutes in self._with_no_data(self.minutes_of(hour), length):
                    yield {**key, "class": name, "minutes": minutes}

    def by_day(self, file: str) -> Iterator[dict[str, Any]]:
        """A row for each day and class; every day adds up to its length, with `NO_DATA`."""
        for day in self.days:
            hours = self.clock.hours_of(day)
            used_Y = np.sum([self.minutes_of(hour) for hour in hours], axis=0)
            for name, minutes in self._with_no_data(used_Y, sum(hours.values())):
                yield {"file": file, "date": self.clock.day_name(day), "class": name, "minutes": minutes}

    def totals(self) -> dict[str, float]:
        """Minutes of each class."""
        used_Y = np.sum([self.minutes_of(hour) for hour in self.seconds] or [np.zeros(len(self.classes))], axis=0)
        return {name: round(float(minutes), DECIMALS) for name, minutes in zip(self.classes, used_Y, strict=True)}

    def _with_no_data(self, used_Y: Float64[np.ndarray, " Y"], length: float) -> Iterator[tuple[str, float]]:
        """Classes that occur and those that do not; without a start time nobody knows what is missing."""
        for name, minutes in zip(self.classes, used_Y, strict=True):
            yield name, round(float(minutes), DECIMALS)
        if self.clock.known:
            yield NO_DATA, round(max(0.0, length - float(used_Y.sum())), DECIMALS)


@dataclass
class MovementByMinute:
    """How much a sensor moved in each minute: the mean distance of its acceleration's length from 1 g.

    Attributes:
        sums: of the distances and number of samples, by minute.
    """

    sums: dict[int, tuple[float, int]] = field(default_factory=dict)

    def add(self, instant: int, signal_Nx3: Float[np.ndarray, "N 3"], rate_hz: float) -> None:
        """Count consecutive samples.

        Args:
            instant: of the first one, in microseconds.
            signal_Nx3: of one sensor, in g.
            rate_hz: of the samples.
        """
        distance_N = np.abs(np.linalg.norm(signal_Nx3, axis=1) - 1)
        minute_N: Int64[np.ndarray, " N"] = (instant + np.arange(len(signal_Nx3)) * (SECOND / rate_hz)).astype(
            np.int64
        ) // (60 * SECOND)
        first_M = np.flatnonzero(np.diff(minute_N, prepend=-(2**62)))
        count_M = np.diff(first_M, append=len(minute_N))
        for minute, total, count in zip(
            minute_N[first_M].tolist(), np.add.reduceat(distance_N, first_M).tolist(), count_M.tolist(), strict=True
        ):
            before = self.sums.get(minute, (0.0, 0))
            self.sums[minute] = (before[0] + total, before[1] + count)

    def of_hours(self, clock: Clock, day: int) -> dict[Hour, Float64[np.ndarray, " 60"]]:
        """The mean in each minute of a day's hours, NaN where nothing was recorded.

        Args:
            clock: of the file.
            day: see `Hour`.
        """
        found = {hour: np.full(60, np.nan) for hour in clock.hours_of(day)}
        instant_M = np.array(sorted(self.sums), np.int64) * 60 * SECOND
        offset_M, local_M = clock.offsets(instant_M), clock.local(instant_M)
        for instant, offset, local in zip(instant_M.tolist(), offset_M.tolist(), local_M.tolist(), strict=True):
            if local // DAY == day:
                total, count = self.sums[instant // (60 * SECOND)]
                minute = local // (60 * SECOND)
                found[Hour(day, minute // 60 % 24, offset)][minute % 60] = total / count
        return found
