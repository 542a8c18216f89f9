"""A training step and a validation of one head, and both compiled for many of them side by side."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple, Self, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from selfpab_jax.errors import DataError
from selfpab_jax.probe.heads.batch import Jobs, Rows, ShuffledRows, center, job_moments, read_ahead
from selfpab_jax.probe.heads.model import Head, HeadSettings, TrainedHeads, cross_entropy, head_logits, init_head

# A training step and a validation of one head, and both compiled for many of them side by side.


class JobArrays(NamedTuple):
    """What the device knows of a job; every field has a leading axis J where jobs are mapped over."""

    train_S: Bool[Array, " S"]
    validation_S: Bool[Array, " S"]
    group: Int[Array, ""]
    class_weight_Y: Float[Array, " Y"]
    mean_E: Float[Array, " E"]
    deviation_E: Float[Array, " E"]
    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    last_step: Int[Array, ""]


class Batch(NamedTuple):
    """Rows that all jobs share."""

    x_BxE: Float[Array, "B E"]
    label_B: Int[Array, " B"]
    subject_B: Int[Array, " B"]
    rows_GxB: Bool[Array, "G B"]
    weight_B: Float[Array, " B"]


class Updates(NamedTuple):
    """What of the settings is compiled into the step."""

    optimizer: str
    beta1: float
    beta2: float
    decay: float
    decay_steps: int

    @classmethod
    def of(cls, settings: HeadSettings) -> Self:
        """Settings that differ elsewhere share a program."""
        return cls(*(getattr(settings, name) for name in cls._fields))

    def adam(self) -> optax.GradientTransformation:
        """Adam without its learning rate."""
        return optax.scale_by_adam(self.beta1, self.beta2)


@lru_cache(maxsize=8)
def programs(settings: Updates, mapped: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled step (head, moments, job, center, batch, n) and validation (head, job, center, batch)."""
    adam = settings.adam()

    def step(head: Head, moments: optax.OptState, job: JobArrays, batch: Batch, n: Int[Array, ""]) -> Any:
        counted_B = job.train_S[batch.subject_B] & batch.rows_GxB[job.group]
        weight_B = counted_B.astype(jnp.float32) * batch.weight_B * job.class_weight_Y[batch.label_B]

        def loss(head: Head) -> Float[Array, ""]:
            return cross_entropy(head_logits(head, job.mean_E, job.deviation_E, batch.x_BxE), batch.label_B, weight_B)

        gradient = jax.grad(loss)(head)
        decay = {name: job.weight_decay * float(name in ("weight_DxH", "out_HxY")) for name in head}
        if settings.optimizer == "adam":
            gradient = {name: gradient[name] + decay[name] * head[name] for name in head}
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to whole powers
            update, moments = cast(tuple[Head, optax.OptState], adam.update(gradient, moments))
        if settings.optimizer == "adamw":
            update = {name: update[name] + decay[name] * head[name] for name in head}
        rate = job.learning_rate * jnp.float32(settings.decay) ** (n.astype(jnp.float32) / settings.decay_steps)
        goes_on = n < job.last_step
        return {name: jnp.where(goes_on, head[name] - rate * update[name], head[name]) for name in head}, moments

    def validate(head: Head, job: JobArrays, batch: Batch) -> Float[Array, "Y Y"]:
        logits_BxY = head_logits(head, job.mean_E, job.deviation_E, batch.x_BxE)
        counted_B = job.validation_S[batch.subject_B] & batch.rows_GxB[job.group] & jnp.isfinite(logits_BxY).all()
        weight_B = counted_B.astype(jnp.float32) * batch.weight_B
        classes = jnp.arange(logits_BxY.shape[1], dtype=jnp.int32)
        truth_BxY = (batch.label_B[:, None] == classes).astype(jnp.float32) * weight_B[:, None]
        predicted_BxY = (logits_BxY.argmax(-1)[:, None] == classes).astype(jnp.float32)
        return truth_BxY.T @ predicted_BxY

    if mapped:
        adam_axes: Any = optax.ScaleByAdamState(None, 0, 0)  # pyright: ignore[reportArgumentType]
        step = jax.vmap(step, (0, adam_axes, 0, None, None), (0, adam_axes))
        validate = jax.vmap(validate, (0, 0, None))

    def centered(center_E: Array, batch: Batch) -> Batch:
        return batch._replace(x_BxE=batch.x_BxE.astype(jnp.float32) - center_E)

    return (
        jax.jit(lambda h, m, job, c, b, n: step(h, m, job, centered(c, b), n), donate_argnums=(0, 1)),
        jax.jit(lambda h, job, c, b: validate(h, job, centered(c, b))),
    )


# All jobs' heads in one compiled program: every step reads one batch, of which each job counts its own rows.

CHUNK = 2048
"""Rows that are validated at a time."""

VALIDATED_ROWS = 256
"""Rows of each subject and class that stopping is decided on; neighboring frames tell little new."""

Progress = Callable[[str], None]


def train_jobs(
    rows: Rows,
    jobs: Jobs,
    settings: HeadSettings,
    classes: int,
    *,
    sequential: bool = False,
    keep_heads: bool = True,
    progress: Progress | None = None,
) -> TrainedHeads:
    """Train every job; jobs x seeds x candidates share each step's batch and its product with the features.

    The batch of step k depends on `settings.seed`, k and the rows that any job uses. Jobs that together would exceed
    `settings.memory_gib` are trained in groups, with the same batches. A job comes out the same beside any jobs that
    together use the same rows, but for the rounding of float32: near 1e-6 for linear heads; in an MLP, ReLUs and Adam's
    division by small gradients let it grow with the steps. Where the others' rows differ (other folds, or the label
    budgets of more seeds), so do the batches.

    Args:
        rows: features, labels, subjects.
        jobs: which rows train and validate which head.
        settings: the head and its optimizer.
        classes: Y.
        sequential: one job after another, through the same function without `vmap`: for comparison.
        keep_heads: whether the parameters are wanted, or the validation alone.
        progress: told a line at every stopping point.

    Raises:
        DataError: a job has no row to train on.
    """
    counts_JxY = jobs.counts_JxY(rows, classes)
    if not counts_JxY.any(1).all():
        raise DataError(
            f"head {int(np.argmin(counts_JxY.any(1)))} has no labeled row to train on; "
            "check the subjects of its fold and the label budget"
        )
    used = np.flatnonzero(jobs.used_rows(rows, jobs.train_JxS))
    order = ShuffledRows(used, settings.batch_size, settings.seed)
    total = max(settings.epochs * order.steps_per_epoch, settings.min_steps)
    steps_P = np.round(total * np.arange(1, settings.epochs + 1) / settings.epochs).astype(np.int64)

    center_E = center(rows, used)
    layers, width = rows.features_RxLxD.shape[1:]
    most = int(settings.memory_gib * 2**30) // settings.bytes_of_job(layers, width, classes)
    groups = len(jobs) if sequential else -(-len(jobs) // max(1, most))
    results = []
    for number, chosen in enumerate(np.array_split(np.arange(len(jobs)), groups)):
        name = f"{settings.kind} heads" if groups == 1 else f"{settings.kind} heads, group {number + 1} of {groups}"
        say = None if progress is None else partial(_say, progress, name, settings.epochs)
        run = _Run(rows, jobs.take(chosen), settings, classes, order, steps_P, center_E, not sequential)
        results.append(run.train(counts_JxY[chosen], keep_heads, say))
    return TrainedHeads(
        {name: np.concatenate([result.head[name] for result in results]) for name in results[0].head},
        center_E,
        np.concatenate([result.mean_JxE for result in results]),
        np.concatenate([result.deviation_JxE for result in results]),
        np.concatenate([result.validation_JxPxYxY for result in results]),
        steps_P,
    )


def validation_rows(rows: Rows, jobs: Jobs, most: int = VALIDATED_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Rows that validation reads, evenly spaced in each subject and class, and how many rows each stands for."""
    candidates = np.flatnonzero(jobs.used_rows(rows, jobs.validation_JxS))
    if not len(candidates):
        return candidates, np.zeros(0, np.float32)
    cell_N = rows.subject_R[candidates].astype(np.int64) * (int(rows.label_R.max()) + 1) + rows.label_R[candidates]
    kept, weights = [], []
    for cell in np.unique(cell_N):
        members = candidates[cell_N == cell]
        step = -(-len(members) // most)
        chosen = members[step // 2 :: step]
        kept.append(chosen)
        weights.append(np.full(len(chosen), len(members) / len(chosen), np.float32))
    order = np.argsort(np.concatenate(kept))
    return np.concatenate(kept)[order], np.concatenate(weights)[order]


def _say(progress: Progress, name: str, points: int, jobs: int, point: int) -> None:
    progress(f"{name}: {jobs} trained to point {point} of {points}")


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _init_heads(seed_J: np.ndarray, settings: HeadSettings, layers: int, width: int, classes: int) -> Head:
    return jax.vmap(lambda seed: init_head(jax.random.key(seed), settings, layers, width, classes))(seed_J)


class _Run:
    """One group of jobs from their first to their last step."""

    def __init__(
        self,
        rows: Rows,
        jobs: Jobs,
        settings: HeadSettings,
        classes: int,
        order: ShuffledRows,
        steps_P: np.ndarray,
        center_E: np.ndarray,
        mapped: bool,
    ):
        self.rows, self.jobs, self.settings, self.classes = rows, jobs, settings, classes
        self.order, self.steps_P, self.center_E, self.mapped = order, steps_P, center_E, mapped
        self.features_RxE = rows.features_RxE

    def train(self, counts_JxY: np.ndarray, keep_heads: bool, say: Callable[[int, int], None] | None) -> TrainedHeads:
        """Train to the last stopping point that a job asks for, validating at each."""
        jobs, (layers, width) = self.jobs, self.rows.features_RxLxD.shape[1:]
        last_P = np.where(jobs.stop_J > 0, jobs.stop_J, len(self.steps_P))
        arrays, (mean_JxE, deviation_JxE) = self._job_arrays(counts_JxY, self.steps_P[last_P - 1])
        shape = HeadSettings(kind=self.settings.kind, hidden=self.settings.hidden)
        head: Any = _init_heads(jobs.seed_J, shape, layers, width, self.classes)
        if not self.mapped:
            arrays, head = jax.tree.map(lambda a: a[0], (arrays, head))
        moments = Updates.of(self.settings).adam().init(head)
        step, validate = programs(Updates.of(self.settings), self.mapped)
        center_E = jnp.asarray(self.center_E)

        chosen, weights = validation_rows(self.rows, jobs)
        confusions = np.zeros((len(jobs), len(self.steps_P), self.classes, self.classes))
        batches, done = self._batches(int(self.steps_P[last_P.max() - 1])), 0
        for point in range(int(last_P.max())):
            for n in range(done, int(self.steps_P[point])):
                head, moments = step(head, moments, arrays, center_E, next(batches), np.int32(n))
            done = int(self.steps_P[point])
            for batch in self._validation_batches(chosen, weights):
                confusions[:, point] += np.asarray(validate(head, arrays, center_E, batch))
            if say is not None:
                say(len(jobs), point + 1)
        if not keep_heads:
            head = {}
        elif not self.mapped:
            head = jax.tree.map(lambda a: a[None], head)
        return TrainedHeads(
            jax.tree.map(np.asarray, head), self.center_E, mean_JxE, deviation_JxE, confusions, self.steps_P
        )

    def _job_arrays(self, counts_JxY: np.ndarray, last_step_J: np.ndarray) -> tuple[Any, tuple[np.ndarray, np.ndarray]]:
        jobs, shape = self.jobs, (len(self.jobs), self.features_RxE.shape[1])
        if self.settings.standardize:
            moments = job_moments(self.rows, jobs, self.order.rows_N, self.center_E)
        else:
            moments = np.broadcast_to(-self.center_E, shape), np.ones(shape, np.float32)
        weight_JxY = np.ones(counts_JxY.shape, np.float32)
        if self.settings.class_weights:
            present_J = (counts_JxY > 0).sum(1, keepdims=True)
            weight_JxY = counts_JxY.sum(1, keepdims=True) / (present_J * np.maximum(counts_JxY, 1))
        fields = (
            jobs.train_JxS,
            jobs.validation_JxS,
            jobs.group_J,
            weight_JxY.astype(np.float32),
            *moments,
            jobs.learning_rate_J,
            jobs.weight_decay_J,
            last_step_J.astype(np.int32),
        )
        return JobArrays(*map(jnp.asarray, fields)), moments

    def _batch(self, chosen: np.ndarray, weight_B: np.ndarray) -> Batch:
        rows = self.rows
        fields: Any = (  # NumPy's arrays, which the device takes when they are used
            self.features_RxE[chosen],
            rows.label_R[chosen].astype(np.int32),
            rows.subject_R[chosen].astype(np.int32),
            self.jobs.rows_GxR[:, chosen],
            weight_B,
        )
        return Batch(*fields)

    def _batches(self, steps: int) -> Iterator[Batch]:
        weight_B = np.ones(self.order.batch_size, np.float32)
        if self.order.batch_size == len(self.order.rows_N):
            batch = jax.device_put(self._batch(self.order.rows_N, weight_B))
            return iter([batch] * steps)
        return read_ahead(lambda step: jax.device_put(self._batch(self.order.batch(step), weight_B)), steps)

    def _validation_batches(self, chosen: np.ndarray, weights: np.ndarray) -> Iterator[Batch]:
        def read(chunk: int) -> Batch:
            part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
            missing = CHUNK - len(chosen[part])  # padded by rows of no weight: one shape, one compilation
            return self._batch(np.pad(chosen[part], (0, missing)), np.pad(weights[part], (0, missing)))

        return read_ahead(read, -(-len(chosen) // CHUNK))
