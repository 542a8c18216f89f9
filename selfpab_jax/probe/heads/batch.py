"""Heads that train together: which rows each of them sees, the batches they share, and their standardization.

J counts heads, S subjects, R rows, G label budgets, Y classes; E = L * D are the features of a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int64

from selfpab_jax.prefetch import Prefetcher

CHUNK_ROWS = 2048
"""Rows that are read at a time outside of training: bounds the memory."""
MIN_STD = 1e-6
"""A feature whose standard deviation is at most this is constant, and is not rescaled."""


@dataclass(frozen=True)
class LabeledFeatures:
    """Features, labels and subjects of all rows.

    Attributes:
        features_RxLxD: float16 or float32, an array or a memory map; L layers of width D.
        label_R: class index, -1 where the row is used neither for training nor for validation.
        subject_R: index of the row's subject.
        density_RxY: share of each class, which rows are trained on; None to train on their labels. Validation counts
            labels in any case.
        around_RxW: rows around each row in time, which a temporal head sees with it; None for the row alone.
    """

    features_RxLxD: Float[np.ndarray, "R L D"]
    label_R: Int[np.ndarray, " R"]
    subject_R: Int[np.ndarray, " R"]
    density_RxY: Float32[np.ndarray, "R Y"] | None = None
    around_RxW: Int[np.ndarray, "R W"] | None = None

    @property
    def features_RxE(self) -> "Float[np.ndarray, 'R E'] | RowsAround":
        """Layers side by side; of all the rows around it where they are given."""
        features_RxE = self.features_RxLxD.reshape(len(self.features_RxLxD), -1)
        return features_RxE if self.around_RxW is None else RowsAround(features_RxE, self.around_RxW)


@dataclass(frozen=True)
class RowsAround:
    """Features of the rows around each row, side by side; gathered when they are read, as they may exceed memory.

    Attributes:
        features_RxE: of each row.
        around_RxW: rows around each.
    """

    features_RxE: Float[np.ndarray, "R E"]
    around_RxW: Int[np.ndarray, "R W"]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and features of each with those around it."""
        return len(self.around_RxW), self.around_RxW.shape[1] * self.features_RxE.shape[1]

    def __getitem__(self, rows_N: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N F"]:
        return self.features_RxE[self.around_RxW[rows_N]].reshape(len(rows_N), -1)


def rows_around(rows_W: Int[np.ndarray, " W"], offsets: Sequence[int]) -> Int64[np.ndarray, "R O"]:
    """The rows at some distances from each row, within its window: beyond an end, the row at the end.

    Args:
        rows_W: rows of each window, which follow one another.
        offsets: distances in frames.
    """
    first_R = np.repeat(np.cumsum(rows_W) - rows_W, rows_W)[:, None]
    last_R = first_R + np.repeat(rows_W, rows_W)[:, None] - 1
    row_R = np.arange(len(first_R))[:, None]
    return np.clip(row_R + np.asarray(offsets, np.int64), first_R, last_R)


@dataclass(frozen=True)
class HeadBatch:
    """J heads to train side by side on the same features.

    Attributes:
        train_JxS: subjects that each head trains on.
        seed_J: of the initial parameters.
        learning_rate_J: at the first step.
        weight_decay_J: see `HeadSettings.optimizer`.
        validation_JxS: subjects that each head is validated on at every stopping point.
        stop_J: stopping point after which the head's parameters stay as they are, counted from 1; 0 to train to the
            last point.
        budget_J: label budget that the head trains and validates within.
        budget_rows_GxR: rows within each label budget; the first dimension is 1 if there is only "all labels".
    """

    train_JxS: Bool[np.ndarray, "J S"]
    seed_J: Int[np.ndarray, " J"]
    learning_rate_J: Float32[np.ndarray, " J"]
    weight_decay_J: Float32[np.ndarray, " J"]
    validation_JxS: Bool[np.ndarray, "J S"]
    stop_J: Int[np.ndarray, " J"]
    budget_J: Int[np.ndarray, " J"]
    budget_rows_GxR: Bool[np.ndarray, "G R"]

    def __len__(self) -> int:
        return len(self.seed_J)

    def take(self, heads_K: Int[np.ndarray, " K"]) -> "HeadBatch":
        """Only these heads, in this order."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: a if name == "budget_rows_GxR" else a[heads_K] for name, a in values.items()})

    def training_counts(self, data: LabeledFeatures, classes: int) -> Int[np.ndarray, "J Y"]:
        """Training rows of each class, for each head."""
        return self._counts(self.train_JxS, data, classes)

    def validation_counts(self, data: LabeledFeatures, classes: int) -> Int[np.ndarray, "J Y"]:
        """Validation rows of each class, for each head."""
        return self._counts(self.validation_JxS, data, classes)

    def used_rows(self, data: LabeledFeatures, subjects_JxS: Bool[np.ndarray, "J S"]) -> Int64[np.ndarray, " N"]:
        """Indices of the labeled rows that at least one head uses, if head j uses the subjects `subjects_JxS[j]`."""
        subjects_GxS = np.zeros((len(self.budget_rows_GxR), subjects_JxS.shape[1]), bool)
        np.logical_or.at(subjects_GxS, self.budget_J, subjects_JxS)
        used_R = np.zeros(len(data.label_R), bool)
        for rows_R, subjects_S in zip(self.budget_rows_GxR, subjects_GxS, strict=True):
            used_R |= rows_R & subjects_S[data.subject_R]
        return np.flatnonzero(used_R & (data.label_R >= 0))

    def _counts(
        self, subjects_JxS: Bool[np.ndarray, "J S"], data: LabeledFeatures, classes: int
    ) -> Int[np.ndarray, "J Y"]:
        subjects = subjects_JxS.shape[1]
        counts = []
        for rows_R in self.budget_rows_GxR:
            counted_R = rows_R & (data.label_R >= 0)
            entry = data.subject_R[counted_R].astype(np.int64) * classes + data.label_R[counted_R]
            counts.append(np.bincount(entry, minlength=subjects * classes).reshape(subjects, classes))
        return np.einsum("js,jsy->jy", subjects_JxS.astype(np.int64), np.stack(counts)[self.budget_J])


def make_head_batch(
    train_JxS: Bool[np.ndarray, "J S"],
    data: LabeledFeatures,
    *,
    seed_J: Int[np.ndarray, " J"] | int = 0,
    learning_rate_J: Float[np.ndarray, " J"] | float = 1e-4,
    weight_decay_J: Float[np.ndarray, " J"] | float = 0.0,
    validation_JxS: Bool[np.ndarray, "J S"] | None = None,
    stop_J: Int[np.ndarray, " J"] | int = 0,
    budget_J: Int[np.ndarray, " J"] | int = 0,
    budget_rows_GxR: Bool[np.ndarray, "G R"] | None = None,
) -> HeadBatch:
    """Heads with the original's learning rate, and no weight decay, label budget or validation unless given.

    Args:
        train_JxS: subjects that each head trains on.
        data: the rows.
        seed_J: see `HeadBatch`; here and below, a single value holds for all heads.
        learning_rate_J: see `HeadBatch`.
        weight_decay_J: see `HeadBatch`.
        validation_JxS: see `HeadBatch`; no validation if not given.
        stop_J: see `HeadBatch`.
        budget_J: see `HeadBatch`.
        budget_rows_GxR: see `HeadBatch`; one budget of all rows if not given.
    """
    heads = len(train_JxS)

    def repeat(value: np.ndarray | float, kind: type) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, kind), (heads,)).copy()

    return HeadBatch(
        train_JxS=train_JxS,
        seed_J=repeat(seed_J, np.int32),
        learning_rate_J=repeat(learning_rate_J, np.float32),
        weight_decay_J=repeat(weight_decay_J, np.float32),
        validation_JxS=np.zeros_like(train_JxS) if validation_JxS is None else validation_JxS,
        stop_J=repeat(stop_J, np.int32),
        budget_J=repeat(budget_J, np.int32),
        budget_rows_GxR=np.ones((1, len(data.label_R)), bool) if budget_rows_GxR is None else budget_rows_GxR,
    )


class ShuffledRows:
    """Which rows each training step reads: a new order every epoch, without its last incomplete batch.

    Args:
        rows_N: rows that at least one head trains on.
        batch_size: rows of a batch; if there are fewer, all of them are one batch.
        seed: of the orders.
    """

    def __init__(self, rows_N: Int64[np.ndarray, " N"], batch_size: int, seed: int):
        self.rows_N = rows_N
        self.batch_size = min(batch_size, len(rows_N))
        self.steps_per_epoch = len(rows_N) // self.batch_size
        self._seed = seed
        self._epoch, self._order_N = -1, rows_N

    def batch(self, step: int) -> Int64[np.ndarray, " B"]:
        """Rows of a step, in ascending order: faster to read, and a sum over them is the same."""
        epoch, k = divmod(step, self.steps_per_epoch)
        if self.steps_per_epoch == 1 and len(self.rows_N) == self.batch_size:
            return self.rows_N
        if epoch != self._epoch:
            self._epoch, self._order_N = epoch, np.random.default_rng((self._seed, epoch)).permutation(self.rows_N)
        return np.sort(self._order_N[k * self.batch_size : (k + 1) * self.batch_size])


def center_of(data: LabeledFeatures, rows_N: Int64[np.ndarray, " N"]) -> Float32[np.ndarray, " E"]:
    """A point amid the rows, which is subtracted from all of them to keep float32's precision.

    Each head's mean is then relative to it, so it cancels out, whichever rows it was computed from.
    """
    some = rows_N[:: max(1, len(rows_N) // CHUNK_ROWS)]
    return data.features_RxE[some].astype(np.float32).mean(0)


def standardization(
    data: LabeledFeatures, heads: HeadBatch, rows_N: Int64[np.ndarray, " N"], center_E: Float32[np.ndarray, " E"]
) -> tuple[Float32[np.ndarray, "J E"], Float32[np.ndarray, "J E"]]:
    """Mean, relative to `center_E`, and standard deviation of every feature over each head's training rows.

    One pass over the rows for all heads; heads with the same rows (candidates, seeds) share their sums.

    Args:
        data: features, labels, subjects.
        heads: which rows each of them trains on.
        rows_N: rows that at least one head trains on.
        center_E: from `center_of`.
    """
    keys = np.concatenate([heads.train_JxS, heads.budget_J[:, None]], 1)
    first_U, unique_J = np.unique(keys, axis=0, return_index=True, return_inverse=True)[1:]
    train_UxS, budget_U = heads.train_JxS[first_U], heads.budget_J[first_U]
    features_RxE = data.features_RxE
    sums_UxE = np.zeros((len(first_U), features_RxE.shape[1]), np.float32)
    squares_UxE, count_U = np.zeros_like(sums_UxE), np.zeros((len(first_U), 1), np.float32)

    def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, len(rows_N), CHUNK_ROWS):
            rows_n = rows_N[first : first + CHUNK_ROWS]
            mask_UxN = train_UxS[:, data.subject_R[rows_n]] & heads.budget_rows_GxR[:, rows_n][budget_U]
            missing = CHUNK_ROWS - len(rows_n)  # padded with rows of weight 0: one shape, one compilation
            yield np.pad(mask_UxN, ((0, 0), (0, missing))), features_RxE[np.pad(rows_n, (0, missing))]

    for mask_UxN, x_NxE in Prefetcher(read()):
        chunk_sums_UxE, chunk_squares_UxE = _sums(mask_UxN, x_NxE, center_E)
        count_U += mask_UxN.sum(1, keepdims=True)
        sums_UxE += np.asarray(chunk_sums_UxE)
        squares_UxE += np.asarray(chunk_squares_UxE)
    mean_UxE = sums_UxE / count_U
    std_UxE = np.sqrt(np.maximum(squares_UxE / count_U - mean_UxE**2, 0))
    std_UxE[std_UxE <= MIN_STD] = 1.0
    unique_J = unique_J.reshape(-1)
    return mean_UxE[unique_J], std_UxE[unique_J]


@jax.jit
def _sums(mask_UxN: Array, x_NxE: Array, center_E: Array) -> tuple[Float[Array, "U E"], Float[Array, "U E"]]:
    weight_UxN, x_NxE = mask_UxN.astype(jnp.float32), x_NxE.astype(jnp.float32) - center_E
    exact = jax.lax.Precision.HIGHEST
    return jnp.matmul(weight_UxN, x_NxE, precision=exact), jnp.matmul(weight_UxN, jnp.square(x_NxE), precision=exact)
