"""Device files through the doors of the commands: one file per sensor, exports, non-wear and calibration."""

from datetime import datetime, timedelta
from pathlib import Path

import device_writers as write
import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.data.sources.streaming import find_given, read_recording
from selfpab_jax.errors import ConfigError, DataError

T0 = write.seconds(write.START)


def wave(times: np.ndarray) -> np.ndarray:
    """x, y, z in g of an upright sensor that sways at 1 Hz."""
    sway = 0.2 * np.sin(2 * np.pi * times)
    return np.stack([0.3 * sway - 1, sway, 0.5 * sway], axis=1)


def write_sensor(path: Path, begin: float, blocks: int) -> None:
    """An AX3 at 100 Hz that starts `begin` seconds after T0."""
    times = begin + np.arange(blocks * 120) / 100
    counts = np.round(wave(times) * 256).astype(int)
    write.write_cwa(path, counts, [T0 + begin + 1.2 * block for block in range(blocks)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for subject in ("A", "B", "C"):
        write_sensor(folder / f"{subject}_back.cwa", 0.0, 60)
        write_sensor(folder / f"{subject}_thigh.cwa", 6.0, 60)
    write_sensor(folder / "D_back.cwa", 0.0, 60)
    return folder


def test_two_files_of_a_subject_are_on_one_clock(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    skipped: dict[str, str] = {}
    found = find_given([folder], "{subject}_{sensor}.cwa", ("back", "thigh"), skipped.__setitem__)
    assert [each.subject for each in found] == ["A", "B", "C"]
    assert skipped == {"D": "no file of thigh"}
    build = ["records", "build", "--source", "recordings", str(folder), "--out", str(tmp_path / "records")]
    options = ["--sensor_files", "{subject}_{sensor}.cwa", "--window_seconds", "20", "--workers", "1"]
    assert main([*build, *options, "--validation", "0", "--test", "0"]) == 0
    info = open_records(tmp_path / "records").info
    assert info.splits["train"].subjects == 3
    assert info.splits["train"].hours == pytest.approx(3 * 66 / 3600, rel=0.02), "72 s each, 6 s of them apart"
    assert "report.html" in capsys.readouterr().out


def test_one_sensor_from_python(folder: Path) -> None:
    signal, rate, start, report = read_recording(folder / "A_back.cwa", sensors=("back",))
    assert (rate, start) == (100.0, write.START)
    times = np.arange(len(signal)) / rate
    assert np.abs(signal - wave(times)).max() < 0.03
    assert report.in_s == pytest.approx(72, abs=0.1)
    with pytest.raises(DataError, match="one sensor"):
        read_recording(folder / "A_back.cwa")


def test_a_file_per_sensor_from_python(folder: Path) -> None:
    files = {sensor: folder / f"A_{sensor}.cwa" for sensor in ("thigh", "back")}
    signal, rate, start, _ = read_recording(files)
    assert signal.shape[1] == 6
    assert start is not None
    times = (start - write.START).total_seconds() + np.arange(len(signal)) / rate
    both = np.isfinite(signal).all(axis=1)
    assert both.sum() / rate == pytest.approx(66, abs=0.2)
    assert np.abs(signal - np.tile(wave(times), 2))[both].max() < 0.03
    with pytest.raises(ConfigError, match="thigh is not both"):
        read_recording({"back": files["back"]})


def write_export(path: Path, begin: float, seconds: int, start: datetime, scale: float = 1.0) -> None:
    """An export of ActiLife at 30 Hz without timestamps, `begin` seconds into the wave."""
    head = [
        "------------ Data File Created By ActiGraph GT3X+ ActiLife v6.13.3 date format M/d/yyyy at 30 Hz -----------",
        "Serial Number: NEO1F18120387",
        f"Start Time {start:%H:%M:%S}",
        f"Start Date {start.month}/{start.day}/{start.year}",
        "--------------------------------------------------",
        "Accelerometer X,Accelerometer Y,Accelerometer Z",
    ]
    rows = [",".join(f"{value:.4f}" for value in row) for row in scale * wave(begin + np.arange(30 * seconds) / 30)]
    path.write_text("\n".join([*head, *rows]) + "\n")


def test_a_device_file_and_an_export_of_one_subject(folder: Path) -> None:
    write_export(folder / "A_thigh.csv", 10.0, 50, write.START + timedelta(seconds=10))
    files = {"back": folder / "A_back.cwa", "thigh": folder / "A_thigh.csv"}
    signal, rate, start, report = read_recording(files, rate=30)
    assert (rate, start) == (100.0, write.START + timedelta(seconds=10))
    times = 10 + np.arange(len(signal)) / rate
    assert len(signal) / rate == pytest.approx(50, abs=0.1)
    assert np.abs(signal - np.tile(wave(times), 2))[100:-100].max() < 0.03
    assert any("thigh: 30 Hz" in note for note in report.notes)
    write_export(folder / "A_back.csv", 0.0, 50, write.START, 0.9)
    signal, rate, start, _ = read_recording({"back": folder / "A_back.csv", "thigh": files["thigh"]}, rate=30)
    assert (rate, start, len(signal)) == (30.0, write.START + timedelta(seconds=10), pytest.approx(40 * 30, abs=1))
    expected = wave(10 + np.arange(len(signal)) / rate)
    assert np.abs(signal - np.concatenate([0.9 * expected, expected], axis=1)).max() < 0.01


@pytest.mark.parametrize("names", [True, False])
def test_an_export_of_actigraph(names: bool, tmp_path: Path) -> None:
    signal = wave(np.arange(3000) / 30)
    head = [
        "------------ Data File Created By ActiGraph GT3X+ ActiLife v6.13.3 date format M/d/yyyy at 30 Hz "
        " Filter Normal -----------",
        "Serial Number: NEO1F18120387",
        "Start Time 10:15:00",
        "Start Date 3/26/2020",
        "Epoch Period (hh:mm:ss) 00:00:00",
        "Download Time 16:00:00",
        "Download Date 4/2/2020",
        "Current Memory Address: 0",
        "Current Battery Voltage: 4.07     Mode = 12",
        "--------------------------------------------------",
    ]
    lines = [*head, "Accelerometer X,Accelerometer Y,Accelerometer Z"] if names else head
    rows = [",".join(f"{value:.3f}" for value in row) for row in signal]
    (tmp_path / "S01.csv").write_text("\n".join([*lines, *rows]) + "\n")
    found, rate, start, _ = read_recording(tmp_path / "S01.csv", sensors=("hip",), rate=30)
    assert (rate, start) == (30.0, datetime(2020, 3, 26, 10, 15))
    np.testing.assert_allclose(found, signal, atol=1e-3)
    with pytest.raises(DataError, match="30 Hz"):
        read_recording(tmp_path / "S01.csv", sensors=("hip",), rate=100)


def test_non_wear_is_flagged_or_cut_and_sensors_are_calibrated(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rate, minutes = 10, 120
    times = np.arange(minutes * 60 * rate) / rate
    signal = wave(times) + rng.normal(0, 0.05, (len(times), 3))
    still = (times >= 1800) & (times < 5400)
    signal[still] = np.array([0.0, 0.0, 1.0]) + rng.normal(0, 0.002, (still.sum(), 3))
    moments = [datetime(2020, 1, 1) + timedelta(seconds=float(time)) for time in times]
    stamps = [moment.isoformat(timespec="milliseconds") for moment in moments]
    rows = [f"{stamp}," + ",".join(f"{value:.4f}" for value in row) for stamp, row in zip(stamps, signal, strict=True)]
    path = tmp_path / "S01.csv"
    path.write_text("timestamp,hip_x,hip_y,hip_z\n" + "\n".join(rows) + "\n")
    kept = read_recording(path, sensors=("hip",), rate=rate)
    assert kept.report.flagged_s == {"non-wear (hip)": pytest.approx(3600, abs=20)}
    assert not np.isnan(kept.signal).any()
    cut = read_recording(path, sensors=("hip",), rate=rate, non_wear="cut")
    assert cut.report.cut_s == {"non-wear": pytest.approx(3600, abs=20)}
    missing = np.isnan(cut.signal).all(axis=1)
    assert missing.sum() / rate == pytest.approx(3600, abs=20)
    np.testing.assert_array_equal(cut.signal[~missing], kept.signal[~missing])
    calibrated = read_recording(path, sensors=("hip",), rate=rate, calibrate=True)
    assert any("not calibrated: too few orientations" in note for note in calibrated.report.notes)
    np.testing.assert_array_equal(calibrated.signal, kept.signal)
