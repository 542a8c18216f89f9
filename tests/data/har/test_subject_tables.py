"""HARTH, HAR70+ and DualSleep: one CSV file a subject."""

from datetime import datetime

import numpy as np
import pytest

from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.errors import ConfigError, DataError

from .conftest import times


def only(source):
    """The recordings of the only file."""
    (file,) = source.files()
    return source.read(file)


@pytest.mark.parametrize("index", [False, True])
def test_harth_file_is_a_recording_with_class_indices(tmp_path, write_harth, index):
    write_harth(tmp_path / "harth" / "S006.csv", index=index)
    source = open_dataset("harth", tmp_path)
    (recording,) = only(source)
    assert (recording.subject, recording.name, recording.rate_hz) == ("S006", "S006", 50.0)
    assert recording.start == datetime(2019, 1, 12)
    assert recording.notes == ()
    assert [source.card.class_names[label] for label in recording.labels_N[[0, -1]]] == ["standing", "sitting"]
    np.testing.assert_allclose(recording.signal_NxC.mean(axis=0), (-1.0, 0.02, -0.05, -0.99, -0.04, 0.09), atol=0.01)


def test_all_of_harths_labels_have_a_class(tmp_path, write_harth):
    published = [1, 2, 3, 4, 5, 6, 7, 8, 13, 14, 130, 140]
    write_harth(tmp_path / "S006.csv", np.repeat(published, 20))
    (recording,) = only(open_dataset("harth", tmp_path))
    assert recording.labels_N.tolist() == np.repeat(np.arange(12), 20).tolist()


@pytest.mark.parametrize(("sensors", "columns"), [(("thigh",), [3, 4, 5]), (("thigh", "back"), [3, 4, 5, 0, 1, 2])])
def test_sensors_are_picked_in_order(tmp_path, write_harth, sensors, columns):
    write_harth(tmp_path / "S006.csv")
    (both,) = only(open_dataset("harth", tmp_path))
    source = open_dataset("harth", tmp_path, sensors=sensors)
    (recording,) = only(source)
    np.testing.assert_array_equal(recording.signal_NxC, both.signal_NxC[:, columns])
    assert source.channels == tuple(f"{sensor}_{axis}" for sensor in sensors for axis in "xyz")


def test_versions_differ_in_subjects(tmp_path, write_harth):
    for number in range(23):
        write_harth(tmp_path / f"S{number:03d}.csv", np.full(4, 1))
    with pytest.raises(DataError, match=r"23 subjects.*version=2\.0\.0"):
        list(open_dataset("harth", tmp_path).files())
    assert len(list(open_dataset("harth", tmp_path, version="2.0").files())) == 23


def test_har70plus_has_seven_of_the_classes(tmp_path, write_harth):
    write_harth(tmp_path / "501.csv", np.repeat([1, 3, 4, 5, 6, 7, 8, 2], 50))
    source = open_dataset("har70plus", tmp_path)
    (recording,) = only(source)
    assert recording.labels_N.tolist() == np.repeat([0, 1, 2, 3, 4, 5, 6, -1], 50).tolist()
    (note,) = recording.notes
    assert "label 2 " in note
    assert " 50 samples" in note


def test_dualsleep_is_awake_or_asleep(tmp_path, write_harth):
    labels = np.repeat([81, 82, 83, 84, 85, 86, 81], 60)
    write_harth(tmp_path / "PSGO_01.csv", labels, extra={"back_temp": 33.5, "thigh_temp": 30.1})
    write_harth(tmp_path / "PSG_06.csv")
    source = open_dataset("dualsleep", tmp_path)
    files = list(source.files())
    assert [file.subject for file in files] == ["PSGO_01", "PSG_06"]
    (recording,) = source.read(files[0])
    assert recording.labels_N.tolist() == (labels != 81).astype(int).tolist()
    assert source.card.class_names == ("wake", "asleep")
    assert recording.notes == ()


def test_gaps_and_steps_backwards_end_a_recording_and_lose_nothing(tmp_path, write_harth):
    moments = times(400, 50)
    moments[100:] += np.timedelta64(3, "s")
    moments[250:] -= np.timedelta64(10, "s")
    write_harth(tmp_path / "S006.csv", moments=moments)
    recordings = only(open_dataset("harth", tmp_path))
    assert [(recording.name, len(recording.signal_NxC)) for recording in recordings] == [
        ("S006:0", 100),
        ("S006:100", 150),
        ("S006:250", 150),
    ]
    assert recordings[1].start == datetime(2019, 1, 12, 0, 0, 5)
    assert recordings[0].notes == ("time runs backwards 1 times (at row 250): recordings end there",)
    assert recordings[1].notes == ()


def test_missing_samples_and_labels(tmp_path, write_harth):
    signal = np.random.default_rng(0).normal((-1, 0, 0, -1, 0, 0), 0.01, (400, 6))
    signal[50:53] = np.nan
    labels = np.repeat([6.0, 7.0], 200)
    labels[:10] = np.nan
    write_harth(tmp_path / "S006.csv", labels, signal=signal)
    (recording,) = only(open_dataset("harth", tmp_path))
    assert np.isnan(recording.signal_NxC).any(axis=1).nonzero()[0].tolist() == [50, 51, 52]
    assert recording.labels_N[[0, 9, 10, 399]].tolist() == [-1, -1, 5, 6]
    assert recording.notes == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"left_out": ("label",)}, "unknown column: label"),
        ({"left_out": ("thigh_z",)}, "unknown column: thigh_z; the table has timestamp, back_x"),
        ({"left_out": ("timestamp",)}, "unknown column: timestamp"),
        ({"signal": np.full((400, 6), 9.81)}, "wrong unit"),
        ({"labels": np.zeros(0)}, "too short"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, write_harth, options, said):
    write_harth(tmp_path / "S006.csv", **options)
    with pytest.raises(UnusableError, match=said):
        only(open_dataset("harth", tmp_path))


def test_a_sensor_that_one_subject_lacks(tmp_path, write_harth):
    signal = np.random.default_rng(0).normal((-1, 0, 0, -1, 0, 0), 0.01, (400, 6))
    signal[:, 3:] = np.nan
    write_harth(tmp_path / "S006.csv", signal=signal)
    with pytest.raises(UnusableError, match=r"sensor missing: .* \(thigh_x, thigh_y, thigh_z have none\)"):
        only(open_dataset("harth", tmp_path))
    (recording,) = only(open_dataset("harth", tmp_path, sensors=("back",)))
    assert np.isfinite(recording.signal_NxC).all()


def test_another_rate_than_declared(tmp_path, write_harth):
    write_harth(tmp_path / "S006.csv", np.full(2000, 6), moments=times(2000, 100))
    with pytest.raises(UnusableError, match=r"the timestamps show 100 Hz, not 50 Hz$"):
        only(open_dataset("harth", tmp_path))


def test_doubtful_signals_are_kept_with_a_note(tmp_path, write_harth):
    signal = np.random.default_rng(0).normal((-1, 0, 0, -1, 0, 0), 0.01, (1200, 6))
    signal[:, 2] = 0.25
    write_harth(tmp_path / "S006.csv", np.full(1200, 6), signal=signal)
    (recording,) = only(open_dataset("harth", tmp_path))
    assert recording.notes == ("dead channel: back_z stays at one value for 24 s; kept as published",)


def test_wrong_folders(tmp_path, write_harth):
    with pytest.raises(DataError, match="not a folder of HARTH as published"):
        list(open_dataset("harth", tmp_path).files())
    for name in ("old", "new"):
        write_harth(tmp_path / name / "S006.csv")
    with pytest.raises(DataError, match=r"several folders.*new, old"):
        list(open_dataset("harth", tmp_path).files())
    with pytest.raises(ConfigError, match="once"):
        open_dataset("harth", tmp_path, sensors=("back", "back"))
