"""Heads that train together: which rows each one sees, and the batches they share."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int64

from selfpab_jax.errors import DataError

# Jobs: heads that train side by side on the same features, each with rows, seed and hyper-parameters of its own.


@dataclass(frozen=True)
class Rows:
    """What heads read.

    Attributes:
        features_RxLxD: float16 or float32, an array or a memory map; L layers of width D.
        label_R: class index, -1 where the row neither trains nor validates.
        subject_R: index of the row's subject.
    """

    features_RxLxD: Float[np.ndarray, "R L D"]
    label_R: Int[np.ndarray, " R"]
    subject_R: Int[np.ndarray, " R"]

    def __post_init__(self) -> None:
        if self.features_RxLxD.ndim != 3 or len({len(self.features_RxLxD), len(self.label_R), len(self.subject_R)}) > 1:
            raise DataError(
                f"features {self.features_RxLxD.shape}, {len(self.label_R)} labels and {len(self.subject_R)} subjects "
                "do not belong together: the features must be (rows, layers, width) of the same corpus"
            )

    @property
    def features_RxE(self) -> Float[np.ndarray, "R E"]:
        """Layers side by side."""
        return self.features_RxLxD.reshape(len(self.features_RxLxD), -1)


@dataclass(frozen=True)
class Jobs:
    """J heads to train.

    Attributes:
        train_JxS: the subjects that each trains on.
        seed_J: of the initial parameters.
        learning_rate_J: at the first step.
        weight_decay_J: see `HeadSettings.optimizer`.
        validation_JxS: the subjects that each is measured on at every stopping point.
        stop_J: the stopping point after which its parameters stay as they are, counted from 1; all points where 0.
        rows_GxR: sets of rows, a label budget each; the first dimension is 1 where all rows count.
        group_J: which of those sets the job trains and validates in.
    """

    train_JxS: Bool[np.ndarray, "J S"]
    seed_J: Int[np.ndarray, " J"]
    learning_rate_J: Float32[np.ndarray, " J"]
    weight_decay_J: Float32[np.ndarray, " J"]
    validation_JxS: Bool[np.ndarray, "J S"]
    stop_J: Int[np.ndarray, " J"]
    group_J: Int[np.ndarray, " J"]
    rows_GxR: Bool[np.ndarray, "G R"]

    def __len__(self) -> int:
        return len(self.seed_J)

    def take(self, chosen: Int[np.ndarray, " K"]) -> Self:
        """Only these jobs, in this order."""
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{name: kept[name] if name == "rows_GxR" else kept[name][chosen] for name in kept})

    def counts_JxY(self, rows: Rows, classes: int) -> Int[np.ndarray, "J Y"]:
        """Training rows of each class of each job."""
        return np.einsum("js,jsy->jy", self.train_JxS.astype(np.int64), self._counts_GxSxY(rows, classes)[self.group_J])

    def counts_of_validation_JxY(self, rows: Rows, classes: int) -> Int[np.ndarray, "J Y"]:
        """Validation rows of each class of each job."""
        counts_GxSxY = self._counts_GxSxY(rows, classes)
        return np.einsum("js,jsy->jy", self.validation_JxS.astype(np.int64), counts_GxSxY[self.group_J])

    def used_rows(self, rows: Rows, subjects_JxS: Bool[np.ndarray, "J S"]) -> Bool[np.ndarray, " R"]:
        """Rows with a label that at least one job uses, if job j uses those of `subjects_JxS[j]`."""
        subjects_GxS = np.zeros((len(self.rows_GxR), subjects_JxS.shape[1]), bool)
        np.logical_or.at(subjects_GxS, self.group_J, subjects_JxS)
        used_R = np.zeros(len(rows.label_R), bool)
        for rows_R, subjects_S in zip(self.rows_GxR, subjects_GxS, strict=True):
            used_R |= rows_R & subjects_S[rows.subject_R]
        return used_R & (rows.label_R >= 0)

    def _counts_GxSxY(self, rows: Rows, classes: int) -> Int[np.ndarray, "G S Y"]:
        subjects = self.train_JxS.shape[1]
        counts = []
        for rows_R in self.rows_GxR:
            counted_R = rows_R & (rows.label_R >= 0)
            cells = rows.subject_R[counted_R].astype(np.int64) * classes + rows.label_R[counted_R]
            counts.append(np.bincount(cells, minlength=subjects * classes).reshape(subjects, classes))
        return np.stack(counts)


def make_jobs(
    train_JxS: Bool[np.ndarray, "J S"],
    rows: Rows,
    *,
    seed_J: Int[np.ndarray, " J"] | int = 0,
    learning_rate_J: Float[np.ndarray, " J"] | float = 1e-4,
    weight_decay_J: Float[np.ndarray, " J"] | float = 0.0,
    validation_JxS: Bool[np.ndarray, "J S"] | None = None,
    stop_J: Int[np.ndarray, " J"] | int = 0,
    rows_GxR: Bool[np.ndarray, "G R"] | None = None,
    group_J: Int[np.ndarray, " J"] | int = 0,
) -> Jobs:
    """Jobs with the original's learning rate and no weight decay, budget or validation where nothing else is said."""
    jobs = len(train_JxS)

    def spread(value: object, kind: type) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, kind), (jobs,)).copy()

    return Jobs(
        train_JxS,
        spread(seed_J, np.int32),
        spread(learning_rate_J, np.float32),
        spread(weight_decay_J, np.float32),
        np.zeros_like(train_JxS) if validation_JxS is None else validation_JxS,
        spread(stop_J, np.int32),
        spread(group_J, np.int32),
        np.ones((1, len(rows.label_R)), bool) if rows_GxR is None else rows_GxR,
    )


# Batches of rows that all jobs share: a function of the seed and the step, read ahead of the computation.

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


# Mean and deviation of every feature over each job's own training rows.

CHUNK = 2048
STEADY = 1e-6
"""A feature whose deviation is at most this is constant, and is left at its scale."""


def center(rows: Rows, used: np.ndarray) -> Float32[np.ndarray, " E"]:
    """A point amid the rows, subtracted from all of them for the sake of float32's digits.

    Each job's own mean is then taken relative to it, so that it cancels, whichever rows it came from.
    """
    some = used[:: max(1, len(used) // CHUNK)]
    return rows.features_RxE[some].astype(np.float32).mean(0)


def job_moments(
    rows: Rows, jobs: Jobs, used: np.ndarray, center_E: Float32[np.ndarray, " E"]
) -> tuple[Float32[np.ndarray, "J E"], Float32[np.ndarray, "J E"]]:
    """Mean, relative to `center_E`, and deviation; one pass over the rows for all jobs, one product a chunk.

    Jobs that share their rows (candidates, seeds) share their sums too.
    """
    keys = np.concatenate([jobs.train_JxS, jobs.group_J[:, None]], 1)
    first_U, of_J = np.unique(keys, axis=0, return_index=True, return_inverse=True)[1:]
    train_UxS, group_U = jobs.train_JxS[first_U], jobs.group_J[first_U]
    features_RxE = rows.features_RxE
    sums_UxE = np.zeros((len(first_U), features_RxE.shape[1]))
    squares_UxE, count_U = np.zeros_like(sums_UxE), np.zeros((len(first_U), 1))

    def read(chunk: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = used[chunk * CHUNK : (chunk + 1) * CHUNK]
        mask_UxN = train_UxS[:, rows.subject_R[chosen]] & jobs.rows_GxR[:, chosen][group_U]
        missing = CHUNK - len(chosen)  # padded by rows of no weight: one shape, one compilation
        return np.pad(mask_UxN, ((0, 0), (0, missing))), features_RxE[np.pad(chosen, (0, missing))]

    for mask_UxN, x_NxE in read_ahead(read, -(-len(used) // CHUNK)):
        some_sums_UxE, some_squares_UxE = _sums(mask_UxN, x_NxE, center_E)
        count_U += mask_UxN.sum(1, keepdims=True)
        sums_UxE += some_sums_UxE
        squares_UxE += some_squares_UxE
    mean_UxE = sums_UxE / count_U
    deviation_UxE = np.sqrt(np.maximum(squares_UxE / count_U - mean_UxE**2, 0.0))
    deviation_UxE[deviation_UxE <= STEADY] = 1.0
    of_J = of_J.reshape(-1)
    return mean_UxE.astype(np.float32)[of_J], deviation_UxE.astype(np.float32)[of_J]


@jax.jit
def _sums(mask_UxN: Array, x_NxE: Array, center_E: Array) -> tuple[Float[Array, "U E"], Float[Array, "U E"]]:
    weight_UxN, x_NxE = mask_UxN.astype(jnp.float32), x_NxE.astype(jnp.float32) - center_E
    exact = jax.lax.Precision.HIGHEST
    return jnp.matmul(weight_UxN, x_NxE, precision=exact), jnp.matmul(weight_UxN, jnp.square(x_NxE), precision=exact)
