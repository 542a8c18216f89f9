"""Leases: which worker trains which run, on a file system that all workers share.

Locks of the operating system do not work across all network file systems, and a killed machine cannot release
anything. So a lease is a file, `<run>.<number>`, created with O_EXCL. Its holder touches it every few seconds, and
creates `<run>.<number>.released` at the end. When a lease was released, or was not touched for long, the lease with the
next number may be created: only one of several workers can. Numbers are never used again, so nobody can mistake a new
lease for an old one. Ages are by the clock of the file system: the time of a file just written minus that of the lease,
whatever the clocks of the machines show.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from selfpab_jax.background import repeated
from selfpab_jax.errors import RunError

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 180.0
"""A holder that was silent for this long counts as dead; interruptions of a network file system are shorter."""
RELEASED = ".released"


class LeaseHeldError(RunError):
    """Another worker has the run."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease, with what is needed to see on the same machine whether it still runs."""

    host: str
    pid: int
    boot: str
    namespace: str
    started: str

    @classmethod
    def here(cls) -> "Holder":
        """This process."""
        return cls(socket.gethostname(), os.getpid(), _boot(), _namespace(), _started(os.getpid()))

    def is_dead(self) -> bool:
        """Whether it was a process of this machine that no longer runs; False where that cannot be known."""
        if (self.host, self.boot, self.namespace) != (socket.gethostname(), _boot(), _namespace()) or not self.boot:
            return False
        return _started(self.pid) != self.started


@dataclass(frozen=True)
class Lease:
    """One lease of a run.

    Attributes:
        path: its file.
        number: from 1.
        holder: None where the file is incomplete.
        released: whether its holder released it.
        silent: seconds since the last heartbeat, by the clock of the file system.
        held: seconds from its creation to its last heartbeat.
    """

    path: Path
    number: int
    holder: Holder | None
    released: bool
    silent: float
    held: float

    def is_live(self, stale: float = STALE_SECONDS) -> bool:
        """Whether its holder counts as alive."""
        return not (self.released or self.silent > stale or (self.holder is not None and self.holder.is_dead()))

    def describe(self) -> str:
        """The holder and its last heartbeat, human-readable."""
        who = f"process {self.holder.pid} on {self.holder.host}" if self.holder else "a worker that just started"
        return f"{who}, last heartbeat {max(self.silent, 0):.0f} s ago"


def leases_of(folder: Path, run: str) -> list[Lease]:
    """All leases of a run, the oldest first."""
    return leases_by_run(folder).get(run, [])


def leases_by_run(folder: Path) -> dict[str, list[Lease]]:
    """All leases in a folder by run, the oldest first."""
    if not folder.is_dir():
        return {}
    now = _now(folder)
    found: dict[str, list[Lease]] = {}
    for path in folder.iterdir():
        run, _, number = path.name.rpartition(".")
        if run and number.isdigit():
            found.setdefault(run, []).append(_read(path, int(number), now))
    for leases in found.values():
        leases.sort(key=lambda lease: lease.number)
    return found


@contextmanager
def hold_lease(
    folder: Path,
    run: str,
    *,
    heartbeat: float = HEARTBEAT_SECONDS,
    stale: float = STALE_SECONDS,
    lost: Callable[[str], None] | None = None,
) -> Iterator[Callable[[], bool]]:
    """Hold the lease of a run while in the context.

    Args:
        folder: of the leases; created if it is missing.
        run: name of the run.
        heartbeat: seconds between two heartbeats.
        stale: seconds without a heartbeat after which a holder counts as dead.
        lost: called in another thread when another worker took over because this one was silent for too long; ends the
            process where not set, because two processes must not write to one run.

    Yields:
        A function: whether this worker still holds the lease.

    Raises:
        LeaseHeldError: another worker holds it; names the worker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = _take(folder, run, stale)

    def is_ours() -> bool:
        return leases_of(folder, run)[-1].path == path

    def beat() -> bool:
        with suppress(OSError, IndexError):  # the file system is unavailable for a moment
            os.utime(path)
            if not is_ours():
                (lost or _end)(f"{run} was taken over by another worker: this one had no heartbeat for too long")
                return False
        return True

    try:
        with repeated(beat, heartbeat, "heartbeat"):
            yield is_ours
    finally:
        with suppress(OSError):
            os.utime(path)
            path.with_name(path.name + RELEASED).touch()


def wait_for_lease(
    folder: Path, run: str, *, stale: float = STALE_SECONDS, pause: Callable[[float], None] = time.sleep
) -> None:
    """Wait until the holder of a run shows a heartbeat or counts as dead.

    A worker that is started in place of a killed one may come before the lease of the killed one has expired; giving up
    then would leave the run without a worker.

    Args:
        folder: of the leases.
        run: name of the run.
        stale: seconds without a heartbeat after which a holder counts as dead.
        pause: waits for a number of seconds.
    """
    before: Lease | None = None
    while leases := leases_of(folder, run):
        newest = leases[-1]
        if not newest.is_live(stale) or (
            before is not None and (newest.path != before.path or newest.silent < before.silent)
        ):
            return
        before = newest
        pause(1.0)


def _take(folder: Path, run: str, stale: float) -> Path:
    leases = leases_of(folder, run)
    newest = leases[-1] if leases else None
    if newest and newest.is_live(stale):
        raise LeaseHeldError(f"{run} is taken: {newest.describe()}")
    path = folder / f"{run}.{newest.number + 1 if newest else 1}"
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        raise LeaseHeldError(f"{run} is taken: another worker took it first") from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps({**asdict(Holder.here()), "since": os.fstat(file.fileno()).st_mtime}))
    return path


def _read(path: Path, number: int, now: float) -> Lease:
    touched = path.stat().st_mtime
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        since = float(stored.pop("since"))
        holder = Holder(**stored)
    except (ValueError, TypeError, KeyError, AttributeError):  # incomplete
        since, holder = touched, None
    return Lease(
        path, number, holder, path.with_name(path.name + RELEASED).exists(), now - touched, max(touched - since, 0.0)
    )


def _now(folder: Path) -> float:
    """The time by the clock of the file system, from a file just written; that of the machine may differ."""
    path = folder / f".clock-{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    try:
        path.write_bytes(b"x")
        return path.stat().st_mtime
    except PermissionError:  # somebody looks at the sweep of another user
        return time.time()
    finally:
        with suppress(OSError):
            path.unlink()


def _end(reason: str) -> None:
    print(f"selfpab-jax: {reason}", file=sys.stderr, flush=True)
    os._exit(1)


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _namespace() -> str:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _started(pid: int) -> str:
    """When a process started, in ticks of its machine; "" where there is none. Process numbers are used again."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""
