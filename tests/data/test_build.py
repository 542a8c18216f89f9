import os
import random
import shutil
import subprocess
import time

import numpy as np
import pytest

from selfpab_jax.data.records import build
from selfpab_jax.data.records.build import Runner, build_records
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.data.sources.synthetic import write_cohort
from selfpab_jax.errors import DataError
from selfpab_jax.signal.stft import SpectrogramSettings, spectrogram


def test_records_hold_what_the_recordings_did(records, cohort):
    info = records.info
    assert (info.frames, info.features, info.sensors) == (39, 156, ("back", "thigh"))
    assert sum(size.records for size in info.splits.values()) == 6 * 4 * 3
    assert info.rejected == 0
    index, source = records.index("train"), records.source("train")
    assert len(index) == len(source) == info.splits["train"].records
    assert info.splits["train"].hours == pytest.approx(len(index) * 20 / 3600)
    frames = []
    for position in range(len(source)):
        record = source[position]
        assert record["subject"].decode() == index.subject[position]
        path = cohort / index.subject[position] / f"{index.recording[position]}.npz"
        first = position % 3 * 1000
        expected = spectrogram(np.load(path)["arr_0"][first : first + 1000], SpectrogramSettings())
        np.testing.assert_array_equal(record["spectrogram"], expected.astype(np.float16))
        assert record["start"] == index.start_ms[position]
        assert record["start"] // 1000 % 3600 == position % 3 * 20
        frames.append(expected.astype(np.float64))
    statistics = records.statistics("plain")
    np.testing.assert_allclose(statistics.mean, np.concatenate(frames).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.std, np.concatenate(frames).std(axis=0), rtol=1e-6)
    means = np.stack([frame.mean(axis=0) for frame in frames])
    np.testing.assert_allclose(records.statistics().std, means.std(axis=0), rtol=1e-6)


def test_nobody_is_in_two_splits(records):
    subjects = [set(records.index(split).subject) for split in records.info.splits]
    assert sum(map(len, subjects)) == len(set.union(*subjects)) == 6


def test_tfds_reads_it_without_tensorflow(records):
    import sys

    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(str(records.folder)).as_data_source("validation")
    assert source[0]["spectrogram"].dtype == np.float16
    assert "tensorflow" not in sys.modules


def test_the_number_of_workers_changes_no_byte(records, cohort, plan_of, tmp_path, contents):
    build_records(plan_of(cohort), tmp_path, Runner(workers=3))
    assert contents(tmp_path / "spectrograms") == contents(records.folder.parent)


def test_splits_by_recording(cohort, plan_of, tmp_path):
    build_records(plan_of(cohort, by="recording", validation=0.25, test=0), tmp_path, Runner())
    sizes = open_records(tmp_path).info.splits
    assert {name: size.records for name, size in sizes.items()} == {"train": 54, "validation": 18}


def test_killed_at_any_moment_it_goes_on(tmp_path, build_command, contents):
    write_cohort(tmp_path / "cohort", subjects=8, hours=12, seed=1)
    options = ["--source", "hunt4", "--window_seconds", "10", "--workers", "2", str(tmp_path / "cohort"), "--out"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*build_command, *options, str(whole)], check=True, capture_output=True)
    rng = random.Random()
    seen_unfinished = 0
    for attempt in range(5):
        process = subprocess.Popen([*build_command, *options, str(killed)], stderr=subprocess.DEVNULL)
        while not (killed / build.STAGING / "plan.json").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5 + 0.7 * attempt))
        process.kill()
        process.wait()
        if (killed / "spectrograms" / "1.0.0").exists():
            break
        seen_unfinished += (killed / build.STAGING / "plan.json").exists()
    subprocess.run([*build_command, *options, str(killed), "--resume"], check=True, capture_output=True)
    assert contents(killed / "spectrograms") == contents(whole / "spectrograms")
    assert not (killed / build.STAGING).exists()
    assert sorted(path.name for path in (killed / "spectrograms").iterdir()) == ["1.0.0"]
    assert seen_unfinished


def test_a_build_stopped_between_shards_does_only_the_rest(cohort, plan_of, tmp_path, monkeypatch, records, contents):
    from selfpab_jax.data.records import build as workers

    done = []

    def some(plan, folder, shards, count, strict, report):
        done.append(len(shards))
        for shard in shards[: 3 if len(done) == 1 else None]:
            workers.build_shard(plan, folder, shard, strict)
        if len(done) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(workers, "build_shards", some)
    with pytest.raises(KeyboardInterrupt):
        build_records(plan_of(cohort), tmp_path, Runner())
    with pytest.raises(DataError, match="not finished"):
        open_records(tmp_path)
    with pytest.raises(DataError, match=r"splits.seed was 0, is 5"):
        build_records(plan_of(cohort, seed=5), tmp_path, Runner())
    (tmp_path / build.STAGING / "00004.123.part").write_bytes(b"half a shard")
    (tmp_path / "spectrograms" / "incomplete.ABCDEF_1.0.0").mkdir(parents=True)
    build_records(plan_of(cohort), tmp_path, Runner())
    assert done[1] == done[0] - 3
    assert contents(tmp_path / "spectrograms") == contents(records.folder.parent)


def test_finished_records_are_not_overwritten_unasked(records, cohort, plan_of):
    out = records.folder.parents[1]
    with pytest.raises(DataError, match="--overwrite"):
        build_records(plan_of(cohort), out, Runner())


def test_two_builds_in_one_folder(cohort, plan_of, tmp_path):
    with build._lock(tmp_path), pytest.raises(DataError, match="another build"):
        build_records(plan_of(cohort), tmp_path, Runner())


@pytest.fixture
def bad_cohort(cohort, tmp_path, moving):
    folder = tmp_path / "cohort"
    shutil.copytree(cohort, folder)
    subject = folder / "S001"
    signal = np.tile(moving, (2, 1))

    def spoil(hour: int, **arrays: np.ndarray) -> None:
        np.savez(subject / f"2024-04-01_{hour:02d}.npz", **arrays)

    spoil(0, other=signal)
    spoil(1, arr_0=signal[:, :5])
    spoil(2, arr_0=signal[:100])
    spoil(3, arr_0=np.where(np.arange(6) == 2, np.nan, signal))
    spoil(4, arr_0=np.where(np.arange(6) == 2, 0.1, signal))
    spoil(5, arr_0=np.clip(np.where(np.arange(6) == 2, 4 * signal, signal), -1.6, 1.6))
    spoil(6, arr_0=np.where(np.arange(len(signal))[:, None] == 9, 20, signal))
    (subject / "2024-04-01_07.npz").write_bytes(b"hello")
    return folder


def test_bad_files_are_set_aside_with_their_reason(bad_cohort, plan_of, tmp_path):
    from selfpab_jax.data.records.describe import describe_text, rejection_reasons

    info = build_records(plan_of(bad_cohort), tmp_path / "out", Runner())
    assert info.rejected == 8
    assert sum(size.records for size in info.splits.values()) == 6 * 4 * 3
    records = open_records(tmp_path / "out")
    assert sorted(rejection_reasons(records.folder)) == [
        "NaN or infinity",
        "beyond 16 g",
        "clipped channel",
        "dead channel",
        "not a readable npz",
        "too short",
        "wrong key",
        "wrong number of columns",
    ]
    assert "8 of 32 files set aside" in describe_text(records)


def test_strict_stops_at_the_first(bad_cohort, plan_of, tmp_path):
    with pytest.raises(DataError, match=r"2024-04-01_00.npz: wrong key.*--strict"):
        build_records(plan_of(bad_cohort), tmp_path / "out", Runner(workers=1, strict=True))


def test_nothing_usable_is_an_error(tmp_path, plan_of):
    for subject in ("a", "b", "c"):
        (tmp_path / "in" / subject).mkdir(parents=True)
        (tmp_path / "in" / subject / "2024-04-01_07.npz").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"all 1 files drawn for training were set aside.*not a readable npz"):
        build_records(plan_of(tmp_path / "in"), tmp_path / "out", Runner())


def test_a_folder_where_nothing_was_usable_serves_the_next_attempt(tmp_path, bad_cohort, plan_of):
    for subject in ("a", "b", "c"):
        (tmp_path / "in" / subject).mkdir(parents=True)
        (tmp_path / "in" / subject / "2024-04-01_07.npz").write_bytes(b"hello")
    with pytest.raises(DataError, match="no usable recording"):
        build_records(plan_of(tmp_path / "in"), tmp_path / "out", Runner(workers=1))
    assert build_records(plan_of(bad_cohort), tmp_path / "out", Runner(workers=1)).rejected == 8


def test_the_command_fails_without_a_traceback(tmp_path, cli):
    (tmp_path / "in" / "a").mkdir(parents=True)
    command = [*cli, "records", "build", "--source", "hunt4", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode != 0
    assert "no <subject>/<YYYY-MM-DD_HH>.npz" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_told_and_the_build_goes_on_later(cohort, plan_of, tmp_path, monkeypatch, records, contents):
    from selfpab_jax.data.records import build as workers
    from selfpab_jax.data.records import shards

    room = [3]

    def full(result, path, write=shards._write_result):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(28, "No space left on device")
        write(result, path)

    def here(plan, folder, missing, count, strict, report):
        for shard in missing:
            workers.build_shard(plan, folder, shard, strict)

    monkeypatch.setattr(workers, "build_shards", here)
    monkeypatch.setattr(shards, "_write_result", full)
    with pytest.raises(DataError, match=r"No space left on device.*repeat the command"):
        build_records(plan_of(cohort), tmp_path, Runner())
    room[0] = 1000
    build_records(plan_of(cohort), tmp_path, Runner())
    assert contents(tmp_path / "spectrograms") == contents(records.folder.parent)
