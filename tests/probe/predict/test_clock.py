"""Days, hours and minutes on the recorder's clock and in a zone with clock changes."""

from datetime import date, datetime

import numpy as np
import pytest

from selfpab_jax.errors import ConfigError
from selfpab_jax.probe.predict.clock import SECOND, Clock, time_zone
from selfpab_jax.probe.predict.minutes import NO_DATA, ActivityTotals
from selfpab_jax.probe.predict.seconds import ActivitySeconds

OSLO = "Europe/Oslo"


def day_of(text: str) -> int:
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


def totals_of(start: datetime, hours: float, zone: str | None, kind: str = "local") -> tuple[Clock, ActivityTotals]:
    """Every second of this many hours from a start on the recorder's clock, all of one class."""
    clock = Clock.of_file(start, time_zone(zone), kind)  # pyright: ignore[reportArgumentType]
    count = round(hours * 3600)
    instant_S = clock.instant(start) + np.arange(count) * SECOND
    totals = ActivityTotals(("still", "moving"), clock)
    totals.add(ActivitySeconds("r", instant_S, np.ones(count), np.zeros((count, 2))), np.ones(count, int))
    return clock, totals


@pytest.mark.parametrize(
    ("start", "zone", "lengths"),
    [
        (datetime(2026, 3, 28, 23), None, {"2026-03-28": 24, "2026-03-29": 24, "2026-03-30": 24}),
        (datetime(2026, 3, 28, 23), OSLO, {"2026-03-28": 24, "2026-03-29": 23, "2026-03-30": 24}),
        (datetime(2026, 10, 24, 23), OSLO, {"2026-10-24": 24, "2026-10-25": 25, "2026-10-26": 24}),
        (datetime(2026, 10, 24, 23), "Asia/Tokyo", {"2026-10-24": 24, "2026-10-25": 24, "2026-10-26": 24}),
    ],
)
def test_days_have_as_many_hours_as_the_zone_gives_them(
    start: datetime, zone: str | None, lengths: dict[str, int]
) -> None:
    """30 hours from an hour before midnight: no hour is lost or counted twice."""
    _, totals = totals_of(start, 30, zone)
    rows = list(totals.by_day("f"))
    moving = {row["date"]: row["minutes"] for row in rows if row["class"] == "moving"}
    names = list(lengths)
    assert moving[names[0]] == 60
    assert moving[names[1]] == min(29, lengths[names[1]]) * 60
    assert sum(moving.values()) == 30 * 60
    of_day = {name: sum(row["minutes"] for row in rows if row["date"] == name) for name in moving}
    assert of_day == {name: 60 * hours for name, hours in lengths.items() if name in moving}
    by_hour = list(totals.by_hour("f"))
    assert sum(row["minutes"] for row in by_hour if row["class"] == "moving") == 30 * 60
    assert sum(row["minutes"] for row in by_hour) == sum(of_day.values())


def test_an_hour_that_occurs_twice_has_two_offsets() -> None:
    clock, totals = totals_of(datetime(2026, 10, 25), 5, OSLO)
    twice = [row for row in totals.by_hour("f") if row["hour"] == 2 and row["class"] == "moving"]
    assert [(row["utc_offset"], row["minutes"]) for row in twice] == [("+02:00", 60), ("+01:00", 60)]
    instants = clock.instant(datetime(2026, 10, 25)) + np.array([2, 3]) * 3600 * SECOND
    assert clock.texts(instants) == ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]


def test_an_hour_that_is_left_out_does_not_occur() -> None:
    _, totals = totals_of(datetime(2026, 3, 29), 2, OSLO)
    hours = list(dict.fromkeys(row["hour"] for row in totals.by_hour("f")))
    assert hours == [0, 1, *range(3, 24)]
    missing = sum(row["minutes"] for row in totals.by_day("f") if row["class"] == NO_DATA)
    assert missing == 21 * 60


def test_the_recorder_keeps_the_offset_of_the_start() -> None:
    """After the clock change the recorder, set to summer time, is an hour ahead of the wall."""
    clock = Clock.of_file(datetime(2026, 10, 24, 12), time_zone(OSLO), "local")
    assert clock.texts(np.array([clock.instant(datetime(2026, 10, 25, 12))])) == ["2026-10-25T11:00:00+01:00"]
    in_utc = Clock.of_file(datetime(2026, 7, 1, 12), time_zone(OSLO), "utc")
    assert in_utc.texts(np.array([in_utc.instant(datetime(2026, 7, 1, 12))])) == ["2026-07-01T14:00:00+02:00"]


def test_without_a_start_days_are_counted_from_0() -> None:
    clock = Clock.of_file(None, time_zone(OSLO), "local")
    totals = ActivityTotals(("still",), clock)
    instant_S = np.arange(2 * 86_400, dtype=np.int64)[::3600] * SECOND
    totals.add(ActivitySeconds("r", instant_S, np.ones(48), np.ones((48, 1))), np.zeros(48, int))
    assert [(row["date"], row["class"]) for row in totals.by_day("f")] == [("day 0", "still"), ("day 1", "still")]
    assert clock.texts(instant_S[:2]) == ["0", "3600"]


def test_no_such_zone() -> None:
    with pytest.raises(ConfigError, match="Oslo/Europe"):
        time_zone("Oslo/Europe")
