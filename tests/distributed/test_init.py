"""Every scheduler's environment leads to the same answer: how many, which one, and where is process 0."""

import os
import socket
from collections.abc import Callable

import pytest
from jax._src.clusters import cloud_tpu_cluster

from selfpab_jax.distributed.init import (
    DistributedSettings,
    ProcessInfo,
    detect_process,
    local_gpus,
    process_info,
    visible_gpus,
)
from selfpab_jax.errors import ConfigError

SLURM = {
    "SLURM_JOB_ID": "4100",
    "SLURM_NTASKS": "7",
    "SLURM_PROCID": "5",
    "SLURM_NODEID": "2",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[003-004,009],login",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
}
GKE_TPU = {"TPU_WORKER_HOSTNAMES": "a.jobs,b.jobs,c.jobs", "TPU_WORKER_ID": "2"}
SECOND_SLICE = {
    **GKE_TPU,
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "first.jobs:8080",
}
SKYPILOT = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2\n", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "JAX_COORDINATOR_ADDRESS": "node1:9000",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
}
LAUNCHED = {"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": "pod-0.set:8476", "JOB_COMPLETION_INDEX": "1"}


OTHERS = ("JOB_COMPLETION_INDEX", "JAX_", "SLURM_", "TPU_", "MEGASCALE_", "SKYPILOT_", "OMPI_", "CUDA_VISIBLE_DEVICES")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the variables of a scheduler, and none of another."""

    def set_variables(**variables: str) -> None:
        for name in [name for name in os.environ if name.startswith(OTHERS) and name != "JAX_PLATFORMS"]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        on_tpu = any(name.startswith("TPU_") for name in variables)
        monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", on_tpu)
        monkeypatch.setattr(cloud_tpu_cluster, "get_tpu_env_value_from_metadata", lambda key: None)
        monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", lambda key: ("", 404))
        monkeypatch.setattr(socket, "gethostbyname", lambda name: "10.0.0.9")

    set_variables()
    return set_variables


def summary(info: ProcessInfo | None) -> tuple | None:
    return info and (info.address, info.processes, info.process, info.local_processes, info.local_process)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (SLURM, ("gpu003:61444", 7, 5, 2, 1)),
        ({**SLURM, "SLURM_STEP_NODELIST": "rack[1-2],node7", "JAX_COORDINATOR_PORT": "99"}, ("rack1:99", 7, 5, 2, 1)),
        ({**SLURM, "SLURM_STEP_NODELIST": "single"}, ("single:61444", 7, 5, 2, 1)),
        ({**SLURM, "SLURM_NODEID": "3", "SLURM_LOCALID": "0", "SLURM_PROCID": "6"}, ("gpu003:61444", 7, 6, 1, 0)),
        (GKE_TPU, ("a.jobs:8482", 3, 2, 1, 0)),
        (SECOND_SLICE, ("first.jobs:8482", 6, 5, 1, 0)),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, ("", 1, 0, 1, 0)),
        (SKYPILOT, ("10.0.0.1:8476", 2, 1, 1, 0)),
        (OPEN_MPI, ("node1:9000", 4, 3, 2, 1)),
        (LAUNCHED, ("pod-0.set:8476", 2, 1, 1, 0)),
        ({**LAUNCHED, "JAX_PROCESS_ID": "0"}, ("pod-0.set:8476", 2, 0, 1, 0)),
        ({"JAX_NUM_PROCESSES": "1", "JOB_COMPLETION_INDEX": "7"}, ("", 1, 7, 1, 0)),
        ({"JOB_COMPLETION_INDEX": "3"}, ("", 4, 3, 1, 0)),
        ({"JOB_COMPLETION_INDEX": "0", "HOME": "/root"}, None),
    ],
)
def test_every_scheduler_is_understood(environment, variables: dict[str, str], expected: tuple | None) -> None:
    environment(**variables)
    assert summary(detect_process(5)) == expected


@pytest.mark.parametrize("endpoints", ["10.1.0.1,10.1.0.2", "x:0:10.1.0.1,x:1:10.1.0.2"])
def test_a_tpu_machine_asks_its_metadata(environment, monkeypatch: pytest.MonkeyPatch, endpoints: str) -> None:
    environment()
    metadata = {"agent-worker-number": "1", "worker-network-endpoints": endpoints}
    slices: dict[str, str] = {}
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", lambda key: (metadata[key], 200))
    monkeypatch.setattr(cloud_tpu_cluster, "get_tpu_env_value_from_metadata", slices.get)
    assert summary(detect_process(5)) == ("10.1.0.1:8482", 2, 1, 1, 0)
    slices |= {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"}
    assert summary(detect_process(5)) == ("10.1.0.1:8482", 4, 3, 1, 0)


def test_nobody_trains_alone_unnoticed(environment) -> None:
    for variables in (SLURM, GKE_TPU, SECOND_SLICE, SKYPILOT, OPEN_MPI, LAUNCHED, {"JOB_COMPLETION_INDEX": "1"}):
        environment(**variables)
        with pytest.raises(ConfigError, match=r"--distributed\.coordinator auto"):
            process_info(DistributedSettings())
        assert process_info(DistributedSettings(coordinator="none")) is None
    for variables in ({**SLURM, "SLURM_NTASKS": "1"}, {"JAX_NUM_PROCESSES": "1", "JOB_COMPLETION_INDEX": "7"}, {}):
        environment(**variables)
        assert process_info(DistributedSettings()) is None


@pytest.mark.parametrize(
    ("variables", "keyword"),
    [
        ({}, "mentions no other processes"),
        ({"JOB_COMPLETION_INDEX": "1"}, "JAX_COORDINATOR_ADDRESS"),
        ({**LAUNCHED, "JAX_PROCESS_ID": "2"}, "this is number 2"),
        ({**LAUNCHED, "JAX_NUM_PROCESSES": "many"}, "damaged"),
    ],
)
def test_auto_needs_a_complete_environment(environment, variables: dict[str, str], keyword: str) -> None:
    environment(**variables)
    with pytest.raises(ConfigError, match=keyword):
        process_info(DistributedSettings(coordinator="auto"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"coordinator": "host:1"}, "set distributed.processes"),
        ({"coordinator": "host:1", "processes": 2, "process": 2}, "from 0 to 1"),
        ({"coordinator": "host", "processes": 2, "process": 1}, "must be host:port, auto or none"),
        ({"timeout_seconds": 0}, "at least 1"),
    ],
)
def test_settings_that_make_no_sense(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistributedSettings(**fields)


def test_gpus_are_shared_by_the_processes_of_a_machine(environment, monkeypatch, tmp_path) -> None:
    eight = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)

    def gpus(processes: int, process: int, variables: dict[str, str]) -> list[int] | None:
        environment(**variables)
        return local_gpus(ProcessInfo("test", "host:1", 16, 9, processes, process), visible_gpus(tmp_path))

    assert gpus(8, 3, eight) == [3], "one device per process"
    assert gpus(2, 1, eight) == [4, 5, 6, 7]
    assert gpus(1, 0, eight) is None, "all devices in one process"
    assert gpus(8, 3, {"CUDA_VISIBLE_DEVICES": "3"}) is None, "the scheduler gave each its own"
    assert gpus(2, 1, {}) is None, "no GPU at all"
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus(2, 1, {}) == [1]
    with pytest.raises(ConfigError, match="evenly"):
        gpus(3, 0, eight)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert gpus(8, 3, eight) is None
