"""Miniature archives of RealWorld, with the irregularities of the published ones."""

import io
import pickle
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.errors import DataError

START_MS = 1_435_996_000_000
"""4 July 2015, 07:46:40."""
UPRIGHT = {"waist": (0.3, 9.7, 1.0), "thigh": (0.5, -9.6, 1.5), "chest": (9.7, 0.2, -0.8), "shin": (0.1, 9.7, 0.1)}
"""m/s^2: the waist's phone as declared, the thigh's upside down, the chest's on its side."""


def samples(
    sensor: str, first: float = 0.0, seconds: float = 4.0, rate: float = 50.0, rest: tuple[float, ...] = ()
) -> str:
    """A CSV of some seconds from a time on, with jitter."""
    rng = np.random.default_rng(len(sensor))
    times = first + (np.arange(int(seconds * rate)) + rng.uniform(-0.2, 0.2, int(seconds * rate))) / rate
    values = np.array(rest or UPRIGHT[sensor]) + rng.normal(0, 0.05, (len(times), 3))
    rows = [
        f"{row},{START_MS + round(1000 * time)},{x:.6f},{y:.6f},{z:.6f}"
        for row, (time, (x, y, z)) in enumerate(zip(times, values, strict=True), 1)
    ]
    return "\n".join(["id,attr_time,attr_x,attr_y,attr_z", *rows]) + "\n"


def packed(members: dict[str, str | bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def write(root: Path, proband: int, activity: str, members: dict[str, str | bytes]) -> Path:
    path = root / f"proband{proband}/data/acc_{activity}_csv.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed({"readMe": "frequency: 50 Hz\n", **members}))
    return path


def standing(root: Path, proband: int) -> None:
    write(root, proband, "standing", {f"acc_standing_{sensor}.csv": samples(sensor) for sensor in UPRIGHT})


def read(root: Path, activity: str, proband: int = 1, **options: object):
    source = open_dataset("realworld", root, **options)
    (file,) = [f for f in source.files() if (f.subject, f.name) == (f"proband{proband}", f"acc_{activity}")]
    return source.read(file)


def test_sensors_with_their_own_clocks_are_resampled_onto_one(tmp_path):
    root = tmp_path / "realworld2016_dataset"
    standing(root, 1)
    write(
        root,
        1,
        "walking",
        {
            "acc_walking_waist.csv": samples("waist", 0.0, 6.0),
            "acc_walking_thigh.csv": samples("thigh", 1.5, 6.0, rate=49.0),
            "acc_walking_head.csv": "",
        },
    )
    (recording,) = read(tmp_path, "walking")
    assert recording.notes == ()
    assert recording.signal_NxC.shape[1] == 6
    assert abs(len(recording.signal_NxC) - 4.5 * 50) <= 2
    assert recording.start is not None
    assert abs(recording.start - datetime(2015, 7, 4, 7, 46, 41, 500000)) < timedelta(milliseconds=10)
    source = open_dataset("realworld", tmp_path)
    assert pickle.loads(pickle.dumps(source)) == source
    assert {source.card.class_names[label] for label in recording.labels_N} == {"walking"}


def test_gravity_is_on_x_in_every_orientation_of_a_device(tmp_path):
    standing(tmp_path, 1)
    (recording,) = read(tmp_path, "standing")
    mean = recording.signal_NxC.mean(axis=0) * 9.80665
    # The waist as declared (y left, z forward); the thigh as declared (y right, z backward) and then over its head.
    np.testing.assert_allclose(mean, [-9.7, 0.3, 1.0, -9.6, 0.5, -1.5], atol=0.03)
    (chest,) = read(tmp_path, "standing", sensors=("chest",))
    assert chest.signal_NxC[:, 0].mean() * 9.80665 == pytest.approx(-9.7, abs=0.03)
    (declared,) = read(tmp_path, "standing", orientation="declared")
    np.testing.assert_allclose(declared.signal_NxC.mean(axis=0)[3:] * 9.80665, [9.6, -0.5, -1.5], atol=0.03)


def test_lying_is_rotated_as_standing(tmp_path):
    standing(tmp_path, 1)
    write(tmp_path, 1, "lying", {"acc_lying_waist.csv": samples("waist", rest=(0.1, 0.2, 9.7))})
    (recording,) = read(tmp_path, "lying", sensors=("waist",))
    np.testing.assert_allclose(recording.signal_NxC.mean(axis=0) * 9.80665, [-0.2, 0.1, 9.7], atol=0.03)
    write(tmp_path, 2, "lying", {"acc_lying_waist.csv": samples("waist", rest=(0.1, 0.2, 9.7))})
    (alone,) = read(tmp_path, "lying", 2, sensors=("waist",))
    (note,) = alone.notes
    assert "the waist" in note
    assert "as declared" in note
    np.testing.assert_array_equal(alone.signal_NxC, recording.signal_NxC)


def test_files_in_order_of_the_numbers(tmp_path):
    for proband in (10, 2):
        standing(tmp_path, proband)
        write(tmp_path, proband, "jumping", {})
    (tmp_path / "proband2/data/gyr_walking_csv.zip").write_bytes(b"")
    files = open_dataset("realworld", tmp_path).files()
    assert [(file.subject, file.name) for file in files] == [
        ("proband2", "acc_jumping"),
        ("proband2", "acc_standing"),
        ("proband10", "acc_jumping"),
        ("proband10", "acc_standing"),
    ]


@pytest.mark.parametrize("numbered", [False, True])
def test_zips_within_zips(tmp_path, numbered):
    """Climbing of probands 4, 7 and 14: one zip a part."""
    standing(tmp_path, 4)
    inner = {}
    for part, first in ((1, 0.0), (2, 60.0)):
        infix = f"_{part}" if numbered else ""
        content = {f"acc_climbingup{infix}_{sensor}.csv": samples(sensor, first) for sensor in ("waist", "thigh")}
        inner[f"acc_climbingup_{part}_csv.zip"] = packed(content)
    write(tmp_path, 4, "climbingup", inner)
    recordings = read(tmp_path, "climbingup", 4)
    assert [recording.notes for recording in recordings] == [(), ()]
    assert all(abs(len(recording.labels_N) - 200) <= 2 for recording in recordings)
    assert recordings[1].start - recordings[0].start > timedelta(seconds=59)
    assert recordings[1].name.startswith("acc_climbingup:")


def test_part_numbers_that_differ_between_sensors(tmp_path):
    """Walking of probands 4 and 13, sitting of 6 and 7, standing of 8."""
    write(
        tmp_path,
        8,
        "standing",
        {
            "acc_standing_waist.csv": samples("waist", 0.0),
            "acc_standing_2_waist.csv": samples("waist", 30.0),
            "acc_standing_2_thigh.csv": samples("thigh", 0.5),
        },
    )
    (recording,) = read(tmp_path, "standing", 8)
    (note,) = recording.notes
    assert note.startswith("acc_standing_2_waist.csv left out")
    assert abs(len(recording.labels_N) - 175) <= 2
    waist = read(tmp_path, "standing", 8, sensors=("waist",))
    assert [len(recording.labels_N) // 10 for recording in waist] == [19, 19]


def test_the_same_time_twice_is_not_mixed(tmp_path):
    members = {"acc_walking_waist.csv": samples("waist"), "acc_walking_2_waist.csv": samples("waist", 1.0)}
    write(tmp_path, 13, "walking", members)
    (recording,) = read(tmp_path, "walking", 13, sensors=("waist",))
    (note,) = recording.notes
    assert note.startswith("acc_walking_2_waist.csv left out")
    assert "acc_walking_waist.csv" in note


def test_a_missing_sensor_makes_one_activity_unusable(tmp_path):
    """Jumping of proband 6 has no thigh."""
    standing(tmp_path, 6)
    write(tmp_path, 6, "jumping", {"acc_jumping_waist.csv": samples("waist")})
    with pytest.raises(UnusableError, match=r"no acceleration of the thigh in acc_jumping_csv\.zip"):
        read(tmp_path, "jumping", 6)
    assert len(read(tmp_path, "jumping", 6, sensors=("waist",))) == 1
    assert len(read(tmp_path, "standing", 6)) == 1


def test_a_pause_of_one_sensor_ends_the_recording(tmp_path):
    standing(tmp_path, 1)
    head, *rows = samples("thigh", 0.0, 8.0).splitlines()
    paused = "\n".join([head, *rows[:150], *rows[300:]]) + "\n"
    members = {"acc_running_waist.csv": samples("waist", 0.0, 8.0), "acc_running_thigh.csv": paused}
    write(tmp_path, 1, "running", members)
    recordings = read(tmp_path, "running")
    assert [round(len(recording.labels_N) / 50, 1) for recording in recordings] == [3.0, 2.0]
    assert "s left out" in recordings[0].notes[0]


def test_damaged_members_are_noted_and_the_rest_is_read(tmp_path):
    standing(tmp_path, 1)
    damaged = samples("thigh") + "201,1435996"
    members = {"acc_sitting_waist.csv": samples("waist"), "acc_sitting_thigh.csv": damaged}
    members["acc_sitting_2_thigh.csv"] = "id,time\n1,2\n"
    members["acc_sitting_2_csv.zip"] = b"no zip"
    path = write(tmp_path, 1, "sitting", members)
    (recording,) = read(tmp_path, "sitting")
    assert len(recording.notes) == 3
    assert "acc_sitting_thigh.csv: damaged rows left out: 1" in recording.notes
    assert any(note.startswith("acc_sitting_2_thigh.csv left out: unreadable CSV") for note in recording.notes)
    assert any(note.startswith("acc_sitting_2_csv.zip left out:") for note in recording.notes)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnusableError, match="not a readable zip"):
        read(tmp_path, "sitting")
    apart = {"acc_sitting_waist.csv": samples("waist"), "acc_sitting_thigh.csv": samples("thigh", 99.0)}
    write(tmp_path, 1, "sitting", apart)
    with pytest.raises(UnusableError, match="no common time"):
        read(tmp_path, "sitting")
    with pytest.raises(DataError, match="not a folder of RealWorld"):
        list(open_dataset("realworld", path.parent).files())


def test_an_unknown_activity_is_unlabeled(tmp_path):
    standing(tmp_path, 1)
    write(tmp_path, 1, "cycling", {"acc_cycling_waist.csv": samples("waist")})
    (recording,) = read(tmp_path, "cycling", sensors=("waist",))
    assert set(recording.labels_N) == {-1}
    assert "'cycling'" in recording.notes[0]
