"""Reading, computing and writing at the same time, in bounded memory.

`Prefetcher` runs an iterator in a thread, `prefetch_chain` runs several, and `run_ahead` keeps a device busy while the
host handles earlier results.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

import jax

T = TypeVar("T")
POLL_SECONDS = 0.1
_END = object()


class Prefetcher(Generic[T]):
    """Runs an iterator in a thread of its own, starting now.

    An exception in the thread is raised again where the items are read. `close` stops the thread early.

    Args:
        items: what to iterate over.
        ahead: number of finished items that may wait to be read.
    """

    def __init__(self, items: Iterable[T], ahead: int = 2):
        self._items: queue.Queue[Any] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(items,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Generator[T, None, None]:
        try:
            while (item := self._items.get()) is not _END:
                if isinstance(item, _Raised):
                    raise item.error
                yield item
        finally:
            self.close()

    def close(self) -> None:
        """Stop the thread as soon as its current item is finished, and wait for it."""
        self._stopped.set()
        self._thread.join()

    def _work(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    break
        except BaseException as error:
            self._put(_Raised(error))
        finally:
            if isinstance(items, Generator):
                items.close()
            self._put(_END)

    def _put(self, item: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._items.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


class _Raised:
    """An exception on its way from the thread to the reader."""

    def __init__(self, error: BaseException):
        self.error = error


def prefetch_chain(sources: Iterable[Callable[[], Iterable[T]]], workers: int, ahead: int) -> Iterator[T]:
    """The items of all sources, one source after another, while the next sources are already being read.

    Args:
        sources: functions that each open one source.
        workers: number of sources that are read at the same time, each in its own thread.
        ahead: number of items of each source that may wait.
    """
    running: deque[Prefetcher[T]] = deque()
    waiting = iter(sources)
    try:
        while True:
            for source in waiting:
                running.append(Prefetcher(source(), ahead))
                if len(running) >= workers:
                    break
            if not running:
                return
            yield from running[0]
            running.popleft()
    finally:
        for prefetcher in running:
            prefetcher.close()


def run_ahead(results: Iterable[T], ahead: int = 1) -> Iterator[Any]:
    """Results of a device in order and on the host, each fetched only after the next ones were dispatched.

    JAX returns from a compiled function before the device has finished. So that the device never waits for the host,
    `results` should be lazy and dispatch one computation per item, e.g. `(step(batch) for batch in batches)`.

    Args:
        results: pytrees of arrays; leaves that are not arrays are passed on as they are.
        ahead: number of dispatched results beyond the one being fetched; each holds device memory.

    Yields:
        The same pytrees with NumPy arrays.
    """
    dispatched: deque[T] = deque()
    for result in results:
        dispatched.append(result)
        if len(dispatched) > ahead:
            yield jax.device_get(dispatched.popleft())
    while dispatched:
        yield jax.device_get(dispatched.popleft())
