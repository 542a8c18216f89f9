"""A probe while an encoder trains: it is logged, sees the parameters of its step, and changes nothing else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.config import load_settings
from selfpab_jax.errors import ConfigError
from selfpab_jax.probe.monitor import cross_validated, open_probe
from selfpab_jax.probe.run import leakage_warnings
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.export import export_run, read_checkpoint
from selfpab_jax.train.loop import Probe, pretrain

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
    assert again.macro_f1(probed) == pytest.approx(scores[-1]["macro_f1"], abs=1e-6)
    assert main(["status", str(tmp_path / "probed")]) == 0
    assert "probe macro-F1" in capsys.readouterr().out


def test_a_probe_chooses_the_checkpoint_and_its_subjects_are_named(tiny_records: Path, tmp_path: Path) -> None:
    run, given = tmp_path / "run", iter([0.3, 0.6, 0.5, 0.4, 0.4])

    def fake(settings: PretrainSettings, metadata: dict) -> Probe:
        return Probe(lambda parameters: next(given), "harth", ("S006", "S008"))

    probe = {"config": "probe/harth", "data": "harth", "every_steps": 2, "keep_best": True}
    model = {"width": 16, "heads": 4, "feedforward": 16, "layers": 1, "compute": "float32"}
    optimizer = {"batch_size": 8, "steps": 8}
    saved = {"every_steps": 6}
    content = {"data": {"path": str(tiny_records)}, "model": model, "optimizer": optimizer, "probe": probe}
    settings = load_settings(PretrainSettings, content | {"checkpoint": saved})
    assert pretrain(settings, run, open_probe=fake) == "finished"
    _, _, metadata = read_checkpoint(run, "best")
    assert metadata["step"] == 4
    assert metadata["validation"]["probe"] == pytest.approx(0.6)
    # Resumed from step 6, the later probe does not become the best although it is the first of this process.
    shutil.rmtree(run / "checkpoints" / "latest" / "8")
    assert pretrain(settings, run, resume=True, open_probe=fake) == "finished"
    assert read_checkpoint(run, "best")[2]["step"] == 4

    config = export_run(run, tmp_path / "model")
    assert config.provenance["choosing_macro_f1"] == pytest.approx(0.6)
    (warning,) = leakage_warnings(config.provenance, "harth", ["S006", "S009"])
    assert "chosen by the labels of 1 of these 2 subjects (S006)" in warning
    assert leakage_warnings(config.provenance, "har70plus", ["S006"]) == ()
    assert "choosing subjects: 2, hashed" in (tmp_path / "model" / "README.md").read_text()
    with pytest.raises(ConfigError, match=r"keep_best needs a probe"):
        load_settings(PretrainSettings, {"probe": {"keep_best": True}})


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
