"""Every scheduler's environment leads to the same answer: how many, which one, and where is process 0."""

import pytest

from selfpab_jax.distributed.init import DistributedSettings, Seat, find_seat, seat_of, share_of_gpus, visible_gpus
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
}
LAUNCHED = {"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": "pod-0.set:8476", "JOB_COMPLETION_INDEX": "1"}


def summary(seat: Seat | None) -> tuple | None:
    return seat and (seat.address, seat.processes, seat.process, seat.neighbors, seat.neighbor)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (SLURM, ("gpu003:61444", 7, 5, 2, 1)),
        (
            {**SLURM, "SLURM_STEP_NODELIST": "rack[1-2]node[7,9]", "JAX_COORDINATOR_PORT": "99"},
            ("rack1node7:99", 7, 5, 2, 1),
        ),
        ({**SLURM, "SLURM_STEP_NODELIST": "single"}, ("single:61444", 7, 5, 2, 1)),
        ({**SLURM, "SLURM_NODEID": "3", "SLURM_LOCALID": "0", "SLURM_PROCID": "6"}, ("gpu003:61444", 7, 6, 1, 0)),
        (GKE_TPU, ("a.jobs:8482", 3, 2, 1, 0)),
        (SECOND_SLICE, ("first.jobs:8482", 6, 5, 1, 0)),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, ("localhost:8482", 1, 0, 1, 0)),
        (SKYPILOT, ("10.0.0.1:8476", 2, 1, 1, 0)),
        (OPEN_MPI, ("node1:9000", 4, 3, 2, 1)),
        (LAUNCHED, ("pod-0.set:8476", 2, 1, 1, 0)),
        ({**LAUNCHED, "JAX_PROCESS_ID": "0"}, ("pod-0.set:8476", 2, 0, 1, 0)),
        ({"JAX_NUM_PROCESSES": "1", "JOB_COMPLETION_INDEX": "7"}, ("", 1, 7, 1, 0)),
        ({"JOB_COMPLETION_INDEX": "3"}, ("", 4, 3, 1, 0)),
        ({"JOB_COMPLETION_INDEX": "0", "HOME": "/root"}, None),
    ],
)
def test_seats(environment: dict[str, str], expected: tuple | None) -> None:
    assert summary(find_seat(environment)) == expected


@pytest.mark.parametrize("endpoints", ["10.1.0.1,10.1.0.2", "x:0:10.1.0.1,x:1:10.1.0.2"])
def test_a_tpu_machine_asks_its_metadata(endpoints: str) -> None:
    metadata = {"agent-worker-number": "1", "worker-network-endpoints": endpoints}
    assert summary(find_seat({}, metadata.get)) == ("10.1.0.1:8482", 2, 1, 1, 0)
    metadata["tpu-env"] = "ZONE: 'x'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
    assert summary(find_seat({}, metadata.get)) == ("10.1.0.1:8482", 4, 3, 1, 0)


def test_nobody_trains_alone_unnoticed() -> None:
    for environment in (SLURM, GKE_TPU, SECOND_SLICE, SKYPILOT, OPEN_MPI, LAUNCHED, {"JOB_COMPLETION_INDEX": "1"}):
        with pytest.raises(ConfigError, match=r"--distributed\.coordinator auto to train together, or none"):
            seat_of(DistributedSettings(), environment)
        assert seat_of(DistributedSettings(coordinator="none"), environment) is None
    assert seat_of(DistributedSettings(), {**SLURM, "SLURM_NTASKS": "1"}) is None
    assert seat_of(DistributedSettings(), {"JAX_NUM_PROCESSES": "1", "JOB_COMPLETION_INDEX": "7"}) is None
    assert seat_of(DistributedSettings(), {}) is None


def test_auto_needs_somebody_who_tells() -> None:
    auto = DistributedSettings(coordinator="auto")
    with pytest.raises(ConfigError, match="nothing in the environment tells of other processes"):
        seat_of(auto, {})
    with pytest.raises(ConfigError, match="not where process 0 is: set JAX_NUM_PROCESSES"):
        seat_of(auto, {"JOB_COMPLETION_INDEX": "1"})
    with pytest.raises(ConfigError, match="this one is number 2"):
        seat_of(auto, {**LAUNCHED, "JAX_PROCESS_ID": "2"})
    with pytest.raises(ConfigError, match=r"damaged: .*many"):
        seat_of(auto, {**LAUNCHED, "JAX_NUM_PROCESSES": "many"})
    assert summary(seat_of(auto, SLURM)) == ("gpu003:61444", 7, 5, 2, 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"coordinator": "host:1"}, "distributed.processes and distributed.process must be, too"),
        ({"coordinator": "host:1", "processes": 2, "process": 2}, "goes from 0 to 1"),
        ({"coordinator": "host", "processes": 2, "process": 1}, "must be host:port, auto or none"),
        ({"timeout_seconds": 0}, "at least 1"),
    ],
)
def test_settings_that_make_no_sense(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistributedSettings(**fields)


def test_gpus_are_shared_by_the_processes_of_a_machine(tmp_path) -> None:
    eight = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}

    def share(neighbors: int, neighbor: int, environment: dict[str, str]) -> list[int] | None:
        seat = Seat("test", "host:1", 16, 9, neighbors, neighbor)
        return share_of_gpus(seat, visible_gpus(environment, tmp_path))

    assert share(8, 3, eight) == [3], "one device a process"
    assert share(2, 1, eight) == [4, 5, 6, 7]
    assert share(1, 0, eight) is None, "all devices in one process"
    assert share(8, 3, {"CUDA_VISIBLE_DEVICES": "3"}) is None, "the scheduler gave each its own"
    assert share(8, 3, {**eight, "JAX_PLATFORMS": "cpu"}) is None
    assert share(2, 1, {}) is None, "no GPU at all"
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert share(2, 1, {}) == [1]
    with pytest.raises(ConfigError, match="3 processes share this machine's 8 GPUs unevenly"):
        share(3, 0, eight)
