"""Processes meet, and who does not come is named."""

import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from selfpab_jax.distributed import rendezvous
from selfpab_jax.distributed.rendezvous import meet, names
from selfpab_jax.errors import RunError


@pytest.fixture
def address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def pool():
    with ThreadPoolExecutor(20) as pool:
        yield pool


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def come(pool: ThreadPoolExecutor, address: str, said: list[str]):
    def come(process: int, processes: int, timeout: float = 10) -> Future:
        return pool.submit(
            meet, address, process=process, processes=processes, timeout_seconds=timeout, log=said.append
        )

    return come


def connect(address: str) -> socket.socket:
    host, port = address.split(":")
    for _ in range(100):
        try:
            return socket.create_connection((host, int(port)))
        except OSError:
            time.sleep(0.02)
    raise AssertionError("process 0 does not listen")


def test_all_come_in_any_order_and_the_port_is_free_afterwards(come, address: str, said: list[str]) -> None:
    everyone = [come(process, 17) for process in range(16, -1, -1)]
    for process in everyone:
        process.result(timeout=10)
    assert said == [f"process 0 waits up to 10 s for 17 processes at {address}"]
    with socket.create_server(("", int(address.split(":")[1]))):
        pass  # where JAX's runtime will listen


def test_everybody_hears_who_is_missing(come, address: str) -> None:
    first, second = come(0, 5, 1), come(2, 5)
    with pytest.raises(RunError, match=rf"process 0 waited 1 s for 5 processes at {address}, 2 came; missing: 1, 3, 4"):
        first.result(timeout=5)
    with pytest.raises(RunError, match=r"process 2 .* process 0 waited 1 s for 5 .*missing: 1, 3, 4"):
        second.result(timeout=5)


def test_a_process_that_waits_shorter_knows_who_is_missing(come) -> None:
    first, second = come(0, 3, 2), come(1, 3, 0.8)
    with pytest.raises(RunError, match=r"process 1 waited 0.8 s for 3 .*missing: 2"):
        second.result(timeout=5)
    with pytest.raises(RunError, match=r"1 came; missing: 1, 2 \(1 came and left\)"):
        first.result(timeout=5)


def test_process_0_is_missing(come, address: str) -> None:
    with pytest.raises(
        RunError, match=rf"process 1 waited 0.5 s for process 0 at {address} .*connection refused.*is it"
    ):
        come(1, 2, 0.5).result(timeout=5)


def test_a_process_that_died_and_came_again_counts_once(come, address: str) -> None:
    first = come(0, 3)
    with connect(address) as died:
        died.sendall(b'{"process": 1, "processes": 3}\n')
        assert b"[2]" in died.recv(1000)
    again, other = come(1, 3), come(2, 3)
    for process in (first, again, other):
        process.result(timeout=5)


def test_strangers_do_no_harm(come, address: str, said: list[str]) -> None:
    first = come(0, 2)
    for noise in (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"x" * 5000,
        b"[]\n",
        b'{"process": null, "processes": 2}\n',
        b"",
    ):
        with connect(address) as stranger:
            stranger.sendall(noise)
    silent = connect(address)
    with pytest.raises(RunError, match="expects 3 processes"):
        come(1, 3).result(timeout=5)
    assert not first.done()
    second = come(1, 2)
    first.result(timeout=5)
    second.result(timeout=5)
    silent.close()
    assert any("rejected: process 1 on 127.0.0.1" in line for line in said)


def test_two_with_one_number(come, address: str) -> None:
    first = come(0, 3, 2)
    with connect(address) as one:
        one.sendall(b'{"process": 1, "processes": 3}\n')
        assert one.recv(1000)
        with pytest.raises(RunError, match="two processes have the number 1"):
            come(1, 3).result(timeout=5)
        last = come(2, 3)
        while b"go" not in one.recv(1000):
            pass
    first.result(timeout=5)
    last.result(timeout=5)


def test_a_port_that_is_taken(come, address: str) -> None:
    with (
        socket.create_server(("", int(address.split(":")[1]))),
        pytest.raises(RunError, match=f"cannot listen at {address}: .*in use"),
    ):
        come(0, 2).result(timeout=5)


def test_who_waits_long_says_so(come, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "NOTE_SECONDS", 0.2)
    with pytest.raises(RunError):
        come(0, 2, 0.7).result(timeout=5)
    assert "process 0 is still waiting after 0 s; missing: 1" in said


def test_names_of_many() -> None:
    assert names([3, 1, 2]) == "1, 2, 3"
    assert names(range(1, 255), most=3) == "1, 2, 3 and 251 more"
