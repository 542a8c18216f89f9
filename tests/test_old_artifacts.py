"""Records, a run and a model directory that version 0.1 wrote are read, resumed and used.

`artifacts/v0.1.tar.xz` was written by commit 963490e: records of a small cohort, a run of 12 steps that was interrupted
(with the log of the same run uninterrupted), its model directory, and features of a signal.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import selfpab_jax
from selfpab_jax.cli.main import main
from selfpab_jax.signal.stft import spectrogram

ARTIFACTS = Path(__file__).parent / "artifacts" / "v0.1.tar.xz"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(ARTIFACTS) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "v0.1"


def losses(run: Path) -> dict[tuple[str, int], float]:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {(e["event"], e["step"]): e["loss"] for e in events if e["event"] in ("train", "validation")}


def test_records_are_described(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["records", "describe", str(old / "records")]) == 0
    assert "spectrogram" in capsys.readouterr().out.lower()


@pytest.mark.slow
def test_a_run_is_resumed_and_ends_as_it_would_have(old: Path) -> None:
    run = old / "run"
    # The run's mesh takes all devices, of which there was one then.
    words = ["pretrain", "--run", str(run), "--resume", "--data.path", str(old / "records"), "--mesh.tensor", "2"]
    assert main([*words, "--mesh.fsdp", "2"]) == 0
    found, expected = losses(run), losses(old / "run_whole")
    assert found.keys() == expected.keys()
    assert len(expected) == 12 + 3
    for event, loss in expected.items():
        # Queries, keys and values came out of one product then, so float32 rounds differently.
        assert found[event] == pytest.approx(loss, rel=1e-5), event


def test_a_run_is_resumed_under_other_settings_only_as_before(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "pretrain",
        "--run",
        str(old / "run"),
        "--resume",
        "--data.path",
        str(old / "records"),
        "--mesh.tensor",
        "2",
    ]
    assert main([*words, "--model.layers", "3"]) == 1
    assert "model.layers was 2, is 3" in capsys.readouterr().err


@pytest.mark.slow
def test_old_option_names_are_understood(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", "--run", str(old / "new"), "--data.path", str(old / "records"), "--model.width", "16"]
    words += ["--model.heads", "2", "--model.layers", "1", "--optimiser.steps", "1", "--optimiser.batch_size", "8"]
    assert main([*words, "--model.rematerialise", "layers", "--task.alteration.time_share", "0.3"]) == 0
    warnings = capsys.readouterr().err
    settings = json.loads((old / "new" / "settings.json").read_text())
    assert settings["optimizer"]["steps"] == 1
    assert settings["model"]["rematerialize"] == "layers"
    assert settings["task"]["masking"]["time_share"] == 0.3
    assert "--optimizer.steps" in warnings


def test_a_run_is_evaluated_and_exported(old: Path) -> None:
    assert main(["evaluate", str(old / "run"), "--data", str(old / "records"), "--checkpoint", "latest"]) == 0
    assert main(["export", str(old / "run"), str(old / "exported")]) == 0
    assert selfpab_jax.load_encoder(old / "exported").width == 16


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """As a whole: single features near 0 differ more between kinds of processors."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_a_model_directory_gives_the_same_features(old: Path) -> None:
    stored = np.load(old / "encoded.npz")
    encoder = selfpab_jax.load_encoder(old / "model")
    with pytest.warns(UserWarning, match="wrong unit"):  # noise without gravity
        features = encoder.encode_signal(stored["signal"], rate_hz=50)
    assert relative(features[0], stored["features"][0]) < 1e-5
    # Version 0.1 padded the last window with zeros, where it is now moved back.
    frames_TxX = encoder.normalize(spectrogram(stored["signal"], encoder.config.spectrogram))
    last_TxX = np.pad(frames_TxX[39:], ((0, 78 - len(frames_TxX)), (0, 0)))
    padded = encoder.encode(last_TxX[None], normalized=True)
    assert relative(padded[0], stored["features"][1]) < 1e-5
