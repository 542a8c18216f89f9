"""A training step and a validation of one head, and both compiled for many of them side by side."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Self, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from selfpab_jax.probe.heads import Head, HeadSettings, cross_entropy, head_logits


class JobArrays(NamedTuple):
    """What the device knows of a job; every field has a leading axis J where jobs are mapped over."""

    train_S: Bool[Array, "S"]
    validation_S: Bool[Array, "S"]
    group: Int[Array, ""]
    class_weight_Y: Float[Array, "Y"]
    mean_E: Float[Array, "E"]
    deviation_E: Float[Array, "E"]
    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    last_step: Int[Array, ""]


class Batch(NamedTuple):
    """Rows that all jobs share."""

    x_BxE: Float[Array, "B E"]
    label_B: Int[Array, "B"]
    subject_B: Int[Array, "B"]
    rows_GxB: Bool[Array, "G B"]
    weight_B: Float[Array, "B"]


class Updates(NamedTuple):
    """What of the settings is compiled into the step."""

    optimiser: str
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
    """The compiled step (head, moments, job, centre, batch, n) and validation (head, job, centre, batch)."""
    adam = settings.adam()

    def step(head: Head, moments: optax.OptState, job: JobArrays, batch: Batch, n: Int[Array, ""]) -> Any:
        counted_B = job.train_S[batch.subject_B] & batch.rows_GxB[job.group]
        weight_B = counted_B.astype(jnp.float32) * batch.weight_B * job.class_weight_Y[batch.label_B]

        def loss(head: Head) -> Float[Array, ""]:
            return cross_entropy(head_logits(head, job.mean_E, job.deviation_E, batch.x_BxE), batch.label_B, weight_B)

        gradient = jax.grad(loss)(head)
        decay = {name: job.weight_decay * float(name in ("weight_DxH", "out_HxY")) for name in head}
        if settings.optimiser == "adam":
            gradient = {name: gradient[name] + decay[name] * head[name] for name in head}
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to whole powers
            update, moments = cast(tuple[Head, optax.OptState], adam.update(gradient, moments))
        if settings.optimiser == "adamw":
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

    def centred(centre_E: Array, batch: Batch) -> Batch:
        return batch._replace(x_BxE=batch.x_BxE.astype(jnp.float32) - centre_E)

    return (
        jax.jit(lambda h, m, job, c, b, n: step(h, m, job, centred(c, b), n), donate_argnums=(0, 1)),
        jax.jit(lambda h, job, c, b: validate(h, job, centred(c, b))),
    )
