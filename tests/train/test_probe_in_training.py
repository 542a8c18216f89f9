"""A probe while an encoder trains: it is logged, sees the parameters of its step, and changes nothing else."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.config import load_settings
from selfpab_jax.errors import ConfigError
from selfpab_jax.probe.monitor import cross_validated, open_probe
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.export import read_checkpoint
from selfpab_jax.train.loop import pretrain

TINY_MODEL = [
    "--model.width", "16", "--model.heads", "4", "--model.feedforward", "16", "--model.layers", "1",
    "--model.compute", "float32", "--optimizer.batch_size", "8", "--optimizer.learning_rate", "1e-2",
]  # fmt: skip
COLUMNS = [f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz"]
LYING, STANDING, WALKING = range(3)


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of four subjects who lie, stand and walk."""
    folder = tmp_path_factory.mktemp("labeled")
    rng = np.random.default_rng(0)
    for subject in range(4):
        label = np.repeat(rng.permutation(np.tile([LYING, STANDING, WALKING], 4)), 750)
        signal = np.where(label[:, None] == LYING, [0, 0, -1, 0, 0, 1], [-1, 0, 0, -1, 0, 0])
        steps = 0.4 * np.sin(2 * np.pi * 1.9 * np.arange(len(label)) / 50) * (label == WALKING)
        signal = signal + steps[:, None] + rng.normal(0, 0.01, (len(label), 6))
        times = pd.date_range("2024-03-04", periods=len(label), freq="20ms")
        table = pd.DataFrame({"timestamp": times, **dict(zip(COLUMNS, signal.T, strict=True)), "label": label})
        table.to_csv(folder / f"P{subject}.csv", index=False, float_format="%.4f")
    return folder


def events(run: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


@pytest.mark.slow
def test_a_run_is_probed_at_intervals(
    tiny_records: Path, labeled: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    preset = tmp_path / "probe.yaml"
    preset.write_text("dataset: {name: tables}\n")
    call = ["pretrain", "--data.path", str(tiny_records), *TINY_MODEL, "--optimizer.steps", "12"]
    probe = ["--probe.config", str(preset), "--probe.data", str(labeled), "--probe.every_steps", "5"]
    assert main([*call, "--run", str(tmp_path / "probed"), *probe, "--probe.folds", "2"]) == 0
    assert main([*call, "--run", str(tmp_path / "plain")]) == 0
    scores = events(tmp_path / "probed", "probe")
    assert [score["step"] for score in scores] == [5, 10, 12]
    assert all(score["macro_f1"] > 0.9 for score in scores)  # gravity and movement tell these apart
    assert "probe macro-F1" in capsys.readouterr().err
    # Training is the same, bit for bit.
    _, probed, metadata = read_checkpoint(tmp_path / "probed", "latest")
    _, plain, _ = read_checkpoint(tmp_path / "plain", "latest")
    for name, array in plain.items():
        np.testing.assert_array_equal(probed[name], array, err_msg=name)
    settings = load_settings(PretrainSettings, tmp_path / "probed" / "settings.json")
    again = open_probe(settings, metadata)
    assert again(probed) == pytest.approx(scores[-1]["macro_f1"], abs=1e-6)
    assert main(["status", str(tmp_path / "probed")]) == 0
    assert "probe macro-F1" in capsys.readouterr().out


def test_wrong_settings_are_refused(tiny_records: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"probe\.data"):
        load_settings(PretrainSettings, {"probe": {"config": "probe/harth"}})
    data = {"path": str(tiny_records)}
    settings = load_settings(PretrainSettings, {"data": data, "probe": {"config": "probe/harth", "data": "harth"}})
    with pytest.raises(ConfigError, match="open_probe"):
        pretrain(settings, tmp_path / "run")


def test_ridge_regression_finds_linear_classes_and_nothing_in_noise() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 1200)
    subject = np.repeat(np.arange(6), 200)
    centers = rng.normal(0, 2, (3, 8))
    features = (centers[label] + rng.normal(0, 0.5, (1200, 8))).astype(np.float32)
    assert cross_validated(features, label, subject, subject % 3, 3) > 0.95
    noise = rng.normal(0, 1, (1200, 8)).astype(np.float32)
    assert 0.2 < cross_validated(noise, label, subject, subject % 3, 3) < 0.45
