"""Magnitudes on another scale: statistics from the records, a run, its export, and where it must be refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.data.records.dataset import Records, open_records
from selfpab_jax.data.records.second_pass import scaled_statistics
from selfpab_jax.errors import ModelError
from selfpab_jax.features.encoder import load_encoder
from selfpab_jax.signal.normalization import Statistics, to_scale

from .conftest import TINY_MODEL


def valid_frames(records: Records) -> np.ndarray:
    """All frames of the training split, of non-overlapping windows."""
    source, index = records.source("train"), records.index("train")
    frames = [source[row]["spectrogram"][: index.frames[row]] for row in range(len(source))]
    return np.concatenate(frames).astype(np.float64)


@pytest.mark.parametrize("scale", ["log", "power"])
def test_statistics_are_those_of_the_scaled_frames(tiny_records: Path, scale: str) -> None:
    records = open_records(tiny_records)
    statistics = scaled_statistics(records, "plain", scale)
    scaled = to_scale(valid_frames(records), scale)
    assert np.allclose(statistics.mean, scaled.mean(0), rtol=1e-4, atol=1e-4)
    assert np.allclose(statistics.std, scaled.std(0), rtol=1e-4)
    kept = Statistics.load(records.folder / f"statistics_plain_{scale}.npz")
    assert kept.scale == scale
    assert np.array_equal(kept.mean, statistics.mean)
    assert open_records(tiny_records).fingerprint == records.fingerprint


@pytest.mark.parametrize("kind", ["plain", "hour_weighted"])
def test_the_second_pass_counts_as_the_build_does(
    padded_records: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the linear scale it gives the build's own statistics, but for the rounding of records to float16."""
    records = open_records(padded_records)
    monkeypatch.setattr("selfpab_jax.data.records.second_pass.to_scale", lambda frames, scale: frames)
    again, built = scaled_statistics(records, kind, "power"), records.statistics(kind)
    (records.folder / f"statistics_{kind}_power.npz").unlink()
    assert np.allclose(again.mean, built.mean, rtol=1e-3, atol=1e-4)
    assert np.allclose(again.std, built.std, rtol=2e-2, atol=1e-4)


@pytest.fixture(scope="module")
def model(tiny_records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale")
    run, model = str(folder / "run"), folder / "model"
    call = ["pretrain", "--data.path", str(tiny_records), "--run", run, *TINY_MODEL, "--optimizer.steps", "4"]
    options = ["--data.scale", "log", "--data.statistics", "plain", "--task.loss", "log_spectral"]
    assert main([*call, *options]) == 0
    assert main([*call, *options, "--resume"]) == 0
    assert main(["evaluate", run, "--data", str(tiny_records)]) == 0
    assert main(["export", run, str(model)]) == 0
    return model


def test_an_exported_encoder_scales_its_input(model: Path) -> None:
    assert json.loads((model / "config.json").read_text())["scale"] == "log"
    assert "scale" in (model / "README.md").read_text()
    encoder = load_encoder(model)
    magnitudes = np.random.default_rng(0).gamma(0.5, 2, (1, 9, encoder.features)).astype(np.float32)
    statistics = encoder.statistics
    assert statistics is not None
    expected = (np.log(magnitudes + 0.01) - statistics.mean) / statistics.std
    assert np.allclose(encoder.normalize(magnitudes), expected, atol=1e-5)
    encoded = encoder.encode(expected.astype(np.float32), normalized=True)
    assert np.allclose(encoder.encode(magnitudes), encoded, atol=1e-5)


def test_another_scale_is_another_encoder(model: Path) -> None:
    encoder = load_encoder(model)
    assert encoder.statistics is not None
    linear = Statistics(encoder.statistics.mean, encoder.statistics.std, encoder.statistics.kind)
    assert type(encoder)(encoder.config, encoder.parameters, linear).digest != encoder.digest


def test_the_original_cannot_express_it(model: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from selfpab_jax.convert.to_torch import write_torch

    assert torch is not None
    with pytest.raises(ModelError, match="scale log"):
        write_torch(model, tmp_path / "model.ckpt")


def test_weights_in_half_the_size(model: Path, tmp_path: Path) -> None:
    run, half = model.parent / "run", tmp_path / "half"
    assert main(["export", str(run), str(half), "--weights", "bfloat16"]) == 0
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (model, half)]
    assert sizes[1] < 0.6 * sizes[0]
    whole, rounded = load_encoder(model), load_encoder(half)
    for name, array in whole.parameters.items():
        assert rounded.parameters[name].dtype == array.dtype
        assert np.allclose(rounded.parameters[name], array, rtol=2**-8)


def test_statistics_of_another_model_are_refused(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "model"
    shutil.copytree(model, other)
    text = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**text, "scale": "linear"}))
    with pytest.raises(ModelError, match="scale"):
        load_encoder(other)
