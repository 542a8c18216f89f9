"""The Slurm scripts, run by stand-ins that set Slurm's environment."""

import json
import random
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # kills and waits for processes

PATIENCE = 400

NOTE = """
echo "$@ | process $SLURM_PROCID of $SLURM_NTASKS, $SLURM_LOCALID on node $SLURM_NODEID of $SLURM_STEP_NODELIST" >>NOTES
"""
STOPS_ONCE = """
echo "$@ | start $SLURM_RESTART_COUNT" >>NOTES
((SLURM_RESTART_COUNT)) && exit 0
trap 'exit 75' TERM
touch READY$SLURM_PROCID
while :; do sleep 0.1; done
"""


def directives(script: Path) -> dict[str, str]:
    """What the script asks of Slurm."""
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script.read_text(), re.MULTILINE)
    return dict(found)


def free_job() -> int:
    """A job whose port nobody has."""
    while True:
        job = random.Random().randrange(1, 1 << 20)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 61440 + job % 4096)):
                return job


@pytest.fixture
def sbatch(programs: Callable[..., dict[str, str]], launch: Path, tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """Start a script as Slurm would: its directives as environment variables; `asked` are options of sbatch."""
    job = free_job()

    def sbatch(name: str, *words: str, program: str, restarts: int = 0, **asked: str) -> subprocess.Popen:
        script = launch / "slurm" / name
        asks = {**directives(script), **{key.replace("_", "-"): value for key, value in asked.items()}}
        nodes, each = int(asks["nodes"]), int(asks.get("ntasks-per-node", asks.get("ntasks", "1")))
        environment = {
            **programs(
                "srun", "scancel", "scontrol", "squeue", selfpab_jax=program.replace("NOTES", f"{tmp_path}/notes")
            ),
            "SLURM_JOB_ID": str(job),
            "SLURM_NTASKS": str(nodes * each),
            "SLURM_JOB_NODELIST": asks.get("nodelist", f"gpu[001-{nodes:03d}]"),
            "SLURM_TASKS_PER_NODE": f"{each}(x{nodes})" if nodes > 1 else str(each),
            "SLURM_CPUS_PER_TASK": asks["cpus-per-task"],
            "SLURM_RESTART_COUNT": str(restarts),
            "STAND_IN_QUEUE": str(tmp_path / "queue"),
            "STAND_IN_STATE": asks.get("state", "RUNNING"),
        }
        if "array" in asks:
            environment |= {"SLURM_ARRAY_TASK_ID": asks["array"], "SLURM_ARRAY_JOB_ID": str(job)}
        return subprocess.Popen(
            ["bash", str(script), *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return sbatch


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=PATIENCE)
    return output


def wait_for(folder: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["pretrain.sbatch", "sweep.sbatch"])
def test_what_is_asked_of_slurm(launch: Path, name: str) -> None:
    asked = directives(launch / "slurm" / name)
    assert asked["signal"] == "B:TERM@120"
    assert asked["open-mode"] == "append"
    assert "requeue" in asked


def test_every_process_of_every_machine_runs_the_same_command(sbatch: Callable, tmp_path: Path) -> None:
    process = sbatch("pretrain.sbatch", "a.yaml", "my records", "RUN", "--seed", "1", program=NOTE)
    output = finish(process)
    assert process.returncode == 0, output
    assert "srun: --kill-on-bad-exit=0 --wait=60 --cpus-per-task=8 [0, 0," in output
    notes = sorted((tmp_path / "notes").read_text().splitlines())
    command = (
        "pretrain --config a.yaml --data.path my records --run RUN --resume --distributed.coordinator auto --seed 1"
    )
    assert notes == sorted(
        f"{command} | process {i} of 16, {i % 8} on node {i // 8} of gpu[001-002]" for i in range(16)
    )
    assert not (tmp_path / "queue").exists()


def test_one_process_a_machine(sbatch: Callable, tmp_path: Path) -> None:
    finish(sbatch("pretrain.sbatch", "a.yaml", "REC", "RUN", program=NOTE, ntasks_per_node="1", nodes="3"))
    notes = (tmp_path / "notes").read_text().splitlines()
    assert sorted(line.split("| ")[1] for line in notes) == [
        f"process {i} of 3, 0 on node {i} of gpu[001-003]" for i in range(3)
    ]


def test_a_task_of_the_array_is_a_run_of_the_sweep(sbatch: Callable, tmp_path: Path) -> None:
    process = sbatch("sweep.sbatch", "my sweep", program=NOTE, array="7")
    assert finish(process).endswith("srun: --cpus-per-task=8 [0]\n")
    assert (tmp_path / "notes").read_text().startswith("sweep run my sweep --index 7 | process 0 of 1")


@pytest.mark.parametrize(
    ("name", "words", "asked"),
    [
        ("pretrain.sbatch", ["a.yaml", "REC", "RUN"], {"nodes": "2", "ntasks_per_node": "1"}),
        ("sweep.sbatch", ["SWEEP"], {"array": "0"}),
    ],
)
def test_stopped_jobs_go_back_into_the_queue(
    sbatch: Callable, tmp_path: Path, name: str, words: list[str], asked: dict[str, str]
) -> None:
    program = STOPS_ONCE.replace("READY", f"{tmp_path}/ready")
    process = sbatch(name, *words, program=program, **asked)
    wait_for(tmp_path, "ready*", 2 if "nodes" in asked else 1)
    process.terminate()  # what --signal=B:TERM@120 does: the script alone gets the signal
    output = finish(process)
    assert process.returncode == 75, output
    assert "stopped with code 75; requeued" in output
    assert len((tmp_path / "queue").read_text().splitlines()) == 1
    again = sbatch(name, *words, program=program, restarts=1, **asked)
    output = finish(again)
    assert again.returncode == 0, output
    assert len((tmp_path / "queue").read_text().splitlines()) == 1, "a finished job stays finished"


def test_canceled_and_failed_jobs_stay_away(sbatch: Callable, tmp_path: Path) -> None:
    words = ("pretrain.sbatch", "a.yaml", "REC", "RUN")
    one = {"nodes": "1", "ntasks_per_node": "1"}
    for code, state in ((75, "COMPLETING"), (1, "RUNNING")):
        process = sbatch(*words, program=f"exit {code}", state=state, **one)
        finish(process)
        assert process.returncode == code
    assert not (tmp_path / "queue").exists()


def test_calls_without_what_is_needed(sbatch: Callable) -> None:
    for name, words in (("pretrain.sbatch", ["a.yaml"]), ("sweep.sbatch", ["SWEEP"])):
        process = sbatch(name, *words, program=NOTE)
        assert "usage: sbatch" in finish(process)
        assert process.returncode == 2


def test_training_is_preempted_and_queued_again(
    sbatch: Callable,
    real: str,
    tiny: list[str],
    tiny_records: Path,
    tmp_path: Path,
    wait_for_checkpoint: Callable,
) -> None:
    run = tmp_path / "run"
    preset = tmp_path / "preset.yaml"
    preset.write_text("seed: 3\n")
    words = ["pretrain.sbatch", str(preset), str(tiny_records), str(run), *tiny]
    process = sbatch(*words, program=real, nodes="2", ntasks_per_node="1", nodelist="localhost,localhost")
    wait_for_checkpoint(run, process)
    process.terminate()
    output = finish(process)
    assert process.returncode == 75, output
    assert "[75, 75]" in output
    assert (tmp_path / "queue").exists(), output
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [event["processes"] for event in events if event["event"] == "start"] == [2]
    assert events[-1]["ending"] == "interrupted"
    saved = max(int(path.name) for path in (run / "checkpoints" / "latest").glob("*") if path.name.isdigit())
    assert saved == max(event["step"] for event in events if event["event"] == "train"), "the last step is saved"
