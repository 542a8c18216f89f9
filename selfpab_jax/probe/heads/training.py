"""Training of many heads in one compiled program: a step reads one batch, and each head counts its own rows of it."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32, Int, Int64

from selfpab_jax.errors import DataError
from selfpab_jax.prefetch import Prefetcher
from selfpab_jax.probe.heads.batch import (
    CHUNK_ROWS,
    HeadBatch,
    LabeledFeatures,
    ShuffledRows,
    center_of,
    standardization,
)
from selfpab_jax.probe.heads.model import (
    Head,
    HeadSettings,
    TrainedHeads,
    cross_entropy,
    head_logits,
    init_head,
    one_hot,
)

VALIDATION_ROWS = 256
"""Most rows of each subject and class that validation reads; neighboring frames add little information."""


def train_heads(
    data: LabeledFeatures,
    heads: HeadBatch,
    settings: HeadSettings,
    classes: int,
    *,
    sequential: bool = False,
    keep_heads: bool = True,
    progress: Callable[[str], None] | None = None,
) -> TrainedHeads:
    """Train every head; all of them share each step's batch and its product with the features.

    The batch of step k depends on `settings.seed`, k and the rows that any head uses. Heads that together would exceed
    `settings.memory_gib` are trained in groups, with the same batches. A head comes out the same beside any other heads
    that together use the same rows, up to rounding in float32: near 1e-6 for linear heads; in an MLP, ReLUs and Adam's
    division by small gradients let it grow with the steps. Where the others' rows differ (other folds, or the label
    budgets of more seeds), so do the batches.

    Args:
        data: features, labels, subjects.
        heads: which rows train and validate which head.
        settings: of all heads and their optimizer.
        classes: Y.
        sequential: one head after another, through the same function without `vmap`: for comparison.
        keep_heads: return the parameters, not only the validation.
        progress: called with a line at every stopping point.

    Raises:
        DataError: a head has no row to train on.
    """
    counts_JxY = heads.training_counts(data, classes)
    if not counts_JxY.any(1).all():
        raise DataError(
            f"head {int(np.argmin(counts_JxY.any(1)))} has no labeled row to train on; "
            "check the subjects of its fold and the label budget"
        )
    used_N = heads.used_rows(data, heads.train_JxS)
    order = ShuffledRows(used_N, settings.batch_size, settings.seed)
    total = max(settings.epochs * order.steps_per_epoch, settings.min_steps)
    steps_P = np.round(total * np.arange(1, settings.epochs + 1) / settings.epochs).astype(np.int64)

    center_E = center_of(data, used_N)
    layers, width = data.features_RxLxD.shape[1:]
    most = int(settings.memory_gib * 2**30) // settings.training_bytes(layers, width, classes)
    groups = len(heads) if sequential else -(-len(heads) // max(1, most))
    results = []
    for number, heads_K in enumerate(np.array_split(np.arange(len(heads)), groups)):
        of_groups = "" if groups == 1 else f", group {number + 1} of {groups}"

        def report(point: int, count: int = len(heads_K), of_groups: str = of_groups) -> None:
            if progress is not None:
                title = f"{settings.kind} heads{of_groups}"
                progress(f"{title}: {count} trained to point {point} of {settings.epochs}")

        group = _GroupTraining(data, heads.take(heads_K), settings, classes, order, steps_P, center_E, not sequential)
        results.append(group.run(counts_JxY[heads_K], keep_heads, report))
    return TrainedHeads(
        head={name: np.concatenate([result.head[name] for result in results]) for name in results[0].head},
        center_E=center_E,
        mean_JxE=np.concatenate([result.mean_JxE for result in results]),
        std_JxE=np.concatenate([result.std_JxE for result in results]),
        validation_JxPxYxY=np.concatenate([result.validation_JxPxYxY for result in results]),
        steps_P=steps_P,
    )


def validation_rows(
    data: LabeledFeatures, heads: HeadBatch, most: int = VALIDATION_ROWS
) -> tuple[Int64[np.ndarray, " N"], Float32[np.ndarray, " N"]]:
    """Rows that validation reads, evenly spaced within each subject and class, and how many rows each represents.

    Args:
        data: labels and subjects.
        heads: which subjects each of them is validated on.
        most: rows of each subject and class.
    """
    rows_N = heads.used_rows(data, heads.validation_JxS)
    if not len(rows_N):
        return rows_N, np.zeros(0, np.float32)
    key_N = data.subject_R[rows_N].astype(np.int64) * (int(data.label_R.max()) + 1) + data.label_R[rows_N]
    kept, weights = [], []
    for key in np.unique(key_N):
        members = rows_N[key_N == key]
        step = -(-len(members) // most)
        chosen = members[step // 2 :: step]
        kept.append(chosen)
        weights.append(np.full(len(chosen), len(members) / len(chosen), np.float32))
    order = np.argsort(np.concatenate(kept))
    return np.concatenate(kept)[order], np.concatenate(weights)[order]


# The compiled functions of one head, mapped over many.


class HeadArrays(NamedTuple):
    """A head's rows and hyper-parameters on the device; every field has a leading axis J when mapped over heads."""

    train_S: Bool[Array, "*J S"]
    validation_S: Bool[Array, "*J S"]
    budget: Int[Array, "*J"]
    class_weight_Y: Float[Array, "*J Y"]
    mean_E: Float[Array, "*J E"]
    std_E: Float[Array, "*J E"]
    learning_rate: Float[Array, "*J"]
    weight_decay: Float[Array, "*J"]
    last_step: Int[Array, "*J"]


class RowBatch(NamedTuple):
    """Rows that all heads share; NumPy arrays until they are used on the device."""

    x_BxE: Float[Array, "B E"] | Float[np.ndarray, "B E"]
    label_B: Int[Array, " B"] | Int[np.ndarray, " B"]
    subject_B: Int[Array, " B"] | Int[np.ndarray, " B"]
    budget_rows_GxB: Bool[Array, "G B"] | Bool[np.ndarray, "G B"]
    weight_B: Float[Array, " B"] | Float[np.ndarray, " B"]
    density_BxY: Float[Array, "B Y"] | Float[np.ndarray, "B Y"] | None = None


class HeadOptimizer(NamedTuple):
    """The settings that are compiled into the step; heads that differ in others share a program."""

    optimizer: str
    beta1: float
    beta2: float
    decay: float
    decay_steps: int

    @classmethod
    def of(cls, settings: HeadSettings) -> "HeadOptimizer":
        """Of the settings of a head."""
        return cls(*(getattr(settings, name) for name in cls._fields))

    def adam(self) -> optax.GradientTransformation:
        """Adam without its learning rate."""
        return optax.scale_by_adam(self.beta1, self.beta2)


@runtime_checkable
class Step(Protocol):
    """One training step; takes over (donates) parameters and optimizer state."""

    def __call__(
        self,
        head: Head,
        state: optax.OptState,
        arrays: HeadArrays,
        center_E: Float[Array, " E"],
        batch: RowBatch,
        number: np.int32,
        /,
    ) -> tuple[Head, optax.OptState]:
        """New parameters and optimizer state after step `number`, counted from 0."""
        ...


@runtime_checkable
class Validate(Protocol):
    """Validation on one batch."""

    def __call__(
        self, head: Head, arrays: HeadArrays, center_E: Float[Array, " E"], batch: RowBatch, /
    ) -> Float[Array, "*J Y Y"]:
        """The confusion matrix (truth, prediction) of each head; all 0 if it has diverged."""
        ...


@lru_cache(maxsize=8)
def compiled_functions(settings: HeadOptimizer, mapped: bool) -> tuple[Step, Validate]:
    """The compiled training step and validation; of one head, or mapped over a leading axis J of heads."""
    adam = settings.adam()

    def step(head: Head, state: optax.OptState, arrays: HeadArrays, batch: RowBatch, n: Int[Array, ""]) -> Any:
        counted_B = arrays.train_S[batch.subject_B] & batch.budget_rows_GxB[arrays.budget]
        weight_B = counted_B.astype(jnp.float32) * batch.weight_B * arrays.class_weight_Y[batch.label_B]

        def loss(head: Head) -> Float[Array, ""]:
            logits_BxY = head_logits(head, arrays.mean_E, arrays.std_E, jnp.asarray(batch.x_BxE))
            if batch.density_BxY is None:
                target_BxY = one_hot(jnp.asarray(batch.label_B), logits_BxY.shape[1])
            else:
                target_BxY = jnp.asarray(batch.density_BxY)
            return cross_entropy(logits_BxY, target_BxY, weight_B)

        gradient = jax.grad(loss)(head)
        decay = {name: arrays.weight_decay * float(name in ("weight_DxH", "out_HxY")) for name in head}
        if settings.optimizer == "adam":
            gradient = {name: gradient[name] + decay[name] * head[name] for name in head}
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            update, state = cast(tuple[Head, optax.OptState], adam.update(gradient, state))
        if settings.optimizer == "adamw":
            update = {name: update[name] + decay[name] * head[name] for name in head}
        rate = arrays.learning_rate * jnp.float32(settings.decay) ** (n.astype(jnp.float32) / settings.decay_steps)
        active = n < arrays.last_step
        return {name: jnp.where(active, head[name] - rate * update[name], head[name]) for name in head}, state

    def validate(head: Head, arrays: HeadArrays, batch: RowBatch) -> Float[Array, "Y Y"]:
        logits_BxY = head_logits(head, arrays.mean_E, arrays.std_E, jnp.asarray(batch.x_BxE))
        finite = jnp.isfinite(logits_BxY).all()
        counted_B = arrays.validation_S[batch.subject_B] & batch.budget_rows_GxB[arrays.budget] & finite
        weight_B = counted_B.astype(jnp.float32) * batch.weight_B
        classes = logits_BxY.shape[1]
        truth_BxY = one_hot(jnp.asarray(batch.label_B), classes) * weight_B[:, None]
        return truth_BxY.T @ one_hot(logits_BxY.argmax(-1), classes)

    if mapped:
        adam_axes: Any = optax.ScaleByAdamState(None, 0, 0)  # pyright: ignore[reportArgumentType]
        step = jax.vmap(step, (0, adam_axes, 0, None, None), (0, adam_axes))
        validate = jax.vmap(validate, (0, 0, None))

    def centered(center_E: Array, batch: RowBatch) -> RowBatch:
        return batch._replace(x_BxE=batch.x_BxE.astype(jnp.float32) - center_E)

    return (
        jax.jit(lambda h, s, arrays, c, b, n: step(h, s, arrays, centered(c, b), n), donate_argnums=(0, 1)),
        jax.jit(lambda h, arrays, c, b: validate(h, arrays, centered(c, b))),
    )


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _init_heads(seed_J: Int[Array, " J"], settings: HeadSettings, layers: int, width: int, classes: int) -> Head:
    return jax.vmap(lambda seed: init_head(jax.random.key(seed), settings, layers, width, classes))(seed_J)


class _GroupTraining:
    """One group of heads, from their first to their last step."""

    def __init__(
        self,
        data: LabeledFeatures,
        heads: HeadBatch,
        settings: HeadSettings,
        classes: int,
        order: ShuffledRows,
        steps_P: np.ndarray,
        center_E: np.ndarray,
        mapped: bool,
    ):
        self.data, self.heads, self.settings, self.classes = data, heads, settings, classes
        self.order, self.steps_P, self.center_E, self.mapped = order, steps_P, center_E, mapped
        self.features_RxE = data.features_RxE

    def run(self, counts_JxY: np.ndarray, keep_heads: bool, report: Callable[[int], None]) -> TrainedHeads:
        """Train to the last stopping point that any head needs, validating at each."""
        heads, (layers, width) = self.heads, self.data.features_RxLxD.shape[1:]
        last_P = np.where(heads.stop_J > 0, heads.stop_J, len(self.steps_P))
        arrays, (mean_JxE, std_JxE) = self._head_arrays(counts_JxY, self.steps_P[last_P - 1])
        shape = HeadSettings(kind=self.settings.kind, hidden=self.settings.hidden, taps=self.settings.taps)
        head: Any = _init_heads(jnp.asarray(heads.seed_J), shape, layers, width, self.classes)
        if not self.mapped:
            arrays, head = jax.tree.map(lambda a: a[0], (arrays, head))
        optimizer = HeadOptimizer.of(self.settings)
        state = optimizer.adam().init(head)
        step, validate = compiled_functions(optimizer, self.mapped)
        center_E = jnp.asarray(self.center_E)

        rows_N, weight_N = validation_rows(self.data, heads)
        confusions = np.zeros((len(heads), len(self.steps_P), self.classes, self.classes))
        batches, done = self._training_batches(int(self.steps_P[last_P.max() - 1])), 0
        for point in range(int(last_P.max())):
            for n in range(done, int(self.steps_P[point])):
                head, state = step(head, state, arrays, center_E, next(batches), np.int32(n))
            done = int(self.steps_P[point])
            for batch in self._validation_batches(rows_N, weight_N):
                confusions[:, point] += np.asarray(validate(head, arrays, center_E, batch))
            report(point + 1)
        if not keep_heads:
            head = {}
        elif not self.mapped:
            head = jax.tree.map(lambda a: a[None], head)
        head = jax.tree.map(np.asarray, head)
        return TrainedHeads(head, self.center_E, mean_JxE, std_JxE, confusions, self.steps_P)

    def _head_arrays(
        self, counts_JxY: np.ndarray, last_step_J: np.ndarray
    ) -> tuple[HeadArrays, tuple[np.ndarray, np.ndarray]]:
        """What the device needs of each head; mean and standard deviation of its features."""
        heads, shape = self.heads, (len(self.heads), self.features_RxE.shape[1])
        if self.settings.standardize:
            mean_JxE, std_JxE = standardization(self.data, heads, self.order.rows_N, self.center_E)
        else:
            mean_JxE, std_JxE = np.broadcast_to(-self.center_E, shape), np.ones(shape, np.float32)
        weight_JxY = np.ones(counts_JxY.shape, np.float32)
        if self.settings.class_weights:
            present_J = (counts_JxY > 0).sum(1, keepdims=True)
            weight_JxY = counts_JxY.sum(1, keepdims=True) / (present_J * np.maximum(counts_JxY, 1))
        arrays = HeadArrays(
            train_S=jnp.asarray(heads.train_JxS),
            validation_S=jnp.asarray(heads.validation_JxS),
            budget=jnp.asarray(heads.budget_J),
            class_weight_Y=jnp.asarray(weight_JxY.astype(np.float32)),
            mean_E=jnp.asarray(mean_JxE),
            std_E=jnp.asarray(std_JxE),
            learning_rate=jnp.asarray(heads.learning_rate_J),
            weight_decay=jnp.asarray(heads.weight_decay_J),
            last_step=jnp.asarray(last_step_J.astype(np.int32)),
        )
        return arrays, (mean_JxE, std_JxE)

    def _read(self, rows_B: np.ndarray, weight_B: np.ndarray) -> RowBatch:
        return RowBatch(
            x_BxE=self.features_RxE[rows_B],
            label_B=self.data.label_R[rows_B].astype(np.int32),
            subject_B=self.data.subject_R[rows_B].astype(np.int32),
            budget_rows_GxB=self.heads.budget_rows_GxR[:, rows_B],
            weight_B=weight_B,
            density_BxY=None if self.data.density_RxY is None else self.data.density_RxY[rows_B],
        )

    def _training_batches(self, steps: int) -> Iterator[RowBatch]:
        """A batch for each step; on the device, as reading and transfer overlap with the steps before."""
        weight_B = np.ones(self.order.batch_size, np.float32)
        if self.order.batch_size == len(self.order.rows_N):
            return iter([jax.device_put(self._read(self.order.rows_N, weight_B))] * steps)
        read = (jax.device_put(self._read(self.order.batch(step), weight_B)) for step in range(steps))
        return iter(Prefetcher(read))

    def _validation_batches(self, rows_N: np.ndarray, weight_N: np.ndarray) -> Iterator[RowBatch]:
        def read(first: int) -> RowBatch:
            chunk = slice(first, first + CHUNK_ROWS)
            missing = CHUNK_ROWS - len(rows_N[chunk])  # padded with rows of weight 0: one shape, one compilation
            return self._read(np.pad(rows_N[chunk], (0, missing)), np.pad(weight_N[chunk], (0, missing)))

        return iter(Prefetcher(map(read, range(0, len(rows_N), CHUNK_ROWS))))
