"""From records to a run, a model directory and features, through the commands."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import selfpab_jax
from selfpab_jax.cli.main import main


@pytest.mark.slow
def test_run_to_features_through_the_commands(
    tiny_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run, out = tmp_path / "run", tmp_path / "model"
    small = ["--model.width", "16", "--model.heads", "2", "--model.feedforward", "16", "--model.layers", "1"]
    steps = ["--model.compute", "float32", "--optimizer.batch_size", "8", "--optimizer.steps", "4"]
    assert main(["pretrain", "--data.path", str(tiny_records), "--run", str(run), *small, *steps]) == 0
    assert main(["status", str(run)]) == 0
    assert "step 4 of 4" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--data", str(tiny_records)]) == 0
    scores = json.loads((run / "evaluation" / "scores.json").read_text())
    assert {"model", "feature_mean", "interpolation"} <= scores.keys()
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    held_out = [event["loss"] for event in logged if event["event"] == "validation"]
    assert scores["model"] == pytest.approx(min(held_out), rel=1e-5), "evaluate measures what validation measured"
    for picture in ("loss_curve.png", "reconstructions.png"):
        assert (run / "evaluation" / picture).read_bytes().startswith(b"\x89PNG")
    assert main(["export", str(run), str(out)]) == 0
    card = (out / "README.md").read_text()
    assert "load_encoder" in card
    assert "hours" in card
    encoder = selfpab_jax.load_encoder(out)
    assert encoder.config.provenance["subjects"]
    assert encoder.encode_signal(np.zeros((1000, 6)) - 1.0, rate_hz=50).shape == (1, 39, 16)
    other = tmp_path / "other"
    cohort = str(tiny_records.parent / "cohort")
    build = ["records", "build", "--source", "hunt4", cohort, "--out", str(other), "--window_seconds", "20"]
    assert main([*build, "--fft_window", "100", "--fft_hop", "50", "--workers", "1"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(other)]) == 1
    assert "spectrogram settings" in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints" / "best")
    assert main(["evaluate", str(run), "--data", str(tiny_records)]) == 1
    assert "no best checkpoint" in capsys.readouterr().err
    assert (
        main(["evaluate", str(run), "--data", str(tiny_records), "--split", "nowhere", "--checkpoint", "latest"]) == 1
    )
    assert "no split 'nowhere'" in capsys.readouterr().err
