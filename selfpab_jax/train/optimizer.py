"""AdamW and the learning-rate schedules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from selfpab_jax.errors import ConfigError

ScheduleName = Literal["linear_warmup", "inverse_sqrt", "exponential", "constant", "wsd"]
Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]
"""The learning rate as a function of the step, counted from 0."""


FINAL_SHARE = 0.01
"""`linear_warmup` starts from and ends at this share of the peak."""


def linear_warmup(peak: float, total_steps: int, warmup_share: float) -> Schedule:
    """Linear up over `warmup_share` of the steps, then linear down (`LinearWUSchedule`, SelfPAB's pre-training).

    The original divides by the warm-up share plus 1e-6, and so does this.

    Args:
        peak: highest rate.
        total_steps: of the run.
        warmup_share: share of the steps spent warming up.
    """
    floor = FINAL_SHARE * peak

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        progress = jnp.minimum((step + 1).astype(jnp.float32) / total_steps, 1.0)
        # From the steps that are left, because 1 - progress loses its digits near the end.
        left = jnp.maximum(total_steps - 1 - step, 0).astype(jnp.float32) / total_steps
        height = jnp.where(progress < warmup_share, progress / (warmup_share + 1e-6), left / (1 - warmup_share))
        return floor + height * (peak - floor)

    return rate


def inverse_sqrt(width: int, total_steps: int, warmup_share: float) -> Schedule:
    """Vaswani et al. (2017): width^-0.5 * min(n^-0.5, n * warmup^-1.5); the peak follows from the width.

    Args:
        width: of the model.
        total_steps: of the run.
        warmup_share: share of the steps spent warming up.
    """
    warmup = max(warmup_share * total_steps, 1.0)

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        n = jnp.maximum(step, 1).astype(jnp.float32)
        return width**-0.5 * jnp.minimum(n**-0.5, n * warmup**-1.5)

    return rate


def exponential(peak: float, factor: float = 0.8, steps: int = 200) -> Schedule:
    """peak * factor^(n / steps), continuous in n (`ExponentialTFDecay`, the original's downstream training).

    Args:
        peak: rate of the first step.
        factor: of the decay.
        steps: over which the rate decays by `factor`.
    """
    return lambda step: peak * jnp.power(jnp.float32(factor), step.astype(jnp.float32) / steps)


def warmup_stable_decay(peak: float, total_steps: int, warmup_steps: int, cooldown_steps: int) -> Schedule:
    """Linear up, then constant, then down by 1 - sqrt at the end (Haegele et al. 2024).

    Until it cools down it does not depend on the length of the run, so runs of many lengths can share a trunk.

    Args:
        peak: constant rate.
        total_steps: of the run, with the cool-down.
        warmup_steps: steps until the peak.
        cooldown_steps: last steps; 0 for none.
    """
    first = total_steps - cooldown_steps

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        up = jnp.minimum((step + 1).astype(jnp.float32) / max(warmup_steps, 1), 1.0)
        cooled = jnp.clip((step + 1 - first).astype(jnp.float32) / max(cooldown_steps, 1), 0.0, 1.0)
        return peak * up * (1 - jnp.sqrt(cooled))

    return rate


def with_full_first_step(schedule: Schedule, peak: float) -> Schedule:
    """The original's quirk: its scheduler acts only after the first step, which therefore runs at the full rate."""
    return lambda step: jnp.where(step == 0, jnp.float32(peak), schedule(step))


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its schedule; the defaults are SelfPAB's.

    Args:
        batch_size: samples of a global batch, over all devices and processes.
        epochs: passes over the training windows; the number of steps follows from it.
        steps: number of steps; replaces `epochs` where it is set.
        learning_rate: peak rate (`inverse_sqrt` has its own).
        schedule: `linear_warmup` as published; `inverse_sqrt`, `exponential`, `constant`; or `wsd`: warm-up, constant,
            cool-down, whose runs can be branched off one trunk (`pretrain --from`).
        warmup_share: share of the steps spent warming up.
        warmup_steps: steps of `wsd`'s warm-up, which must not depend on the length.
        cooldown_steps: last steps of `wsd`, over which the rate falls by 1 - sqrt; 0 for a trunk.
        full_first_step: run the first step at the full rate, as the original does by accident.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the root of the second moment.
        weight_decay: decoupled decay of every parameter, biases and norms included.
        clip_norm: largest global gradient norm; off where not set.
        accumulate: micro-batches that a global batch is divided into, to save memory.
    """

    batch_size: int = 64
    epochs: float = 50.0
    steps: int | None = None
    learning_rate: float = 1e-4
    schedule: ScheduleName = "linear_warmup"
    warmup_share: float = 0.07
    warmup_steps: int | None = None
    cooldown_steps: int = 0
    full_first_step: bool = False
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8
    weight_decay: float = 1e-5
    clip_norm: float | None = None
    accumulate: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "learning_rate", "accumulate", "epsilon"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"optimizer.{name} is {getattr(self, name)}; it must be greater than 0")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"optimizer.steps is {self.steps}; it must be at least 1")
        if not 0 <= self.warmup_share < 1:
            raise ConfigError(f"optimizer.warmup_share is {self.warmup_share}; it must be in [0, 1)")
        if self.schedule == "wsd":
            if self.warmup_steps is None or self.warmup_steps < 0:
                raise ConfigError("optimizer.schedule wsd needs optimizer.warmup_steps, a number of steps from 0")
        elif self.warmup_steps is not None or self.cooldown_steps:
            raise ConfigError("optimizer.warmup_steps and optimizer.cooldown_steps are of optimizer.schedule wsd")
        if self.cooldown_steps < 0 or (self.steps is not None and self.cooldown_steps > self.steps):
            raise ConfigError(
                f"optimizer.cooldown_steps is {self.cooldown_steps}; it must be from 0 to the run's steps"
            )
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optimizer.{name} is {getattr(self, name)}; it must be in [0, 1)")
        if self.weight_decay < 0 or (self.clip_norm is not None and self.clip_norm <= 0):
            raise ConfigError("optimizer.weight_decay must not be negative, optimizer.clip_norm must be greater than 0")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"optimizer.batch_size {self.batch_size} is not a multiple of optimizer.accumulate {self.accumulate}"
            )

    def total_steps(self, windows: int) -> int:
        """Steps of the whole run over `windows` training windows."""
        return self.steps or max(1, round(self.epochs * windows / self.batch_size))


def learning_rate(settings: OptimizerSettings, total_steps: int, width: int) -> Schedule:
    """The learning rate at each step.

    Args:
        settings: which schedule, and its peak.
        total_steps: of the run.
        width: of the model, for `inverse_sqrt`.
    """
    peak = settings.learning_rate
    match settings.schedule:
        case "linear_warmup":
            schedule = linear_warmup(peak, total_steps, settings.warmup_share)
        case "inverse_sqrt":
            schedule = inverse_sqrt(width, total_steps, settings.warmup_share)
        case "exponential":
            schedule = exponential(peak)
        case "wsd":
            assert settings.warmup_steps is not None
            schedule = warmup_stable_decay(peak, total_steps, settings.warmup_steps, settings.cooldown_steps)
        case "constant":
            schedule = lambda step: jnp.float32(peak)  # noqa: E731
    return with_full_first_step(schedule, peak) if settings.full_first_step else schedule


def adamw(settings: OptimizerSettings, schedule: Schedule) -> optax.GradientTransformation:
    """AdamW on every parameter, after an optional clip of the global norm."""
    update: Any = optax.adamw(
        cast(optax.Schedule, schedule),
        settings.beta1,
        settings.beta2,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
    )
    if settings.clip_norm is not None:
        update = optax.chain(optax.clip_by_global_norm(settings.clip_norm), update)

    def loosely_typed(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> Any:
        # optax raises floats to whole powers, which strict dtype promotion, our tests' setting, refuses.
        with jax.numpy_dtype_promotion("standard"):
            return update.update(updates, state, params)

    return optax.GradientTransformation(update.init, loosely_typed)
