"""Claims: which worker has which run, on a file system that all of them share.

Locks of the operating system do not reach across all network file systems, and a killed machine cannot give anything
back. So a claim is a file, `<run>.<number>`, made with O_EXCL, whose holder touches it every few seconds and puts
`<run>.<number>.released` beside it at the end. When a claim is released, or was not touched for long, the next number
may be made: of several workers only one can, and numbers stay and are never used again, so that nobody can take a fresh
claim for an old one. Ages are told by the file system's own clock: that of a file just written against that of the
claim, whatever the machines' clocks say.
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

from selfpab_jax.errors import RunError

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 180.0
"""A holder that was silent for so long is taken for dead; pauses of a network file system are shorter."""
RELEASED = ".released"


class Taken(RunError):
    """Another worker has the run."""


@dataclass(frozen=True)
class Holder:
    """Who made a claim: enough to see on the same machine whether the process is still there."""

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
        """Surely gone: a process of this machine that is there no more. False where that cannot be known."""
        if (self.host, self.boot, self.namespace) != (socket.gethostname(), _boot(), _namespace()) or not self.boot:
            return False
        return _started(self.pid) != self.started


@dataclass(frozen=True)
class Claim:
    """The newest claim of a run.

    Attributes:
        path: its file.
        number: from 1.
        holder: None where the file is half-written.
        released: given back.
        silent: seconds since the last heartbeat, by the file system's clock.
        held: seconds from its beginning to its last heartbeat.
    """

    path: Path
    number: int
    holder: Holder | None
    released: bool
    silent: float
    held: float

    def is_live(self, stale: float = STALE_SECONDS) -> bool:
        """Somebody works on the run."""
        return not (self.released or self.silent > stale or (self.holder is not None and self.holder.is_dead()))

    def describe(self) -> str:
        """For people: who, and when last heard of."""
        who = f"process {self.holder.pid} on {self.holder.host}" if self.holder else "a worker that just began"
        return f"{who}, last heard of {max(self.silent, 0):.0f} s ago"


def claims_of(folder: Path, run: str) -> list[Claim]:
    """All claims of a run, the oldest first."""
    return claims_by_run(folder).get(run, [])


def claims_by_run(folder: Path) -> dict[str, list[Claim]]:
    """All claims in a folder, by run, the oldest first."""
    if not folder.is_dir():
        return {}
    now = _now(folder)
    found: dict[str, list[Claim]] = {}
    for path in folder.iterdir():
        run, _, number = path.name.rpartition(".")
        if run and number.isdigit():
            found.setdefault(run, []).append(_read(path, int(number), now))
    for claims in found.values():
        claims.sort(key=lambda claim: claim.number)
    return found


@contextmanager
def claimed(
    folder: Path,
    run: str,
    *,
    heartbeat: float = HEARTBEAT_SECONDS,
    stale: float = STALE_SECONDS,
    lost: Callable[[str], None] | None = None,
) -> Iterator[Callable[[], bool]]:
    """Hold a run while in the context.

    Args:
        folder: of the claims; made if it is missing.
        run: its name.
        heartbeat, stale: seconds between two heartbeats, and without any until a claim counts as dead.
        lost: called in another thread when this worker was taken for dead and another has taken over; ends the
            process where not set, because two must not write to one run.

    Yields:
        Whether the claim is still this worker's.

    Raises:
        Taken: another worker has it; says who.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = _take(folder, run, stale)
    stop = threading.Event()

    def is_ours() -> bool:
        return claims_of(folder, run)[-1].path == path

    def beat() -> None:
        while not stop.wait(heartbeat):
            with suppress(OSError, IndexError):  # a file system that is away for a moment
                os.utime(path)
                if not is_ours():
                    (lost or _end)(f"{run} was taken over by another worker: this one was silent for too long")
                    return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield is_ours
    finally:
        stop.set()
        thread.join()
        with suppress(OSError):
            os.utime(path)
            path.with_name(path.name + RELEASED).touch()


def wait_while_silent(
    folder: Path, run: str, *, stale: float = STALE_SECONDS, pause: Callable[[float], None] = time.sleep
) -> None:
    """Wait until a run's holder is heard of again or counts as dead.

    Who is started in place of a worker that was killed comes before its claim has run out; giving up then would leave
    the run to nobody.
    """
    before: Claim | None = None
    while claims := claims_of(folder, run):
        newest = claims[-1]
        if not newest.is_live(stale) or (
            before is not None and (newest.path != before.path or newest.silent < before.silent)
        ):
            return
        before = newest
        pause(1.0)


def _take(folder: Path, run: str, stale: float) -> Path:
    claims = claims_of(folder, run)
    newest = claims[-1] if claims else None
    if newest and newest.is_live(stale):
        raise Taken(f"{run} is taken: {newest.describe()}")
    path = folder / f"{run}.{newest.number + 1 if newest else 1}"
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        raise Taken(f"{run} is taken: another worker was faster") from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps({**asdict(Holder.here()), "since": os.fstat(file.fileno()).st_mtime}))
    return path


def _read(path: Path, number: int, now: float) -> Claim:
    touched = path.stat().st_mtime
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        since = float(told.pop("since"))
        holder = Holder(**told)
    except (ValueError, TypeError, KeyError, AttributeError):  # half-written
        since, holder = touched, None
    return Claim(
        path, number, holder, path.with_name(path.name + RELEASED).exists(), now - touched, max(touched - since, 0.0)
    )


def _now(folder: Path) -> float:
    """The file system's clock, by a file just written; not the machine's, which may be another."""
    path = folder / f".clock-{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    try:
        path.write_bytes(b"x")
        return path.stat().st_mtime
    except PermissionError:  # somebody else's sweep, looked at
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
    """When a process started, in ticks of its machine; "" where there is none. Numbers of processes come again."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""
