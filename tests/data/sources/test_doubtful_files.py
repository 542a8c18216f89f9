"""Files that readers elsewhere refuse whole, or read wrong without a word."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfpab_jax import read_recording
from selfpab_jax.data.sources.files import visible_files
from selfpab_jax.data.sources.pairing import find_sensor_files
from selfpab_jax.data.sources.streaming import find_files
from selfpab_jax.errors import ConfigError, DataError, StorageError
from selfpab_jax.probe.predict.clock import Clock
from selfpab_jax.probe.predict.files import SecondsWriter
from selfpab_jax.signal.resample import ratio

START = np.datetime64("2020-01-01T10:00:00", "ms")


def signal_of(rows: int, hz: float = 50.0) -> np.ndarray:
    t = np.arange(rows) / hz
    gait = np.stack([0.9 + 0.1 * np.sin(t), 0.3 * np.cos(t / 3), 0.2 * np.sin(t / 7)], axis=1)
    return gait + np.random.default_rng(0).normal(0, 0.02, (rows, 3))


def times_of(rows: int, hz: float = 50.0) -> list[str]:
    return [str(START + np.timedelta64(round(1000 * row / hz), "ms")).replace("T", " ") for row in range(rows)]


def write(path: Path, times: list[str], signal: np.ndarray, header: str = "timestamp,hip_x,hip_y,hip_z") -> Path:
    lines = [f"{time},{x:.4f},{y:.4f},{z:.4f}" for time, (x, y, z) in zip(times, signal, strict=True)]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def read(path: Path, **options: Any) -> Any:
    return read_recording(path, **{"sensors": ("hip",), **options})


def test_zeros_in_most_rows_cost_those_rows_alone(tmp_path: Path) -> None:
    signal = signal_of(9000)
    signal[2000:8000] = 0
    found = read(write(tmp_path / "a.csv", times_of(9000), signal))
    assert found.report.cut_s == {"stands still": pytest.approx(120, abs=0.1)}
    assert found.report.used_s == pytest.approx(60, abs=0.1)


def test_a_wrong_rate_shows_in_short_pieces_too(tmp_path: Path) -> None:
    times, signal = times_of(12_000, 100.0), signal_of(12_000, 100.0)
    kept = [row for row in range(12_000) if row % 900 < 700]
    path = write(tmp_path / "a.csv", [times[row] for row in kept], signal[kept])
    with pytest.raises(DataError, match="show 100 Hz, not 50 Hz"):
        read(path)
    assert read(path, rate=100.0).rate_hz == 100


def test_minutes_as_timestamps_keep_a_long_gap(tmp_path: Path) -> None:
    times = [time[:16] for time in times_of(15_000)] + [f"2020-01-01 14:{row // 3000:02d}" for row in range(15_000)]
    found = read(write(tmp_path / "a.csv", times, signal_of(30_000)))
    assert found.report.gap_s == pytest.approx(3.9 * 3600, rel=0.02)
    assert len(found.signal) / 50 == pytest.approx(4 * 3600 + 300, abs=61)


def test_midnight_in_times_of_day_may_be_in_a_gap(tmp_path: Path) -> None:
    times = [time[11:] for time in times_of(3000)]
    times = [time.replace("10:", "20:", 1) for time in times] + [time.replace("10:", "09:", 1) for time in times]
    found = read(write(tmp_path / "a.csv", times, signal_of(6000)), first_date="2020-01-01")
    assert found.report.gap_s == pytest.approx(12 * 3600 + 59 * 60 + 0.02 + 60 - 60, abs=61)
    assert not [note for note in found.report.notes if "backwards" in note]


@pytest.mark.parametrize(
    ("wrong", "options"), [("0000-00-00 00:00:00", {}), ("", {}), ("9999999999999999", {"timestamp_unit": "ms"})]
)
def test_one_time_without_sense_costs_nothing(wrong: str, options: dict[str, str], tmp_path: Path) -> None:
    times = times_of(3000)
    if options:
        times = [str(1_577_872_800_000 + 20 * row) for row in range(3000)]
    times[1500] = wrong
    found = read(write(tmp_path / "a.csv", times, signal_of(3000)), **options)
    assert found.report.used_s == pytest.approx(60, abs=0.05)
    assert any("1 rows have no timestamp" in note for note in found.report.notes)


def test_units_below_the_header_and_compact_times(tmp_path: Path) -> None:
    header = "timestamp,hip_x,hip_y,hip_z\nyyyy-mm-dd,g,g,g"
    assert read(write(tmp_path / "a.csv", times_of(3000), signal_of(3000), header)).report.used_s == pytest.approx(60)
    compact = [time.replace("-", "").replace(":", "").replace(" ", "") for time in times_of(3000)]
    found = read(write(tmp_path / "b.csv", compact, signal_of(3000)))
    assert found.start == START.astype(object)


def test_a_broken_gzip_file_is_read_to_its_break(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.csv", times_of(50_000), signal_of(50_000)).read_bytes()
    packed = gzip.compress(plain)
    (tmp_path / "b.csv.gz").write_bytes(packed[: int(0.9 * len(packed))])
    found = read(tmp_path / "b.csv.gz")
    assert 0.8 * 1000 < found.report.used_s < 0.95 * 1000
    assert any("cut off" in note for note in found.report.notes)
    with pytest.raises(DataError, match=r"cut off|malformed"):
        read(tmp_path / "b.csv.gz", strict=True)
    place = int(0.6 * len(packed))
    (tmp_path / "c.csv.gz").write_bytes(packed[:place] + bytes(64) + packed[place + 64 :])
    with pytest.raises(DataError, match=r"malformed.*the compressed file is damaged"):
        read(tmp_path / "c.csv.gz")


def test_what_was_read_before_a_fault_is_kept_and_said(tmp_path: Path) -> None:
    hours = 300_000
    times, signal = times_of(hours), signal_of(hours)
    late = np.datetime64("2020-01-01T14:00:00", "ms")
    times += [str(late + np.timedelta64(10 * row, "ms")).replace("T", " ") for row in range(hours)]
    found = read(write(tmp_path / "a.csv", times, np.concatenate([signal, signal])))
    (stopped,) = [note for note in found.report.notes if note.startswith("stopped after")]
    assert "wrong rate" in stopped
    assert found.report.used_s == pytest.approx(262_144 / 50, rel=0.15)


def test_times_that_leap_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    times = times_of(3000)
    times[1500] = times[1500].replace("2020", "2090")
    with pytest.raises(DataError, match="days after the recording before"):
        read(write(tmp_path / "a.csv", times, signal_of(3000)))


def test_a_rate_without_sense_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rate"):
        read(write(tmp_path / "a.csv", times_of(3000), signal_of(3000)), rate=0.0)


def test_pairs_of_any_case_without_hidden_files(tmp_path: Path) -> None:
    for name in ("S1_back.CWA", "S1_thigh.cwa", "._S1_back.cwa", ".snapshot/S1_back.cwa", "S2_hip.CWA"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    pairs = find_sensor_files((str(tmp_path),), "{subject}_{sensor}.cwa", ("back", "thigh"))
    assert [(each.subject, each.paths["back"].name) for each in pairs.subjects] == [("S1", "S1_back.CWA")]
    assert [Path(each.what).name for each in pairs.skipped] == ["S2_hip.CWA"]


def test_no_folder_is_entered_twice_and_no_content_used_twice(tmp_path: Path) -> None:
    first = write(tmp_path / "S1.csv", times_of(100), signal_of(100))
    (tmp_path / "S1_copy.csv").write_bytes(first.read_bytes())
    (tmp_path / "current").symlink_to(tmp_path)
    (tmp_path.parent / f"{tmp_path.name}_elsewhere").mkdir()
    (tmp_path.parent / f"{tmp_path.name}_elsewhere" / "note.txt").write_text("once")
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(tmp_path.parent / f"{tmp_path.name}_elsewhere")
    assert len(visible_files(tmp_path)) == 3
    told: list[str] = []
    assert find_files([tmp_path], lambda what, _: told.append(what)) == [first]
    assert told == [str(tmp_path / "S1_copy.csv")]


def test_predict_deletes_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "S1").mkdir()
    (tmp_path / "S1" / "raw.cwa").write_text("precious")
    with pytest.raises(StorageError, match=r"raw\.cwa"):
        SecondsWriter(tmp_path / "S1", "S1", ("a",), Clock(known=False))
    assert (tmp_path / "S1" / "raw.cwa").read_text() == "precious"


@pytest.mark.parametrize("rate_hz", [50.001, 100.002, 100.0015, 49.999, 99.97, 102.4, 31.25, 49.98731])
def test_no_rate_drifts_by_a_step_in_a_week(rate_hz: float) -> None:
    assert abs(float(ratio(rate_hz, 50.0)) * rate_hz / 50 - 1) * 7 * 86_400 < 0.5
