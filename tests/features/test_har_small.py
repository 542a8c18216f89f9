"""The encoder that ships with the package: found by its name, offline, from an installed wheel; and its head."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import selfpab_jax
from selfpab_jax.cli.main import main
from selfpab_jax.errors import ConfigError, ModelError
from selfpab_jax.model_dir import SHIPPED_MODELS, find_model, read_config, shipped_models
from selfpab_jax.probe.predict.run import own_head

FOLDER = SHIPPED_MODELS / "har-small"
EXAMPLE = FOLDER / "recording.csv.gz"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example() -> pd.DataFrame:
    return pd.read_csv(EXAMPLE)


@pytest.fixture(scope="module")
def encoder() -> selfpab_jax.PretrainedEncoder:
    return selfpab_jax.load_encoder("har-small")


def test_features_are_those_of_its_release(encoder: selfpab_jax.PretrainedEncoder, example: pd.DataFrame) -> None:
    signal = example[list(encoder.channels)].to_numpy(np.float32)
    assert encoder.channels == tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz")
    features = encoder.encode_signal(signal, rate_hz=50)
    assert features.shape == (3, 119, 192)
    np.testing.assert_array_equal(features, encoder.encode_signal(signal, rate_hz=50))
    golden = np.load(Path(__file__).parents[1] / "golden" / "har_small_features.npy")
    found = features.reshape(-1, 192)[: encoder.frame_count(len(signal), 50)][::40]
    assert np.linalg.norm(found - golden) / np.linalg.norm(golden) < 1e-5


def test_a_name_finds_it_unless_a_model_directory_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_model("har-small") == FOLDER
    assert "har-small" in shipped_models()
    Path("har-small").mkdir()
    assert find_model("har-small") == FOLDER
    Path("har-small/config.json").write_text("{}")
    assert find_model("har-small") == Path("har-small")
    assert find_model("models/har-small") == Path("models/har-small")
    with pytest.raises(ModelError, match="har-small"):
        read_config("har-smal")


def test_a_model_without_a_head_wants_one(tmp_path: Path, encoder: selfpab_jax.PretrainedEncoder) -> None:
    assert own_head("har-small") == FOLDER / "head"
    bare = tmp_path / "bare"
    shutil.copytree(FOLDER, bare, ignore=shutil.ignore_patterns("head"))
    for model in (bare, encoder):
        with pytest.raises(ConfigError, match="head"):
            own_head(model)
    with pytest.raises(ModelError, match="har-small"):
        own_head("har-smal")


def test_its_head_knows_what_the_person_did(example: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "activity"
    assert main(["predict", str(EXAMPLE), "--model", "har-small", "--out", str(out), "--readers", "1"]) == 0
    (table,) = out.glob("*/seconds.parquet")
    assert list(out.glob("*/*.png"))
    seconds = pd.read_parquet(table)
    head = selfpab_jax.load_head(FOLDER / "head")
    name_of = dict(zip(head.labels, head.classes, strict=True))
    rows = example.assign(time=pd.to_datetime(example["timestamp"]), second=lambda rows: rows["time"].dt.floor("s"))
    truth = rows.groupby("second")["label"].agg(lambda labels: name_of[labels.mode()[0]])
    found = seconds.set_index(pd.to_datetime(seconds["time"]).dt.floor("s"))["class"]
    both = pd.concat([truth, found], axis=1, join="inner")
    assert len(both) > 110  # two minutes, with a gap of 2.7 s
    agrees = float((both["label"] == both["class"]).mean())
    assert agrees > 0.6


@pytest.mark.slow
def test_a_wheel_has_it_and_stays_small(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 12e6
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    load = "import selfpab_jax as s; e = s.load_encoder('har-small'); print(s.__file__, e.width)"
    environment = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", load]
    said = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "installed") in said
    assert said.split()[-1] == "192"
