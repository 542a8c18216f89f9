"""Iterators that run ahead in threads: reading, computing and writing at the same time, in bounded memory."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.1
_END = object()


class InBackground(Generic[T]):
    """Items made in a thread of their own from the moment that this is made, at most `ahead` of them waiting.

    What the thread raises is raised where the items are read. `close` ends the thread, also in the middle.
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
        """Ends the thread once it is done with the item at hand."""
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
    def __init__(self, error: BaseException):
        self.error = error


def several_at_once(sources: Iterable[Callable[[], Iterable[T]]], workers: int, ahead: int) -> Iterator[T]:
    """The items of all sources one after another, while the next sources are being read: `workers` at a time.

    Args:
        sources: functions that open one each.
        workers: threads.
        ahead: items of each source that may wait.
    """
    running: deque[InBackground[T]] = deque()
    waiting = iter(sources)
    try:
        while True:
            for source in waiting:
                running.append(InBackground(source(), ahead))
                if len(running) >= workers:
                    break
            if not running:
                return
            yield from running[0]
            running.popleft()
    finally:
        for each in running:
            each.close()
