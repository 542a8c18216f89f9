"""What the encoder returns, and which input and which model directories it refuses."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import selfpab_jax
from selfpab_jax.errors import DataError, ModelError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import ModelConfig, write_model
from selfpab_jax.signal.normalization import Statistics, normalize
from selfpab_jax.signal.resample import resample
from selfpab_jax.signal.stft import SpectrogramSettings, spectrogram

CHANNELS = tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz")
SMALL = ModelSettings(width=16, heads=2, feedforward=24, layers=2, compute="float32")


def config(**changes: object) -> ModelConfig:
    given = {
        "family": "selfpab", "model": SMALL, "features": 156, "outputs": 156, "channels": CHANNELS,
        "sensors": ("back", "thigh"), "spectrogram": SpectrogramSettings(), "frames": 39,
    }  # fmt: skip
    return ModelConfig(**{**given, **changes})


def parameters(of: ModelConfig) -> dict[str, np.ndarray]:
    import jax

    functional = make_functional(of.model, of.features, of.outputs)
    return {name: np.asarray(array) for name, array in functional.initialize(jax.random.key(1)).items()}


STATISTICS = Statistics(np.linspace(0, 1, 156).astype(np.float32), np.linspace(1, 2, 156).astype(np.float32), "plain")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path / "model", config(), parameters(config()), STATISTICS)
    return tmp_path / "model"


def test_encode_is_normalization_and_encoder(model: Path) -> None:
    x = np.random.default_rng(0).random((3, 39, 156)).astype(np.float32)
    encoder = selfpab_jax.load_encoder(model)
    built = make_functional(SMALL, 156, 156).build({n: jnp.asarray(a) for n, a in parameters(config()).items()})
    expected = built.encoder(jnp.asarray(normalize(x, STATISTICS)))
    np.testing.assert_allclose(encoder.encode(x, batch_size=2), expected, rtol=1e-5, atol=1e-6)
    normalized = normalize(x, STATISTICS)
    np.testing.assert_allclose(encoder.encode(normalized, normalized=True), expected, rtol=1e-5, atol=1e-6)
    with pytest.warns(DeprecationWarning, match="normalized="):
        old_spelling = encoder.encode(normalized, normalised=True)
    np.testing.assert_array_equal(old_spelling, encoder.encode(normalized, normalized=True))


def test_signals_become_windows_of_the_training_length(model: Path) -> None:
    encoder = selfpab_jax.load_encoder(model)
    signal = np.random.default_rng(0).normal([-1, 0, 0] * 2, 1, (4321, 6)).astype(np.float32)
    features = encoder.encode_signal(signal, rate_hz=100)
    frames = encoder.frame_count(4321, 100)
    whole = normalize(spectrogram(resample(signal, 100, 50), SpectrogramSettings()), STATISTICS)
    assert len(whole) == frames == 85
    assert features.shape == (3, 39, 16)
    assert features.dtype == np.float32
    np.testing.assert_allclose(
        features[1], encoder.encode(whole[None, 39:78], normalized=True)[0], rtol=1e-4, atol=1e-5
    )
    last = encoder.encode(whole[None, -39:], normalized=True)[0]
    np.testing.assert_allclose(features[2, :7], last[-7:], rtol=1e-4, atol=1e-5)
    assert not features[2, 7:].any(), "beyond the recording"
    short = encoder.encode_signal(signal[:300], rate_hz=50)
    assert short.shape == (1, 11, 16)


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (np.zeros((100, 5)), r"must be \(N, 6\)"),
        (np.zeros((20, 6)), "must last 1 s"),
        (np.full((100, 6), np.nan), "not finite"),
    ],
)
def test_unfit_signals_are_refused(model: Path, signal: np.ndarray, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        selfpab_jax.load_encoder(model).encode_signal(signal, rate_hz=50)


@pytest.mark.parametrize(("unit", "factor"), [("m/s2", 9.81), ("mg", 1000.0)])
def test_another_unit_than_g_is_refused(unit: str, factor: float, model: Path) -> None:
    encoder = selfpab_jax.load_encoder(model)
    signal = np.random.default_rng(0).normal([-1, 0, 0] * 2, 0.1, (500, 6))
    with pytest.raises(DataError, match=unit):
        encoder.encode_signal(factor * signal, rate_hz=100)
    with pytest.warns(UserWarning, match="gravity removed"):
        encoder.encode_signal(signal - [-1, 0, 0] * 2, rate_hz=100)


def test_unfit_frames_are_refused(model: Path) -> None:
    encoder = selfpab_jax.load_encoder(model)
    with pytest.raises(ModelError, match="156"):
        encoder.encode(np.zeros((1, 39, 78)))
    with pytest.raises(ModelError, match="takes no timestamps"):
        encoder.encode(np.zeros((1, 39, 156)), np.zeros((1, 39, 5), int))


def test_a_cross_sensor_model_asks_which_sensor(tmp_path: Path) -> None:
    mono = config(family="monoselfpab", features=78, outputs=78)
    write_model(tmp_path / "mono", mono, parameters(mono), STATISTICS)
    with pytest.raises(ModelError, match="one of back, thigh"):
        selfpab_jax.load_encoder(tmp_path / "mono")
    thigh = selfpab_jax.load_encoder(tmp_path / "mono", sensor="thigh")
    assert thigh.channels == ("thigh_x", "thigh_y", "thigh_z")
    x = np.random.default_rng(0).random((1, 39, 78)).astype(np.float32)
    expected = thigh.encode((x - STATISTICS.mean[78:]) / STATISTICS.std[78:], normalized=True)
    np.testing.assert_allclose(thigh.encode(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*no normalization statistics")
def test_a_model_without_statistics_takes_normalized_frames_only(tmp_path: Path) -> None:
    write_model(tmp_path / "bare", config(), parameters(config()), None)
    encoder = selfpab_jax.load_encoder(tmp_path / "bare")
    with pytest.raises(ModelError, match="no normalization statistics"):
        encoder.encode(np.zeros((1, 39, 156)))
    assert encoder.encode(np.zeros((1, 39, 156)), normalized=True).shape == (1, 39, 16)


def test_damaged_directories_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a model directory"):
        selfpab_jax.load_encoder(tmp_path)
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged"):
        selfpab_jax.load_encoder(model)
    weights.unlink()
    with pytest.raises(ModelError, match="missing"):
        selfpab_jax.load_encoder(model)
    weights.write_bytes(whole)
    content = json.loads((model / "config.json").read_text())
    content["model"]["layers"] = 3
    (model / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"layers\.2.* missing"):
        selfpab_jax.load_encoder(model)
