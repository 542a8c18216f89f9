from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.data.sources.base import EPOCH, UnusableError
from selfpab_jax.data.sources.pairing import SensorSamples, align, pair_by_name, pair_by_table
from selfpab_jax.errors import ConfigError, DataError

SENSORS = ("back", "thigh")


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{subject}_{sensor}.cwa", ["a_1_back.cwa", "a_1_thigh.cwa", "b_back.cwa", "c_arm.cwa", "c.txt"]),
        ("{subject}/{sensor}.cwa", ["a_1/back.cwa", "a_1/thigh.cwa", "b/back.cwa", "c/arm.cwa", "c/d.txt"]),
        ("*-{sensor}-{subject}.cwa", ["x/1-back-a_1.cwa", "y/2-thigh-a_1.cwa", "3-back-b.cwa", "4-arm-c.cwa", "c.txt"]),
    ],
)
def test_by_name(tmp_path: Path, pattern: str, names: list[str]) -> None:
    _touch(tmp_path, *names)
    pairs = pair_by_name(tmp_path, pattern, SENSORS)
    assert [(one.subject, list(one.paths)) for one in pairs.subjects] == [("a_1", ["back", "thigh"])]
    assert pairs.subjects[0].paths["thigh"] == tmp_path / names[1]
    assert [entry.what for entry in pairs.skipped] == ["b", str(tmp_path / names[3])]
    assert "thigh" in pairs.skipped[0].reason


def test_two_files_of_one_sensor(tmp_path: Path) -> None:
    _touch(tmp_path, "1/a_back.cwa", "2/a_back.cwa", "a_thigh.cwa")
    pairs = pair_by_name(tmp_path, "{subject}_{sensor}.cwa", SENSORS)
    assert not pairs.subjects
    assert "2 files of back" in pairs.skipped[0].reason


def test_by_table(tmp_path: Path) -> None:
    _touch(tmp_path, "x.cwa", "y.bin", "z.cwa")
    table = tmp_path / "files.csv"
    table.write_text("subject,sensor,file\na,back,x.cwa\na,thigh,y.bin\nb,back,z.cwa\nb,arm,z.cwa\nb,thigh,none.cwa\n")
    pairs = pair_by_table(table, SENSORS)
    assert [(one.subject, one.paths["thigh"].name) for one in pairs.subjects] == [("a", "y.bin")]
    assert [entry.what for entry in pairs.skipped] == [f"{table}, line 5", f"{table}, line 6", "b"]


def test_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sensor"):
        pair_by_name(tmp_path, "{subject}.cwa", SENSORS)
    with pytest.raises(DataError):
        pair_by_name(tmp_path / "none", "{subject}_{sensor}.cwa", SENSORS)
    (tmp_path / "files.csv").write_text("subject,file\na,b\n")
    with pytest.raises(DataError, match="sensor"):
        pair_by_table(tmp_path / "files.csv", SENSORS)


def _samples(begin: float, end: float, rate_hz: float, gap: tuple[float, float] = (0, 0)) -> SensorSamples:
    times_N = np.arange(begin, end, 1 / rate_hz)
    times_N = times_N[(times_N < gap[0]) | (times_N >= gap[1])]
    tone_N = np.sin(2 * np.pi * 5 * times_N)
    signal_Nx3 = np.stack([tone_N, 0 * tone_N, 1 + 0 * tone_N], axis=1).astype(np.float32)
    return SensorSamples(times_N, signal_Nx3)


def test_align() -> None:
    sensors = {"back": _samples(10, 400, 98.7), "thigh": _samples(30.123, 450, 101.3, gap=(200, 220))}
    start, signal_NxC, report = align(sensors, 50, 1.0)[:3]
    assert (start - EPOCH).total_seconds() == pytest.approx(30.123, abs=1e-5)
    assert signal_NxC.shape == (pytest.approx((400 - 30.123) * 50, abs=2), 6)
    assert report.cut_s["back"] == pytest.approx((20.123, 0), abs=0.02)
    assert report.cut_s["thigh"] == pytest.approx((0, 50), abs=0.02)
    assert report.missing_s == pytest.approx({"back": 0, "thigh": 20}, abs=0.05)
    assert len(report.notes) == 2
    times_N = 30.123 + np.arange(len(signal_NxC)) / 50
    inside = np.isfinite(signal_NxC).all(axis=1)
    inside[:50] = inside[-50:] = False
    inside &= (times_N < 199) | (times_N > 221)
    assert inside.sum() > 17_000
    for c in (0, 3):
        np.testing.assert_allclose(signal_NxC[inside, c], np.sin(2 * np.pi * 5 * times_N[inside]), atol=0.02)


def test_clocks_that_do_not_overlap() -> None:
    with pytest.raises(UnusableError, match="back"):
        align({"back": _samples(0, 100, 100), "thigh": _samples(200, 300, 100)}, 50, 1.0)
