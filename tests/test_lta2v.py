"""Windows of LTA2V's kind on real recordings of an hour: from files to records, a run, a model and a probe."""

import json
from pathlib import Path

import pandas as pd
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.features.encoder import load_encoder
from selfpab_jax.probe.report.results import load_result

SUBJECTS = {"harth": ("S023", "S032", "S034"), "har70plus": ("501", "505", "514")}
SCALED = ["--window_seconds", "1200", "--fft_window", "500", "--fft_hop", "250"]
"""20 minutes in frames of 10 s every 5 s, where LTA2V has 30 hours in frames of a minute every 30 s."""
TINY = ["--model.width", "16", "--model.heads", "2", "--model.feedforward", "16", "--model.layers", "1"]
QUICK = ["--finetune.epochs", "1", "--finetune.hidden", "16", "--mlp.hidden", "16", "--mlp.min_steps", "300"]


def published_csv(shared: Path, name: str, folder: Path) -> Path:
    """Some subjects' recordings as their publishers write them."""
    folder.mkdir()
    for subject in SUBJECTS[name]:
        table = pd.read_parquet(shared / "real" / name / f"{subject}.parquet")
        times = pd.to_datetime(table["timestamp"], unit="ms")
        table["timestamp"] = times.dt.strftime("%Y-%m-%d %H:%M:%S.%f").str[:-3]
        table.to_csv(folder / f"{subject}.csv", index=False, float_format="%.5f")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_real_recordings_go_from_records_to_a_probe(name: str, shared: Path, tmp_path: Path) -> None:
    data, records, run, model = (tmp_path / part for part in ("data", "records", "run", "model"))
    published_csv(shared, name, data)
    build = ["records", "build", "--source", name, str(data), "--out", str(records), *SCALED, "--workers", "1"]
    assert main([*build, "--split_by", "subject", "--validation", "0.25", "--test", "0"]) == 0
    pretrain = ["pretrain", "--config", "configs/lta2v.yaml", "--data.path", str(records), "--run", str(run), *TINY]
    assert main([*pretrain, "--optimizer.batch_size", "8", "--optimizer.steps", "6"]) == 0
    assert main(["export", str(run), str(model), "--subjects", "named"]) == 0
    config = load_encoder(model).config
    assert config.model.temporal_positions
    assert (config.frames, config.features) == (239, 6 * 251)

    probe = ["probe", "--config", "configs/probe/dualsleep.yaml", "--dataset.name", name, "--model", str(model)]
    assert main([*probe, "--data", str(data), "--out", str(tmp_path / "probe"), *QUICK]) == 0
    result = load_result(tmp_path / "probe")
    assert [method.name for method in result.methods] == ["mlp", "finetuned"]
    for method in result.methods:
        assert method.subjects == SUBJECTS[name]
        assert method.duration_error is not None
        assert 0 < method.duration_error < 1
    # Standing, walking and lying differ in gravity and movement, whatever the encoder has learned.
    assert result.headline.summary.accuracy.mean > 0.45
    assert any("pre-trained on recordings of" in line for line in result.leakage)


@pytest.mark.slow
def test_the_demo_shows_every_hour(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--task", "lta2v", "--subjects", "4", "--steps", "3", "--out", str(out)]) == 0
    assert (out / "by_hour.png").stat().st_size > 10_000
    assert capsys.readouterr().out.count("with calendar positions") >= 3
    for name in ("without_calendar_positions", "with_them"):
        masked = json.loads((out / name / "evaluation" / "scores.json").read_text())["by_hour"]["masked"]
        assert min(masked) > 0
