"""Several processes as one run."""

import sys
from dataclasses import dataclass

import jax

from selfpab_jax.errors import RunError


@dataclass(frozen=True)
class DistributedSettings:
    """How this process finds the others.

    Args:
        coordinator: `host:port` of process 0; `auto` asks the cluster (Slurm, Open MPI, Cloud TPU, Kubernetes);
            empty for a single process.
        processes: how many there are (not for `auto`).
        process: which of them this one is, from 0 (not for `auto`).
        timeout_seconds: how long to wait for the others.
    """

    coordinator: str = ""
    processes: int | None = None
    process: int | None = None
    timeout_seconds: int = 300


def join(settings: DistributedSettings) -> None:
    """Join the other processes; returns when all are there. Must come before anything else uses a device.

    Raises:
        RunError: they did not come, or it is not said how many they are.
    """
    if not settings.coordinator:
        return
    automatic = settings.coordinator == "auto"
    if not automatic and (settings.processes is None or settings.process is None):
        raise RunError("distributed.coordinator is set: distributed.processes and distributed.process must be, too")
    # Said before, because the runtime ends the program by itself when the time is over.
    who = "the cluster's processes" if automatic else f"{settings.processes} processes at {settings.coordinator}"
    print(
        f"process {settings.process or 0} waits up to {settings.timeout_seconds} s for {who}",
        file=sys.stderr,
        flush=True,
    )
    # Stopping is agreed on inside the step (StepMetrics.stop), so JAX's own handler of SIGTERM stays off.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=None if automatic else settings.coordinator,
            num_processes=settings.processes,
            process_id=settings.process,
            initialization_timeout=settings.timeout_seconds,
        )
    except Exception as error:  # the runtime raises many kinds; each means that the processes did not meet
        raise RunError(f"{who} did not meet: {str(error).splitlines()[0][:160]}") from error
