"""A tiny encoder and a head for it, both with random weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.features.encoder import load_encoder
from selfpab_jax.features.extract import ExtractionSettings, with_temporal_context
from selfpab_jax.features.sensors import sensor_encoders
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import ModelConfig, write_model
from selfpab_jax.probe.heads.saved import SavedHead, encoder_digests
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
    frames=24,
)
CLASSES = ("sitting", "standing", "walking")


def write_tiny(directory: Path, seed: int = 1) -> Path:
    rng = np.random.default_rng(seed)
    shapes = make_functional(CONFIG.model, 156, 156).abstract
    arrays = {name: rng.normal(0, 0.2, shape.shape).astype(np.float32) for name, shape in shapes.items()}
    write_model(
        directory, CONFIG, arrays, Statistics(np.zeros(156, np.float32), np.full(156, 0.5, np.float32), "plain")
    )
    return directory


def head_for(model: Path) -> SavedHead:
    rng = np.random.default_rng(5)
    encoder = load_encoder(model)
    encoders = sensor_encoders(encoder, CONFIG.channels)
    signal = np.array([-1, 0, 0] * 2) + rng.normal(0, 1, (1000, 6)) * np.repeat(rng.uniform(0, 0.8, 10), 100)[:, None]
    features = np.asarray(with_temporal_context(encoder.encode_signal(signal, 50)[:1, :, None], (5,)))[0, :, 0]
    return SavedHead(
        parameters={
            "mix_L": np.zeros(1, np.float32),
            "weight_DxH": rng.normal(0, 1, (48, 3)).astype(np.float32),
            "bias_H": np.zeros(3, np.float32),
        },
        center_E=np.zeros(48, np.float32),
        mean_E=features.mean(axis=0),
        std_E=features.std(axis=0) + 0.01,
        classes=CLASSES,
        labels=(7, 6, 1),
        extraction=ExtractionSettings(context_seconds=(3.0,), dtype="float32"),
        window_frames=20,
        spectrogram=CONFIG.spectrogram,
        encoder_digests=encoder_digests(encoders),
        sensors=(("back", "thigh"),),
        scores={"macro_f1": 0.5},
        version="test",
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("predict") / "model")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("predict") / "other", seed=2)


@pytest.fixture(scope="session")
def head(model: Path) -> SavedHead:
    return head_for(model)


@pytest.fixture(scope="session")
def plain_head(head: SavedHead) -> SavedHead:
    """Without temporal context."""
    arrays = {**head.parameters, "weight_DxH": head.parameters["weight_DxH"][:16]}
    standardization = {name: getattr(head, name)[:16] for name in ("center_E", "mean_E", "std_E")}
    return replace(head, parameters=arrays, extraction=ExtractionSettings(dtype="float32"), **standardization)
