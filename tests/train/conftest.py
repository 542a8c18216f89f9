"""Small records, and the command line run in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TINY_MODEL = [
    "--model.width", "16", "--model.heads", "4", "--model.feedforward", "16", "--model.layers", "1",
    "--model.compute", "float32", "--optimizer.batch_size", "8", "--optimizer.learning_rate", "1e-2",
    "--log.every_steps", "1", "--validation.windows", "8",
]  # fmt: skip
TASKS = {
    "selfpab": [],
    "lta2v": [
        "--model.temporal_positions", "true", "--model.attention", "blocks", "--data.statistics", "plain",
        "--task.masking.reverse_probability", "0.5", "--task.masking.frequency_width", "5",
    ],
}  # fmt: skip
"""What the same tests of resuming and of several processes are run with."""


def environment(devices: int) -> dict[str, str]:
    """Environment of a process with this many CPU devices."""
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}


@pytest.fixture(scope="session")
def start(tiny_records: Path) -> Callable[..., subprocess.Popen]:
    """Start `pretrain` on the small records in a process with this many devices."""

    def start(run: Path, *options: str, devices: int = 1) -> subprocess.Popen:
        words = ["pretrain", "--data.path", str(tiny_records), "--run", str(run), *TINY_MODEL, *options]
        return subprocess.Popen(
            [sys.executable, "-m", "selfpab_jax.cli.main", *words],
            env=environment(devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def losses(run: Path) -> dict[tuple[str, int], float]:
    """Training and held-out losses of a run by event and step."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {(e["event"], e["step"]): e["loss"] for e in events if e["event"] in ("train", "validation")}


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> list[str]:
    """Options of `pretrain` that make it the task."""
    return TASKS[request.param]


@pytest.fixture(scope="session")
def losses_of() -> Callable[[Path], dict[tuple[str, int], float]]:
    return losses
