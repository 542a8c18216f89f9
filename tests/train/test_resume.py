"""A killed run goes on and ends with the parameters of the run that was never killed, bit for bit."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from selfpab_jax.train.export import read_checkpoint

pytestmark = pytest.mark.slow  # kills and waits for processes

STEPS = [
    "--optimizer.steps", "240", "--validation.every_steps", "10", "--checkpoint.every_steps", "15",
    "--model.dropout", "0.1", "--validation.patience", "0",
]  # fmt: skip


def finish(process: subprocess.Popen, code: int = 0) -> str:
    output, _ = process.communicate(timeout=150)
    assert process.returncode == code, output
    return output


@pytest.fixture(scope="module")
def uninterrupted(start: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(start(run, *STEPS))
    return run


@pytest.fixture(scope="module")
def of_task(start: Callable, task: list[str], uninterrupted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not task:
        return uninterrupted
    run = tmp_path_factory.mktemp("of_task") / "run"
    finish(start(run, *STEPS, *task))
    return run


def same_bits(run: Path, expected: Path) -> None:
    for which in ("latest", "best"):
        _, found, facts = read_checkpoint(run, which)
        _, wanted, wanted_facts = read_checkpoint(expected, which)
        assert facts["step"] == wanted_facts["step"]
        assert facts["validation"] == wanted_facts["validation"]
        for name, array in wanted.items():
            np.testing.assert_array_equal(jax.device_get(found[name]), jax.device_get(array), err_msg=name)


def test_kill_at_random_moments(
    start: Callable, task: list[str], of_task: Path, tmp_path: Path, tiny_records: Path, losses_of: Callable
) -> None:
    """Before the first step, while training, validating and saving: wherever the clock says; evaluation, too."""
    run = tmp_path / "run"
    chance = random.Random(0)
    kills, wanted = 0, 4 if task else 10
    while kills < wanted:
        process = start(run, *STEPS, *task, "--resume")
        if kills % 3 == 0:
            time.sleep(chance.uniform(0.5, 6.0))  # anywhere, start-up included
        else:
            seen = steps_told(run)
            deadline = time.monotonic() + 60
            while process.poll() is None and steps_told(run) == seen and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.4))  # in the midst of steps, validations and saves
        assert process.poll() is None, "the run ended too soon to be killed"
        process.kill()
        process.communicate()
        kills += 1
    finish(start(run, *STEPS, *task, "--resume"))
    same_bits(run, of_task)
    assert losses_of(run) == losses_of(of_task)

    evaluate = [sys.executable, "-m", "selfpab_jax.cli.main", "evaluate", str(run), "--data", str(tiny_records)]
    for _ in range(2):
        process = subprocess.Popen(evaluate, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(chance.uniform(1.0, 6.0))
        process.kill()
        process.communicate()
    assert "held-out masked l1" in subprocess.run(evaluate, capture_output=True, text=True, check=True).stdout
    same_bits(run, of_task)


def steps_told(run: Path) -> int:
    log = run / "log.jsonl"
    return log.read_text().count('"event": "train"') if log.exists() else 0


def test_sigterm_saves_and_exits_with_its_code(
    start: Callable, uninterrupted: Path, tmp_path: Path, losses_of: Callable
) -> None:
    run = tmp_path / "run"
    process = start(run, *STEPS)
    while process.poll() is None and steps_told(run) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output = finish(process, 75)
    assert "--resume" in output
    saved = max(int(path.name) for path in (run / "checkpoints" / "latest").iterdir())
    assert saved >= 3
    goes_on = finish(start(run, *STEPS, "--resume"))
    assert f"resuming at step {saved}:" in goes_on
    same_bits(run, uninterrupted)
    assert losses_of(run) == losses_of(uninterrupted)


def test_sigterm_before_a_validating_step_saves_too(start: Callable, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(
        run, "--optimizer.steps", "4000", "--validation.every_steps", "1", "--checkpoint.every_steps", "4000"
    )
    while process.poll() is None and steps_told(run) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    finish(process, 75)
    assert list((run / "checkpoints" / "latest").iterdir()), "stopped and saved, it said"


def test_best_parameters_beyond_the_newest_state_are_found_again(start: Callable, tmp_path: Path) -> None:
    """Validation more often than saves: after a kill the newest best is ahead of the newest state."""
    options = ["--optimizer.steps", "60", "--validation.every_steps", "4", "--checkpoint.every_steps", "50"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    finish(start(whole, *options))
    process = start(run, *options)
    while process.poll() is None and not any((run / "checkpoints" / "best").glob("[0-9]*")):
        time.sleep(0.005)
    process.kill()
    process.communicate()
    finish(start(run, *options, "--resume"))
    same_bits(run, whole)


def test_a_finished_run_stays_as_it_is(start: Callable, uninterrupted: Path, losses_of: Callable) -> None:
    before = losses_of(uninterrupted)
    assert "finished" in finish(start(uninterrupted, *STEPS, "--resume"))
    assert losses_of(uninterrupted) == before
