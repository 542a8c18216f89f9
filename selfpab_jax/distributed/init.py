"""Several processes as one run."""

import sys
from dataclasses import dataclass
from typing import Literal

import jax

from selfpab_jax.distributed.cluster import ProcessInfo, detect_process, local_gpus, visible_gpus
from selfpab_jax.distributed.rendezvous import meet
from selfpab_jax.errors import ConfigError, RunError


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
