"""Work that is repeated in a thread of its own while something else runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(tick: Callable[[], bool], every_seconds: float, name: str) -> Iterator[None]:
    """Call `tick` again and again, until it returns False or the block ends; the first time after one interval.

    Args:
        tick: what to do; returns whether to go on.
        every_seconds: between two calls.
        name: of the thread.
    """
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(every_seconds) and tick():
            pass

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
