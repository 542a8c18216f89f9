"""The processes of a run meet before JAX's runtime starts, so that a missing one can be named.

JAX 0.10 aborts the program when a process does not come in time ("DEADLINE_EXCEEDED ... RegisterTask", exit code 134)
and names nobody. Here process 0 listens at the address that the runtime will use afterwards; every other process
connects and gives its number. When all have come, process 0 closes the port and everybody starts the runtime. Each
message is a line of JSON.
"""

import json
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from selfpab_jax.errors import RunError

LONGEST_MESSAGE = 1000  # bytes; whoever sends more is not a process of a run
NOTE_SECONDS = 30.0  # between two lines of a process that waits
RETRY_SECONDS = 0.3
CLOSE_SECONDS = 5.0

Log = Callable[[str], None]


def meet(address: str, *, process: int, processes: int, timeout_seconds: float, log: Log) -> None:
    """Return when all processes of the run have come.

    Args:
        address: `host:port` of process 0.
        process: which one this is.
        processes: how many there are.
        timeout_seconds: how long to wait.
        log: takes a line while it waits.

    Raises:
        RunError: a process did not come in time, or belongs to another run; the message names it.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout_seconds
    if process == 0:
        log(f"process 0 waits up to {timeout_seconds:g} s for {processes} processes at {address}")
        _wait_for_peers(address, int(port), processes, timeout_seconds, deadline, log)
    else:
        _connect(address, (host.strip("[]"), int(port)), process, processes, timeout_seconds, deadline, log)


def names(processes: Iterable[int], most: int = 12) -> str:
    """Numbers of processes as text: 1, 3, 4 and 20 more."""
    numbers = sorted(processes)
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(str(number) for number in numbers[:most]) + more


@dataclass
class _Peer:
    connection: socket.socket
    host: str
    process: int | None = None
    received: bytes = b""

    def send(self, **message: object) -> None:
        with suppress(OSError):  # it has gone, which reading notices
            self.connection.sendall(json.dumps(message).encode() + b"\n")


@dataclass
class _Waiting:
    """What process 0 knows about the others while it waits."""

    processes: int
    selector: selectors.BaseSelector
    log: Log
    here: dict[int, _Peer] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)

    @property
    def missing(self) -> list[int]:
        return [number for number in range(1, self.processes) if number not in self.here]

    def peers(self) -> list[_Peer]:
        return [key.data for key in self.selector.get_map().values() if key.data]

    def send_missing(self) -> None:
        for peer in self.here.values():
            peer.send(missing=self.missing)

    def receive(self, peer: _Peer) -> None:
        try:
            received = peer.connection.recv(LONGEST_MESSAGE)
        except OSError:
            received = b""
        peer.received += received
        if not received or len(peer.received) > LONGEST_MESSAGE:
            self.drop(peer)
        elif peer.process is None and peer.received.endswith(b"\n"):
            self.register(peer)

    def register(self, peer: _Peer) -> None:
        try:
            message = json.loads(peer.received)
            number, processes = int(message["process"]), int(message["processes"])
        except (ValueError, KeyError, TypeError):
            self.drop(peer)  # a port scanner, a health check, another program
            return
        refusal = None
        if processes != self.processes:
            refusal = (
                f"process {number} on {peer.host} expects {processes} processes, process 0 expects {self.processes}"
            )
        elif not 0 < number < processes:
            refusal = f"process {number} on {peer.host}: the number must be from 1 to {processes - 1}"
        elif number in self.here:
            refusal = f"two processes have the number {number}, on {self.here[number].host} and on {peer.host}"
        if refusal:
            self.log(f"rejected: {refusal}")
            peer.send(rejected=refusal)
            self.drop(peer)
            return
        peer.process = number
        self.here[number] = peer
        self.send_missing()

    def drop(self, peer: _Peer) -> None:
        self.selector.unregister(peer.connection)
        peer.connection.close()
        if peer.process is not None:
            del self.here[peer.process]
            self.left.add(peer.process)
            self.send_missing()


def _wait_for_peers(address: str, port: int, processes: int, timeout: float, deadline: float, log: Log) -> None:
    with _listen(address, port) as listener, selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)
        reception = _Waiting(processes, selector, log)
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
                for peer in reception.peers():
                    peer.send(over=message)
                    peer.connection.close()
                raise RunError(
                    f"process 0 {message}. Look at their output; --distributed.timeout_seconds sets the time to wait"
                )
            if now - noted >= NOTE_SECONDS:
                log(f"process 0 is still waiting after {now - started:.0f} s; missing: {names(reception.missing)}")
                noted = now
            for key, _ in selector.select(min(deadline - now, noted + NOTE_SECONDS - now)):
                if key.fileobj is listener:
                    with suppress(OSError):  # it has gone already
                        connection, peer = listener.accept()
                        connection.setblocking(False)
                        peer = _Peer(connection, peer[0].removeprefix("::ffff:"))
                        selector.register(connection, selectors.EVENT_READ, peer)
                else:
                    reception.receive(key.data)
        for peer in reception.peers():
            if peer.process is None:
                reception.drop(peer)
    # The listener is closed, so the port is free for the runtime. Peers close their connections first.
    for peer in reception.here.values():
        peer.send(go=True)
    deadline_to_close = time.monotonic() + CLOSE_SECONDS
    for peer in reception.here.values():
        peer.connection.settimeout(max(0.0, deadline_to_close - time.monotonic()))
        with suppress(OSError), peer.connection:
            while peer.connection.recv(LONGEST_MESSAGE):
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
            f"process 0 cannot listen at {address}: {reason.lower()}; another run may use the port; choose another one"
        ) from error


def _connect(
    address: str, at: tuple[str, int], process: int, processes: int, timeout: float, deadline: float, log: Log
) -> None:
    started = noted = time.monotonic()
    missing: list[int] | None = None
    trouble = "no answer"
    while (now := time.monotonic()) < deadline:
        if now - noted >= NOTE_SECONDS:
            log(
                f"process {process} is still waiting for process 0 at {address} after {now - started:.0f} s ({trouble})"
            )
            noted = now
        try:
            with socket.create_connection(at, timeout=min(5.0, deadline - now)) as connection:
                connection.sendall(json.dumps({"process": process, "processes": processes}).encode() + b"\n")
                for line in _lines(connection, deadline):
                    message = json.loads(line)
                    if message.get("go"):
                        return
                    if "rejected" in message or "over" in message:
                        answer = message.get("rejected") or f"process 0 {message['over']}"
                        raise RunError(f"process {process} was rejected at {address}: {answer}")
                    missing = message["missing"]
                missing, trouble = None, "connection closed"
        except (OSError, ValueError, KeyError, TypeError) as error:
            trouble = str(getattr(error, "strerror", None) or error).lower()
        time.sleep(max(0.0, min(RETRY_SECONDS, deadline - time.monotonic())))
    if missing is not None:
        raise RunError(
            f"process {process} waited {timeout:g} s for {processes} processes at {address}; "
            f"process 0 has come, missing: {names(missing)}. Look at their output"
        )
    raise RunError(
        f"process {process} waited {timeout:g} s for process 0 at {address} and did not reach it ({trouble}): "
        "is it running, and is the port open between the machines?"
    )


def _lines(connection: socket.socket, deadline: float) -> Iterable[bytes]:
    """Complete lines until the other side closes the connection or the time is over."""
    received = b""
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
        *lines, received = (received + more).split(b"\n")
        yield from lines
