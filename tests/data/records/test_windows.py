"""Ends of segments and segments shorter than a window are in records, and what is left out is reported."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.data.records.dataset import Records, open_records
from selfpab_jax.data.records.usage import USAGE_FILE
from selfpab_jax.data.splits import hours_of, select
from selfpab_jax.signal.stft import SpectrogramSettings, spectrogram

SUBJECTS = 6
BEGIN_SECONDS = 1_700_000_000
FIRST_SECONDS = [0, 20, 30, 60, 83, 113]
"""Starts of a subject's windows: three in 50 s, of which the last is moved back, then segments of 13, 20 and 7 s."""
NEW_SECONDS = [20, 20, 10, 13, 20, 7]
FRAMES = [39, 39, 39, 25, 39, 13]


@pytest.fixture
def padded(padded_records: Path) -> Records:
    return open_records(padded_records)


def test_every_record_holds_its_part_of_the_recording(padded: Records, tables_with_gaps: Path) -> None:
    index, source = padded.index("train"), padded.source("train")
    subjects = padded.info.splits["train"].subjects
    np.testing.assert_array_equal(index.frames, FRAMES * subjects)
    np.testing.assert_array_equal(index.seconds, NEW_SECONDS * subjects)
    np.testing.assert_array_equal(np.diff(index.segment), ([0, 0, 1, 1, 1, 1] * subjects)[:-1])
    np.testing.assert_array_equal(index.start_ms / 1000 - BEGIN_SECONDS, FIRST_SECONDS * subjects)
    for position, (subject, frames, start_ms) in enumerate(
        zip(index.subject, index.frames, index.start_ms, strict=True)
    ):
        table = pq.read_table(tables_with_gaps / f"{subject}.parquet")
        first = int(np.searchsorted(table["timestamp"].to_numpy(), start_ms))
        signal = np.stack([table[name].to_numpy() for name in padded.info.channels], axis=1)
        inside = slice(first, first + min(1000, 25 * (frames + 1)))
        record = source[position]
        expected = spectrogram(signal[inside].astype(np.float32), SpectrogramSettings())
        assert (record["frames"], record["spectrogram"].shape) == (frames, (39, 156))
        np.testing.assert_array_equal(record["spectrogram"][:frames], expected.astype(np.float16))
        assert not record["spectrogram"][frames:].any()
        assert (record["labels"][:frames] >= 0).all()
        assert (record["labels"][frames:] == -1).all()


def test_statistics_count_each_valid_frame_once(padded: Records) -> None:
    index, source = padded.index("train"), padded.source("train")
    valid = [source[i]["spectrogram"][: index.frames[i]].astype(np.float64) for i in range(len(index))]
    new = [frames if seconds != 10 else frames[-19:] for frames, seconds in zip(valid, index.seconds, strict=True)]
    statistics = padded.statistics("plain")
    np.testing.assert_allclose(statistics.mean, np.concatenate(new).mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(statistics.std, np.concatenate(new).std(axis=0), rtol=1e-3, atol=1e-4)
    means, shares = np.stack([frames.mean(axis=0) for frames in valid]), np.array([len(frames) for frames in new])
    mean = np.average(means, axis=0, weights=shares)
    between = np.sqrt(np.average((means - mean) ** 2, axis=0, weights=shares))
    np.testing.assert_allclose(padded.statistics().mean, mean, rtol=1e-4)
    np.testing.assert_allclose(padded.statistics().std, between, rtol=1e-2, atol=1e-3)


def test_hours_are_those_of_the_recordings(padded: Records, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = padded.info.splits
    assert sum(size.hours for size in sizes.values()) == pytest.approx(SUBJECTS * 90 / 3600)
    assert sum(size.padded for size in sizes.values()) == SUBJECTS * 2
    assert sum(size.padded_hours for size in sizes.values()) == pytest.approx(SUBJECTS * 20 / 3600)
    assert sizes["train"].padding == pytest.approx(1 - sum(FRAMES) / 39 / 6)
    usage = padded.info.usage
    assert usage is not None
    assert tuple(asdict(usage.scaled(3600 / SUBJECTS)).values()) == pytest.approx((94, 90, 4, 0, 0, 0))
    rows = pq.read_table(padded.folder / USAGE_FILE).to_pylist()
    assert {row["subject"] for row in rows} == {f"S{i}" for i in range(SUBJECTS)}
    assert all((row["recorded"], row["used"], row["too_short"]) == (94, 90, 4) for row in rows)
    index = padded.index("train")
    chosen = select(index, hours=200 / 3600, seed=1)
    assert hours_of(index, chosen) * 3600 == pytest.approx(index.seconds[chosen].sum())
    assert main(["records", "describe", str(padded.folder)]) == 0
    text = capsys.readouterr().out
    assert "8 windows are padded" in text
    assert "95.7%" in text


def test_without_them_records_are_as_before(tables_with_gaps: Path, tmp_path: Path) -> None:
    build = ["records", "build", "--source", "recordings", str(tables_with_gaps), "--out", str(tmp_path)]
    options = ["--timestamp_unit", "ms", "--window_seconds", "20", "--workers", "1"]
    assert main([*build, *options, "--shortest_seconds", "null"]) == 0
    records = open_records(tmp_path)
    assert "frames" not in records.source("train")[0]
    assert "shortest_samples" not in records.info.options["records"]
    assert sum(size.records for size in records.info.splits.values()) == SUBJECTS * 3
    usage = records.info.usage
    assert usage is not None
    assert tuple(asdict(usage.scaled(3600 / SUBJECTS)).values()) == pytest.approx((94, 60, 24, 10, 0, 0))


def test_no_segment_long_enough_is_an_error_that_names_the_length(
    tables_with_gaps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = ["records", "build", "--source", "recordings", str(tables_with_gaps), "--out", str(tmp_path)]
    assert main([*build, "--timestamp_unit", "ms", "--workers", "1", "--shortest_seconds", "51"]) == 1
    assert "50 s, 51 s are needed" in capsys.readouterr().err
