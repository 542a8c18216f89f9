"""Several processes as one run."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax

from selfpab_jax.errors import ConfigError, RunError
from selfpab_jax.train.cluster import Seat, find_seat
from selfpab_jax.train.rendezvous import meet

_process: int | None = None  # which one this is, once it has joined; the runtime is as global as this


@dataclass(frozen=True)
class DistributedSettings:
    """How this process finds the others.

    Args:
        coordinator: `host:port` of process 0; `auto` asks the environment (Slurm, Open MPI, Cloud TPU, SkyPilot,
            launch/); `none` trains alone whatever the environment says; empty for a single process, which is refused
            where the environment tells of several.
        processes: how many there are (not for `auto`).
        process: which of them this one is, from 0 (not for `auto`).
        timeout_seconds: how long to wait for the others.
        local_devices: which GPUs of this machine are this process's: `auto` shares them evenly among the processes
            that the scheduler started on it, one each if they are as many; `all` takes all that it can see.
    """

    coordinator: str = ""
    processes: int | None = None
    process: int | None = None
    timeout_seconds: int = 300
    local_devices: Literal["auto", "all"] = "auto"

    def __post_init__(self) -> None:
        if self.timeout_seconds < 1:
            raise ValueError(f"distributed.timeout_seconds is {self.timeout_seconds}; it must be at least 1")
        if self.coordinator in ("", "auto", "none"):
            return
        if not self.coordinator.rpartition(":")[0] or not self.coordinator.rpartition(":")[2].isdigit():
            raise ValueError(f"distributed.coordinator is {self.coordinator}; it must be host:port, auto or none")
        if self.processes is None or self.process is None:
            raise ValueError(
                "distributed.coordinator is set: distributed.processes and distributed.process must be, too"
            )
        if not 0 <= self.process < self.processes:
            raise ValueError(
                f"distributed.process is {self.process}; with {self.processes} processes it goes from 0 to "
                f"{self.processes - 1}"
            )


def join(settings: DistributedSettings) -> None:
    """Join the other processes; returns when all are there. Must come before anything else uses a device.

    Raises:
        ConfigError: the environment tells of several processes and the settings do not, or the other way round.
        RunError: somebody did not come in time; it says who.
    """
    global _process
    if jax.distributed.is_initialized():
        return
    seat = seat_of(settings, os.environ)
    if seat is None or seat.processes == 1:
        return
    devices = share_of_gpus(seat, visible_gpus(os.environ)) if settings.local_devices == "auto" else None
    meet(
        seat.address,
        process=seat.process,
        processes=seat.processes,
        timeout_seconds=settings.timeout_seconds,
        say=lambda line: print(f"selfpab-jax: {line}", file=sys.stderr, flush=True),
    )
    # Stopping is agreed on inside the step (StepMetrics.stop), so JAX's own handler of SIGTERM stays off.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=seat.address,
            num_processes=seat.processes,
            process_id=seat.process,
            local_device_ids=devices,
            # Everything is told here: left to itself, JAX would take one GPU under Slurm, however many are asked for.
            cluster_detection_method="deactivate",
            initialization_timeout=settings.timeout_seconds,
        )
    except Exception as error:  # the runtime raises many kinds; each means that the processes did not meet
        raise RunError(
            f"process {seat.process} could not start JAX's runtime with {seat.processes} processes at {seat.address}: "
            f"{str(error).splitlines()[0][:160]}"
        ) from error
    _process = seat.process


def this_process() -> int | None:
    """Which process of the run this is, or None as long as it has not joined others."""
    return _process


def seat_of(settings: DistributedSettings, environment: Mapping[str, str]) -> Seat | None:
    """Where this process sits, by its settings and its environment; None for a process alone.

    Raises:
        ConfigError: they do not fit together, so that a process could train alone unnoticed.
    """
    if settings.coordinator == "none":
        return None
    if settings.coordinator not in ("", "auto"):
        assert settings.processes is not None  # checked by the settings, like the next
        assert settings.process is not None
        return Seat("distributed", settings.coordinator, settings.processes, settings.process)
    try:
        seat = find_seat(environment)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"the environment of several processes is damaged: {error}") from None
    if not settings.coordinator:
        if seat is not None and seat.processes > 1:
            raise ConfigError(
                f"{seat.told_by} tells of other processes (this is number {seat.process}), but distributed.coordinator "
                "is not set: each would train alone. Add --distributed.coordinator auto to train together, or none if "
                "this one is to be alone"
            )
        return None
    if seat is None:
        raise ConfigError(
            "distributed.coordinator is auto, but nothing in the environment tells of other processes: start it with "
            "srun or a file of launch/, or give host:port with distributed.processes and distributed.process"
        )
    if seat.processes > 1 and not seat.address:
        raise ConfigError(
            f"{seat.told_by} tells of other processes, but not where process 0 is: set JAX_NUM_PROCESSES and "
            "JAX_COORDINATOR_ADDRESS=host:port of process 0 for all of them"
        )
    if not 0 <= seat.process < seat.processes:
        raise ConfigError(f"{seat.told_by} tells of {seat.processes} processes, but this one is number {seat.process}")
    return seat


def visible_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> int:
    """How many NVIDIA GPUs a process can see; 0 where JAX is told to use something else."""
    if not {"", "cuda", "gpu"} & set(environment.get("JAX_PLATFORMS", "").split(",")):
        return 0
    if "CUDA_VISIBLE_DEVICES" in environment:
        return len([name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name.strip() not in ("", "-1")])
    return len([path for path in devices.glob("nvidia[0-9]*") if path.name.removeprefix("nvidia").isdigit()])


def share_of_gpus(seat: Seat, gpus: int) -> list[int] | None:
    """The GPUs of a process among those that it can see, or None for all of them.

    A scheduler may give each process its own GPU, which then is the only one that it sees, or show all to all.

    Raises:
        ConfigError: they cannot be shared evenly.
    """
    if seat.neighbours == 1 or gpus <= 1:
        return None
    if gpus % seat.neighbours:
        raise ConfigError(
            f"{seat.neighbours} processes share this machine's {gpus} GPUs unevenly: start one process for each GPU, "
            "or one for all of them (--distributed.local_devices all leaves it to CUDA_VISIBLE_DEVICES)"
        )
    share = gpus // seat.neighbours
    return list(range(seat.neighbour * share, (seat.neighbour + 1) * share))
