"""Tables as spreadsheets, phones and archives write them: each gives the signal of the clean table, or a reason."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_writers import CLEAN, CLOCK, COLUMNS, NAMES, RATE, START, lines_changed, read, signal_at, stamps, table

from selfpab_jax.data.quality import write_quality
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.blocks import whole_recordings
from selfpab_jax.data.sources.files import find_recordings
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.streaming import find_files, read_recording
from selfpab_jax.data.tables.format import TableFormat, parse_columns
from selfpab_jax.data.tables.recordings import signal_blocks
from selfpab_jax.errors import ConfigError, DataError

BY_NUMBER = {
    "timestamp_column": "1",
    "columns": parse_columns(",".join(f"{name}={place + 2}" for place, name in enumerate(NAMES))),
}
PREAMBLE = (
    "--- Data File made for a test at 50 Hz ---\nSerial Number: X\nStart Time 10:15:00\nStart Date 3/26/2020\n\n---\n"
)

SAME: dict[str, tuple[str | bytes, dict[str, object]]] = {
    "plain": (table(), {}),
    "tabs": (table(delimiter="\t"), {}),
    "semicolons and decimal commas": (table(delimiter=";", decimal=","), {}),
    "semicolons and decimal points": (table(delimiter=";"), {}),
    "bars": (table(delimiter="|"), {}),
    "spaces": (table(style="%Y-%m-%dT%H:%M:%S.%f", delimiter="  "), {}),
    "UTF-8 with a mark": (b"\xef\xbb\xbf" + table().encode(), {}),
    "UTF-16": (table().encode("utf-16"), {}),
    "UTF-16 without a mark": (table().encode("utf-16-le"), {}),
    "Windows lines": (table().replace("\n", "\r\n"), {}),
    "Latin-1 in the header": (table().replace("\n", ",Müller\n").encode("latin-1"), {}),
    "spaces after commas": (table().replace(",", ", "), {}),
    "sep= line": ("sep=;\n" + table(delimiter=";", decimal=","), {}),
    "preamble": (PREAMBLE + table(), {}),
    "no header": (table(header=""), BY_NUMBER),
    "blank lines": (table().replace("\n", "\n\n", 40), {}),
    "header repeated": (lines_changed(lambda rows: [*rows[:3000], rows[0], *rows[3000:]]), {}),
    "zeros at the end": (table().encode() + bytes(5000), {}),
    "megabytes of zeros at the end": (table().encode() + bytes(45_000_000), {}),
    "last line cut": (table()[:-30], {}),
    "a comma at the end of every row": (lines_changed(lambda rows: [rows[0], *(row + "," for row in rows[1:])]), {}),
    "a comma at the end of the header": (lines_changed(lambda rows: [rows[0] + ",", *rows[1:]]), {}),
    "numbers of rows without a name": (
        lines_changed(lambda rows: [rows[0], *(f'"{place}",{row}' for place, row in enumerate(rows[1:], 1))]),
        {},
    ),
    "one time that is not UTF-8": (table().encode().replace(b"2021-03-01 10:00:14", b"2021-03-01 10:00:1\xff", 1), {}),
    "zeros in the middle": (
        "\n".join(table().splitlines()[:701]).encode() + bytes(4096) + "\n".join(table().splitlines()[701:]).encode(),
        {},
    ),
    "day first": (table(style="%d.%m.%Y %H:%M:%S.%f"), {"day_first": True}),
    "month first, AM and PM": (table(style="%m/%d/%Y %I:%M:%S.%f %p"), {"day_first": False}),
    "zone": (table(style="%Y-%m-%dT%H:%M:%S.%f+02:00"), {}),
    "zone with a place": (table(style="%Y-%m-%d %H:%M:%S.%f+0100 [Europe/London]"), {}),
    "Zulu": (table(style="%Y-%m-%dT%H:%M:%S.%fZ"), {}),
    "milliseconds after a colon": (table(style="%Y-%m-%d %H:%M:%S:%f"), {}),
    "times of day": (table(style="%H:%M:%S.%f"), {"first_date": "2021-03-01"}),
    "compact": (table(style="%Y%m%dT%H%M%S.%f"), {}),
    "mg": (table(scale=1000), {"unit": "mg"}),
    "m/s2": (table(scale=9.80665), {"unit": "m/s2"}),
    "two swapped rows": (lines_changed(lambda rows: [*rows[:500], rows[501], rows[500], *rows[502:]]), {}),
    "one NaN": (lines_changed(lambda rows: [*rows[:700], rows[700].rsplit(",", 1)[0] + ",NaN", *rows[701:]]), {}),
    "one word": (lines_changed(lambda rows: [*rows[:700], rows[700].rsplit(",", 1)[0] + ",error", *rows[701:]]), {}),
    "one value beyond the range": (
        lines_changed(lambda rows: [*rows[:700], rows[700].rsplit(",", 1)[0] + ",16.04", *rows[701:]]),
        {},
    ),
    "one malformed row": (lines_changed(lambda rows: [*rows[:700], "x", *rows[700:]]), {}),
    "half a second lost": (lines_changed(lambda rows: [*rows[:2000], *rows[2025:]]), {}),
}


@pytest.mark.parametrize("name", SAME)
def test_the_signal_of_the_clean_table(name: str, tmp_path: Path) -> None:
    content, options = SAME[name]
    [recording], report = read(tmp_path, content, **options)
    assert recording.start == START
    assert abs(len(recording.signal_NxC) - len(CLEAN)) <= 1
    count = min(len(recording.signal_NxC), len(CLEAN))
    error = np.abs(recording.signal_NxC[:count] - CLEAN[:count]).max(axis=1)
    lost = np.abs(np.arange(count) - 2012) < 40 if name == "half a second lost" else np.zeros(count, bool)
    near = np.abs(np.arange(count) - 699) < 3
    assert error[~lost & ~near].max() < 2e-3
    assert error[near].max() < 0.1
    if name not in (
        "plain",
        "Windows lines",
        "UTF-8 with a mark",
        "mg",
        "m/s2",
        "blank lines",
        "compact",
        "times of day",
    ):
        changed = name in ("spaces after commas", "day first", "month first, AM and PM", "milliseconds after a colon",
                           "Latin-1 in the header", "zeros at the end", "last line cut",
                           "megabytes of zeros at the end", "zeros in the middle", "a comma at the end of every row",
                           "a comma at the end of the header", "numbers of rows without a name")  # fmt: skip
        assert changed or report.notes or report.cut_s or report.bridged_s, "what was found is reported"
    assert report.used_s == pytest.approx(len(recording.signal_NxC) / RATE)


@pytest.mark.parametrize("name", ["S01.CSV", "S01.csv.gz", "S01.tsv", "S01.Csv.GZ"])
def test_endings(name: str, tmp_path: Path) -> None:
    [recording], _ = read(tmp_path, table(), name)
    np.testing.assert_allclose(recording.signal_NxC, CLEAN, atol=1e-5)
    assert [file.subject for file in find_recordings((str(tmp_path),)).files] == ["S01"]
    assert len(find_files([tmp_path], lambda *_: None)) == 1


def numbered(times: np.ndarray, dtype: type = np.float64) -> str:
    rows = [
        ",".join([repr(float(time)), *map(str, row)])
        for time, row in zip(times.astype(dtype), CLEAN.round(5), strict=True)
    ]
    return "\n".join(["timestamp," + COLUMNS, *rows]) + "\n"


UNIX = (START - datetime(1970, 1, 1)).total_seconds()


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (UNIX + CLOCK, "s"),
        (1e3 * (UNIX + CLOCK), "ms"),
        (1e9 * UNIX + 1e9 * CLOCK, "ns"),
        ((UNIX + CLOCK) / 86400 + 25569, "excel"),
        (np.floor(UNIX + CLOCK), "s"),
    ],
)
def test_numbers_as_times(times: np.ndarray, unit: str, tmp_path: Path) -> None:
    [recording], _ = read(tmp_path, numbered(times), timestamp_unit=unit)
    assert abs((recording.start - START).total_seconds()) < 0.02
    np.testing.assert_allclose(recording.signal_NxC, CLEAN, atol=1e-4)
    with pytest.raises(UnusableError, match="--timestamp_unit"):
        read(tmp_path, numbered(times))


REFUSED: dict[str, tuple[str, dict[str, object], str]] = {
    "wrong unit, m/s2": (table(scale=9.80665), {}, "m/s2"),
    "wrong unit, mg": (table(scale=1000), {}, "mg"),
    "at rest in m/s2": (table(signal=np.tile([-9.81, 0.1, 0.2] * 2, (6000, 1)) + 0.02 * CLEAN), {}, "m/s2"),
    "without gravity": (table(signal=CLEAN - CLEAN.mean(axis=0)), {}, "gravity"),
    "wrong rate": (table(), {"rate_hz": 100.0}, "50 Hz"),
    "a column twice": (table(header="timestamp," + COLUMNS).replace("\n", ",back_x\n"), {}, "twice"),
    "no header": (table(header=""), {}, "number"),
    "unknown column": (table(header="timestamp,a,b,c,d,e,f"), {}, "unknown column"),
    "text": (table().replace("0.", "zero "), {}, "text"),
    "no times": (lines_changed(lambda rows: [rows[0], *("noon" + row[26:] for row in rows[1:])]), {}, "noon"),
    "day or month": (table(style="%d/%m/%Y %H:%M:%S.%f"), {}, "day_first"),
    "no date": (table(style="%H:%M:%S.%f"), {}, "first_date"),
    "mixed zones": (
        lines_changed(lambda rows: [*rows[:3000], *(row.replace(",", "+01:00,", 1) for row in rows[3000:])]),
        {},
        "zone",
    ),
    "all at one value": (table(signal=np.tile([-1.0, 0, 0] * 2, (6000, 1))), {}, "stands still"),
    "empty": ("", {}, "empty"),
    "zeros": ("\0" * 3000, {}, "zero bytes"),
    "a header alone": ("timestamp," + COLUMNS + "\n", {}, "rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_reason(name: str, tmp_path: Path) -> None:
    content, options, word = REFUSED[name]
    with pytest.raises(UnusableError, match=word):
        read(tmp_path, content, **options)


def test_float32_seconds_are_not_trusted(tmp_path: Path) -> None:
    [recording], report = read(tmp_path, numbered(UNIX + CLOCK, np.float32), timestamp_unit="s")
    assert len(recording.signal_NxC) == len(CLEAN)
    assert any("stand still" in note for note in report.notes)


def test_idle_sleep_is_cut_with_its_seconds(tmp_path: Path) -> None:
    for filled in (np.zeros(6), CLEAN[1999]):
        signal = CLEAN.copy()
        signal[2000:4500] = filled
        pieces, report = read(tmp_path, table(signal=signal))
        assert [len(piece.signal_NxC) for piece in pieces] == pytest.approx([2000, 1500], abs=2)
        assert report.cut_s["stands still"] == pytest.approx(50, abs=0.1)
        assert pieces[1].start == START + timedelta(seconds=90)
        with pytest.raises(UnusableError, match="stands still"):
            read(tmp_path, table(signal=signal), strict=True)


def test_the_clock_that_is_set_back_begins_another_recording(tmp_path: Path) -> None:
    times = np.where(CLOCK < 60, CLOCK, CLOCK - 3600)
    pieces, report = read(tmp_path, table(times))
    assert [len(piece.signal_NxC) for piece in pieces] == [3000, 3000]
    assert any("backwards" in note for note in report.notes)


def test_gaps_are_counted(tmp_path: Path) -> None:
    kept = (CLOCK < 30) | (CLOCK >= 42)
    pieces, report = read(tmp_path, table(CLOCK[kept], CLEAN[kept]))
    assert [len(piece.signal_NxC) for piece in pieces] == [1500, 3900]
    assert report.gap_s == pytest.approx(12, abs=0.1)
    assert pieces[1].start == START + timedelta(seconds=42)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    delimiter=st.sampled_from([",", ";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    rate=st.sampled_from([10.0, 25.0, 31.25, 50.0, 64.0, 100.0, 128.0]),
    drift=st.floats(-0.03, 0.03),
    lost=st.lists(st.tuples(st.floats(0.1, 0.9), st.floats(0.02, 0.9)), max_size=3),
    swap=st.booleans(),
    style=st.sampled_from(["%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%fZ", "%d.%m.%Y %H:%M:%S.%f"]),
)
@pytest.mark.slow
def test_any_mixture_is_at_the_right_time(
    tmp_path: Path, delimiter: str, encoding: str, rate: float, drift: float, lost: list, swap: bool, style: str
) -> None:
    """The signal is that of the true times, wherever samples were recorded."""
    times = np.arange(round(60 * rate)) / (rate * (1 + drift))
    kept = np.ones(len(times), bool)
    for at, seconds in lost:
        kept &= ~((times > at * 60) & (times < at * 60 + min(seconds, 0.9)))
    times = times[kept]
    order = np.arange(len(times))
    if swap:
        order[[100, 101]] = order[[101, 100]]
    decimal = "," if delimiter == ";" else "."
    content = table(times[order], signal_at(times)[order], style, delimiter, decimal).encode(encoding)
    pieces, report = read(tmp_path, content, rate_hz=rate, day_first=True)
    recorded = np.zeros(1)
    for piece in pieces:
        begin = (piece.start - START).total_seconds()
        at = begin + np.arange(len(piece.signal_NxC)) / rate
        truth = signal_at(at)
        nearest = np.abs(times[np.clip(np.searchsorted(times, at), 0, len(times) - 1)] - at)
        nearest = np.minimum(nearest, np.abs(times[np.clip(np.searchsorted(times, at) - 1, 0, len(times) - 1)] - at))
        inside = nearest <= 0.5 / rate
        # The time of a sample is right within the tolerance of 0.1 s; at 2 Hz that is most of the slope.
        error = np.abs(piece.signal_NxC - truth).max(axis=1)[inside]
        resampled = any("resampled" in note for note in report.notes)
        assert np.percentile(error, 95) < (0.05 if resampled and rate >= 25 else 0.6)
        recorded += len(piece.signal_NxC)
    assert recorded / rate == pytest.approx(times[-1] + 1 / rate, abs=1.5 * len(lost) + 0.3)


def test_who_is_whom(tmp_path: Path) -> None:
    def place(*names: str) -> list[str]:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"timestamp,x\n0,1\n{name}")
        return list(names)

    place("P1/day1.csv", "P2/day1.csv", "._S02.csv", ".ipynb_checkpoints/day1.csv", "notes.xlsx", "~$open.csv")
    folders = (str(tmp_path),)
    with pytest.raises(DataError, match=r"day1.*--subject"):
        find_recordings(folders)
    assert [file.subject for file in find_recordings(folders, "folder").files] == ["P1", "P2"]
    assert [file.subject for file in find_recordings(folders, "folder/file").files] == ["P1/day1", "P2/day1"]
    assert find_recordings(folders, "folder").passed_over == {".xlsx": 1}
    place("P1/sub-01_ses-1.csv", "P1/sub-01_ses-2.csv", "P1/sub-02_ses-1.csv")
    (tmp_path / "P2/day1.csv").unlink()
    with pytest.raises(DataError, match=r"sub-01"):
        find_recordings(folders)
    (tmp_path / "P1/day1.csv").unlink()
    found = find_recordings(folders, "sub-{subject}_*").files
    assert [file.subject for file in found] == ["01", "01", "02"]
    with pytest.raises(ConfigError, match="does not match"):
        find_recordings(folders, "x{subject}")
    for wrong in ("name", "{subject}{subject}"):
        with pytest.raises(ConfigError, match="folder/file"):
            find_recordings(folders, wrong)


def test_equal_content_counts_once(tmp_path: Path) -> None:
    for name in ("S01.csv", "S02.csv"):
        (tmp_path / name).write_text(table())
    found = find_recordings((str(tmp_path),))
    assert [file.subject for file in found.files] == ["S01"]
    assert "S02" in found.skipped()[0].what


def test_parquet_with_zones_keeps_the_wall_clock(tmp_path: Path) -> None:
    frame = pd.DataFrame(CLEAN.astype(np.float32), columns=pd.Index(NAMES))
    frame.insert(0, "timestamp", pd.to_datetime(stamps(CLOCK)).tz_localize("Europe/Oslo"))
    frame.to_parquet(tmp_path / "S01.parquet")
    report = FileReport("S01")
    [recording] = whole_recordings(signal_blocks(TableFormat(), tmp_path / "S01.parquet", report), "S01")
    assert recording.start == START
    assert any("Oslo" in note for note in report.notes)


def test_the_python_function_and_the_quality_report(tmp_path: Path) -> None:
    kept = (CLOCK < 30) | (CLOCK >= 42)
    (tmp_path / "S01.csv").write_text(table(CLOCK[kept], CLEAN[kept]))
    signal, rate, start, report = read_recording(tmp_path / "S01.csv")
    assert (rate, start, report.subject) == (50.0, START, "S01")
    np.testing.assert_allclose(signal[kept], CLEAN[kept], atol=1e-5)
    assert np.isnan(signal[~kept]).all()
    with pytest.raises(DataError, match="wrong unit"):
        read_recording(tmp_path / "S01.csv", unit="mg")
    page = write_quality([report.as_json() | {"spans": report.spans}], tmp_path / "quality", "A < B").read_text()
    assert "A &lt; B" in page
    assert "pictures/0000.png" in page
    assert (tmp_path / "quality" / "pictures" / "0000.png").stat().st_size > 1000
    [line] = (tmp_path / "quality" / "quality.jsonl").read_text().splitlines()
    assert json.loads(line)["gap_s"] == pytest.approx(12, abs=0.1)


def test_the_cause_of_a_failure_comes_first_and_whole(tmp_path: Path) -> None:
    signal = CLEAN * 9.81
    signal[:20] = np.nan
    with pytest.raises(UnusableError, match=r"^wrong unit: .*m/s2.*; cut wrong unit .*, NaN .*; read as: semicolons$"):
        read(tmp_path, table(signal=signal, delimiter=";"))
    signal = np.full_like(CLEAN, np.nan)
    with pytest.raises(UnusableError, match=r"^NaN: cut NaN 120 s"):
        read(tmp_path, table(signal=signal))
