"""Miniature trials of MobiAct's annotated release."""

import pickle
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.errors import DataError

START_NS = 1_391_155_434_000_000_000
"""31 January 2014, 08:03:54."""


def trial(labels: list[str], upright: tuple[float, float, float], rate: float = 200.0) -> pd.DataFrame:
    """Two seconds of each label, sampled unevenly."""
    rng = np.random.default_rng(0)
    label_N = np.repeat(labels, int(2 * rate))
    seconds = (np.arange(len(label_N)) + rng.uniform(-0.3, 0.3, len(label_N))) / rate
    acceleration = np.array(upright) + rng.normal(0, 0.05, (len(label_N), 3))
    columns = {"timestamp": START_NS + (1e9 * seconds).astype(np.int64), "rel_time": seconds}
    columns |= {f"acc_{axis}": acceleration[:, i] for i, axis in enumerate("xyz")}
    columns |= dict.fromkeys(("gyro_x", "gyro_y", "gyro_z", "azimuth", "pitch", "roll"), 0.0)
    return pd.DataFrame(columns | {"label": label_N})


def write(root: Path, name: str, table: pd.DataFrame, folder: str | None = None) -> Path:
    path = root / (folder or f"Annotated Data/{name[:3]}") / f"{name}_annotated.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    return path


def read(path: Path, **options: object):
    source = open_dataset("mobiact", path, **options)
    return source.read(next(source.files()))


def test_files_by_subject_and_without_falls(tmp_path):
    table = trial(["WAL"], (0, 9.8, 0))
    for name in ("WAL_10_1", "WAL_2_1", "STD_2_1", "FOL_2_1", "SLH_2_1"):
        write(tmp_path / "MobiAct_Dataset_v2.0", name, table)
    (tmp_path / "MobiAct_Dataset_v2.0/Raw Data/WAL").mkdir(parents=True)
    source = open_dataset("mobiact", tmp_path / "MobiAct_Dataset_v2.0")
    assert pickle.loads(pickle.dumps(source)) == source
    assert [(file.subject, file.name) for file in source.files()] == [
        ("2", "SLH_2_1"),
        ("2", "STD_2_1"),
        ("2", "WAL_2_1"),
        ("10", "WAL_10_1"),
    ]
    falls = open_dataset("mobiact", tmp_path / "MobiAct_Dataset_v2.0/Annotated Data", falls=True)
    assert "FOL_2_1" in [file.name for file in falls.files()]
    assert (len(source.card.classes), len(falls.card.classes)) == (11, 16)
    assert falls.card.class_names[:11] == source.card.class_names


def test_folders_by_subject_as_the_original_expects_them(tmp_path):
    write(tmp_path, "WAL_2_1", trial(["WAL"], (0, 9.8, 0)), "sub2")
    assert [(file.subject, file.name) for file in open_dataset("mobiact", tmp_path).files()] == [("2", "WAL_2_1")]


def test_even_clock_labels_and_start(tmp_path):
    write(tmp_path, "SLH_1_1", trial(["STD", "WAL", "CSI"], (0.3, 9.7, 1)))
    (recording,) = read(tmp_path)
    assert recording.rate_hz == 200.0
    assert abs(len(recording.labels_N) - 1200) <= 1
    assert recording.start is not None
    assert abs(recording.start - datetime(2014, 1, 31, 8, 3, 54)) <= timedelta(milliseconds=3)
    names = [open_dataset("mobiact", tmp_path).card.class_names[label] for label in np.unique(recording.labels_N)]
    assert names == ["standing", "walking", "car step in"]
    assert abs(int((recording.labels_N == recording.labels_N[600]).sum()) - 400) <= 1
    assert recording.notes == ()


@pytest.mark.parametrize("upright", [(0.3, 9.7, 1), (0.3, -9.7, 1), (9.7, 0.3, 1), (-9.7, 0.3, 1), (1, 0.3, 9.7)])
def test_gravity_is_on_x_in_every_orientation_of_the_phone(tmp_path, upright):
    write(tmp_path, "STD_1_1", trial(["STD"], upright))
    (recording,) = read(tmp_path)
    mean = recording.signal_NxC.mean(axis=0)
    assert mean[0] == pytest.approx(-9.7 / 9.80665, abs=0.003)
    assert sorted(np.abs(mean[1:]).round(1)) == [0.0, 0.1]


def test_declared_axes(tmp_path):
    write(tmp_path, "SIT_1_1", trial(["SIT"], (0.3, 1.0, 9.7)))
    (recording,) = read(tmp_path, orientation="declared")
    np.testing.assert_allclose(recording.signal_NxC.mean(axis=0), np.array([-1, -0.3, -9.7]) / 9.80665, atol=0.003)


def test_irregular_rows(tmp_path):
    table = trial(["WAL", "JOG"], (0, 9.8, 0))
    table.loc[390:399, "acc_x"] = np.nan
    table.loc[10, "timestamp"], table.loc[11, "timestamp"] = table.loc[11, "timestamp"], table.loc[10, "timestamp"]
    table.loc[20, "timestamp"] = table.loc[21, "timestamp"]
    write(tmp_path, "SBE_1_1", table)
    (recording,) = read(tmp_path)
    (note,) = recording.notes
    assert "sorted by time: 1 " in note
    assert abs(len(recording.labels_N) - 800) <= 1
    cut = table.drop(index=range(300, 400))
    write(tmp_path, "SBE_1_1", cut)
    recordings = read(tmp_path)
    assert [recording.name for recording in recordings] == ["SBE_1_1", "SBE_1_1:400"]
    assert recordings[1].labels_N.tolist() == [2] * len(recordings[1].labels_N)


def test_another_rate_and_unknown_labels_are_noted(tmp_path):
    write(tmp_path, "WAL_1_1", trial(["WAL", "XYZ"], (0, 9.8, 0), rate=90.0))
    (recording,) = read(tmp_path)
    assert "200 Hz" in recording.notes[0]
    assert "'XYZ'" in recording.notes[1]
    assert abs(len(recording.labels_N) - 800) <= 6
    assert set(recording.labels_N.tolist()) == {1, -1}


def test_errors_name_the_problem(tmp_path):
    table = trial(["WAL"], (0, 9.8, 0))
    path = write(tmp_path, "WAL_1_1", table.drop(columns="acc_z"))
    with pytest.raises(UnusableError, match="unknown column: acc_z"):
        read(tmp_path)
    write(tmp_path, "WAL_1_1", trial(["WAL"], (0, 9.8, 0), rate=20.0))
    with pytest.raises(UnusableError, match="wrong rate"):
        read(tmp_path)
    table["acc_x"] = np.nan
    write(tmp_path, "WAL_1_1", table)
    with pytest.raises(UnusableError, match="no values"):
        read(tmp_path)
    path.write_text("")
    with pytest.raises(UnusableError, match="unreadable CSV"):
        read(tmp_path)
    with pytest.raises(DataError, match="not a folder of MobiAct"):
        list(open_dataset("mobiact", path.parent).files())
