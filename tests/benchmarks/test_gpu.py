"""The script for GPUs runs on any machine, and without what reads data or logs elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
NOT_NEEDED = ("grain", "tensorflow_datasets", "wandb", "array_record", "orbax", "pandas", "pyarrow", "matplotlib")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("gpu")
    for name in (*NOT_NEEDED, "torch"):
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name} is not to be had')\n")
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(SCRIPT), "--tiny", "--repeats", "5", "--out", str(folder / "gpu.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads((folder / "gpu.json").read_text()) | {"table": done.stdout}


@pytest.mark.slow
def test_every_job_of_ours_gives_figures(report: dict) -> None:
    jobs = [job for job in report["jobs"] if job["side"] == "jax"]
    assert {job["part"] for job in jobs} == {"product", "step", "large", "embed", "curve"}
    for job in jobs:
        assert "failed" not in job, job
        if job["part"] != "curve":
            assert len(job["seconds"]) == 5
            assert min(job["seconds"]) > 0
            assert job["flops"] > 0
    exact, padded = (job["losses"] for job in jobs if job["part"] == "curve")
    assert padded == pytest.approx(exact, rel=0.02)  # bf16 against float32: the same batches and the same dropout
    assert padded != exact


@pytest.mark.slow
def test_what_cannot_be_had_is_told(report: dict) -> None:
    assert "torch is not to be had" in report["about"]["torch"]["failed"]
    assert all("failed" in job for job in report["jobs"] if job["side"] == "torch")
    assert "ours is" not in report["table"]
    assert "of it (aim 60%)" in report["table"]
