"""A model directory: what is written is read, old ones too, and its card names no subject unless that is wanted."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from selfpab_jax.cli.main import main
from selfpab_jax.errors import StorageError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    ModelConfig,
    SubjectListing,
    hash_subject,
    listed_subjects,
    open_tensors,
    read_config,
    read_model,
    write_model,
)
from selfpab_jax.probe.run import leakage_warnings, seen_subjects
from selfpab_jax.signal.stft import SpectrogramSettings

OLD = Path(__file__).parent / "artifacts" / "v0.1.tar.xz"
MODEL = ModelSettings(width=4, heads=2, feedforward=3, layers=1, compute="float32")
CONFIG = ModelConfig(
    "selfpab", MODEL, 6, 6, ("back_x",), ("back",), SpectrogramSettings(), 9, {"source": "harth", "subjects": []}
)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    abstract = make_functional(MODEL, 6, 6).abstract
    return {name: rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in abstract.items()}


@pytest.fixture
def old_model(tmp_path: Path) -> Path:
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "v0.1" / "model"


def test_what_is_written_is_read(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    turned = {name: np.asfortranarray(array) for name, array in arrays.items()}
    write_model(tmp_path / "m", CONFIG, turned, None)
    config, found, statistics = read_model(tmp_path / "m")
    assert config == CONFIG
    assert statistics is None
    stored = open_tensors(tmp_path / "m" / WEIGHTS_FILE)
    assert found.keys() == stored.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].tobytes() == array.tobytes()
        assert stored[name].shape == array.shape
        assert np.asarray(stored[name]).tobytes() == array.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_failure_leaves_the_old_model(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    write_model(tmp_path / "m", CONFIG, arrays, None)
    half = {name: array.astype(np.float64) for name, array in arrays.items()}
    with pytest.raises((ValueError, TypeError), match=r"float64|f64"):
        write_model(tmp_path / "m", CONFIG, half, None, overwrite=True)
    with pytest.raises(StorageError, match="exists"):
        write_model(tmp_path / "m", CONFIG, arrays, None)
    assert read_model(tmp_path / "m")[1].keys() == arrays.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_packed_kernels_of_version_0_1_are_split(old_model: Path) -> None:
    packed = safetensors.numpy.load_file(old_model / WEIGHTS_FILE)
    config, arrays, _ = read_model(old_model)
    stored = open_tensors(old_model / WEIGHTS_FILE)
    abstract = make_functional(config.model, config.features, config.outputs).abstract
    for found in (arrays, stored):
        assert {name: array.shape for name, array in found.items()} == {n: leaf.shape for n, leaf in abstract.items()}
    for layer in range(config.model.layers):
        prefix = f"encoder.layers.{layer}.attention."
        for place, name in enumerate(("query", "key", "value")):
            for found in (arrays, stored):
                kernel, bias = (np.asarray(found[f"{prefix}{name}_{kind}"]) for kind in ("kernel", "bias"))
                assert np.array_equal(kernel, packed[f"{prefix}qkv_kernel"][:, place])
                assert np.array_equal(bias, packed[f"{prefix}qkv_bias"][place])
    assert "rematerialise" in (old_model / CONFIG_FILE).read_text()
    assert config.model.rematerialize == "nothing"


@pytest.mark.parametrize("listing", ["hashed", "named", "none"])
def test_a_card_lists_subjects_as_wanted(
    arrays: dict[str, np.ndarray], tmp_path: Path, listing: SubjectListing
) -> None:
    listed = listed_subjects(["S006", "S008"], listing)
    write_model(tmp_path / "m", replace(CONFIG, provenance={**CONFIG.provenance, "subjects": listed}), arrays, None)
    text = "".join((tmp_path / "m" / file).read_text() for file in (CONFIG_FILE, CARD_FILE))
    assert ("S006" in text) == (listing == "named")
    provenance = read_config(tmp_path / "m")[0].provenance
    warnings = leakage_warnings(provenance, "harth", ("S008", "S010"))
    if listing == "none":
        assert "cannot be checked" in warnings[0]
    else:
        assert seen_subjects(provenance, "harth", ("S008", "S010")) == ("S008",)
        assert "1 of these 2 subjects" in warnings[0]


def test_export_hashes_names_by_default(old_model: Path, tmp_path: Path) -> None:
    run = old_model.parent / "run"
    names = json.loads((run / "subjects.json").read_text())
    found = {}
    for listing in ("hashed", "named", "none"):
        options = [] if listing == "hashed" else ["--subjects", listing]
        assert main(["export", str(run), str(tmp_path / listing), "--checkpoint", "latest", *options]) == 0
        found[listing] = read_config(tmp_path / listing)[0].provenance["subjects"]
    assert found == {"hashed": [hash_subject(name) for name in names], "named": names, "none": []}
