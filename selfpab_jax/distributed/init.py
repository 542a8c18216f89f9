"""Joining a multi-process run: which process this is, how the others are reached, and what each may use."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
from jax._src import clusters  # JAX offers no public way to ask for these before it joins the other processes

from selfpab_jax.distributed.rendezvous import meet
from selfpab_jax.errors import ConfigError, RunError

# How many processes a run has and which one this is, as the scheduler that started it reports.
#
# Slurm, Open MPI and Cloud TPU are detected by JAX's own cluster classes. Beside them stand what JAX does not know: the
# variables that the files of `launch/` set, SkyPilot, and Kubernetes Jobs with an index.

PORT = 8476
JAX_CLUSTERS = {"slurm": "Slurm", "ompi": "Open MPI", "gketpu": "Cloud TPU (Kubernetes)", "gcetpu": "Cloud TPU"}
"""JAX's clusters that need no further package, by their names there."""


@dataclass(frozen=True)
class ProcessInfo:
    """One process among those of a run.

    Args:
        source: where this is known from, for messages.
        address: `host:port` of process 0, or empty where it is unknown.
        processes: how many there are.
        process: which of them this one is, from 0.
        local_processes: how many of them share this machine.
        local_process: which of these this one is, from 0.
    """

    source: str
    address: str
    processes: int
    process: int
    local_processes: int = 1
    local_process: int = 0


def detect_process(timeout_seconds: int) -> ProcessInfo | None:
    """What the environment says about the processes of this run, or None where it mentions no others.

    Args:
        timeout_seconds: how long to wait until the name of process 0 can be resolved (Cloud TPU).

    Raises:
        ConfigError: a variable that should be a number is none, or one is missing.
    """
    try:
        return _launched() or _jax_cluster(timeout_seconds) or _skypilot() or _incomplete()
    except (ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(f"the environment of several processes is damaged: {error}") from None


def _launched() -> ProcessInfo | None:
    """The variables that the files of `launch/` set."""
    if "JAX_NUM_PROCESSES" not in os.environ:
        return None
    process = os.environ.get("JAX_PROCESS_ID", os.environ.get("JOB_COMPLETION_INDEX", "0"))
    address = os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    return ProcessInfo("JAX_NUM_PROCESSES", address, int(os.environ["JAX_NUM_PROCESSES"]), int(process))


def _jax_cluster(timeout_seconds: int) -> ProcessInfo | None:
    for cluster in clusters.ClusterEnv._cluster_types:
        if cluster.name not in JAX_CLUSTERS or not cluster.is_env_present():
            continue
        processes, address = cluster.get_process_count(), os.environ.get("JAX_COORDINATOR_ADDRESS", "")
        if processes > 1 and not address:
            port = os.environ.get("JAX_COORDINATOR_PORT")
            address = cluster.get_coordinator_address(timeout_seconds, port)
        return ProcessInfo(
            JAX_CLUSTERS[cluster.name],
            address,
            processes,
            cluster.get_process_id(),
            local_processes=_local_processes(),
            local_process=cluster.get_local_process_id() or 0,
        )
    return None


def _local_processes() -> int:
    """Processes on this machine, which JAX does not ask for: it gives each a single GPU."""
    if "SLURM_JOB_ID" in os.environ:
        counts = os.environ.get("SLURM_STEP_TASKS_PER_NODE", os.environ.get("SLURM_TASKS_PER_NODE", "1"))
        # `2(x3),1` stands for 2, 2, 2, 1.
        found = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
        tasks = [int(count) for count, nodes in found for _ in range(int(nodes or 1))]
        node = int(os.environ.get("SLURM_NODEID", "0"))
        return tasks[node] if node < len(tasks) else 1
    return int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"))


def _skypilot() -> ProcessInfo | None:
    hosts = os.environ.get("SKYPILOT_NODE_IPS", "").split()
    if not hosts:
        return None
    port = os.environ.get("JAX_COORDINATOR_PORT", PORT)
    return ProcessInfo("SkyPilot", f"{hosts[0]}:{port}", len(hosts), int(os.environ["SKYPILOT_NODE_RANK"]))


def _incomplete() -> ProcessInfo | None:
    """Signs of other processes where no scheduler gives their address, so that nobody trains alone unnoticed.

    An index of a Kubernetes Job does not say how many pods there are, but that there are at least this many.
    """
    index = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES", "")
    tasks = os.environ.get("SLURM_NTASKS", "1") if "SLURM_JOB_ID" in os.environ else "1"
    signs = (
        ("Slurm (SLURM_NTASKS, without srun)", int(tasks), int(os.environ.get("SLURM_PROCID", "0"))),
        (
            "Open MPI",
            int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")),
            int(os.environ.get("OMPI_COMM_WORLD_RANK", "0")),
        ),
        ("TPU_WORKER_HOSTNAMES", len(hosts.split(",")), int(os.environ.get("TPU_WORKER_ID", "0"))),
        ("Kubernetes (JOB_COMPLETION_INDEX)", index + 1, index),
    )
    return next((ProcessInfo(name, "", count, number) for name, count, number in signs if count > 1), None)


def visible_gpus(devices: Path = Path("/dev")) -> int:
    """How many NVIDIA GPUs a process can see; 0 where JAX is set to use something else."""
    if not {"", "cuda", "gpu"} & set(os.environ.get("JAX_PLATFORMS", "").split(",")):
        return 0
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return len([name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip() not in ("", "-1")])
    return len([path for path in devices.glob("nvidia[0-9]*") if path.name.removeprefix("nvidia").isdigit()])


def local_gpus(info: ProcessInfo, gpus: int) -> list[int] | None:
    """The GPUs of a process among those that it can see, or None for all of them.

    A scheduler may give each process its own GPU, which is then the only one that it sees, or show all GPUs to all.

    Args:
        info: this process.
        gpus: how many it can see.

    Raises:
        ConfigError: they cannot be shared evenly.
    """
    if info.local_processes == 1 or gpus <= 1:
        return None
    if gpus % info.local_processes:
        raise ConfigError(
            f"{info.local_processes} processes cannot share this machine's {gpus} GPUs evenly: start one process per "
            "GPU, or one for all of them (--distributed.local_devices all leaves it to CUDA_VISIBLE_DEVICES)"
        )
    each = gpus // info.local_processes
    return list(range(info.local_process * each, (info.local_process + 1) * each))


@dataclass(frozen=True)
class DistributedSettings:
    """How this process finds the others.

    Args:
        coordinator: `host:port` of process 0; `auto` asks the environment (Slurm, Open MPI, Cloud TPU, SkyPilot,
            launch/); `none` trains alone whatever the environment says; empty for a single process, which is refused
            where the environment mentions several.
        processes: how many there are (not for `auto`).
        process: which of them this one is, from 0 (not for `auto`).
        timeout_seconds: how long to wait for the others.
        local_devices: which GPUs of this machine this process uses: `auto` shares them evenly among the processes
            that the scheduler started on it, one each if they are as many; `all` takes all that it can see.
    """

    coordinator: str = ""
    processes: int | None = None
    process: int | None = None
    timeout_seconds: int = 300
    local_devices: Literal["auto", "all"] = "auto"

    def __post_init__(self) -> None:
        if self.timeout_seconds < 1:
            raise ConfigError(f"distributed.timeout_seconds is {self.timeout_seconds}; it must be at least 1")
        if self.coordinator in ("", "auto", "none"):
            return
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"distributed.coordinator is {self.coordinator}; it must be host:port, auto or none")
        if self.processes is None or self.process is None:
            raise ConfigError("distributed.coordinator is set: set distributed.processes and distributed.process, too")
        if not 0 <= self.process < self.processes:
            raise ConfigError(
                f"distributed.process is {self.process}; with {self.processes} processes it must be from 0 to "
                f"{self.processes - 1}"
            )


def join(settings: DistributedSettings) -> None:
    """Join the other processes; returns when all have come. Must be called before anything else uses a device.

    Raises:
        ConfigError: the environment mentions several processes and the settings do not, or the other way round.
        RunError: a process did not come in time; the message names it.
    """
    if jax.distributed.is_initialized():
        return
    info = process_info(settings)
    if info is None or info.processes == 1:
        return
    devices = local_gpus(info, visible_gpus()) if settings.local_devices == "auto" else None
    meet(
        info.address,
        process=info.process,
        processes=info.processes,
        timeout_seconds=settings.timeout_seconds,
        log=lambda line: print(f"selfpab-jax: {line}", file=sys.stderr, flush=True),
    )
    # Stopping is agreed on inside the step (StepMetrics.stop), so JAX's own handler of SIGTERM stays off.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=info.address,
            num_processes=info.processes,
            process_id=info.process,
            local_device_ids=devices,
            # Everything is given here: left to itself, JAX would take one GPU per process under Slurm.
            cluster_detection_method="deactivate",
            initialization_timeout=settings.timeout_seconds,
        )
    except Exception as error:  # the runtime raises many kinds; each means that the processes did not meet
        raise RunError(
            f"process {info.process} could not start JAX's runtime with {info.processes} processes at {info.address}: "
            f"{str(error).splitlines()[0][:160]}"
        ) from error


def process_info(settings: DistributedSettings) -> ProcessInfo | None:
    """Which process this is, from its settings and its environment; None for a process alone.

    Raises:
        ConfigError: they contradict each other, so that a process could train alone unnoticed.
    """
    if settings.coordinator == "none":
        return None
    if settings.coordinator not in ("", "auto"):
        assert settings.processes is not None  # checked by the settings, like the next
        assert settings.process is not None
        return ProcessInfo("distributed", settings.coordinator, settings.processes, settings.process)
    info = detect_process(settings.timeout_seconds)
    if not settings.coordinator:
        if info is not None and info.processes > 1:
            raise ConfigError(
                f"{info.source}: this is process {info.process} of several, but distributed.coordinator is not set, so "
                "each would train alone. Add --distributed.coordinator auto to train together, or none to train alone"
            )
        return None
    if info is None:
        raise ConfigError(
            "distributed.coordinator is auto, but the environment mentions no other processes: start them with srun "
            "or a file of launch/, or give host:port with distributed.processes and distributed.process"
        )
    if info.processes > 1 and not info.address:
        raise ConfigError(
            f"{info.source} mentions other processes, but not the address of process 0: start them with srun, or set "
            "JAX_NUM_PROCESSES and JAX_COORDINATOR_ADDRESS=host:port of process 0 for all of them"
        )
    if not 0 <= info.process < info.processes:
        raise ConfigError(f"{info.source} reports {info.processes} processes, but this is number {info.process}")
    return info
