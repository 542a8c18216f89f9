"""LTA2V's sleep task, from files in DualSleep's published layout to a report of every night."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import ModelConfig, write_model
from selfpab_jax.probe.report.results import load_result
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.signal.stft import SpectrogramSettings

SETTINGS = SpectrogramSettings(rate_hz=50, fft_window=500, fft_hop=250)
CHANNELS = tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz")
NIGHTS = {"PSGO_01": 9.0, "PSGO_02": 10.5, "PSG_06": 12.0}
"""Minutes of each subject's night; a window of pre-training has 20."""


def lta2v_config(**changes: object) -> ModelConfig:
    """LTA2V with frames of 10 s instead of a minute, and windows of 20 minutes instead of 30 hours."""
    model = ModelSettings(width=16, heads=2, feedforward=24, layers=1, compute="float32", temporal_positions=True)
    features = 6 * SETTINGS.bins
    fields = {
        "family": "lta2v", "model": model, "features": features, "outputs": features, "channels": CHANNELS,
        "sensors": ("back", "thigh"), "spectrogram": SETTINGS, "frames": 239,
    }  # fmt: skip
    return ModelConfig(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


def write_lta2v(folder: Path, config: ModelConfig) -> Path:
    rng = np.random.default_rng(1)
    shapes = make_functional(config.model, config.features, config.outputs).abstract
    arrays = {name: rng.normal(0, 0.1, shape.shape).astype(np.float32) for name, shape in shapes.items()}
    statistics = Statistics(np.zeros(config.features, np.float32), np.full(config.features, 5, np.float32), "plain")
    write_model(folder, config, arrays, statistics)
    return folder


@pytest.fixture(scope="module")
def lta2v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lta2v(tmp_path_factory.mktemp("lta2v") / "model", lta2v_config())


def write_night(path: Path, minutes: float, *, start: str = "2021-03-31 23:57:00", seed: int = 0) -> None:
    """Awake (81) in bouts that move, else asleep in stages (82 to 86) that hardly do; epochs of 30 s, 50 Hz."""
    rng = np.random.default_rng(seed)
    epochs = round(2 * minutes)
    awake = np.repeat(rng.random(-(-epochs // 3)) < 0.4, 3)[:epochs]
    awake[:2], awake[2:4] = True, False
    stages = np.where(awake, 81, rng.choice([82, 83, 84, 85, 86], epochs))
    label_N = np.repeat(stages, 1500)
    moving_N = np.where(label_N == 81, 0.3, 0.01)[:, None]
    signal_NxC = np.array([0.1, 0.2, -0.95, 0.05, 0.1, -0.97]) + moving_N * rng.normal(0, 1, (len(label_N), 6))
    table = pd.DataFrame(signal_NxC.round(4), columns=list(CHANNELS))
    table.insert(0, "timestamp", pd.date_range(start, periods=len(table), freq="20ms").strftime("%Y-%m-%d %H:%M:%S.%f"))
    table["back_temp"], table["thigh_temp"], table["label"] = 33.5, 31.0, label_N
    table.to_csv(path, index=False)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dualsleep")
    for number, (subject, minutes) in enumerate(NIGHTS.items()):
        write_night(folder / f"{subject}.csv", minutes, seed=number)
    return folder


@pytest.fixture
def probe(lta2v: Path, nights: Path) -> Callable[..., int]:
    def run(out: Path, *more: str, model: Path = lta2v, data: Path = nights) -> int:
        call = ["probe", "--config", "configs/probe/dualsleep.yaml", "--model", str(model), "--data", str(data)]
        quick = ["--finetune.epochs", "20", "--finetune.hidden", "16", "--finetune.learning_rate", "3e-3"]
        quick += ["--mlp.hidden", "16", "--mlp.min_steps", "60", "--mlp.epochs", "3"]
        return main([*call, "--out", str(out), *quick, *more])

    return run


@pytest.mark.slow
def test_from_published_nights_to_a_report(probe: Callable[..., int], tmp_path: Path) -> None:
    out = tmp_path / "probe"
    assert probe(out) == 0
    result = load_result(out)
    assert [method.name for method in result.methods] == ["mlp", "finetuned"]
    for method in result.methods:
        assert method.subjects == tuple(sorted(NIGHTS))
        assert method.summary.macro_f1.mean > 0.9, method.name
        (errors,) = method.duration_errors
        assert set(errors) == set(NIGHTS)
        assert 0 < np.mean(list(errors.values())) < 0.4  # 0.5 says nothing
    (chosen,) = result.methods[1].chosen
    assert {(fold["steps"], fold["unfrozen_from_step"], fold["batch_size"]) for fold in chosen.values()} == {
        (40, 30, 1)
    }
    assert result.protocol["window"] == "a whole recording"
    assert "share" in result.protocol["frames are trained on"]
    assert "calendar" in result.protocol["features"]
    assert not any("shorter than a window" in note for note in result.notes)
    assert len(list((out / "figures").glob("timeline_*.png"))) == len(NIGHTS)
    page = (out / "report.html").read_text()
    assert "fraction of each segment" in page
    assert "mean of each axis of a sensor" in page
