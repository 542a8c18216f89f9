"""Leases: one worker per run, dead workers are detected, and clocks of machines do not matter."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from selfpab_jax.scaling.sweep.lease import Holder, LeaseHeldError, hold_lease, leases_of, wait_for_lease

ELSEWHERE = Holder("node7", 4711, "another boot", "pid:[1]", "123")


def leave(folder: Path, holder: Holder, number: int = 1, silent: float = 0.0) -> Path:
    """Create the lease of another worker, whose last heartbeat was this many seconds ago."""
    folder.mkdir(exist_ok=True)
    path = folder / f"run.{number}"
    now = time.time()
    path.write_text(json.dumps({**asdict(holder), "since": now - silent - 60}))
    os.utime(path, (now - silent, now - silent))
    return path


def test_one_of_many_gets_the_run(tmp_path: Path) -> None:
    held, refused, ready, done = [], [], threading.Barrier(16), threading.Event()

    def worker() -> None:
        ready.wait()
        try:
            with hold_lease(tmp_path, "run"):
                held.append(1)
                done.wait(20)
        except LeaseHeldError:
            refused.append(1)
            if len(refused) == 15:
                done.set()

    threads = [threading.Thread(target=worker) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 15)


def test_a_lease_names_its_holder_and_is_released(tmp_path: Path) -> None:
    with hold_lease(tmp_path, "run") as is_ours:
        assert is_ours()
        with pytest.raises(LeaseHeldError, match=rf"process {os.getpid()} on"):
            hold_lease(tmp_path, "run").__enter__()
        with hold_lease(tmp_path, "run.2"):  # names of runs may end like that of a lease
            assert is_ours()
    with hold_lease(tmp_path, "run"):
        assert [(lease.number, lease.is_live()) for lease in leases_of(tmp_path, "run")] == [(1, False), (2, True)]


def test_a_silent_worker_on_another_machine_counts_as_dead_after_a_while(tmp_path: Path) -> None:
    leave(tmp_path, ELSEWHERE, silent=100)
    with pytest.raises(LeaseHeldError, match=r"process 4711 on node7, .* 100 s ago"), hold_lease(tmp_path, "run"):
        pass
    with hold_lease(tmp_path, "run", stale=90.0):
        assert leases_of(tmp_path, "run")[-1].number == 2


@pytest.mark.slow
def test_a_killed_worker_on_this_machine_counts_as_dead_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    killed = replace(Holder.here(), pid=process.pid, started=fields[19])
    leave(tmp_path, killed)
    with pytest.raises(LeaseHeldError):
        hold_lease(tmp_path, "run").__enter__()
    process.kill()
    process.wait()
    with hold_lease(tmp_path, "run"):
        pass
    # A process with the same number that started at another time is a different one.
    leave(tmp_path, replace(Holder.here(), started="1"), number=3)
    with hold_lease(tmp_path, "run"):
        pass
    # The same number in another container means nothing.
    leave(tmp_path, replace(killed, namespace="pid:[1]"), number=5)
    with pytest.raises(LeaseHeldError):
        hold_lease(tmp_path, "run").__enter__()


def test_clocks_that_disagree_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(tmp_path, ELSEWHERE, silent=10)
    real = time.time
    for wrong in (-86_400, 86_400):
        monkeypatch.setattr(time, "time", lambda wrong=wrong: real() + wrong)
        with pytest.raises(LeaseHeldError):
            hold_lease(tmp_path, "run").__enter__()
        assert leases_of(tmp_path, "run")[0].silent == pytest.approx(10, abs=5)
    leave(tmp_path, ELSEWHERE, silent=-600)  # touched by a machine that writes its own, wrong time
    with pytest.raises(LeaseHeldError, match=" 0 s ago"):
        hold_lease(tmp_path, "run").__enter__()


def test_an_incomplete_lease_is_held_until_it_is_old(tmp_path: Path) -> None:
    path = leave(tmp_path, ELSEWHERE)
    path.write_text('{"host": "no')
    with pytest.raises(LeaseHeldError, match="just started"):
        hold_lease(tmp_path, "run").__enter__()
    os.utime(path, (1, 1))
    with hold_lease(tmp_path, "run"):
        pass


@pytest.mark.slow
def test_heartbeats_keep_a_lease_and_detect_its_loss(tmp_path: Path) -> None:
    lost: list[str] = []
    with hold_lease(tmp_path, "run", heartbeat=0.02, lost=lost.append) as is_ours:
        os.utime(tmp_path / "run.1", (1, 1))
        deadline = time.monotonic() + 10
        while leases_of(tmp_path, "run")[0].silent > 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert leases_of(tmp_path, "run")[0].silent < 5
        leave(tmp_path, ELSEWHERE, number=2)  # another worker took this one for dead
        while not lost and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_ours()
    assert "taken over" in lost[0]
    assert leases_of(tmp_path, "run")[-1].is_live(), "releasing an old lease does not affect the new one"


def test_the_replacement_of_a_killed_worker_waits_until_the_lease_expires(tmp_path: Path) -> None:
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        path = leases_of(tmp_path, "run")[-1].path
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 40))  # 40 seconds pass without a heartbeat

    wait_for_lease(tmp_path, "run", stale=100.0, pause=pause)
    assert not waits  # nobody holds it
    (tmp_path / "run.1").write_text(json.dumps({**asdict(ELSEWHERE), "since": time.time()}))
    wait_for_lease(tmp_path, "run", stale=100.0, pause=pause)
    assert len(waits) == 3
    with hold_lease(tmp_path, "run", stale=100.0):
        pass


def test_waiting_ends_at_the_next_heartbeat_of_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "run.1"
    path.write_text(json.dumps({**asdict(ELSEWHERE), "since": time.time()}))
    os.utime(path, (time.time(), time.time() - 10))
    wait_for_lease(tmp_path, "run", stale=100.0, pause=lambda _: os.utime(path))
    with pytest.raises(LeaseHeldError), hold_lease(tmp_path, "run", stale=100.0):
        pass
