"""Which process of how many this one is, as the scheduler that started it tells in the environment."""

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PORT = 8476
TPU_PORT = 8482  # outside of the ports that the TPU runtime itself uses
SLURM_PORTS = range(61440, 65536)  # above the ephemeral ports of Linux

Environment = Mapping[str, str]
Metadata = Callable[[str], str | None]


@dataclass(frozen=True)
class Seat:
    """The place of one process among those of a run.

    Args:
        told_by: who says so, for messages.
        address: `host:port` of process 0, or empty where it is not told.
        processes: how many there are.
        process: which of them this one is, from 0.
        neighbours: how many of them share this machine.
        neighbour: which of these this one is, from 0.
    """

    told_by: str
    address: str
    processes: int
    process: int
    neighbours: int = 1
    neighbour: int = 0


def find_seat(environment: Environment, metadata: Metadata | None = None) -> Seat | None:
    """The seat that the environment tells of, or None where it tells of no other process.

    Looked for in this order: `JAX_NUM_PROCESSES`, Slurm, Open MPI, Cloud TPU, SkyPilot, a Kubernetes Job with indices.

    Args:
        environment: the environment variables.
        metadata: reads an attribute of a TPU machine; the machine's own metadata server where not given, asked on
            machines with a TPU only.

    Raises:
        ValueError: a variable that should be a number is none.
    """
    metadata = metadata or (tpu_attribute if _has_tpu() else lambda _: None)
    for way in (_told, _slurm, _open_mpi, _tpu, lambda told: _tpu_machine(told, metadata), _skypilot, _kubernetes):
        seat = way(environment)
        if seat is not None:
            return seat
    return None


def _told(told: Environment) -> Seat | None:
    if "JAX_NUM_PROCESSES" not in told:
        return None
    process = told.get("JAX_PROCESS_ID", told.get("JOB_COMPLETION_INDEX", "0"))
    address = told.get("JAX_COORDINATOR_ADDRESS", "")
    return Seat("JAX_NUM_PROCESSES", address, int(told["JAX_NUM_PROCESSES"]), int(process))


def _slurm(told: Environment) -> Seat | None:
    if "SLURM_JOB_ID" not in told or "SLURM_NTASKS" not in told:
        return None
    nodes = told.get("SLURM_STEP_NODELIST", told.get("SLURM_JOB_NODELIST", ""))
    port = told.get("JAX_COORDINATOR_PORT", SLURM_PORTS[int(told["SLURM_JOB_ID"]) % len(SLURM_PORTS)])
    tasks = _slurm_tasks(told.get("SLURM_STEP_TASKS_PER_NODE", told.get("SLURM_TASKS_PER_NODE", "1")))
    node = int(told.get("SLURM_NODEID", "0"))
    return Seat(
        "Slurm (SLURM_NTASKS)",
        f"{_slurm_first(nodes)}:{port}" if nodes else "",
        int(told["SLURM_NTASKS"]),
        int(told.get("SLURM_PROCID", "0")),
        neighbours=tasks[node] if node < len(tasks) else 1,
        neighbour=int(told.get("SLURM_LOCALID", "0")),
    )


def _slurm_first(nodes: str) -> str:
    """The first of `gpu[003-006,009],login1`: gpu003."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first)


def _slurm_tasks(counts: str) -> list[int]:
    """Tasks of each node, from `2(x3),1`: 2, 2, 2, 1."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
    return [int(tasks) for tasks, nodes in found for _ in range(int(nodes or 1))]


def _open_mpi(told: Environment) -> Seat | None:
    if "OMPI_COMM_WORLD_SIZE" not in told:
        return None
    return Seat(
        "Open MPI (OMPI_COMM_WORLD_SIZE)",
        told.get("JAX_COORDINATOR_ADDRESS", ""),
        int(told["OMPI_COMM_WORLD_SIZE"]),
        int(told["OMPI_COMM_WORLD_RANK"]),
        neighbours=int(told.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")),
        neighbour=int(told.get("OMPI_COMM_WORLD_LOCAL_RANK", "0")),
    )


def _tpu(told: Environment) -> Seat | None:
    """TPU slices on Kubernetes: the cluster puts these variables into every pod that asks for TPUs."""
    hosts = told.get("TPU_PROCESS_ADDRESSES") or told.get("TPU_WORKER_HOSTNAMES")
    if not hosts:
        return None
    name = "TPU_PROCESS_ADDRESSES" if told.get("TPU_PROCESS_ADDRESSES") else "TPU_WORKER_HOSTNAMES"
    return _slices(f"Cloud TPU ({name})", hosts.split(","), int(told.get("TPU_WORKER_ID", "0")), told.get)


def _tpu_machine(told: Environment, metadata: Metadata) -> Seat | None:
    """TPU machines without Kubernetes: the machine's metadata tells."""
    worker, hosts = metadata("agent-worker-number"), metadata("worker-network-endpoints")
    if not worker or not hosts:
        return None
    tpu_env = dict(re.findall(r"^\s*(\w+):\s*'?([^'\n]*?)'?\s*$", metadata("tpu-env") or "", re.MULTILINE))
    # An endpoint is an address, or name:number:address on older machines.
    addresses = [host.split(":")[-1] for host in hosts.split(",")]
    return _slices("Cloud TPU (its metadata)", addresses, int(worker), lambda name: told.get(name) or tpu_env.get(name))


def _slices(told_by: str, hosts: list[str], worker: int, value: Callable[[str], str | None]) -> Seat:
    slices, this = int(value("MEGASCALE_NUM_SLICES") or 1), int(value("MEGASCALE_SLICE_ID") or 0)
    first = (value("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]).split(":")[0]
    port = value("JAX_COORDINATOR_PORT") or TPU_PORT
    return Seat(told_by, f"{first}:{port}", slices * len(hosts), this * len(hosts) + worker)


def _skypilot(told: Environment) -> Seat | None:
    hosts = told.get("SKYPILOT_NODE_IPS", "").split()
    if not hosts:
        return None
    port = told.get("JAX_COORDINATOR_PORT", PORT)
    return Seat("SkyPilot (SKYPILOT_NODE_IPS)", f"{hosts[0]}:{port}", len(hosts), int(told["SKYPILOT_NODE_RANK"]))


def _kubernetes(told: Environment) -> Seat | None:
    """An index alone does not tell how many there are, but that there are at least so many."""
    index = int(told.get("JOB_COMPLETION_INDEX", "0"))
    return Seat("Kubernetes (JOB_COMPLETION_INDEX)", "", index + 1, index) if index else None


def _has_tpu() -> bool:
    devices = (*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*"))
    return bool(devices) and find_spec("libtpu") is not None


def tpu_attribute(name: str) -> str | None:
    """An attribute that the metadata server of a Google Cloud machine tells, or None."""
    request = urllib.request.Request(
        f"http://metadata.google.internal/computeMetadata/v1/instance/attributes/{name}",
        headers={"Metadata-Flavor": "Google"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None
