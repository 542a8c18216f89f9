"""Miniature files of Opportunity: 250 columns, as its column_names.txt lists them."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.data.har.datasets.opportunity import GESTURES, LOCOMOTION
from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.errors import ConfigError, DataError

COLUMN = {"knee": 2, "hip": 5, "back": 17}
"""Of RKN^, HIP and BACK accX, counted from 1 as column_names.txt does."""


def table(locomotion: list[int], upright: dict[str, tuple[int, int, int]], gestures: int = 0) -> np.ndarray:
    """Three seconds of each label, thirty rows a second, milli-g."""
    label_N = np.repeat(locomotion, 90)
    rng = np.random.default_rng(0)
    rows = np.full((len(label_N), 250), np.nan)
    rows[:, 0] = np.round(np.arange(len(label_N)) * 1000 / 30)
    for sensor, first in COLUMN.items():
        at_rest = np.array(upright.get(sensor, (1000, 0, 0)))
        rows[:, first - 1 : first + 2] = np.round(at_rest + rng.normal(0, 10, (len(label_N), 3)))
    rows[:, 243] = label_N
    rows[:, 244:249] = 0
    rows[:, 249] = gestures
    return rows


def write(path: Path, rows: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [" ".join("NaN" if np.isnan(value) else f"{value:.0f}" for value in row) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def read(path: Path, **options: object):
    source = open_dataset("opportunity", path, **options)
    return source.read(next(source.files()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    upright = {"back": (960, 40, -200), "knee": (-80, 950, 120)}
    write(tmp_path / "OpportunityUCIDataset/dataset/S1-ADL1.dat", table([0, 1, 2, 4, 5], upright, gestures=406516))
    return tmp_path


def test_layout_classes_and_files(folder):
    for name in ("S1-Drill", "S2-ADL3"):
        write(folder / f"OpportunityUCIDataset/dataset/{name}.dat", table([1], {}))
    (folder / "OpportunityUCIDataset/dataset/column_names.txt").write_text("Data columns:\n")
    source = open_dataset("opportunity", folder / "OpportunityUCIDataset/dataset")
    assert pickle.loads(pickle.dumps(source)) == source
    assert [file.path for file in open_dataset("opportunity", folder).files()] == [f.path for f in source.files()]
    assert [(file.subject, file.name) for file in source.files()] == [
        ("S1", "S1-ADL1"),
        ("S1", "S1-Drill"),
        ("S2", "S2-ADL3"),
    ]
    assert source.channels == tuple(f"{sensor}_{axis}" for sensor in ("back", "knee") for axis in "xyz")
    (recording,) = read(folder)
    assert recording.signal_NxC.shape == (450, 6)
    assert recording.rate_hz == 30.0
    np.testing.assert_array_equal(recording.labels_N, np.repeat([-1, 0, 1, 2, 3], 90))
    assert source.card.class_names == ("stand", "walk", "sit", "lie")
    assert recording.notes == ()


def test_gestures(folder):
    (recording,) = read(folder, labels="gestures")
    card = open_dataset("opportunity", folder, labels="gestures").card
    assert card.class_names[recording.labels_N[0]] == "open door 1"
    assert len(set(GESTURES)) == 17
    assert len(LOCOMOTION) == 4
    with pytest.raises(ConfigError, match="labels"):
        open_dataset("opportunity", folder, labels="high level")


def test_gravity_is_on_x_in_every_orientation_of_a_sensor(folder):
    (recording,) = read(folder)
    np.testing.assert_allclose(recording.signal_NxC.mean(axis=0)[[0, 3]], [-0.96, -0.95], atol=0.005)
    np.testing.assert_allclose(recording.signal_NxC.mean(axis=0)[[1, 2]], [0.04, 0.2], atol=0.005)
    (declared,) = read(folder, orientation="declared")
    np.testing.assert_array_equal(declared.signal_NxC[:, :3], recording.signal_NxC[:, :3])
    np.testing.assert_allclose(declared.signal_NxC.mean(axis=0)[3:], [0.08, 0.95, -0.12], atol=0.005)
    (knee,) = read(folder, sensors=("knee",))
    np.testing.assert_array_equal(knee.signal_NxC, recording.signal_NxC[:, 3:])


def test_lying_down_does_not_rotate_the_back(tmp_path):
    rows = table([1, 2, 5], {})
    rows[180:, 16:19] = [0, 30, -1000]
    write(tmp_path / "S1-ADL1.dat", rows)
    (recording,) = read(tmp_path)
    assert recording.signal_NxC[:180, 0].mean() == pytest.approx(-1, abs=0.01)
    assert recording.signal_NxC[180:, 2].mean() == pytest.approx(1, abs=0.01)


def test_lost_packets(folder):
    path = folder / "OpportunityUCIDataset/dataset/S1-ADL1.dat"
    rows = table([1, 2, 4, 5], {})
    rows[30:35, 1:4] = np.nan
    rows[100:160, 16] = np.nan
    write(path, rows)
    recordings = read(folder)
    assert [(recording.name, len(recording.labels_N)) for recording in recordings] == [
        ("S1-ADL1", 100),
        ("S1-ADL1:160", 200),
    ]
    assert recordings[0].notes[0].startswith("2.033 of 11.97 s left out")
    np.testing.assert_array_equal(recordings[1].labels_N, np.repeat([1, 2, 3], [20, 90, 90]))
    assert [len(recording.labels_N) for recording in read(folder, sensors=("knee",))] == [360]


def test_errors_name_the_problem(folder, tmp_path):
    path = folder / "OpportunityUCIDataset/dataset/S1-ADL1.dat"
    rows = table([1, 3], {})
    write(path, rows)
    (recording,) = read(folder)
    (note,) = recording.notes
    assert "label 3 " in note
    assert " 90 samples" in note
    rows[:, 1:4] = np.nan
    write(path, rows)
    with pytest.raises(UnusableError, match="no knee: no values"):
        read(folder)
    rows = table([1], {})
    rows[:, 16:19] = 500
    write(path, rows)
    with pytest.raises(UnusableError, match="dead channel: back_x"):
        read(folder)
    write(path, rows[:, :243])
    with pytest.raises(UnusableError, match="243 columns"):
        read(folder)
    with pytest.raises(DataError, match="not a folder of Opportunity"):
        list(open_dataset("opportunity", Path(__file__).parent).files())
