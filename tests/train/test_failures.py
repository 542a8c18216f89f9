"""What happens when the disk is full or the loss is not finite: a line, and the last good checkpoint stays good."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from selfpab_jax.cli.main import main

pytestmark = pytest.mark.slow  # kills and waits for processes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 900 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root: a full disk is not tried here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=False)


def test_full_disk_is_told_and_the_run_goes_on_once_there_is_room(start: Callable, small_disk: Path) -> None:
    run = small_disk / "run"
    steps = ["--optimizer.steps", "30", "--checkpoint.every_steps", "3", "--validation.every_steps", "30"]
    process = start(run, *steps)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1, output
    messages = [line for line in output.splitlines() if line.startswith("selfpab-jax:")]
    assert len(messages) == 1, output
    assert "is complete" in messages[0], "a checkpoint was written while there was space"
    assert "no space left" in messages[0]
    assert "Traceback" not in output
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    resumed = start(run, *steps, "--resume")
    output, _ = resumed.communicate(timeout=100)
    assert resumed.returncode == 0, output
    assert "resuming at step" in output


def test_a_loss_that_is_not_finite_names_step_and_records(start: Callable, tmp_path: Path) -> None:
    process = start(
        tmp_path / "run", "--optimizer.steps", "30", "--optimizer.schedule", "constant",
        "--optimizer.learning_rate", "1e38", "--optimizer.weight_decay", "0",
    )  # fmt: skip
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1, output
    message = next(line for line in output.splitlines() if line.startswith("selfpab-jax:"))
    assert "at step" in message
    assert "/2024-" in message, "names recordings"
    assert "learning_rate" in message
    assert "Traceback" not in output


def test_parameters_that_are_not_finite_after_the_last_step_are_not_saved(start: Callable, tmp_path: Path) -> None:
    """No further loss, and no held-out one, would show them."""
    cohort, records, run = (str(tmp_path / name) for name in ("cohort", "records", "run"))
    assert main(["cohort", cohort, "--subjects", "2", "--hours", "1"]) == 0
    build = ["records", "build", "--source", "hunt4", cohort, "--out", records, "--window_seconds", "20"]
    assert main([*build, "--workers", "1", "--validation", "0", "--test", "0"]) == 0
    options = ["--optimizer.steps", "1", "--optimizer.schedule", "constant", "--optimizer.learning_rate", "1e39"]
    process = start(Path(run), *options, "--data.path", records)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    assert "parameters are not finite after step 1" in output
    assert not list((tmp_path / "run" / "checkpoints").glob("*/[0-9]*"))
