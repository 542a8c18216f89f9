"""Tiny encoders with random weights (two layers of width 16), and a small data set for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.features.encoder import PretrainedEncoder, load_encoder
from selfpab_jax.features.windows import make_windows
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import ModelConfig, write_model
from selfpab_jax.probe.dataset import Corpus, LabeledSignal
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.signal.stft import SpectrogramSettings

CONFIG = ModelConfig(
    family="selfpab",
    model=ModelSettings(width=16, heads=2, feedforward=24, layers=2, compute="float32"),
    features=156,
    outputs=156,
    channels=tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz"),
    sensors=("back", "thigh"),
    spectrogram=SpectrogramSettings(),
    frames=20,
)


def write_tiny_model(directory: Path, config: ModelConfig = CONFIG, statistics: bool = True, seed: int = 1) -> Path:
    rng = np.random.default_rng(seed)
    shapes = make_functional(config.model, config.features, config.outputs).abstract
    size = len(config.channels) * config.spectrogram.bins
    given = Statistics(np.linspace(0, 1, size, dtype=np.float32), np.linspace(1, 2, size, dtype=np.float32), "plain")
    arrays = {name: rng.normal(0, 0.2, shape.shape).astype(np.float32) for name, shape in shapes.items()}
    write_model(directory, config, arrays, given if statistics else None)
    return directory


@pytest.fixture(scope="session")
def write_tiny():
    """Writes a model directory; its configuration, statistics and seed can be chosen."""
    return write_tiny_model


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return CONFIG


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("encoders") / "two_sensors")


@pytest.fixture(scope="session")
def mono_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = replace(CONFIG, family="monoselfpab", features=78, outputs=78)
    return write_tiny_model(tmp_path_factory.mktemp("encoders") / "cross_sensor", config)


@pytest.fixture(scope="session")
def bare_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("encoders") / "no_statistics", statistics=False)


@pytest.fixture(scope="session")
def encoder(model_directory: Path) -> PretrainedEncoder:
    return load_encoder(model_directory)


@pytest.fixture(scope="session")
def overlapping() -> Corpus:
    """4 subjects of 150 s; windows of 20 frames that overlap, the last ones reaching beyond their recordings."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (4, 7500, 6)) * [0.1, 0.1, 0.2, 0.9, 0.6, 0.3]
    signals = (noise + np.array([-1, 0, 0, 0, 0.3, -0.95])).astype(np.float32)
    labels = rng.integers(-1, 3, (4, 7500)).astype(np.int16)
    return Corpus(
        name="random",
        classes=("sitting", "standing", "walking"),
        channels=CONFIG.channels,
        spectrogram=CONFIG.spectrogram,
        recordings=tuple(
            LabeledSignal(f"s{number}", f"s{number}.csv", -1, signal, of_signal)
            for number, (signal, of_signal) in enumerate(zip(signals, labels, strict=True))
        ),
        windows=make_windows([300] * 4, 20, 13, "pad"),
        frame_labels=tuple(labels[:, ::25]),
    )
