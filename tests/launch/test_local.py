"""launch/local.sh: several processes on this machine."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # kills and waits for processes

PATIENCE = 400

Programs = Callable[..., dict[str, str]]


@pytest.fixture
def local(launch: Path) -> Callable[..., subprocess.Popen]:
    def local(environment: dict[str, str], *words: str) -> subprocess.Popen:
        return subprocess.Popen(
            [str(launch / "local.sh"), *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return local


def process_id(launcher: subprocess.Popen, number: int) -> int:
    """The process that was given this number."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    [found] = [
        child for child in children if f"JAX_PROCESS_ID={number}\0" in Path(f"/proc/{child}/environ").read_text()
    ]
    return int(found)


def test_two_processes_one_killed_and_restarted(
    local: Callable,
    programs: Programs,
    real: str,
    tiny: list[str],
    tiny_records: Path,
    tmp_path: Path,
    wait_for_checkpoint: Callable,
) -> None:
    run = tmp_path / "run"
    command = ["selfpab-jax", "pretrain", "--data.path", str(tiny_records), "--run", str(run), *tiny]
    launcher = local(
        programs(selfpab_jax=real), "-n", "2", "-r", "1", "--", *command, "--resume", "--distributed.coordinator=auto"
    )
    wait_for_checkpoint(run, launcher)
    os.kill(process_id(launcher, 1), signal.SIGKILL)
    output, _ = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 0, output
    assert "process 1 exited with code 137" in output
    assert "restarting (1 of 1)" in output
    assert "resuming at step" in output
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    starts = [event for event in events if event["event"] == "start"]
    assert [event["processes"] for event in starts] == [2, 2]
    assert starts[0]["step"] == 0
    assert starts[1]["step"] >= 15
    assert [event["step"] for event in events if event["event"] == "train"] == list(range(1, 91))
    assert events[-1]["ending"] == "finished"


SHOW = 'echo "$JAX_PROCESS_ID of $JAX_NUM_PROCESSES at $JAX_COORDINATOR_ADDRESS on ${CUDA_VISIBLE_DEVICES-all}"'


def test_what_each_process_is_told(local: Callable, programs: Programs) -> None:
    launcher = local(programs(), "-n", "3", "--", "bash", "-c", SHOW)
    output, _ = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 0
    [address] = {line.split()[4] for line in output.splitlines()}
    assert sorted(output.splitlines()) == [f"{i} of 3 at {address} on all" for i in range(3)]
    gpus = {**programs(), "CUDA_VISIBLE_DEVICES": "2,5,7"}
    output, _ = local(gpus, "-g", "-n", "2", "--", "bash", "-c", SHOW).communicate(timeout=PATIENCE)
    assert sorted(line.split()[-1] for line in output.splitlines()) == ["2", "5"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "usage: "),
        (["-n", "two", "--", "true"], "two is not a number"),
        (["-n"], "-n: no such option, or its number is missing"),
        (["-g", "-n", "3", "--", "true"], "-g: 3 processes, but 2 GPUs"),
    ],
)
def test_mistakes_in_the_call(local: Callable, programs: Programs, words: list[str], message: str) -> None:
    launcher = local({**programs(), "CUDA_VISIBLE_DEVICES": "0,1"}, *words)
    output, _ = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 2
    assert output.startswith(f"local.sh: {message}")


def test_a_stubborn_process_is_killed_when_another_died(local: Callable, programs: Programs) -> None:
    script = 'trap "" TERM; if [[ $JAX_PROCESS_ID == 1 ]]; then exit 3; fi; exec sleep 300'
    launcher = local(programs(), "-k", "0", "--", "bash", "-c", script)
    output, _ = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 3
    assert output == "local.sh: process 1 exited with code 3; stopping the others, which cannot continue without it\n"


def test_a_mistake_in_the_command_is_not_repeated(local: Callable, programs: Programs) -> None:
    launcher = local(programs(), "-n", "1", "-r", "5", "--", "bash", "-c", "echo once; exit 2")
    output, _ = launcher.communicate(timeout=PATIENCE)
    assert (launcher.returncode, output) == (2, "once\n")


def test_sigterm_reaches_all_and_nothing_starts_again(local: Callable, programs: Programs, tmp_path: Path) -> None:
    script = f'trap "exit 75" TERM; touch {tmp_path}/ready$JAX_PROCESS_ID; while :; do sleep 0.1; done'
    launcher = local(programs(), "-r", "5", "--", "bash", "-c", script)
    deadline = time.monotonic() + PATIENCE
    while len(list(tmp_path.glob("ready*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    launcher.terminate()
    output, _ = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 75
    assert output == "local.sh: stopping: passing the signal on to all processes\n"
