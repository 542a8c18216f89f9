"""Mistakes in calls of `records` and `cohort`: one line each, no traceback."""

import json
import shutil

import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.data.splits import hours_of, select


@pytest.fixture
def fails(capsys):
    """Runs a command that must fail; its line."""

    def run(*words: object) -> str:
        assert main([str(word) for word in words]) in (1, 2)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    return run


@pytest.mark.parametrize(
    "option",
    [
        "rate=100",
        "unit=m/s2",
        "timestamp_column=time",
        "timestamp_column=null",
        "timestamp_unit=ms",
        "gap_limit=2",
        "sensors=back",
        "columns=a,b",
        "segment_column=part",
        "label_column=label",
    ],
)
def test_options_of_recordings_are_refused_for_hunt4(cohort, tmp_path, fails, option):
    said = fails("records", "build", "--source", "hunt4", cohort, "--out", tmp_path, f"--{option}")
    assert f"{option.partition('=')[0]}: only for --source recordings" in said


@pytest.mark.parametrize("option", ["--first_seconds=60", "--skip_night"])
def test_options_of_hunt4_are_refused_for_recordings(cohort, tmp_path, fails, option):
    said = fails("records", "build", "--source", "recordings", cohort, "--out", tmp_path, option)
    assert "only for --source hunt4" in said


@pytest.mark.parametrize(
    "option",
    [
        "workers=0",
        "workers=-1",
        "first_seconds=0",
        "first_seconds=-5",
        "window_seconds=-1",
        "window_seconds=nan",
        "window_seconds=inf",
        "window_seconds=0.1",
        "shift_seconds=-1",
        "shift_seconds=0",
        "record_rate=inf",
        "validation=1",
        "validation=-0.1",
        "test=1.5",
        "test=nan",
        "shard_mb=0",
    ],
)
def test_wrong_numbers(cohort, tmp_path, fails, option):
    said = fails("records", "build", "--source", "hunt4", cohort, "--out", tmp_path / "out", f"--{option}")
    assert option.partition("=")[0].partition("_")[0] in said
    assert not (tmp_path / "out").exists()


def test_files_where_folders_should_be(cohort, records, tmp_path, fails):
    file = tmp_path / "file"
    file.write_text("kept")
    for path in (file, file / "below"):
        assert str(path) in fails("records", "build", "--source", "hunt4", cohort, "--out", path)
        assert str(path) in fails("cohort", path)
        assert str(path) in fails("records", "describe", path)
    assert file.read_text() == "kept"


def test_a_picture_that_cannot_be_written(records, fails):
    for path in ("/nonexistent/x.png", "/tmp/x.unknown"):
        assert f"{path}: the picture cannot be written" in fails(
            "records", "describe", records.folder, "--picture", path
        )


def test_a_folder_that_cannot_take_the_picture_is_described(records, tmp_path, capsys):
    folder = shutil.copytree(records.folder, tmp_path / "copy")
    (folder / "records.png").unlink(missing_ok=True)
    (folder / "records.png").mkdir()  # tests may run as root, who may write to read-only folders
    assert main(["records", "describe", str(folder)]) == 0
    printed = capsys.readouterr()
    assert "statistics of the training split" in printed.out
    assert "--picture" in printed.err


def test_overlapping_windows_are_counted_once(cohort, tmp_path, capsys):
    out = tmp_path / "out"
    build = ["records", "build", "--source", "hunt4", str(cohort), "--out", str(out), "--workers", "1"]
    windows = ["--window_seconds", "60", "--shift_seconds", "20", "--first_seconds", "110"]
    assert main([*build, *windows, "--validation", "0", "--test", "0"]) == 0
    records = open_records(out)
    index = records.index("train")
    assert len(index) == 6 * 4 * 4  # the last of a file is moved back
    assert records.info.splits["train"].hours == pytest.approx(6 * 4 * 110 / 3600)
    assert hours_of(index, np.arange(len(index))) == pytest.approx(6 * 4 * 110 / 3600)
    rows = select(index, hours=300 / 3600)
    assert sorted(index.seconds[rows]) == [10] * 2 + [20] * 5 + [60] * 3
    assert len(set(index.segment[rows])) == 3


def test_a_split_that_was_asked_for_and_is_empty(tables_with_gaps, tmp_path, fails):
    """The only subject of a split cannot be used."""
    shutil.copytree(tables_with_gaps, tmp_path / "in")
    (tmp_path / "in" / "S5.parquet").write_bytes(b"no table")
    build = ["records", "build", "--source", "recordings", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1]
    options = ["--timestamp_unit", "ms", "--window_seconds", 20, "--validation_subjects", "S5", "--test", 0]
    said = fails(*build, *options)
    assert "no usable recording for validation" in said
    assert "S5.parquet: unreadable Parquet" in said
    failed = tmp_path / "out" / "failed"
    assert str(failed / "report.html") in said
    assert "S5.parquet" in (failed / "report.html").read_text()
    assert [json.loads(line)["subject"] for line in (failed / "skipped.jsonl").read_text().splitlines()] == ["S5"]
    assert main([str(word) for word in (*build, *options[:-4], "--validation", 0, "--test", 0)]) == 0
    assert not failed.exists()
