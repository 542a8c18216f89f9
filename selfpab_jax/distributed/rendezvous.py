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

LONGEST_HELLO = 1000  # bytes; whoever sends more is no process of ours
NOTE_SECONDS = 30.0  # how often one that waits says so
RETRY_SECONDS = 0.3
GOODBYE_SECONDS = 5.0

Log = Callable[[str], None]


def meet(address: str, *, process: int, processes: int, timeout_seconds: float, log: Log) -> None:
    """Return when all processes of the run are there.

    Args:
        address: `host:port` of process 0.
        process: which one this is.
        processes: how many are to come.
        timeout_seconds: how long to wait.
        log: takes a line while it waits.

    Raises:
        RunError: somebody did not come in time, or two are not of the same run; it says who.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout_seconds
    if process == 0:
        log(f"process 0 waits up to {timeout_seconds:g} s for {processes} processes at {address}")
        _receive(address, int(port), processes, timeout_seconds, deadline, log)
    else:
        _visit(address, (host.strip("[]"), int(port)), process, processes, timeout_seconds, deadline, log)


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
    log: Log
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
            self.log(f"turned away: {refusal}")
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


def _receive(address: str, port: int, processes: int, timeout: float, deadline: float, log: Log) -> None:
    with _listen(address, port) as listener, selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)
        reception = _Reception(processes, selector, log)
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
                log(f"process 0 still waits after {now - started:.0f} s; missing: {names(reception.missing)}")
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
    address: str, at: tuple[str, int], process: int, processes: int, timeout: float, deadline: float, log: Log
) -> None:
    started = noted = time.monotonic()
    missing: list[int] | None = None
    trouble = "no answer"
    while (now := time.monotonic()) < deadline:
        if now - noted >= NOTE_SECONDS:
            log(f"process {process} still waits for process 0 at {address} after {now - started:.0f} s ({trouble})")
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
