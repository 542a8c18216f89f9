"""Batches of rows that all jobs share: a function of the seed and the step, read ahead of the computation."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import Int64

T = TypeVar("T")


class ShuffledRows:
    """Which rows each step trains on: every epoch a new order, of which the last incomplete batch is left out.

    Args:
        rows_N: the rows that some job trains on.
        batch_size: rows of a batch; all of them are one batch where there are fewer.
        seed: of the orders.
    """

    def __init__(self, rows_N: Int64[np.ndarray, " N"], batch_size: int, seed: int):
        self.rows_N = rows_N
        self.batch_size = min(batch_size, len(rows_N))
        self.steps_per_epoch = len(rows_N) // self.batch_size
        self._seed = seed
        self._epoch, self._order_N = -1, rows_N

    def batch(self, step: int) -> Int64[np.ndarray, " B"]:
        """Rows of a step, ascending, which reads faster and changes nothing in a sum over them."""
        epoch, k = divmod(step, self.steps_per_epoch)
        if self.steps_per_epoch == 1 and len(self.rows_N) == self.batch_size:
            return self.rows_N
        if epoch != self._epoch:
            self._epoch, self._order_N = epoch, np.random.default_rng((self._seed, epoch)).permutation(self.rows_N)
        return np.sort(self._order_N[k * self.batch_size : (k + 1) * self.batch_size])


def read_ahead(read: Callable[[int], T], count: int, depth: int = 2) -> Iterator[T]:
    """read(0), read(1), ..., read(count - 1), of which up to `depth` are read in a thread beforehand."""
    with ThreadPoolExecutor(1) as pool:
        pending: list[Future[T]] = [pool.submit(read, i) for i in range(min(depth, count))]
        try:
            for i in range(count):
                value = pending.pop(0).result()
                if i + depth < count:
                    pending.append(pool.submit(read, i + depth))
                yield value
        finally:
            for future in pending:
                future.cancel()
