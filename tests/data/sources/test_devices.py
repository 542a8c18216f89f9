import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import device_writers as write
import numpy as np
import pytest

from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.clock import to_even_clock
from selfpab_jax.data.sources.devices.actigraph import actigraph_preamble
from selfpab_jax.data.sources.devices.read import read_device

START, T0 = write.START, write.seconds(write.START)
RNG = np.random.default_rng(0)


def _counts(samples: int, limit: int = 500) -> np.ndarray:
    return RNG.integers(-limit, limit, (samples, 3))


@pytest.mark.parametrize(("kind", "per_g"), [("AX3", 256), ("AX6", 2048)])
def test_cwa(tmp_path: Path, kind: str, per_g: int) -> None:
    size = write.CWA_SAMPLES[kind]
    counts_Nx3 = _counts(20 * size)
    block_s = size / 98.9
    write.write_cwa(tmp_path / "a.cwa", counts_Nx3, [T0 + 0.25 + b * block_s for b in range(20)], kind)
    samples = read_device(tmp_path / "a.cwa")
    np.testing.assert_array_equal(samples.signal_Nx3, (counts_Nx3 / per_g).astype(np.float32))
    np.testing.assert_allclose(samples.times_N - T0, 0.25 + np.arange(20 * size) / 98.9, atol=0.011)
    assert samples.measured_hz == pytest.approx(98.9, rel=0.005)
    assert (samples.rate_hz, samples.serial, samples.device, samples.notes) == (100, "1234", f"Axivity {kind}", ())
    assert abs(samples.start - START - timedelta(seconds=0.25)) < timedelta(milliseconds=11)


def test_cwa_with_a_damaged_block_and_jumps_of_the_clock(tmp_path: Path) -> None:
    times = [T0 + b * 1.2 for b in range(20)]
    times[8] += 3600
    times[15:] = [time + 60 for time in times[15:]]
    write.write_cwa(tmp_path / "a.cwa", _counts(20 * 120), times, damaged=3)
    samples = read_device(tmp_path / "a.cwa")
    assert len(samples.signal_Nx3) == 18 * 120
    assert (np.diff(samples.times_N) > 0).all()
    assert [note.split(":")[0] for note in samples.notes] == ["damaged", "clock jumps", "incomplete", "gaps"]
    even = to_even_clock(samples.times_N, samples.signal_Nx3, 50, 1.0)
    assert even.is_missing_M.sum() / 50 == pytest.approx(1.2 + 1.2 + 60, abs=0.2)


@pytest.mark.parametrize("kind", [0x00, 0x1A])
def test_gt3x(tmp_path: Path, kind: int) -> None:
    counts_Nx3 = _counts(30 * 60, 2000)
    write.write_gt3x(tmp_path / "a.gt3x", write.gt3x_log(counts_Nx3, kind), START + timedelta(seconds=60))
    samples = read_device(tmp_path / "a.gt3x")
    np.testing.assert_array_equal(samples.signal_Nx3, (counts_Nx3 / 256).astype(np.float32))
    np.testing.assert_allclose(samples.times_N - T0, np.arange(1800) / 30, atol=1e-5)
    assert (samples.rate_hz, samples.measured_hz, samples.serial) == (30, 30, "TAS1E47150641")
    assert (samples.start, samples.notes) == (START, ())
    if kind == 0x00:  # the one kind that actfast reads
        actfast = pytest.importorskip("actfast")
        np.testing.assert_allclose(
            actfast.read(tmp_path / "a.gt3x")["timeseries"]["acceleration"]["datetime"] / 1e9 - T0,
            samples.times_N - T0,
            atol=1e-5,
        )


def test_gt3x_with_damage_odd_records_and_too_few_samples(tmp_path: Path) -> None:
    counts_Nx3 = _counts(25 * 60)
    log = write.gt3x_log(counts_Nx3, 0x00, rate_hz=25)
    log = log[:3000] + b"\x1e\x00\x00" + log[3003:]
    write.write_gt3x(tmp_path / "a.gt3x", log, START + timedelta(seconds=120), rate_hz=25)
    samples = read_device(tmp_path / "a.gt3x")
    assert len(samples.signal_Nx3) == 59 * 25
    assert [note.split(":")[0] for note in samples.notes] == ["damaged", "incomplete", "gaps"]
    np.testing.assert_array_equal(samples.signal_Nx3[-25:], (counts_Nx3[-25:] / 256).astype(np.float32))


def test_gt3x_that_slept(tmp_path: Path) -> None:
    counts_Nx3 = _counts(30 * 20)
    log = write.gt3x_log(counts_Nx3[:300], 0x00, at=list(range(10)))
    log += write.gt3x_record(0x03, T0 + 10, b"\x08") + write.gt3x_record(0x03, T0 + 100, b"\x09")
    log += write.gt3x_log(counts_Nx3[300:], 0x00, at=list(range(100, 110)))
    write.write_gt3x(tmp_path / "a.gt3x", log, START + timedelta(seconds=110))
    samples = read_device(tmp_path / "a.gt3x")
    assert samples.idle == ((T0 + 10, T0 + 100),)
    assert [note.split(":")[0] for note in samples.notes] == ["idle sleep"]
    assert to_even_clock(samples.times_N, samples.signal_Nx3, 30, 1.0).is_missing_M.sum() == pytest.approx(2700, abs=2)


def test_gt3x_of_the_older_kind(tmp_path: Path) -> None:
    counts_Nx3 = _counts(30 * 60, 2000)
    write.write_nhanes_gt3x(tmp_path / "a.gt3x", counts_Nx3, START + timedelta(seconds=60))
    samples = read_device(tmp_path / "a.gt3x")
    np.testing.assert_array_equal(samples.signal_Nx3, (counts_Nx3 / 341).astype(np.float32))
    assert samples.start == START
    assert [note.split(":")[0] for note in samples.notes] == ["times"]


def test_geneactiv(tmp_path: Path) -> None:
    counts_Nx3 = _counts(20 * 300, 2000)
    pages = [T0 + 0.5 + page * 3.5 for page in range(20)]
    write.write_geneactiv(tmp_path / "a.bin", counts_Nx3, 85.7, pages)
    samples = read_device(tmp_path / "a.bin")
    expected_Nx3 = (100 * counts_Nx3 - [-1000, 500, 0]) / 25000
    np.testing.assert_allclose(samples.signal_Nx3, expected_Nx3, atol=1e-6)
    np.testing.assert_allclose(samples.times_N - T0, 0.5 + np.arange(6000) * 3.5 / 300, atol=0.001)
    assert (samples.rate_hz, samples.serial, samples.notes) == (85.7, "012345", ())
    write.write_geneactiv(tmp_path / "b.bin", counts_Nx3, 85.7, pages, pages=40)
    assert "incomplete" in read_device(tmp_path / "b.bin").notes[0]


def test_unusable_files(tmp_path: Path) -> None:
    write.write_gt3x(tmp_path / "empty.gt3x", write.gt3x_record(0x02, T0, b"\0\0"), START + timedelta(hours=1))
    raw = write.gt3x_log(_counts(300), 0x1A)
    write.write_gt3x(tmp_path / "raw.gt3x", raw, START, calibration='{"isCalibrated": false, "calibrationMethod": 2}')
    (tmp_path / "text.gt3x").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "none.gt3x", "w") as archive:
        archive.writestr("info.txt", "Sample Rate: 30\n")
    (tmp_path / "text.cwa").write_text("no header at all")
    (tmp_path / "text.bin").write_text("no header at all")
    write.write_cwa(tmp_path / "empty.cwa", _counts(0), [])
    for name, keyword in {
        "empty.gt3x": "no samples",
        "raw.gt3x": "uncalibrated",
        "text.gt3x": "unreadable",
        "none.gt3x": "unreadable",
        "text.cwa": "unreadable",
        "text.bin": "unreadable",
        "empty.cwa": "no samples|unreadable",
        "a.txt": "unknown",
    }.items():
        with pytest.raises(UnusableError, match=keyword):
            read_device(tmp_path / name)


def _preamble(format: str, start: str, download: str, time: str = "11:55:00", rate: str = " at 30 Hz ") -> list[str]:
    return [
        f"------------ Data File Created By ActiGraph GT3X+ date format {format}{rate}Filter Normal -----------",
        "Serial Number: NEO1C04110003",
        f"Start Time {time}",
        f"Start Date {start}",
        "Epoch Period (hh:mm:ss) 00:00:00",
        "Download Time 12:09:58",
        f"Download Date {download}",
        "Current Memory Address: 0",
        "Current Battery Voltage: 4.26     Mode = 12",
        "--------------------------------------------------",
    ]


@pytest.mark.parametrize(
    ("lines", "start"),
    [
        (_preamble("M/d/yyyy", "4/3/2021", "12/20/2021"), datetime(2021, 4, 3, 11, 55)),
        (_preamble("d/M/yyyy", "4/3/2021", "20/12/2021"), datetime(2021, 3, 4, 11, 55)),
        (_preamble("dd.MM.yyyy", "04.03.2021", "05.03.2021"), datetime(2021, 3, 4, 11, 55)),
        (_preamble("yyyy-MM-dd", "2021-03-04", "2021-03-05"), datetime(2021, 3, 4, 11, 55)),
        # Seen in exports: the format that is stated is not that of the dates.
        (_preamble("dd/MM/yyyy", "09-12-2017", "09-19-2017"), datetime(2017, 9, 12, 11, 55)),
        (_preamble("M/d/yyyy", "4/3/2021", "4/9/2021", "01:05:09 PM"), datetime(2021, 4, 3, 13, 5, 9)),
    ],
)
@pytest.mark.parametrize("first", ["Accelerometer X,Accelerometer Y,Accelerometer Z", "0.1,-0.5,0.2", "0,1;-0,5;0,2"])
def test_actigraph_preamble(lines: list[str], start: datetime, first: str) -> None:
    found = actigraph_preamble([*lines, first])
    assert found == (start, 30, 10, first.startswith("A"))
    assert actigraph_preamble([f"{line},,," for line in lines] + [first]) == found


def test_actigraph_preamble_of_others() -> None:
    assert actigraph_preamble(["timestamp,x,y,z", "0,0,0,1"]) is None
    assert actigraph_preamble([]) is None
    with pytest.raises(UnusableError, match="counts"):
        actigraph_preamble(_preamble("M/d/yyyy", "4/3/2021", "4/9/2021", rate=" "))
    with pytest.raises(UnusableError, match="date"):
        actigraph_preamble(_preamble("M/d/yyyy", "44/33/2021", "4/9/2021"))
