import json
import os
import random
import shutil
import subprocess
import time

import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.data.records import build, shards
from selfpab_jax.data.records.build import Runner, build_records, build_spec
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.data.records.format import read_info
from selfpab_jax.data.records.settings import BuildSettings
from selfpab_jax.data.records.spec import read_shards, write_plan
from selfpab_jax.data.sources.synthetic import write_cohort
from selfpab_jax.errors import ConfigError, DataError, LockedError, StorageError
from selfpab_jax.signal.stft import SpectrogramSettings, spectrogram


def test_records_hold_what_the_recordings_did(records, cohort):
    info = records.info
    assert (info.frames, info.features, info.sensors) == (39, 156, ("back", "thigh"))
    assert sum(size.records for size in info.splits.values()) == 6 * 4 * 3
    assert info.skipped == 0
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


def test_no_subject_is_in_two_splits(records):
    subjects = [set(records.index(split).subject) for split in records.info.splits]
    assert sum(map(len, subjects)) == len(set.union(*subjects)) == 6


def test_tfds_reads_it_without_tensorflow(records):
    import sys

    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(str(records.folder)).as_data_source("validation")
    assert source[0]["spectrogram"].dtype == np.float16
    assert "tensorflow" not in sys.modules


def test_the_number_of_workers_changes_no_byte(records, cohort, spec_of, tmp_path, contents):
    build_spec(spec_of(cohort), tmp_path, Runner(workers=3))
    assert contents(tmp_path / "spectrograms") == contents(records.folder.parent)


def test_splits_by_recording(cohort, spec_of, tmp_path):
    build_spec(spec_of(cohort, by="recording", validation=0.25, test=0), tmp_path, Runner())
    sizes = open_records(tmp_path).info.splits
    assert {name: size.records for name, size in sizes.items()} == {"train": 54, "validation": 18}


@pytest.mark.slow
def test_killed_at_any_time_it_continues(tmp_path, build_command, contents):
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


def test_a_build_stopped_between_shards_does_only_the_rest(cohort, spec_of, tmp_path, monkeypatch, records, contents):
    done = []

    def some(spec, folder, missing, workers, strict, on_progress):
        done.append(len(missing))
        for shard in missing[: 3 if len(done) == 1 else None]:
            shards.build_shard(spec, folder, shard, strict)
        if len(done) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(build, "build_shards", some)
    with pytest.raises(KeyboardInterrupt):
        build_spec(spec_of(cohort), tmp_path, Runner())
    with pytest.raises(DataError, match="not finished"):
        open_records(tmp_path)
    with pytest.raises(DataError, match=r"splits.seed was 0, is 5"):
        build_spec(spec_of(cohort, seed=5), tmp_path, Runner())
    (tmp_path / build.STAGING / "00004.123.part").write_bytes(b"half a shard")
    (tmp_path / build.STAGING / ".00004.npz.abcd").mkdir()
    (tmp_path / "spectrograms" / "incomplete.ABCDEF_1.0.0").mkdir(parents=True)
    build_spec(spec_of(cohort), tmp_path, Runner())
    assert done[1] == done[0] - 3
    assert contents(tmp_path / "spectrograms") == contents(records.folder.parent)


def test_finished_records_are_not_overwritten_unasked(records, cohort, spec_of):
    out = records.folder.parents[1]
    with pytest.raises(DataError, match="--overwrite"):
        build_spec(spec_of(cohort), out, Runner())


def test_two_builds_in_one_folder(cohort, spec_of, tmp_path):
    with build._lock(tmp_path), pytest.raises(LockedError, match="another build"):
        build_spec(spec_of(cohort), tmp_path, Runner())


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


def test_bad_files_are_skipped_with_their_reason(bad_cohort, spec_of, tmp_path):
    from selfpab_jax.data.records.describe import describe_text, skip_reasons

    info = build_spec(spec_of(bad_cohort), tmp_path / "out", Runner())
    assert info.skipped == 8
    assert sum(size.records for size in info.splits.values()) == 6 * 4 * 3
    records = open_records(tmp_path / "out")
    assert sorted(skip_reasons(records)) == [
        "NaN or infinity",
        "beyond 16 g",
        "clipped channel",
        "dead channel",
        "not a readable npz",
        "too short",
        "wrong key",
        "wrong number of columns",
    ]
    text = describe_text(records)
    assert "8 of 32 files skipped" in text
    for (entry,) in skip_reasons(records).values():
        assert f"{entry['file']}: {entry['reason']}" in text


def test_progress_shows_what_was_read_of_a_file(bad_cohort, spec_of, tmp_path):
    spec, seen = spec_of(bad_cohort), []
    write_plan(spec, tmp_path)
    for shard in read_shards(tmp_path):
        shards.build_shard(spec, tmp_path, shard, count=lambda *done: seen.append(done))
    files, samples, skipped = np.cumsum(seen, axis=0).T
    assert (files[-1], samples[-1], skipped[-1]) == (32, 6 * 4 * 3 * 1000, 8)
    assert 0 < samples[0] < 3 * 1000
    assert files[0] == 0, "before the first file is finished"


def test_strict_stops_at_the_first(bad_cohort, spec_of, tmp_path):
    with pytest.raises(DataError, match=r"2024-04-01_00.npz: wrong key.*--strict"):
        build_spec(spec_of(bad_cohort), tmp_path / "out", Runner(workers=1, strict=True))


def test_nothing_usable_is_an_error(tmp_path, spec_of):
    for subject in ("a", "b", "c"):
        (tmp_path / "in" / subject).mkdir(parents=True)
        (tmp_path / "in" / subject / "2024-04-01_07.npz").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"1 files .* skipped.*not a readable npz"):
        build_spec(spec_of(tmp_path / "in"), tmp_path / "out", Runner())


def test_a_folder_where_nothing_was_usable_serves_the_next_attempt(tmp_path, bad_cohort, spec_of):
    for subject in ("a", "b", "c"):
        (tmp_path / "in" / subject).mkdir(parents=True)
        (tmp_path / "in" / subject / "2024-04-01_07.npz").write_bytes(b"hello")
    with pytest.raises(DataError, match="no usable recording"):
        build_spec(spec_of(tmp_path / "in"), tmp_path / "out", Runner(workers=1))
    assert build_spec(spec_of(bad_cohort), tmp_path / "out", Runner(workers=1)).skipped == 8


def test_the_command_fails_without_a_traceback(tmp_path, cli):
    (tmp_path / "in" / "a").mkdir(parents=True)
    command = [*cli, "records", "build", "--source", "hunt4", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode != 0
    assert "<subject>/<YYYY-MM-DD_HH>.npz" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_stops_the_build_which_continues_later(cohort, spec_of, tmp_path, monkeypatch, records, contents):
    writes_left = [3]

    def full(result, path, write=shards._write_result):
        writes_left[0] -= 1
        if writes_left[0] < 0:
            raise OSError(28, "No space left on device")
        write(result, path)

    def here(spec, folder, missing, workers, strict, on_progress):
        for shard in missing:
            shards.build_shard(spec, folder, shard, strict)

    monkeypatch.setattr(build, "build_shards", here)
    monkeypatch.setattr(shards, "_write_result", full)
    with pytest.raises(StorageError, match=r"No space left on device.*repeat the command"):
        build_spec(spec_of(cohort), tmp_path, Runner())
    writes_left[0] = 1000
    build_spec(spec_of(cohort), tmp_path, Runner())
    assert contents(tmp_path / "spectrograms") == contents(records.folder.parent)


def test_from_python_as_from_the_command_line(cohort, tmp_path, contents):
    settings = BuildSettings((str(cohort),), "hunt4", window_seconds=20, test_subjects=("S002", "S003"))
    built = build_records(settings, tmp_path / "python", workers=1)
    options = ["--source", "hunt4", "--window_seconds", "20", "--test_subjects", "S002,S003", "--workers", "1"]
    assert main(["records", "build", str(cohort), "--out", str(tmp_path / "command"), *options]) == 0
    assert contents(tmp_path / "python" / "spectrograms") == contents(tmp_path / "command" / "spectrograms")
    assert set(built.index("test").subject) == {"S002", "S003"}
    again = build_records(settings, tmp_path / "python", resume=True)
    assert again.info == built.info
    with pytest.raises(ConfigError, match="workers"):
        build_records(settings, tmp_path / "python", workers=0)


def test_names_of_version_0_1_are_read(bad_cohort, spec_of, tmp_path, monkeypatch):
    """`rejected` in records.json, in the results of an unfinished build, and as the name of the list."""
    from selfpab_jax.data.records.describe import describe_text

    def some(spec, folder, missing, workers, strict, on_progress):
        for shard in missing:
            shards.build_shard(spec, folder, shard, strict)
            path = shards.result_path(folder, shard)
            with np.load(path) as archive:
                arrays = {name: archive[name] for name in archive.files}
            about = json.loads(arrays["about"].tobytes())
            about["rejected"] = about.pop("skipped")
            np.savez(path, **arrays | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)})

    monkeypatch.setattr(build, "build_shards", some)
    info = build_spec(spec_of(bad_cohort), tmp_path / "out", Runner())
    assert info.skipped == 8
    folder = open_records(tmp_path / "out").folder
    fields = json.loads((folder / "records.json").read_text())
    fields["rejected"] = fields.pop("skipped")
    (folder / "records.json").write_text(json.dumps(fields))
    (folder / "skipped.jsonl").rename(folder / "rejected.jsonl")
    assert read_info(folder) == info
    assert "8 of 32 files skipped" in describe_text(open_records(folder))
    assert "clipped channel" in describe_text(open_records(folder))


def test_overwrite_keeps_finished_records_until_new_ones_are_finished(tmp_path):
    write_cohort(tmp_path / "cohort", subjects=4, hours=1, seed=1)
    build = ["records", "build", "--source", "hunt4", str(tmp_path / "cohort"), "--out", str(tmp_path / "records")]
    build += ["--workers", "1", "--validation", "0", "--test", "0", "--window_seconds"]
    assert main([*build, "60"]) == 0
    folder = tmp_path / "records" / "spectrograms" / "1.0.0"
    before = {path.name: path.read_bytes() for path in folder.glob("*record*")}
    assert main([*build, "3000", "--shortest_seconds", "null", "--overwrite"]) != 0  # longer than the files
    assert {path.name: path.read_bytes() for path in folder.glob("*record*")} == before
    folder.rename(tmp_path / "records" / ".replaced")  # as a kill would leave it
    assert main([*build, "60", "--resume"]) == 0
    assert {path.name: path.read_bytes() for path in folder.glob("*record*")} == before
    assert main([*build, "30", "--overwrite"]) == 0
    assert {path.name: path.read_bytes() for path in folder.glob("*record*")} != before
    assert not (tmp_path / "records" / ".replaced").exists()
