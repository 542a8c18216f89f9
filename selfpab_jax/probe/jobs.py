"""Jobs: heads that train side by side on the same features, each with rows, seed and hyper-parameters of its own."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from selfpab_jax.errors import DataError


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
        weight_decay_J: see `HeadSettings.optimiser`.
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
