"""The launch files are run as a cluster would run them; where the cluster's programs would be, stand-ins are."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
STAND_INS = Path(__file__).parent / "stand_ins"
PATIENCE = 400  # seconds, for machines that are busy with other things
TINY = [
    "--model.width", "16", "--model.heads", "4", "--model.feedforward", "16", "--model.layers", "1",
    "--model.compute", "float32", "--optimizer.batch_size", "8", "--optimizer.learning_rate", "1e-2",
    "--optimizer.steps", "90", "--log.every_steps", "1", "--validation.windows", "8",
    "--validation.every_steps", "90", "--checkpoint.every_steps", "15",
]  # fmt: skip


@pytest.fixture(scope="session")
def launch() -> Path:
    return LAUNCH


@pytest.fixture
def programs(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """An environment whose PATH begins with the given programs: a stand-in's name, or a name and a shell script."""
    folder = tmp_path / "programs"
    folder.mkdir()

    def programs(*stand_ins: str, **scripts: str) -> dict[str, str]:
        for name in stand_ins:
            (folder / name).write_text(f"#!{sys.executable}\n" + (STAND_INS / f"{name}.py").read_text())
        for name, script in scripts.items():
            (folder / name.replace("_", "-")).write_text(f"#!/usr/bin/env bash\n{script}\n")
        for program in folder.iterdir():
            program.chmod(0o755)
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "JAX_"))}
        return {
            **variables,
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "JAX_PLATFORMS": "cpu",
            # Compiling is what these tests cost, and the speed of what is compiled does not matter here.
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0",
        }

    return programs


@pytest.fixture(scope="session")
def real() -> str:
    """The script that is the real `selfpab-jax`."""
    return f'exec {sys.executable} -m selfpab_jax.cli.main "$@"'


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    return TINY


@pytest.fixture(scope="session")
def wait_for_checkpoint() -> Callable[[Path, subprocess.Popen], None]:
    def wait(run: Path, process: subprocess.Popen) -> None:
        deadline = time.monotonic() + PATIENCE
        while not any(path.name.isdigit() for path in (run / "checkpoints" / "latest").glob("*")):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)

    return wait
