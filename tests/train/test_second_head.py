"""A run with a second head and with windows drawn by movement: exact resume, scores, and an export without the head."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from selfpab_jax.cli.main import main
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.data.records.second_pass import movement, movement_shares
from selfpab_jax.errors import DataError
from selfpab_jax.features.encoder import load_encoder

from .conftest import TINY_MODEL, losses

OPTIONS = ["--task.second_head", "permuted", "--data.sampling", "movement", "--checkpoint.every_steps", "3"]


def test_a_run_resumes_exactly_and_exports_the_encoder_alone(tiny_records: Path, tmp_path: Path) -> None:
    def train(run: Path, *more: str) -> int:
        path = str(tiny_records)
        return main(["pretrain", "--data.path", path, "--run", str(run), *TINY_MODEL, *OPTIONS, *more])

    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(whole, "--optimizer.steps", "6") == 0
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints" / "latest" / "6")
    assert train(run, "--optimizer.steps", "6", "--resume") == 0
    assert losses(run) == losses(whole)
    assert main(["evaluate", str(run), "--data", str(tiny_records)]) == 0
    assert main(["export", str(run), str(tmp_path / "model")]) == 0
    assert "second_head" not in load_file(tmp_path / "model" / "model.safetensors")
    encoder = load_encoder(tmp_path / "model")
    assert np.isfinite(encoder.encode(np.ones((1, 9, encoder.features), np.float32))).all()


def test_movement_is_what_is_not_gravity_and_is_kept(padded_records: Path) -> None:
    records = open_records(padded_records)
    moved = movement(records)
    index, source, channels = records.index("train"), records.source("train"), len(records.info.channels)
    for row in range(len(moved)):
        frames = source[row]["spectrogram"][: index.frames[row]].astype(np.float64)
        expected = frames.reshape(len(frames), channels, -1)[:, :, 2:].mean()
        assert moved[row] == pytest.approx(expected, rel=1e-4)
    file = records.folder / "movement-train.npy"
    np.testing.assert_array_equal(np.load(file), moved)
    np.save(file, moved[1:])
    with pytest.raises(DataError, match="delete it"):
        movement(records)
    file.unlink()


def test_shares_are_in_proportion_but_rest_is_not_unknown() -> None:
    shares = movement_shares(np.array([0, 1, 2, 5], np.float32))
    np.testing.assert_allclose(shares, np.array([0.2, 1, 2, 5]) / 8.2)
    np.testing.assert_allclose(movement_shares(np.zeros(4, np.float32)), 0.25)
