"""Model directories are written completely, read back, and replaced only if they are model directories."""

from pathlib import Path

import jax
import numpy as np
import pytest

from selfpab_jax.errors import StorageError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import ModelConfig, read_model, write_model
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.signal.stft import SpectrogramSettings

CHANNELS = tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz")
SMALL = ModelSettings(width=16, heads=2, feedforward=24, layers=2, compute="float32")


CONFIG = ModelConfig(
    family="selfpab",
    model=SMALL,
    features=156,
    outputs=156,
    channels=CHANNELS,
    sensors=("back", "thigh"),
    spectrogram=SpectrogramSettings(),
    frames=39,
)
STATISTICS = Statistics(np.linspace(0, 1, 156).astype(np.float32), np.linspace(1, 2, 156).astype(np.float32), "plain")


@pytest.fixture(scope="module")
def parameters() -> dict[str, np.ndarray]:
    functional = make_functional(SMALL, CONFIG.features, CONFIG.outputs)
    return {name: np.asarray(array) for name, array in functional.initialize(jax.random.key(1)).items()}


@pytest.fixture
def model(parameters: dict, tmp_path: Path) -> Path:
    write_model(tmp_path / "model", CONFIG, parameters, STATISTICS)
    return tmp_path / "model"


def test_a_directory_reads_back_as_it_was_written(model: Path, parameters: dict) -> None:
    found, arrays, statistics = read_model(model)
    assert found == CONFIG
    assert {path.name for path in model.iterdir()} == {
        "model.safetensors",
        "config.json",
        "statistics.npz",
        "README.md",
    }
    for name, array in parameters.items():
        np.testing.assert_array_equal(arrays[name], array)
    assert statistics is not None
    np.testing.assert_array_equal(statistics.mean, STATISTICS.mean)


def test_a_directory_is_replaced_only_if_it_is_a_model(model: Path, parameters: dict, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="exists"):
        write_model(model, CONFIG, parameters, STATISTICS)
    write_model(model, CONFIG, parameters, STATISTICS, overwrite=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("keep me")
    with pytest.raises(StorageError, match="leaves it alone"):
        write_model(tmp_path / "notes", CONFIG, parameters, STATISTICS, overwrite=True)
