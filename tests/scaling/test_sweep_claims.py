"""Claims: one worker a run, the dead are found out, and no clock is trusted."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from selfpab_jax.scaling.sweep.lease import Holder, Taken, claimed, claims_of, wait_while_silent

ELSEWHERE = Holder("node7", 4711, "another boot", "pid:[1]", "123")


def leave(folder: Path, holder: Holder, number: int = 1, silent: float = 0.0) -> Path:
    """A claim as another worker made it, who was last heard of so many seconds ago."""
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
            with claimed(tmp_path, "run"):
                held.append(1)
                done.wait(20)
        except Taken:
            refused.append(1)
            if len(refused) == 15:
                done.set()

    threads = [threading.Thread(target=worker) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 15)


def test_a_claim_says_who_has_the_run_and_is_given_back(tmp_path: Path) -> None:
    with claimed(tmp_path, "run") as is_ours:
        assert is_ours()
        with pytest.raises(Taken, match=rf"run is taken: process {os.getpid()} on .*, last heard of 0 s ago"):
            claimed(tmp_path, "run").__enter__()
        with claimed(tmp_path, "run.2"):  # names of runs may end like a claim
            assert is_ours()
    with claimed(tmp_path, "run"):
        assert [(claim.number, claim.is_live()) for claim in claims_of(tmp_path, "run")] == [(1, False), (2, True)]


def test_who_is_silent_on_another_machine_counts_as_dead_after_a_while(tmp_path: Path) -> None:
    leave(tmp_path, ELSEWHERE, silent=100)
    with pytest.raises(Taken, match="process 4711 on node7, last heard of 100 s ago"), claimed(tmp_path, "run"):
        pass
    with claimed(tmp_path, "run", stale=90):
        assert claims_of(tmp_path, "run")[-1].number == 2


def test_who_was_killed_on_this_machine_counts_as_dead_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    killed = replace(Holder.here(), pid=process.pid, started=fields[19])
    leave(tmp_path, killed)
    with pytest.raises(Taken):
        claimed(tmp_path, "run").__enter__()
    process.kill()
    process.wait()
    with claimed(tmp_path, "run"):
        pass
    # A process of the same number that started at another time is another one.
    leave(tmp_path, replace(Holder.here(), started="1"), number=3)
    with claimed(tmp_path, "run"):
        pass
    # The same number in another container says nothing.
    leave(tmp_path, replace(killed, namespace="pid:[1]"), number=5)
    with pytest.raises(Taken):
        claimed(tmp_path, "run").__enter__()


def test_clocks_of_machines_that_disagree_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(tmp_path, ELSEWHERE, silent=10)
    real = time.time
    for wrong in (-86_400, 86_400):
        monkeypatch.setattr(time, "time", lambda wrong=wrong: real() + wrong)
        with pytest.raises(Taken):
            claimed(tmp_path, "run").__enter__()
        assert claims_of(tmp_path, "run")[0].silent == pytest.approx(10, abs=5)
    leave(tmp_path, ELSEWHERE, silent=-600)  # touched by a machine that writes its own, wrong time
    with pytest.raises(Taken, match="last heard of 0 s ago"):
        claimed(tmp_path, "run").__enter__()


def test_a_half_written_claim_is_held_until_it_is_old(tmp_path: Path) -> None:
    path = leave(tmp_path, ELSEWHERE)
    path.write_text('{"host": "no')
    with pytest.raises(Taken, match="a worker that just began"):
        claimed(tmp_path, "run").__enter__()
    os.utime(path, (1, 1))
    with claimed(tmp_path, "run"):
        pass


def test_heartbeats_keep_a_claim_and_tell_who_lost_it(tmp_path: Path) -> None:
    lost: list[str] = []
    with claimed(tmp_path, "run", heartbeat=0.02, lost=lost.append) as is_ours:
        os.utime(tmp_path / "run.1", (1, 1))
        deadline = time.monotonic() + 10
        while claims_of(tmp_path, "run")[0].silent > 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert claims_of(tmp_path, "run")[0].silent < 5
        leave(tmp_path, ELSEWHERE, number=2)  # another thought this one dead
        while not lost and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_ours()
    assert "taken over by another worker" in lost[0]
    assert claims_of(tmp_path, "run")[-1].is_live(), "giving back an old claim leaves the new one alone"


def test_who_comes_in_place_of_a_killed_worker_waits_until_its_claim_has_run_out(tmp_path: Path) -> None:
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        path = claims_of(tmp_path, "run")[-1].path
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 40))  # 40 seconds of silence go by

    wait_while_silent(tmp_path, "run", stale=100, pause=pause)
    assert not waits  # nobody has it
    (tmp_path / "run.1").write_text(json.dumps({**asdict(ELSEWHERE), "since": time.time()}))
    wait_while_silent(tmp_path, "run", stale=100, pause=pause)
    assert len(waits) == 3
    with claimed(tmp_path, "run", stale=100):
        pass


def test_nobody_waits_longer_for_a_worker_that_is_heard_of(tmp_path: Path) -> None:
    path = tmp_path / "run.1"
    path.write_text(json.dumps({**asdict(ELSEWHERE), "since": time.time()}))
    os.utime(path, (time.time(), time.time() - 10))
    wait_while_silent(tmp_path, "run", stale=100, pause=lambda _: os.utime(path))
    with pytest.raises(Taken), claimed(tmp_path, "run", stale=100):
        pass
