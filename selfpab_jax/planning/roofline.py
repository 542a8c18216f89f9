"""The least time of a step on a chip, from its peak rates, and plans of runs on chips by it."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from selfpab_jax.distributed.hardware import Chip
from selfpab_jax.model.config import training_flops
from selfpab_jax.planning.collectives import Collective, collectives_of
from selfpab_jax.planning.compile import WindowShape, compile_step, host_devices, lower
from selfpab_jax.planning.hlo import Products, products_of
from selfpab_jax.planning.memory import Memory, memory_of
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.state import MeshSettings

OPTIMIZER_PASSES = 7
"""AdamW reads the gradient, the parameter and two moments, and writes the last three, all in float32."""


@dataclass(frozen=True)
class Roofline:
    """Seconds of a step at the rates that the vendor of the chip states.

    Args:
        compute: matrix products at the bf16 peak.
        memory: operands and results of matrix products, each read or written once, and the passes of the optimizer;
            everything between the products counts as fused into them.
        interconnect: collectives by ring algorithms, one after another, each over its slowest link.
    """

    compute: float
    memory: float
    interconnect: float

    @property
    def bound(self) -> float:
        """The largest of the three: the others overlap with it completely."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def without_overlap(self) -> float:
        """Their sum: nothing overlaps."""
        return self.compute + self.memory + self.interconnect

    @property
    def limit(self) -> str:
        """Which of the three is the largest."""
        return max(("compute", "memory", "interconnect"), key=lambda name: getattr(self, name))


def roofline_of(products: Products, memory: Memory, collectives: Iterable[Collective], chip: Chip) -> Roofline:
    """The bounds of a step on a chip.

    Args:
        products: matrix products of one device.
        memory: of one device.
        collectives: of one device.
        chip: that the step runs on.
    """
    return Roofline(
        compute=products.total_flops / chip.peak_flops,
        memory=(products.bytes + OPTIMIZER_PASSES * memory.parameters) / chip.memory_bandwidth,
        interconnect=sum(each.times * each.sent / bandwidth(chip, each.groups) for each in collectives),
    )


def bandwidth(chip: Chip, groups: Int[np.ndarray, "groups members"]) -> float:
    """Bytes per second that each device of a ring can send, over links in a domain or over the network between domains.

    The members of a group in one domain use their network cards together; other groups use the others. Devices fill the
    domains in the order of the mesh, so devices along its last axis are closest together.
    """
    together = min(int((row // chip.domain == row[0] // chip.domain).sum()) for row in groups)
    if together == groups.shape[1]:
        return chip.link_bandwidth
    return min(chip.link_bandwidth, together * chip.network_bandwidth)


@dataclass(frozen=True)
class StepPlan:
    """A compiled step, which is the same for every kind of chip.

    Args:
        settings: of the run.
        windows: that it is trained on.
        parameters: of the model.
        model_flops: of a step on all devices by formula: three forward passes without rematerialization.
        memory, products, collectives: of one device.
    """

    settings: PretrainSettings
    windows: WindowShape
    parameters: int
    model_flops: int
    memory: Memory
    products: Products
    collectives: tuple[Collective, ...]

    @property
    def devices(self) -> int:
        """Number of devices of the mesh."""
        return devices_of(self.settings.mesh)


@dataclass(frozen=True)
class ChipPlan:
    """The step on one kind of chip.

    Args:
        step: that was compiled.
        chip: that it runs on.
        roofline: times of the step.
        hours: of recording in an epoch.
    """

    step: StepPlan
    chip: Chip
    roofline: Roofline
    hours: float

    @property
    def mfu_bound(self) -> float:
        """Model FLOP/s over the peak, if the step took exactly its bound."""
        # The formula includes the gradient of the input, about 0.1%, which no step computes; so this is capped at 1.
        return min(1.0, self.step.model_flops / (self.roofline.bound * self.step.devices * self.chip.peak_flops))

    @property
    def epoch_seconds(self) -> float:
        """Seconds of an epoch at the bound."""
        windows = self.hours * 3600 / self.step.windows.seconds
        return math.ceil(windows / self.step.settings.optimizer.batch_size) * self.roofline.bound

    @property
    def device_hours(self) -> float:
        """Device-hours of an epoch at the bound."""
        return self.epoch_seconds * self.step.devices / 3600

    @property
    def loader_bytes(self) -> float:
        """Bytes per second of float16 spectrograms that each host must load, at the bound."""
        mesh, windows = self.step.settings.mesh, self.step.windows
        per_device = self.step.settings.optimizer.batch_size / (mesh.data * mesh.fsdp)  # windows per step
        at_host = max(1, min(self.chip.a_host, self.step.devices) // mesh.tensor)  # devices with different windows
        return per_device * at_host * windows.frames * windows.features * 2 / self.roofline.bound

    @property
    def fits(self) -> bool | None:
        """Whether the step fits into the memory of the chip; None if that is between the bounds."""
        if self.step.memory.most <= self.chip.memory:
            return True
        return None if self.step.memory.least <= self.chip.memory else False

    def as_json(self) -> dict[str, Any]:
        """All figures as plain values."""
        step = self.step
        return {
            "chip": self.chip.kind,
            "mesh": asdict(step.settings.mesh),
            "batch_size": step.settings.optimizer.batch_size,
            "parameters": step.parameters,
            "model_flops": step.model_flops,
            "device_flops": step.products.flops,
            "memory": asdict(step.memory) | {"least": step.memory.least, "most": step.memory.most},
            "collectives": [
                {name: value for name, value in vars(each).items() if name != "groups"}
                | {"members": each.groups.shape[1]}
                for each in step.collectives
            ],
            "seconds": asdict(self.roofline)
            | {"bound": self.roofline.bound, "unhidden": self.roofline.without_overlap},
            "mfu_bound": self.mfu_bound,
            "epoch_hours_of_recording": self.hours,
            "epoch_seconds": self.epoch_seconds,
            "device_hours": self.device_hours,
            "loader_bytes_per_second_and_host": self.loader_bytes,
            "fits": self.fits,
        }


def plan_step(settings: PretrainSettings, windows: WindowShape) -> StepPlan:
    """Compile the step of a run for its mesh and analyze it; this takes little longer for many devices than for one.

    Raises:
        ConfigError: mesh, batch and model do not fit each other.
    """
    lowered = lower(settings, windows, host_devices(devices_of(settings.mesh)))
    compiled = compile_step(lowered)
    functional = lowered.objective.functional
    flops = training_flops(settings.model, functional.features, functional.outputs, windows.frames)
    return StepPlan(
        settings=settings,
        windows=windows,
        parameters=functional.parameter_count,
        model_flops=flops * settings.optimizer.batch_size,
        memory=memory_of(lowered, compiled),
        products=products_of(compiled.program),
        collectives=tuple(collectives_of(compiled.program, lowered.mesh, lowered.outputs)),
    )


def on_chip(step: StepPlan, chip: Chip, hours: float) -> ChipPlan:
    """The plan of a step on a chip.

    Args:
        step: that was compiled.
        chip: that it runs on.
        hours: of recording in an epoch.
    """
    return ChipPlan(step, chip, roofline_of(step.products, step.memory, step.collectives, chip), hours)


def devices_of(mesh: MeshSettings) -> int:
    """Number of devices of a mesh without -1."""
    return mesh.data * mesh.fsdp * mesh.tensor
