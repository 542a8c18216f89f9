"""Miniature files of PAMAP2: 54 columns, as its readme describes them."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.errors import ConfigError, DataError

UPRIGHT = {"hand": (-9.6, 1.0, 1.0), "chest": (0.24, 9.67, -1.69), "ankle": (9.66, -1.66, -0.1)}
"""m/s^2 as published; chest and ankle as in the first row of subject 101."""
FIRST = {"hand": 3, "chest": 20, "ankle": 37}
"""Of each unit's 17 columns: temperature, acceleration at 16 g and at 6 g, gyroscope, magnetometer, orientation."""


def table(labels: list[int], seconds: float = 3.0) -> np.ndarray:
    """Some seconds of each label, a hundred rows a second."""
    label_N = np.repeat(labels, int(100 * seconds))
    rng = np.random.default_rng(0)
    rows = np.full((len(label_N), 54), np.nan)
    rows[:, 0] = 8.38 + np.arange(len(label_N)) / 100
    rows[:, 1] = label_N
    rows[::11, 2] = 104
    for unit, first in FIRST.items():
        rows[:, first] = 30.375
        noise = rng.normal(0, 0.05, (len(label_N), 3))
        rows[:, first + 1 : first + 4] = UPRIGHT[unit] + noise
        rows[:, first + 4 : first + 7] = 77
        rows[:, first + 7 : first + 17] = 0
    return rows


def write(path: Path, rows: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [" ".join("NaN" if np.isnan(value) else f"{value:.9g}" for value in row) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def read(path: Path, **options: object):
    source = open_dataset("pamap2", path, **options)
    return source.read(next(source.files()))


def test_upright_on_hunt4_axes(tmp_path):
    write(tmp_path / "Protocol/subject101.dat", table([0, 3, 4, 24]))
    source = open_dataset("pamap2", tmp_path)
    assert pickle.loads(pickle.dumps(source)) == source
    assert source.channels == tuple(f"{sensor}_{axis}" for sensor in ("chest", "ankle") for axis in "xyz")
    (file,) = source.files()
    assert (file.subject, file.name) == ("subject101", "subject101")
    (recording,) = source.read(file)
    assert (recording.rate_hz, recording.start, recording.notes) == (100.0, None, ())
    mean = recording.signal_NxC.mean(axis=0)
    np.testing.assert_allclose(mean[[0, 3]], [-0.986, -0.985], atol=0.003)
    # The chest slopes backwards: its outside looks up; the shank leans forward: behind it is up.
    np.testing.assert_allclose(mean[[1, 2]], [-0.024, 0.172], atol=0.003)
    np.testing.assert_allclose(mean[[4, 5]], [0.01, 0.169], atol=0.003)
    names = [source.card.class_names[label] if label >= 0 else None for label in recording.labels_N[::300]]
    assert names == [None, "standing", "walking", "rope jumping"]
    assert np.bincount(recording.labels_N + 1).tolist().count(300) == 4


def test_one_sensor_and_the_ankle_as_the_original_reads_it(tmp_path):
    rows = table([4])
    write(tmp_path / "PAMAP2_Dataset/Protocol/subject102.dat", rows)
    (recording,) = read(tmp_path, sensors=("ankle",))
    expected = rows[:, [38, 40, 39]] * [-1, -1, -1] / 9.80665
    np.testing.assert_allclose(recording.signal_NxC, expected, atol=1e-6)
    (recording,) = read(tmp_path, sensors=("hand",))
    assert recording.signal_NxC[:, 0].mean() == pytest.approx(-0.979, abs=0.003)


def test_optional_sessions_bring_their_classes(tmp_path):
    write(tmp_path / "Protocol/subject101.dat", table([4]))
    write(tmp_path / "Protocol/subject105.dat", table([4]))
    write(tmp_path / "Optional/subject101.dat", table([10]))
    assert [file.name for file in open_dataset("pamap2", tmp_path).files()] == ["subject101", "subject105"]
    source = open_dataset("pamap2", tmp_path, optional=True)
    files = list(source.files())
    assert [file.name for file in files] == ["subject101", "subject101-optional", "subject105"]
    assert files[1].subject == "subject101"
    (recording,) = source.read(files[1])
    assert source.card.class_names[recording.labels_N[0]] == "computer work"
    assert [file.name for file in open_dataset("pamap2", tmp_path / "Protocol").files()] == ["subject101", "subject105"]


def test_lost_samples_are_bridged_or_end_the_recording(tmp_path):
    rows = table([1, 2, 3, 4])
    whole = rows.copy()
    rows[100:118, 38:41] = np.nan
    rows[500:700, 21] = np.nan
    rows = np.delete(rows, range(900, 930), axis=0)
    write(tmp_path / "Protocol/subject103.dat", rows)
    recordings = read(tmp_path)
    assert [(recording.name, len(recording.signal_NxC)) for recording in recordings] == [
        ("subject103", 500),
        ("subject103:700", 200),
        ("subject103:930", 270),
    ]
    assert "2.32 of 11.99 s left out" in recordings[0].notes[0]
    assert np.isfinite(recordings[0].signal_NxC).all()
    np.testing.assert_allclose(recordings[1].signal_NxC[:, 3], -whole[700:900, 38] / 9.80665, atol=1e-6)
    np.testing.assert_array_equal(recordings[0].labels_N, np.repeat([0, 1], [300, 200]))
    np.testing.assert_array_equal(recordings[2].labels_N, 3)
    # Alone, the ankle has no long gap but the lost rows.
    assert len(read(tmp_path, sensors=("ankle",))) == 2


def test_unknown_activity_is_left_unlabeled(tmp_path):
    write(tmp_path / "Protocol/subject101.dat", table([4, 99]))
    (recording,) = read(tmp_path)
    (note,) = recording.notes
    assert "label 99 " in note
    assert " 300 samples" in note
    assert set(recording.labels_N[300:]) == {-1}


def test_errors_name_the_problem(tmp_path):
    path = tmp_path / "Protocol/subject101.dat"
    with pytest.raises(DataError, match="not a folder of PAMAP2"):
        list(open_dataset("pamap2", tmp_path).files())
    rows = table([4])
    rows[:, 38:41] = np.nan
    write(path, rows)
    with pytest.raises(UnusableError, match="no ankle: no values"):
        read(tmp_path)
    assert len(read(tmp_path, sensors=("chest",))) == 1
    write(path, table([4])[:, :40])
    with pytest.raises(UnusableError, match="40 columns"):
        read(tmp_path)
    rows = table([4], 20.0)
    rows[:, 0] = np.arange(2000) / 50
    write(path, rows)
    with pytest.raises(UnusableError, match="50 Hz"):
        read(tmp_path)
    rows[:, 0] = rows[::-1, 0]
    write(path, rows)
    with pytest.raises(UnusableError, match="out of order"):
        read(tmp_path)
    path.write_text(" ".join(["x"] * 54))
    with pytest.raises(UnusableError, match="wrong type: column 1"):
        read(tmp_path)
    with pytest.raises(ConfigError, match=r"no sensor back.*chest, ankle, hand"):
        open_dataset("pamap2", tmp_path, sensors=("back",))
