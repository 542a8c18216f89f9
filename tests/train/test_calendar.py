"""Calendar positions from records to features: training, validation and encoding with the time of every frame."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import selfpab_jax
from selfpab_jax.cli.main import main
from selfpab_jax.data.loader import batches
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.errors import ModelError
from selfpab_jax.signal.calendar import frame_timestamps
from selfpab_jax.signal.stft import SpectrogramSettings

CALENDAR = ("--model.temporal_positions", "true", "--optimizer.steps", "12", "--checkpoint.every_steps", "4")
STFT = SpectrogramSettings()


def test_batches_carry_the_time_of_every_frame(tiny_records: Path) -> None:
    records = open_records(tiny_records)
    index, source = records.index("train"), records.source("train", calendar=True)
    batch = next(batches(source, np.arange(len(source)), seed=0, batch_size=8, first_step=0, last_step=1))
    expected = frame_timestamps(index.start_ms[batch["row"]], records.info.frames, records.info.settings)
    np.testing.assert_array_equal(batch["timestamps"], expected)
    start = datetime.fromtimestamp(int(index.start_ms[batch["row"][0]]) / 1000, UTC)
    assert batch["timestamps"][0, 0, [0, 1, 3]].tolist() == [start.month, start.day, start.hour]
    plain = records.source("train")
    assert "timestamps" not in next(
        batches(plain, np.arange(len(plain)), seed=0, batch_size=8, first_step=0, last_step=1)
    )


@pytest.mark.slow
def test_a_run_with_calendar_positions_is_measured_and_exported(
    start: Callable, tiny_records: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    output, _ = start(whole, *CALENDAR, "--validation.every_steps", "6").communicate(timeout=200)
    assert "held-out" in output
    assert main(["evaluate", str(whole), "--data", str(tiny_records), "--checkpoint", "latest"]) == 0
    scores = json.loads((whole / "evaluation" / "scores.json").read_text())
    assert scores["windows"] > 0
    index, of_hour = open_records(tiny_records).index("validation"), scores["by_hour"]
    hours = {hour for start_ms in index.start_ms for hour in frame_timestamps(np.array([start_ms]), 39, STFT)[0, :, 3]}
    assert {hour for hour, masked in enumerate(of_hour["masked"]) if masked} == hours
    assert {hour for hour, error in enumerate(of_hour["model"]) if error is not None} == hours
    assert (whole / "evaluation" / "by_hour.png").exists() == (len(hours) > 1)
    assert main(["export", str(whole), str(tmp_path / "model")]) == 0
    encoder = selfpab_jax.load_encoder(tmp_path / "model")
    spectrogram = np.ones((1, 39, 156), np.float32)
    times = frame_timestamps(np.array([0]), 39, encoder.config.spectrogram)
    other = frame_timestamps(np.array([12 * 3_600_000]), 39, encoder.config.spectrogram)
    assert not np.allclose(encoder.encode(spectrogram, times), encoder.encode(spectrogram, other))
    with pytest.raises(ModelError, match="timestamps"):
        encoder.encode(spectrogram)


def test_records_without_start_times_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = ",".join(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz")
    for subject in range(4):
        rows = rng.normal(0, 0.2, (50 * 50, 6)) - [1, 0, 0, 1, 0, 0]
        np.savetxt(folder / f"P{subject}.csv", rows, "%.4f", ",", header=names, comments="")
    build = ["records", "build", "--source", "recordings", str(folder), "--out", str(tmp_path / "records")]
    build += ["--timestamp_column", "null", "--window_seconds", "20", "--validation", "0", "--test", "0"]
    assert main([*build, "--workers", "1"]) == 0
    call = ["pretrain", "--data.path", str(tmp_path / "records"), "--run", str(tmp_path / "run")]
    assert main([*call, "--optimizer.batch_size", "8", "--model.temporal_positions", "true"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert "records of train have no start time" in line
    assert "model.temporal_positions" in line
