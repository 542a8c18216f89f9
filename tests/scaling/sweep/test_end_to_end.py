"""A sweep of two tiny runs through the command line: planned, stopped, continued, measured, collected."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml

from selfpab_jax.cli.main import main
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.model.functional import make_functional
from selfpab_jax.scaling.sweep.collect import load_points
from selfpab_jax.scaling.sweep.lease import leases_of
from selfpab_jax.train.evaluate import evaluate_model
from selfpab_jax.train.export import read_checkpoint

SWEEP = {
    "base": "demo",
    "length": {"steps": 24},
    "models": {"tiny": {"model": {"width": 16, "heads": 2, "feedforward": 16, "layers": 1}}},
    "overrides": {
        "optimizer": {"batch_size": 8},
        "validation": {"every_steps": 12, "windows": 8},
        "checkpoint": {"every_steps": 8},
        "log": {"every_steps": 1},
    },
    "final": {"windows": 16},
    "grids": [{"hours": [0.1, 0.3], "model": "tiny", "seed": 5}],
}


@pytest.mark.slow
def test_two_runs_from_plan_to_points(tiny_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SWEEP))
    sweep = tmp_path / "sweep"
    words = ["sweep", "plan", str(tmp_path / "tiny.yaml"), "--out", str(sweep)]
    assert main([*words, "--data.path", str(tiny_records)]) == 0
    first = sweep / "runs" / "h0.1-tiny-s5"

    # One device instead of the eight of the tests, as on a user's machine; both runs share compiled steps.
    alone = {**os.environ, "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    everything = [sys.executable, "-m", "selfpab_jax.cli.main", "sweep", "run", str(sweep), "--all"]
    process = subprocess.Popen(everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=alone)
    log = first / "log.jsonl"
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None and not (log.exists() and "train" in log.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 75, output
    assert not leases_of(sweep / "leases", first.name)[-1].is_live()

    done = subprocess.run(everything, capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr
    assert "at step" in done.stderr
    capsys.readouterr()
    assert main(["sweep", "status", str(sweep), "--json"]) == 0
    states = json.loads(capsys.readouterr().out)
    assert [(state["state"], state["step"]) for state in states] == [("done", 24), ("done", 24)]
    assert all(state["device_seconds"] > 1 for state in states)

    records = open_records(tiny_records)
    for point, run in zip(load_points(sweep), (first, sweep / "runs" / "h0.3-tiny-s5"), strict=True):
        objective, parameters, _ = read_checkpoint(run, "best")
        rows = np.array([0, 1, 3, 5, 7, 9, 11, 13, 15, 16, 18, 20, 22, 24, 26, 28])  # 16 of 30, evenly
        scores, _ = evaluate_model(objective, parameters, records, split="validation", seed=0, rows=rows, examples=0)
        assert point.loss == pytest.approx(scores.model, rel=1e-5)
        assert point.parameters == make_functional(objective.functional.settings, 156, 156).parameter_count
        assert point.tokens == 24 * 8 * records.info.frames
        assert asdict(point) | {"seed": 5, "status": "done", "macro_f1": None} == asdict(point)
    before = log.read_text()
    assert main(["sweep", "run", str(sweep), "--all"]) == 0
    assert main(["sweep", "run", str(sweep), "--index", "0"]) == 0
    assert "h0.1-tiny-s5: already done" in capsys.readouterr().out
    assert log.read_text() == before
    assert main(["status", str(first)]) == 0, "an ordinary run"
