"""A process for each library, and how long its turns take."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

Turns = Callable[[int], object]
"""Does its work this many times in a row, as training does, and returns when the last one is done."""


class WorkerError(Exception):
    """The worker died, took too long, or says why it could not do what it was asked."""


class Worker:
    """A process of its own that answers requests one at a time.

    Args:
        serve: gets a request and returns the answer; it must be importable, for the process starts from nothing.
        setup: environment variables of the process, set before any library is imported.
    """

    def __init__(self, serve: Callable[[Any], Any], setup: Mapping[str, str] | None = None):
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_answer, args=(serve, dict(setup or {}), theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, request: Any, limit_s: float = 600.0) -> Any:
        """The answer.

        Raises:
            WorkerError: there is none; after a death or a time-out the worker is gone.
        """
        self._pipe.send(request)
        try:
            if not self._pipe.poll(limit_s):
                self.close()
                raise WorkerError(f"not done after {limit_s:.0f} s")
            done, answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise WorkerError(f"the process ended with code {self._process.exitcode}") from None
        if not done:
            raise WorkerError(answer)
        return answer

    @property
    def alive(self) -> bool:
        """It can be asked again."""
        return self._process.is_alive()

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join()


def _answer(serve: Callable[[Any], Any], setup: dict[str, str], pipe: Connection) -> None:
    import os

    os.environ.update(setup)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, serve(request)))
        except Exception as error:  # out of memory, no such kernel: the other jobs go on
            text = " ".join(f"{type(error).__name__}: {error}".split())
            pipe.send((False, text[:300]))


def seconds_a_turn(turns: Turns, repeats: int, block_s: float, warm_up: int = 2) -> list[float]:
    """Seconds a turn in each of this many blocks, each of as many turns as take `block_s` seconds."""
    turns(warm_up)
    begin = time.perf_counter()
    turns(1)
    count = max(1, round(block_s / max(time.perf_counter() - begin, 1e-9)))
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        turns(count)
        seconds.append((time.perf_counter() - begin) / count)
    return seconds


def in_turns(
    workers: Mapping[str, Worker], requests: Mapping[str, Any], repeats: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Seconds that each worker answers to its request: two blocks of repeats each in turn, each after a warm-up.

    Step about, the operating system would take back one side's memory while the other computes, and both would pay.
    """
    seconds: dict[str, list[float]] = {side: [] for side in workers}
    for _block in range(2):
        for side, worker in workers.items():
            taken = [worker.ask(requests[side]) for _ in range(warm_up + repeats)]
            seconds[side] += taken[warm_up:]
    return seconds


def median(seconds: list[float]) -> float:
    return statistics.median(seconds)
