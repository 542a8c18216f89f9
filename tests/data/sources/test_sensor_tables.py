"""Tables of one sensor each: two of them give what one table with all columns gives, in every command."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from table_writers import CLEAN, CLOCK, NAMES, START, signal_at, stamps, table

from selfpab_jax import read_recording
from selfpab_jax.cli.main import main
from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.streaming import ReadSignal
from selfpab_jax.errors import ConfigError, DataError

XYZ = "x,y,z"
PATTERN = "{subject}_{sensor}.csv"


def write_sensor(path: Path, times: np.ndarray, signal: np.ndarray, header: str = XYZ, **columns: Any) -> Path:
    """A table of one sensor; its ending says how it is written."""
    frame = pd.DataFrame(signal.round(5), columns=pd.Index(header.split(",")))
    frame.insert(0, "timestamp", stamps(times))
    frame = frame.assign(**columns)
    if path.suffix == ".parquet":
        frame.assign(timestamp=pd.to_datetime(frame["timestamp"])).to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def write_pair(folder: Path, subject: str = "S1", ending: str = ".csv", header: str = XYZ) -> dict[str, Path]:
    """Back and thigh of the clean walk."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        sensor: write_sensor(folder / f"{subject}_{sensor}{ending}", CLOCK, CLEAN[:, 3 * place : 3 * place + 3], header)
        for place, sensor in enumerate(("back", "thigh"))
    }


@pytest.fixture
def whole(tmp_path: Path) -> ReadSignal:
    (tmp_path / "whole.csv").write_text(table())
    return read_recording(tmp_path / "whole.csv")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_two_tables_are_one_with_all_columns(ending: str, whole: ReadSignal, tmp_path: Path) -> None:
    pair = read_recording(write_pair(tmp_path / "in", ending=ending), columns=XYZ)
    assert (pair.rate_hz, pair.start) == (whole.rate_hz, whole.start)
    np.testing.assert_allclose(pair.signal, whole.signal, atol=1e-5)
    assert pair.report.used_s == pytest.approx(whole.report.used_s)


def test_columns_of_every_file_or_of_each_sensor(whole: ReadSignal, tmp_path: Path) -> None:
    files = write_pair(tmp_path / "in", header="ax,ay,az")
    np.testing.assert_allclose(read_recording(files, columns="x=ax,y=ay,z=az").signal, whole.signal, atol=1e-5)
    for place, (sensor, path) in enumerate(files.items()):
        write_sensor(path, CLOCK, CLEAN[:, 3 * place : 3 * place + 3], f"{sensor}_x,{sensor}_y,{sensor}_z")
    np.testing.assert_allclose(read_recording(files).signal, whole.signal, atol=1e-5)
    with pytest.raises(DataError, match=r"back \(S1_back.csv\): unknown column: x, y, z; the table has .*back_x"):
        read_recording(files, columns=XYZ)
    write_pair(tmp_path / "in")
    with pytest.raises(DataError, match=r"unknown column: back_x.*has timestamp, x, y, z.*--columns x="):
        read_recording(files)


@pytest.mark.parametrize("thigh_hz", [25.0, 31.25, 12.5])
def test_different_rates_are_put_on_the_clock_of_the_fastest(
    thigh_hz: float, whole: ReadSignal, tmp_path: Path
) -> None:
    files = write_pair(tmp_path)
    times = np.arange(round(120 * thigh_hz)) / thigh_hz + 0.013
    write_sensor(files["thigh"], times, signal_at(times)[:, 3:])
    pair = read_recording(files, columns=XYZ)
    assert pair.rate_hz == 50
    assert pair.start is not None
    begin = (pair.start - START).total_seconds()
    assert begin == pytest.approx(0.013, abs=1e-3)
    truth = signal_at(begin + np.arange(len(pair.signal)) / 50)
    assert np.abs(pair.signal - truth)[50:-50].max() < 0.01
    assert any(f"thigh: {thigh_hz:.4g} Hz" in note for note in pair.report.notes)
    for wrong, seen in ((100, "back 50 Hz, thigh"), (thigh_hz, "back 50 Hz")):
        with pytest.raises(DataError, match=f"wrong rate.*{seen}"):
            read_recording(files, columns=XYZ, rate=wrong)


def test_only_the_common_time_and_gaps_of_either_sensor(tmp_path: Path) -> None:
    files = write_pair(tmp_path)
    begins = CLOCK >= 10
    write_sensor(files["back"], CLOCK[begins], CLEAN[begins, :3])
    kept = ((CLOCK < 40) | (CLOCK >= 50)) & (CLOCK < 110)
    write_sensor(files["thigh"], CLOCK[kept], CLEAN[kept, 3:])
    pair = read_recording(files, columns=XYZ)
    assert pair.start == START + pd.Timedelta(seconds=10)
    missing = np.isnan(pair.signal).all(axis=1)
    assert len(missing) == 5000
    assert np.flatnonzero(missing).tolist() == list(range(1500, 2000))
    np.testing.assert_allclose(pair.signal[~missing], CLEAN[500:5500][~missing], atol=1e-4)
    assert any("thigh" in note and "10.0 s of it missing" in note for note in pair.report.notes)


def test_every_rule_holds_in_each_table(tmp_path: Path) -> None:
    files = write_pair(tmp_path)
    signal = CLEAN[:, 3:].copy()
    signal[700] = np.nan
    signal[2000:3000] = signal[1999]
    order = np.arange(len(CLOCK))
    order[[100, 101]] = [101, 100]
    write_sensor(files["thigh"], CLOCK[order], signal[order])
    pair = read_recording(files, columns=XYZ)
    missing = np.isnan(pair.signal).all(axis=1)
    assert missing.sum() == pytest.approx(1000, abs=2)
    [note] = [note for note in pair.report.notes if "stands still" in note]
    assert note.startswith("thigh: ")
    assert "sorted" in note
    np.testing.assert_allclose(pair.signal[:690], CLEAN[:690], atol=1e-3)
    with pytest.raises(DataError, match="thigh"):
        read_recording(files, columns=XYZ, strict=True)
    write_sensor(files["thigh"], CLOCK, 9.80665 * CLEAN[:, 3:])
    with pytest.raises(DataError, match=r"thigh \(S1_thigh.csv\).*wrong unit"):
        read_recording(files, columns=XYZ)


def test_a_clock_set_back_in_one_table_counts_no_time_twice(tmp_path: Path) -> None:
    files = write_pair(tmp_path)
    write_sensor(files["thigh"], np.where(CLOCK < 60, CLOCK, CLOCK - 20), CLEAN[:, 3:])
    pair = read_recording(files, columns=XYZ)
    assert len(pair.signal) == pytest.approx(5000, abs=2)
    np.testing.assert_allclose(pair.signal[:2990], CLEAN[:2990], atol=1e-4)
    assert any("clock set back 20 s" in note for note in pair.report.notes)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda files: files["thigh"].write_text("timestamp,x,y,z\n"), "thigh.*rows"),
        (lambda files: files["thigh"].unlink(), "thigh.*No such file"),
        (lambda files: write_sensor(files["thigh"], CLOCK + 300, CLEAN[:, 3:]), "no common time"),
        (lambda files: write_sensor(files["thigh"], CLOCK, CLEAN[:, :3]), "equal those of back_x"),
    ],
)
def test_a_reason(change: Any, word: str, tmp_path: Path) -> None:
    files = write_pair(tmp_path)
    change(files)
    with pytest.raises(DataError, match=word):
        read_recording(files, columns=XYZ)


def test_times_are_needed_and_need_no_date(whole: ReadSignal, tmp_path: Path) -> None:
    files = write_pair(tmp_path)
    with pytest.raises(DataError, match="--timestamp_column"):
        read_recording(files, columns=XYZ, timestamp_column=None)
    for place, path in enumerate(files.values()):
        frame = pd.DataFrame(CLEAN[:, 3 * place : 3 * place + 3].round(5), columns=pd.Index(["x", "y", "z"]))
        frame.assign(timestamp=CLOCK.round(3)).to_csv(path, index=False)
    pair = read_recording(files, columns=XYZ, timestamp_unit="s")
    assert pair.start is None
    np.testing.assert_allclose(pair.signal, whole.signal, atol=1e-5)
    assert any("start of their own" in note for note in pair.report.notes)


def test_records_build(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A label column stands in one of the tables; a subject without a file of each sensor is named."""
    for subject in ("A", "B"):
        files = write_pair(tmp_path / "in", subject)
        moved = CLEAN[:, 3:] + (0.01 if subject == "B" else 0)
        write_sensor(files["thigh"], CLOCK, moved, label=(CLOCK // 40).astype(int))
    write_pair(tmp_path / "in", "C")["thigh"].unlink()
    build = ["records", "build", str(tmp_path / "in"), "--source", "recordings", "--sensor_files", PATTERN]
    options = ["--columns", XYZ, "--window_seconds", "20", "--validation", "0", "--test", "0", "--workers", "1"]
    assert main([*build, *options, "--label_column", "label", "--out", str(tmp_path / "records")]) == 0
    assert "no file of thigh" in capsys.readouterr().err
    info = open_records(tmp_path / "records").info
    assert info.splits["train"].subjects == 2
    assert info.splits["train"].hours == pytest.approx(2 * 120 / 3600, rel=0.01)
    assert main([*build, *options, "--label_column", "mark", "--out", str(tmp_path / "none")]) == 1
    assert "A (A_back.csv, A_thigh.csv): unknown column: none of them has mark" in capsys.readouterr().err
    assert main([*build, "--columns", "back_x,back_y", "--sensors", "back", "--out", str(tmp_path / "no")]) == 2
    assert "not both" in capsys.readouterr().err


def test_probe(tmp_path: Path) -> None:
    files = write_pair(tmp_path)
    activity = np.where(CLOCK < 40, "walk", np.where(CLOCK < 80, "run", ""))
    write_sensor(files["back"], CLOCK, CLEAN[:, :3], activity=activity)
    given: dict[str, Any] = {"sensor_files": PATTERN, "columns": XYZ, "label_column": "activity"}
    source = open_dataset("tables", tmp_path, **given)
    assert source.card.class_names == ("run", "walk")
    [recording] = source.read(next(source.files()))
    np.testing.assert_allclose(recording.signal_NxC, CLEAN, atol=1e-5)
    assert recording.labels_N is not None
    assert recording.labels_N.tolist() == [1] * 2000 + [0] * 2000 + [-1] * 2000
    [thigh] = open_dataset("tables", tmp_path, sensors=("thigh",), **given | {"label_column": "x"}).files()
    assert "back" not in thigh.path
    write_pair(tmp_path, "S2")["thigh"].unlink()
    assert [(each.what, each.reason) for each in source.passed_over()] == [("S2", "no file of thigh")]
    with pytest.raises(ConfigError, match="no sensor wrist"):
        open_dataset("tables", tmp_path, axes={"wrist": ("+x", "+y", "+z")}, **given)
    wrong = open_dataset("tables", tmp_path, classes="walk", **given | {"label_column": "mark"})
    with pytest.raises(UnusableError, match="none of them has mark"):
        wrong.read(next(wrong.files()))


def test_a_segment_column_of_either_table_ends_recordings(tmp_path: Path) -> None:
    files = write_pair(tmp_path)
    write_sensor(files["thigh"], CLOCK, CLEAN[:, 3:], label=1, part=np.where(CLOCK < 50, "walk", "sit"))
    source = open_dataset(
        "tables", tmp_path, sensor_files=PATTERN, columns=XYZ, label_column="label", segment_column="part"
    )
    pieces = source.read(next(source.files()))
    assert [len(piece.signal_NxC) for piece in pieces] == [2500, 3500]
    assert len(NAMES) == pieces[0].signal_NxC.shape[1]
