"""USC-HAD in its published layout: miniature trials, and the real ones where they are."""

import numpy as np
import pytest

from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.errors import ConfigError, DataError


def only(source):
    """The recordings of the only file."""
    (file,) = source.files()
    return source.read(file)


@pytest.mark.parametrize("spelling", ["activity_number", "activity_numbr"])
def test_a_trial_is_a_recording_of_one_class(tmp_path, write_trial, spelling):
    write_trial(tmp_path, 3, 9, trial=2, spelling=spelling)
    source = open_dataset("uschad", tmp_path)
    (recording,) = only(source)
    assert (recording.subject, recording.name, recording.rate_hz) == ("Subject3", "a9t2", 100.0)
    assert source.channels == ("hip_x", "hip_y", "hip_z")
    assert source.card.class_names[recording.labels_N[0]] == "standing"
    assert len(set(recording.labels_N)) == 1
    assert recording.signal_NxC.dtype == np.float32
    assert len(recording.signal_NxC) == 700
    # The thigh's axes: upright is -1 g on x, forward is -z, left is -y.
    np.testing.assert_allclose(recording.signal_NxC.mean(axis=0), (-1.0, 0.1, -0.18), atol=0.01)


def test_files_go_by_subject_also_from_the_unpacked_archive(tmp_path, write_trial):
    for subject, activity in ((2, 1), (10, 1), (2, 12)):
        write_trial(tmp_path / "USC-HAD", subject, activity)
    names = [(file.subject, file.name) for file in open_dataset("uschad", tmp_path).files()]
    assert names == [("Subject10", "a1t1"), ("Subject2", "a12t1"), ("Subject2", "a1t1")]


def test_an_unknown_activity_is_kept_unlabeled_with_a_note(tmp_path, write_trial):
    write_trial(tmp_path, 1, 9, number="13")
    (recording,) = only(open_dataset("uschad", tmp_path))
    assert (recording.labels_N == -1).all()
    assert "label 13 " in recording.notes[1]
    assert " 700 samples" in recording.notes[1]
    assert "activity 9 in the file's name, 13 in the file" in recording.notes[0]


@pytest.mark.parametrize(
    ("options", "keyword"),
    [
        ({"spelling": "activity_name"}, "labels missing: no field activity_number"),
        ({"number": "walking"}, "not an activity number"),
        ({"readings": np.zeros((10, 2))}, "not a table of 6 columns"),
        ({"readings": np.full((300, 6), np.nan)}, "sensor missing: no sample has numbers"),
        ({"readings": np.full((300, 6), 9.81)}, "wrong unit"),
    ],
)
def test_trials_that_cannot_be_used(tmp_path, write_trial, options, keyword):
    write_trial(tmp_path, 1, 1, **options)
    with pytest.raises(UnusableError, match=keyword):
        only(open_dataset("uschad", tmp_path))


def test_missing_samples_are_kept_and_damaged_files_are_unusable(tmp_path, write_trial):
    readings = np.tile([1.0, 0.1, 0, 0, 0, 0], (300, 1)) + np.random.default_rng(0).normal(0, 0.01, (300, 6))
    readings[7, 1] = np.nan
    path = write_trial(tmp_path, 1, 1, readings=readings)
    (recording,) = only(open_dataset("uschad", tmp_path))
    assert np.isnan(recording.signal_NxC).sum() == 1
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnusableError, match="not a readable MATLAB file"):
        only(open_dataset("uschad", tmp_path))


def test_missing_folders_sensors_and_versions(tmp_path):
    for path, keyword in ((tmp_path / "none", "no such folder"), (tmp_path, "not a folder of USC-HAD")):
        with pytest.raises(DataError, match=keyword):
            list(open_dataset("uschad", path).files())
    with pytest.raises(ConfigError, match=r"no sensor wrist.*hip"):
        open_dataset("uschad", tmp_path, sensors=("wrist",))
    with pytest.raises(ConfigError, match=r"no version 2\.0.*1\.0\.0"):
        open_dataset("uschad", tmp_path, version="2.0")


def test_real_files_read_and_gravity_points_down(shared):
    source = open_dataset("uschad", shared / "real" / "uschad")
    files = list(source.files())
    assert len(files) == 720
    assert len({file.subject for file in files}) == 12
    names, upright, samples = source.card.class_names, [], 0
    for file in files[::4]:
        (recording,) = source.read(file)
        samples += len(recording.signal_NxC)
        assert recording.notes == ()
        assert recording.labels_N[0] == int(file.name[1:].split("t")[0]) - 1
        if names[recording.labels_N[0]] in ("standing", "walking forward"):
            upright.append(recording.signal_NxC.mean(axis=0))
    assert samples > 500_000
    x, y, z = np.transpose(upright)
    assert (x < -0.8).all()
    assert (np.abs(y) < 0.5).all()
    assert (np.abs(z) < 0.7).all()
