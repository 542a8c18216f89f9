"""The two pretext tasks: reconstruct what was hidden, from the same sensors or from another one."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from selfpab_jax.model.alteration import AlterationSettings, alter
from selfpab_jax.model.losses import LossName


@dataclass(frozen=True)
class TaskSettings:
    """What is reconstructed, and from what.

    Args:
        kind: `masked`, all sensors in and out (SelfPAB), or `cross_sensor`, one sensor in and the other out
            (MonoSelfPAB).
        input_sensor: the sensor that goes in, for `cross_sensor`; the other is the target.
        switch_probability: probability, for each sample, that the two change places.
        loss: `masked_l1` as published, or `masked_l2`.
        alteration: what is hidden.
    """

    kind: Literal["masked", "cross_sensor"] = "masked"
    input_sensor: str = ""
    switch_probability: float = 0.5
    loss: LossName = "masked_l1"
    alteration: AlterationSettings = field(default_factory=AlterationSettings)

    def __post_init__(self) -> None:
        if not 0 <= self.switch_probability <= 1:
            raise ValueError(f"task.switch_probability is {self.switch_probability}; it must lie in [0, 1]")


class Puzzle(NamedTuple):
    """A batch as the model sees it: altered input, target, and where the loss counts."""

    input: Float[Array, "B T X"]
    target: Float[Array, "B T O"]
    mask: Bool[Array, "B T O"]


def features_of(task: TaskSettings, features: int, sensors: tuple[str, ...], channels: tuple[str, ...]) -> int:
    """Features that go into the model, and come out: all of them, or one sensor's.

    Raises:
        ValueError: the cross-sensor task needs exactly two sensors, `input_sensor` one of them, the channels of each
            side by side and as many of one as of the other.
    """
    if task.kind == "masked":
        return features
    if len(sensors) != 2:
        raise ValueError(f"task.kind cross_sensor needs records of two sensors; these have {', '.join(sensors)}")
    if task.input_sensor and task.input_sensor not in sensors:
        raise ValueError(f"task.input_sensor {task.input_sensor!r} is none of {', '.join(sensors)}")
    half = len(channels) // 2
    of_first = [name.rsplit("_", 1)[0] == sensors[0] for name in channels]
    if of_first != [True] * half + [False] * half:
        raise ValueError(
            f"task.kind cross_sensor needs the channels of {sensors[0]} first and then as many of {sensors[1]}; "
            f"these are {', '.join(channels)}"
        )
    return features // 2


def pose(
    frames_BxTxX: Float[Array, "B T X"],
    keys_B: Key[Array, "B"],
    task: TaskSettings,
    *,
    channels: int,
    sensors: tuple[str, ...],
) -> Puzzle:
    """Make the puzzle of a normalised batch.

    Args:
        frames_BxTxX: normalised frames, channel-major features, sensor after sensor.
        keys_B: one key a sample.
        task: the pretext task.
        channels: channels C of all sensors together.
        sensors: names of the sensors in the order of the features.
    """
    if task.kind == "masked":
        altered = jax.vmap(lambda x, key: alter(x, key, channels, task.alteration))(frames_BxTxX, keys_B)
        return Puzzle(altered.frames, frames_BxTxX, altered.mask)

    half = frames_BxTxX.shape[-1] // 2
    input_first = task.input_sensor in ("", sensors[0])

    def one(frames: Array, key: Array) -> Puzzle:
        switch_key, alter_key = jax.random.split(key)
        sides = (frames[:, :half], frames[:, half:]) if input_first else (frames[:, half:], frames[:, :half])
        switched = jax.random.uniform(switch_key) < task.switch_probability
        source, target = (jnp.where(switched, a, b) for a, b in (sides[::-1], sides))
        altered = alter(source, alter_key, channels // 2, task.alteration)
        return Puzzle(altered.frames, target, altered.mask)

    return jax.vmap(one)(frames_BxTxX, keys_B)
