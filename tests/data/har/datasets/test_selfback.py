"""selfBACK: the published folders of activities, and tables made of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.errors import DataError

from ..conftest import standing, text_of, times, write_csv

HANGING, UPRIGHT = (-0.4, -0.9, 0.05), (-0.99, -0.08, 0.09)


@pytest.fixture
def write_activity():
    """Writes both sensors' files of an activity: clocks of 97.6 and 100 Hz, the thigh starting 400 ms later."""

    def write(root, activity, number, folders=("w", "t"), *, class_column=False):
        for folder, rate, late, gravity in zip(folders, (97.6, 100.0), (0, 400), (HANGING, UPRIGHT), strict=True):
            moments = times(500, rate, "2016-04-13T10:50:54.166") + np.timedelta64(late, "ms")
            columns = [text_of(moments), *standing(500, gravity).T]
            header = ["time", "x", "y", "z"]
            if class_column:
                header, columns = [*header, "class"], [*columns, [activity] * 500]
            write_csv(root / folder / activity / f"{number:03d}.csv", header, columns)

    return write


@pytest.mark.parametrize(
    ("root", "folders", "class_column"), [("selfBACK", ("w", "t"), False), ("9_class", ("wrist34", "thigh34"), True)]
)
def test_published_sensors_are_resampled_onto_one_clock(tmp_path, write_activity, root, folders, class_column):
    for activity, number in (("standing", 27), ("jogging", 26), ("standing", 26)):
        write_activity(tmp_path / root, activity, number, folders, class_column=class_column)
    source = open_dataset("selfback", tmp_path)
    assert (source.card.version, source.card.rate_hz) == ("1.0.0", 100.0)
    files = list(source.files())
    assert [(file.subject, file.name) for file in files] == [
        ("subject_026", "jogging"),
        ("subject_026", "standing"),
        ("subject_027", "standing"),
    ]
    (recording,) = source.read(files[2])
    # From the thigh's first sample to the wrist's last.
    assert len(recording.signal_NxC) == pytest.approx((499 / 97.6 - 0.4) * 100, abs=2)
    assert recording.start is not None
    assert recording.start.microsecond == 566_000
    assert {source.card.class_names[label] for label in recording.labels_N} == {"standing"}
    np.testing.assert_allclose(recording.signal_NxC.mean(axis=0), HANGING + UPRIGHT, atol=0.01)


def test_one_sensor_needs_only_its_files(tmp_path, write_activity):
    write_activity(tmp_path, "standing", 26)
    (tmp_path / "w" / "standing" / "026.csv").unlink()
    write_activity(tmp_path, "jogging", 26)
    both = open_dataset("selfback", tmp_path)
    jogging, standing_file = both.files()
    assert len(both.read(jogging)) == 1
    with pytest.raises(UnusableError, match=r"sensor missing: there is no w/standing/026\.csv \(wrist\)"):
        both.read(standing_file)
    thigh = open_dataset("selfback", tmp_path, sensors=("thigh",))
    assert [thigh.read(file)[0].signal_NxC.shape for file in thigh.files()] == [(500, 3), (500, 3)]
    with pytest.raises(DataError, match="not a folder of selfBACK with wrist"):
        list(open_dataset("selfback", tmp_path / "t").files())


def test_tables_are_found_and_end_at_segments(tmp_path):
    moments, signal = times(300, 50), standing(300, HANGING + UPRIGHT)
    columns = {"timestamp": moments, "label": np.repeat([7, 4, 1], 100), "segment": np.repeat([0, 1, 2], 100)}
    names = [f"{sensor}_{axis}" for sensor in ("wrist", "thigh") for axis in "xyz"]
    table = pa.table(columns | dict(zip(names, signal.T, strict=True)))
    pyarrow.parquet.write_table(table, tmp_path / "subject_026.parquet")
    source = open_dataset("selfback", tmp_path)
    (file,) = source.files()
    recordings = source.read(file)
    assert (source.card.version, source.card.rate_hz) == ("1.1.0", 50.0)
    assert [source.card.class_names[recording.labels_N[0]] for recording in recordings] == [
        "standing",
        "jogging",
        "walking slowly",
    ]
    assert [recording.name for recording in recordings] == ["subject_026:0", "subject_026:100", "subject_026:200"]


def test_real_tables_read_and_gravity_points_down(shared):
    source = open_dataset("selfback", shared / "real" / "selfback")
    files = list(source.files())
    assert len(files) == 26
    for file in files[::9]:
        recordings = source.read(file)
        assert len(recordings) == 9
        assert all(recording.notes == () for recording in recordings)
        means = {
            source.card.class_names[recording.labels_N[0]]: recording.signal_NxC.mean(axis=0)[3:]
            for recording in recordings
        }
        assert means["standing"][0] < -0.9
        assert means["walking"][0] < -0.9
        assert means["sitting"][2] < -0.8  # the thigh's back is down
