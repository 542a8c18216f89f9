"""When the held-out loss is measured, when it ends a run, and the options of the optimizer."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.train.config import ValidationSettings
from selfpab_jax.train.optimizer import OptimizerSettings, adamw
from selfpab_jax.train.state import Validation

SMALL = [
    "--model.width", "16", "--model.heads", "2", "--model.feedforward", "16", "--model.layers", "1",
    "--model.compute", "float32", "--optimizer.batch_size", "8",
]  # fmt: skip


def test_interval_and_patience_follow_from_the_run() -> None:
    published = ValidationSettings()
    assert published.interval(windows=1_200_000, batch_size=64) == 4688
    assert published.patience_in_validations(937_500, 4688) == 20
    assert ValidationSettings(every_steps=7).interval(1000, 8) == 7
    assert ValidationSettings(patience=0.0).patience_in_validations(100, 10) is None


def test_the_best_loss_is_kept_and_the_others_counted() -> None:
    record = Validation()
    for step, loss in enumerate([3.0, 2.0, 2.0, 2.5], 1):
        record = record.with_measurement(loss, step)
    assert record == Validation(best=2.0, best_step=2, since=2)


@pytest.mark.slow
def test_a_run_without_improvement_stops_early_and_stays_stopped(tiny_records: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    frozen = ["--optimizer.steps", "40", "--optimizer.schedule", "constant", "--optimizer.learning_rate", "1e-30"]
    checks = ["--validation.every_steps", "4", "--validation.windows", "8", "--validation.patience", "0.2"]
    command = ["pretrain", "--data.path", str(tiny_records), "--run", str(run), *SMALL, *frozen, *checks]
    assert main(command) == 0
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert events[-1]["ending"] == "stopped early"
    assert [event["step"] for event in events if event["event"] == "validation"] == [4, 8, 12]
    assert main([*command, "--resume"]) == 0
    again = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [event["step"] for event in again if event["event"] == "validation"] == [4, 8, 12]


def test_clipping_bounds_the_gradient_that_adamw_sees() -> None:
    gradient = {"w": jnp.full(4, 100.0)}
    first_moments = []
    for clip in (None, 1.0):
        update = adamw(OptimizerSettings(clip_norm=clip, weight_decay=0.0), lambda step: jnp.float32(1e-3))
        _, state = update.update(gradient, update.init(gradient), gradient)
        moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (4,)]
        first_moments.append(float(np.linalg.norm(moments[0])))
    assert first_moments == pytest.approx([0.1 * 200.0, 0.1 * 1.0], rel=1e-5)


@pytest.mark.slow
def test_wandb_offline_keeps_the_run_on_disk(
    tiny_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (extra wandb): its log is not tried")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run = tmp_path / "run"
    options = ["--optimizer.steps", "3", "--log.every_steps", "1", "--log.wandb", "offline"]
    assert main(["pretrain", "--data.path", str(tiny_records), "--run", str(run), *SMALL, *options]) == 0
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))
    assert (run / "log.jsonl").exists()
