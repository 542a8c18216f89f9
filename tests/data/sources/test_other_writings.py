"""Tables as further programs and mishaps leave them: each gives the clean signal, or its loss with a reason."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from table_writers import CLEAN, CLOCK, COLUMNS, NAMES, RATE, START, lines_changed, read, stamps, table

from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.blocks import BLOCK_ROWS
from selfpab_jax.data.sources.files import find_recordings
from selfpab_jax.data.sources.report import READ_AS, FileReport
from selfpab_jax.data.sources.segments import time_order
from selfpab_jax.data.tables.format import TableFormat
from selfpab_jax.data.tables.text import find_layout
from selfpab_jax.data.tables.timestamps import TimeFormat, TimeReader
from selfpab_jax.errors import DataError


def across_a_clock_change(before: str, after: str, hours: int) -> str:
    """The wall clock and its offset; the change is after a minute."""
    begin = datetime(2021, 3, 28, 1, 59)
    moments = [begin + timedelta(seconds=float(time)) for time in CLOCK]
    walls = [
        moment + timedelta(hours=hours * (time >= 60)) for moment, time in zip(moments, CLOCK.tolist(), strict=True)
    ]
    rows = [
        f"{wall:%Y-%m-%d %H:%M:%S.%f}{after if time >= 60 else before}," + ",".join(f"{value:.5f}" for value in row)
        for wall, time, row in zip(walls, CLOCK.tolist(), CLEAN, strict=True)
    ]
    return "\n".join(["timestamp," + COLUMNS, *rows]) + "\n"


def twice(rows: list[str]) -> list[str]:
    return [rows[0], *(row for place, row in enumerate(rows[1:]) for _ in range(2 if place % 9 == 0 else 1))]


def thousands(rows: list[str]) -> list[str]:
    def quoted(row: str) -> str:
        time, *values = row.split(",")
        return ",".join([time, *(f'"{1000 * float(value):,.2f}"' for value in values)])

    return [rows[0], *map(quoted, rows[1:])]


SAME: dict[str, tuple[str | bytes, dict[str, object]]] = {
    "carets": (table(delimiter="^"), {}),
    "tildes": (table(delimiter="~"), {}),
    "sep= and an unusual mark": ("sep=#\n" + table(delimiter="#"), {}),
    "UTF-32": (table().encode("utf-32"), {}),
    "UTF-16, the large end first": (table().encode("utf-16-be"), {}),
    "returns alone": (table().replace("\n", "\r"), {}),
    "all in quotes": (lines_changed(lambda rows: ['"' + row.replace(",", '","') + '"' for row in rows]), {}),
    "unseen marks in the header": (table().replace("timestamp", "\u200btimestamp").replace("back_x", "back_x\xa0"), {}),
    "thousands": (lines_changed(thousands), {"unit": "mg"}),
    "typographic minus": (table().replace(",-", ",\u2212"), {}),
    "day, name of the month": (table(style="%d-%b-%Y %H:%M:%S.%f"), {}),
    "day, name of the month, two digits": (table(style="%d-%b-%y %H:%M:%S.%f"), {}),
    "name of the month, day": (table(style="%b %d %Y %H:%M:%S.%f"), {}),
    "as C writes it": (table(style="%a %b %d %H:%M:%S.%f %Y"), {}),
    "weekday": (table(style="%a %d %B %Y %H:%M:%S.%f", delimiter=";"), {}),
    "zone by its letters": (table(style="%Y-%m-%d %H:%M:%S.%f CEST"), {}),
    "zone in both ways": (table(style="%Y-%m-%d %H:%M:%S.%f GMT-0500 (EST)"), {}),
    "zone without a colon": (table(style="%Y-%m-%dT%H:%M:%S.%f+0530"), {}),
    "decimal commas in seconds": (table(style="%Y-%m-%dT%H:%M:%S,%f", delimiter=";"), {}),
    "some rows twice": (lines_changed(twice), {}),
    "comments in between": (lines_changed(lambda rows: [*rows[:3000], "# battery", *rows[3000:]]), {}),
    "a footer": (table() + "End of file\n", {}),
    "a header in the middle": (lines_changed(lambda rows: [*rows[:3000], rows[0], *rows[3000:]]), {}),
}


@pytest.mark.parametrize("name", SAME)
def test_the_signal_of_the_clean_table(name: str, tmp_path: Path) -> None:
    content, options = SAME[name]
    [recording], report = read(tmp_path, content, **options)
    assert recording.start == START
    np.testing.assert_allclose(recording.signal_NxC, CLEAN, atol=2e-4)
    assert report.used_s == pytest.approx(len(CLEAN) / RATE)
    assert report.cut_s.get("repeated rows", 0) == (pytest.approx(667 / RATE) if name == "some rows twice" else 0)


@pytest.mark.parametrize(("before", "after", "hours"), [("+01:00", "+02:00", 1), ("+02:00", "+01:00", -1)])
def test_a_change_of_the_zones_offset_is_no_gap(before: str, after: str, hours: int, tmp_path: Path) -> None:
    [recording], report = read(tmp_path, across_a_clock_change(before, after, hours))
    np.testing.assert_allclose(recording.signal_NxC, CLEAN, atol=1e-5)
    assert recording.start == datetime(2021, 3, 28, 1, 59)
    assert any("offset changes" in note for note in report.notes)


def at_rest_first(other: str, mark: str, decimals: int = 3) -> str:
    """Rows of which the first 100 are whole numbers, then 20 with a mark, and all others with another one."""
    rows = []
    for place, (stamp, values) in enumerate(zip(stamps(CLOCK), CLEAN, strict=True)):
        texts = [f"{value:.{0 if place < 100 else decimals}f}" for value in values]
        rows.append(";".join([stamp, *(text.replace(".", other if place < 120 else mark) for text in texts)]))
    return "\n".join([f"timestamp;{COLUMNS.replace(',', ';')}", *rows]) + "\n"


@pytest.mark.parametrize("decimals", [2, 3])
@pytest.mark.parametrize("rows", [BLOCK_ROWS, 50])
def test_the_decimal_mark_may_come_late(decimals: int, rows: int, tmp_path: Path) -> None:
    expected = np.round(CLEAN, decimals)
    expected[:100] = np.round(CLEAN[:100])
    for name, mark in (("points", "."), ("commas", ",")):
        (tmp_path / f"{name}.csv").write_text(at_rest_first(mark, mark, decimals))
        report = FileReport(name)
        blocks = TableFormat().load_blocks(tmp_path / f"{name}.csv", rows, report)
        found = np.concatenate([TableFormat().values(block) for block in blocks])
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert any("decimal commas" in note for note in report.notes) == (mark == ",")


def test_numbers_with_another_decimal_mark_are_no_thousands(tmp_path: Path) -> None:
    _, report = read(tmp_path, at_rest_first(",", "."))
    assert report.cut_s["NaN"] == pytest.approx(20 / RATE) or report.bridged_s == pytest.approx(20 / RATE)
    assert any("120 values" in note for note in report.notes)


REFUSED: dict[str, tuple[str, str]] = {
    "decimal commas between commas": (table(decimal=","), "13 columns in place of 7"),
    "newest row first": (lines_changed(lambda rows: [rows[0], *rows[:0:-1]]), "sort"),
    "one sensor in both places": (table(signal=CLEAN[:, [0, 1, 2, 0, 1, 2]]), "equal those of back_x"),
    "one sensor in another unit": (table(signal=CLEAN * ([1] * 3 + [9.81] * 3)), "thigh_x.*m/s2"),
    "counts": (table(signal=np.round(CLEAN * 256)), "gravity"),
    "years of two digits first": (table(style="%y-%m-%d %H:%M:%S.%f"), "YYYY-MM-DD"),
    "years of two digits last": (table(style="%d.%m.%y %H:%M:%S.%f"), "day_first"),
    "minutes and seconds alone": (table(style="%M:%S.%f"), "not a date"),
    "columns that change places": (
        table() + "timestamp," + ",".join(NAMES[3:] + NAMES[:3]) + "\n" + table(CLOCK + 200, header=""),
        "header is repeated",
    ),
}


@pytest.mark.parametrize(
    ("style", "day_first"), [("%d/%m/%y %H:%M:%S", True), ("%m/%d/%y %H:%M:%S", False), ("%m/%d/%y %H:%M:%S", None)]
)
def test_years_of_two_digits_where_the_order_is_known(style: str, day_first: bool | None) -> None:
    moments = [datetime(2024, 3, 14, 12) + timedelta(hours=hours) for hours in range(10)]
    reader = TimeReader("time", TimeFormat(day_first=day_first))
    found = reader.seconds(pa.chunked_array([[moment.strftime(style) for moment in moments]]))
    assert datetime.fromtimestamp(found[0], UTC).replace(tzinfo=None) == moments[0]


@pytest.mark.parametrize("name", REFUSED)
def test_a_reason(name: str, tmp_path: Path) -> None:
    content, word = REFUSED[name]
    with pytest.raises(UnusableError, match=word):
        read(tmp_path, content)


@pytest.mark.parametrize("factor", [9.80665, 1000.0, 1 / 9.80665])
def test_a_unit_that_changes_costs_that_part(factor: float, tmp_path: Path) -> None:
    signal = CLEAN * np.where(CLOCK < 75, 1, factor)[:, None]
    [recording], report = read(tmp_path, table(signal=signal))
    assert len(recording.signal_NxC) / RATE == pytest.approx(75, abs=10)
    np.testing.assert_allclose(recording.signal_NxC, CLEAN[: len(recording.signal_NxC)], atol=1e-5)
    assert report.cut_s["wrong unit"] == pytest.approx(45, abs=10)


@pytest.mark.parametrize("step", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_clock_set_back_by_less_than_a_second(step: float, swapped: bool, tmp_path: Path) -> None:
    """What it counts twice is cut and reported; swapped rows and late packets are only sorted."""
    times = CLOCK - step * (CLOCK >= 60) - step * (CLOCK >= 90)
    order = np.arange(len(times))
    if swapped:
        order[1000:1050] = np.roll(order[1000:1050], 25)
    [recording], report = read(tmp_path, table(times[order], CLEAN[order]))
    assert report.cut_s == {"clock set back": pytest.approx(2 * step, abs=0.05)}
    assert any("set back 2 times" in note for note in report.notes)
    assert any("sorted" in note for note in report.notes) == swapped
    assert len(recording.signal_NxC) / RATE == pytest.approx(120 - 2 * step, abs=0.05)
    np.testing.assert_allclose(recording.signal_NxC[:2990], CLEAN[:2990], atol=2e-3)
    last = recording.signal_NxC[-1400:]
    error = min(np.abs(last - CLEAN[-1400 - shift : len(CLEAN) - shift]).max() for shift in range(3))
    assert error < 0.15, "the samples behind it keep their order"
    with pytest.raises(UnusableError, match=r"set back|sorted"):
        read(tmp_path, table(times[order], CLEAN[order]), strict=True)


def test_a_clock_set_back_where_a_block_begins() -> None:
    times = np.arange(100) / 50
    order, back = time_order(times + 0.4, 50.0, 1.0)
    assert order.tolist() == list(range(30, 100))[1:]
    assert back == [pytest.approx(0.6)]
    order, back = time_order(times + 1.02, 50.0, 1.0)
    assert (order.tolist(), back) == (list(range(100)), [])


@pytest.mark.parametrize(
    ("names", "is_refused"),
    [
        (("P01_T1.csv", "P01_T2.csv"), True),
        (("P01_2021-03-01.csv", "P01_2021-03-02.csv"), True),
        (("P01_pre.csv", "P01_post.csv"), True),
        (("P01 left.csv", "P01 right.csv"), True),
        (("S01.csv", "s01.parquet"), True),
        (("S01.csv", "S01.csv.gz"), True),
        (("P01_2021-03-01.csv", "P02_2021-03-01.csv"), False),
        (("P_1.csv", "P_2.csv"), False),
        (("post1.csv", "post2.csv"), False),
    ],
)
def test_names_that_may_be_one_subject(names: tuple[str, ...], is_refused: bool, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text(f"timestamp,x\n0,1\n{name}")

    def subjects(rule: str = "file") -> list[str]:
        return [file.subject for file in find_recordings((str(tmp_path),), rule).files]

    check: Callable[[], object] = subjects
    if is_refused:
        with pytest.raises(DataError, match="--subject"):
            check()
    else:
        assert len(subjects()) == 2


def test_how_a_table_is_written_is_no_loss() -> None:
    report = FileReport("a.csv")
    report.notes.append(f"{READ_AS}semicolons")
    assert report.summary() == ""
    report.cut("wrong unit", 3.0)
    assert "wrong unit 3 s" in report.summary()
    assert "semicolons" in report.summary()


@pytest.mark.parametrize("wrong", ["2021-02-31 10:00:00", "2021-03-01 25:00:00", "2021-03-01 10:61:00"])
def test_impossible_dates_and_times_are_no_others(wrong: str) -> None:
    times = TimeReader("timestamp", TimeFormat()).seconds(pa.chunked_array([["2021-03-01 09:59:59"] * 30 + [wrong]]))
    assert np.isnan(times[-1])
    assert np.isfinite(times[:-1]).all()


def test_a_date_that_reads_the_same_both_ways() -> None:
    times = TimeReader("timestamp", TimeFormat()).seconds(pa.chunked_array([["03.03.2024 10:00:00"] * 3]))
    assert times[0] == datetime(2024, 3, 3, 10, tzinfo=UTC).timestamp()


def test_an_empty_file_is_reported_in_every_encoding(tmp_path: Path) -> None:
    for mark in (b"", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff\xfe\n\0"):
        (tmp_path / "empty.csv").write_bytes(mark)
        with pytest.raises(UnusableError, match="empty"):
            find_layout(tmp_path / "empty.csv", ["timestamp"])
