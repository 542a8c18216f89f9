"""Which process of how many this one is, as the scheduler that started it tells in the environment."""

import json
import os
import re
import selectors
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import jax

from selfpab_jax.errors import ConfigError, RunError

# Which process of how many this one is, as the scheduler that started it tells in the environment.

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


# The processes of a run meet before JAX's runtime starts, so that it can be said who is missing.
#
# JAX's own start-up ends the program with an abort when somebody does not come. Here process 0 listens at the address
# that the runtime will use afterwards and counts who comes: every other process connects and says which one it is. When
# all are there, process 0 says so, gives the port free, and everybody starts the runtime. A line of JSON is a message.

LONGEST_HELLO = 1000  # bytes; whoever sends more is no process of ours
NOTE_SECONDS = 30.0  # how often one that waits says so
RETRY_SECONDS = 0.3
GOODBYE_SECONDS = 5.0

Say = Callable[[str], None]


def meet(address: str, *, process: int, processes: int, timeout_seconds: float, say: Say) -> None:
    """Return when all processes of the run are there.

    Args:
        address: `host:port` of process 0.
        process: which one this is.
        processes: how many are to come.
        timeout_seconds: how long to wait.
        say: tells a person while it waits.

    Raises:
        RunError: somebody did not come in time, or two are not of the same run; it says who.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout_seconds
    if process == 0:
        say(f"process 0 waits up to {timeout_seconds:g} s for {processes} processes at {address}")
        _receive(address, int(port), processes, timeout_seconds, deadline, say)
    else:
        _visit(address, (host.strip("[]"), int(port)), process, processes, timeout_seconds, deadline, say)


def names(processes: Iterable[int], most: int = 12) -> str:
    """Numbers of processes for people: 1, 3, 4 and 20 more."""
    numbers = sorted(processes)
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(str(number) for number in numbers[:most]) + more


@dataclass
class _Guest:
    connection: socket.socket
    host: str
    process: int | None = None
    heard: bytes = b""

    def tell(self, **message: object) -> None:
        with suppress(OSError):  # it is gone, which reading notices
            self.connection.sendall(json.dumps(message).encode() + b"\n")


@dataclass
class _Reception:
    """What process 0 knows."""

    processes: int
    selector: selectors.BaseSelector
    say: Say
    here: dict[int, _Guest] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)

    @property
    def missing(self) -> list[int]:
        return [number for number in range(1, self.processes) if number not in self.here]

    def guests(self) -> list[_Guest]:
        return [key.data for key in self.selector.get_map().values() if key.data]

    def tell_missing(self) -> None:
        for guest in self.here.values():
            guest.tell(missing=self.missing)

    def listen_to(self, guest: _Guest) -> None:
        try:
            heard = guest.connection.recv(LONGEST_HELLO)
        except OSError:
            heard = b""
        guest.heard += heard
        if not heard or len(guest.heard) > LONGEST_HELLO:
            self.forget(guest)
        elif guest.process is None and guest.heard.endswith(b"\n"):
            self.greet(guest)

    def greet(self, guest: _Guest) -> None:
        try:
            hello = json.loads(guest.heard)
            number, processes = int(hello["process"]), int(hello["processes"])
        except (ValueError, KeyError, TypeError):
            self.forget(guest)  # a port scanner, a health check, another program
            return
        refusal = None
        if processes != self.processes:
            refusal = (
                f"process {number} on {guest.host} was told of {processes} processes, process 0 of {self.processes}"
            )
        elif not 0 < number < processes:
            refusal = f"process {number} on {guest.host}: the numbers go from 0 to {processes - 1}, and 0 is here"
        elif number in self.here:
            refusal = f"there are two processes {number}, on {self.here[number].host} and on {guest.host}"
        if refusal:
            self.say(f"turned away: {refusal}")
            guest.tell(refused=refusal)
            self.forget(guest)
            return
        guest.process = number
        self.here[number] = guest
        self.tell_missing()

    def forget(self, guest: _Guest) -> None:
        self.selector.unregister(guest.connection)
        guest.connection.close()
        if guest.process is not None:
            del self.here[guest.process]
            self.left.add(guest.process)
            self.tell_missing()


def _receive(address: str, port: int, processes: int, timeout: float, deadline: float, say: Say) -> None:
    with _listen(address, port) as listener, selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)
        reception = _Reception(processes, selector, say)
        started = noted = time.monotonic()
        while reception.missing:
            now = time.monotonic()
            if now >= deadline:
                gone = sorted(reception.left & set(reception.missing))
                gave_up = f" ({names(gone)} came and left)" if gone else ""
                message = (
                    f"waited {timeout:g} s for {processes} processes at {address}, "
                    f"{len(reception.here) + 1} came; missing: {names(reception.missing)}{gave_up}"
                )
                for guest in reception.guests():
                    guest.tell(over=message)
                    guest.connection.close()
                raise RunError(
                    f"process 0 {message}. Their own output says why; --distributed.timeout_seconds waits longer"
                )
            if now - noted >= NOTE_SECONDS:
                say(f"process 0 still waits after {now - started:.0f} s; missing: {names(reception.missing)}")
                noted = now
            for key, _ in selector.select(min(deadline - now, noted + NOTE_SECONDS - now)):
                if key.fileobj is listener:
                    with suppress(OSError):  # who came has gone already
                        connection, peer = listener.accept()
                        connection.setblocking(False)
                        guest = _Guest(connection, peer[0].removeprefix("::ffff:"))
                        selector.register(connection, selectors.EVENT_READ, guest)
                else:
                    reception.listen_to(key.data)
        for guest in reception.guests():
            if guest.process is None:
                reception.forget(guest)
    # The listener is closed: the port is free for the runtime. Guests hang up first when they have heard.
    for guest in reception.here.values():
        guest.tell(go=True)
    farewell = time.monotonic() + GOODBYE_SECONDS
    for guest in reception.here.values():
        guest.connection.settimeout(max(0.0, farewell - time.monotonic()))
        with suppress(OSError), guest.connection:
            while guest.connection.recv(LONGEST_HELLO):
                pass


def _listen(address: str, port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=4096
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(
            f"process 0 cannot listen at {address}: {reason.lower()}; another run may hold the port, choose another one"
        ) from error


def _visit(
    address: str, at: tuple[str, int], process: int, processes: int, timeout: float, deadline: float, say: Say
) -> None:
    started = noted = time.monotonic()
    missing: list[int] | None = None
    trouble = "no answer"
    while (now := time.monotonic()) < deadline:
        if now - noted >= NOTE_SECONDS:
            say(f"process {process} still waits for process 0 at {address} after {now - started:.0f} s ({trouble})")
            noted = now
        try:
            with socket.create_connection(at, timeout=min(5.0, deadline - now)) as connection:
                connection.sendall(json.dumps({"process": process, "processes": processes}).encode() + b"\n")
                for line in _lines(connection, deadline):
                    message = json.loads(line)
                    if message.get("go"):
                        return
                    if "refused" in message or "over" in message:
                        said = message.get("refused") or f"process 0 {message['over']}"
                        raise RunError(f"process {process} was turned away at {address}: {said}")
                    missing = message["missing"]
                missing, trouble = None, "it hung up"
        except (OSError, ValueError, KeyError, TypeError) as error:
            trouble = str(getattr(error, "strerror", None) or error).lower()
        time.sleep(max(0.0, min(RETRY_SECONDS, deadline - time.monotonic())))
    if missing is not None:
        raise RunError(
            f"process {process} waited {timeout:g} s for {processes} processes at {address}; "
            f"process 0 is there, missing: {names(missing)}. Their own output says why"
        )
    raise RunError(
        f"process {process} waited {timeout:g} s for process 0 at {address} and did not reach it ({trouble}): "
        "is it running, and is the port open between the machines?"
    )


def _lines(connection: socket.socket, deadline: float) -> Iterable[bytes]:
    """Whole lines until the other side hangs up or the time is over."""
    heard = b""
    while True:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            more = connection.recv(65536)
        except TimeoutError:
            more = b""
            if time.monotonic() >= deadline:
                raise
        if not more:
            return
        *lines, heard = (heard + more).split(b"\n")
        yield from lines


# Several processes as one run.

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
