"""Several processes train as one; a run may change their number."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # kills and waits for processes

STEPS = ["--optimizer.steps", "12", "--validation.every_steps", "6", "--checkpoint.every_steps", "4"]
PATIENCE = 400  # seconds, for machines that are busy with other things


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_two(start: Callable, run: Path, *options: str) -> list[subprocess.Popen]:
    together = ["--distributed.coordinator", f"127.0.0.1:{free_port()}", "--distributed.processes", "2"]
    return [start(run, *STEPS, *options, *together, "--distributed.process", str(i), devices=2) for i in range(2)]


def finish(process: subprocess.Popen, code: int = 0) -> str:
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, output
    return output


@pytest.fixture(scope="module")
def one_process(start: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    finish(start(run, *STEPS, devices=4))
    return run


@pytest.fixture(scope="module")
def of_task(start: Callable, task: list[str], one_process: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not task:
        return one_process
    run = tmp_path_factory.mktemp("of_task") / "run"
    finish(start(run, *STEPS, *task, devices=4))
    return run


def close(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[key] for key in expected], list(expected.values()), rtol=1e-5)


def test_two_processes_give_the_curve_of_one(
    start: Callable, one_process: Path, tmp_path: Path, losses_of: Callable
) -> None:
    outputs = [finish(process) for process in start_two(start, tmp_path / "run")]
    assert "finished" in outputs[0]
    assert "step 12" in outputs[0]
    assert "step" not in outputs[1], "only one process logs"
    close(losses_of(tmp_path / "run"), losses_of(one_process))


@pytest.mark.parametrize("mesh", [["--mesh.data", "1", "--mesh.fsdp", "4"], ["--mesh.data", "1", "--mesh.tensor", "4"]])
def test_other_meshes_across_two_processes(
    mesh: list[str], start: Callable, one_process: Path, tmp_path: Path, losses_of: Callable
) -> None:
    for process in start_two(start, tmp_path / "run", *mesh):
        finish(process)
    close(losses_of(tmp_path / "run"), losses_of(one_process))


def test_stopped_at_two_processes_and_resumed_on_one(
    start: Callable, task: list[str], of_task: Path, tmp_path: Path, losses_of: Callable
) -> None:
    run = tmp_path / "run"
    processes = start_two(start, run, *task)
    deadline = time.monotonic() + PATIENCE
    while not any((run / "checkpoints" / "latest").glob("[0-9]*")):
        assert time.monotonic() < deadline
        assert processes[0].poll() is None, processes[0].communicate()[0]
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)  # one gets it, all of them stop
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    codes = [process.returncode for process in processes]
    assert codes in ([75, 75], [0, 0]), outputs
    finish(start(run, *STEPS, *task, "--resume", devices=2))
    close(losses_of(run), losses_of(of_task))


def test_a_missing_peer_is_named(start: Callable, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    alone = ["--distributed.coordinator", address, "--distributed.processes", "3", "--distributed.process", "0"]
    process = start(tmp_path / "run", *STEPS, *alone, "--distributed.timeout_seconds", "1")
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, output
    assert "missing: 1, 2" in output


def test_one_of_several_is_not_started_alone(start: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    process = start(tmp_path / "run", *STEPS)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, output
    assert "SLURM_NTASKS" in output
    assert not (tmp_path / "run").exists()
