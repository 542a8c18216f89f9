"""How long a step takes at least on a chip: its arithmetic, its memory and its links, each at the chip's best."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from selfpab_jax.distributed.hardware import Chip
from selfpab_jax.model.flops import training_flops
from selfpab_jax.planning.collectives import Collective, collectives_of
from selfpab_jax.planning.compile import Windows, compile_step, host_devices, lower
from selfpab_jax.planning.hlo import Products, products_of
from selfpab_jax.planning.memory import Memory, memory_of
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.state import MeshSettings

# How long a step takes at least on a chip: its arithmetic, its memory and its links, each at the chip's best.

OPTIMIZER_PASSES = 7  # AdamW reads gradient, parameter and two moments, and writes the last three: float32 each


@dataclass(frozen=True)
class Roofline:
    """Seconds of a step at the chip's stated rates.

    Args:
        compute: matrix products at the bf16 peak.
        memory: operands and results of matrix products, each read or written once, and the optimizer's passes; what
            lies between products counts as fused into them.
        interconnect: collectives by rings, one after the other, each over the slowest link on its way.
    """

    compute: float
    memory: float
    interconnect: float

    @property
    def bound(self) -> float:
        """The largest of the three: all else hidden behind it."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def unhidden(self) -> float:
        """Their sum: nothing hidden."""
        return self.compute + self.memory + self.interconnect

    @property
    def limit(self) -> str:
        """Which of the three is the largest."""
        return max(("compute", "memory", "interconnect"), key=lambda name: getattr(self, name))


def roofline_of(products: Products, memory: Memory, collectives: Iterable[Collective], chip: Chip) -> Roofline:
    """The bounds of a step on a chip."""
    return Roofline(
        compute=products.total_flops / chip.peak_flops,
        memory=(products.bytes + OPTIMIZER_PASSES * memory.parameters) / chip.memory_bandwidth,
        interconnect=sum(each.times * each.sent / bandwidth(chip, each.groups) for each in collectives),
    )


def bandwidth(chip: Chip, groups: Int[np.ndarray, "groups members"]) -> float:
    """Bytes a second that a device of a ring sends: by links within a domain, else by its group's share of the network.

    Of a group that leaves its domain, the members within one share the network cards there; other groups use the rest.
    Devices fill domains in the order of the mesh, whose last axis lies closest together.
    """
    together = min(int((row // chip.domain == row[0] // chip.domain).sum()) for row in groups)
    if together == groups.shape[1]:
        return chip.link_bandwidth
    return min(chip.link_bandwidth, together * chip.network_bandwidth)


# A run on chips that are not there: what its step needs, and how long an epoch takes.


@dataclass(frozen=True)
class StepPlan:
    """A compiled step, whatever chip it is for.

    Args:
        settings: of the run.
        windows: that it is trained on.
        parameters: of the model.
        model_flops: of a step on all devices, by hand count: three forward passes, nothing computed twice.
        memory, products, collectives: of one device.
    """

    settings: PretrainSettings
    windows: Windows
    parameters: int
    model_flops: int
    memory: Memory
    products: Products
    collectives: tuple[Collective, ...]

    @property
    def devices(self) -> int:
        """Of the mesh."""
        return devices_of(self.settings.mesh)


@dataclass(frozen=True)
class ChipPlan:
    """The step on one kind of chip.

    Args:
        step: that was compiled.
        chip: that it is for.
        roofline: seconds a step.
        hours: of recording in an epoch.
    """

    step: StepPlan
    chip: Chip
    roofline: Roofline
    hours: float

    @property
    def mfu_bound(self) -> float:
        """Model FLOP/s over the peak, if the step took no longer than its bound."""
        # The count by hand has the gradient of the input, a thousandth, which no step computes: never above 1.
        return min(1.0, self.step.model_flops / (self.roofline.bound * self.step.devices * self.chip.peak_flops))

    @property
    def epoch_seconds(self) -> float:
        """At the bound."""
        windows = self.hours * 3600 / self.step.windows.seconds
        return math.ceil(windows / self.step.settings.optimizer.batch_size) * self.roofline.bound

    @property
    def device_hours(self) -> float:
        """Of an epoch, at the bound."""
        return self.epoch_seconds * self.step.devices / 3600

    @property
    def loader_bytes(self) -> float:
        """Bytes of float16 spectrograms that a host must deliver in a second, at the bound."""
        mesh, windows = self.step.settings.mesh, self.step.windows
        share = self.step.settings.optimizer.batch_size / (mesh.data * mesh.fsdp)  # windows of a device in a step
        at_host = max(1, min(self.chip.a_host, self.step.devices) // mesh.tensor)  # devices with windows of their own
        return share * at_host * windows.frames * windows.features * 2 / self.roofline.bound

    @property
    def fits(self) -> bool | None:
        """Whether the step fits into the chip's memory; None between the bounds, where only the chip can tell."""
        if self.step.memory.most <= self.chip.memory:
            return True
        return None if self.step.memory.least <= self.chip.memory else False

    def as_json(self) -> dict[str, Any]:
        """The figures, for programs."""
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
            "seconds": asdict(self.roofline) | {"bound": self.roofline.bound, "unhidden": self.roofline.unhidden},
            "mfu_bound": self.mfu_bound,
            "epoch_hours_of_recording": self.hours,
            "epoch_seconds": self.epoch_seconds,
            "device_hours": self.device_hours,
            "loader_bytes_per_second_and_host": self.loader_bytes,
            "fits": self.fits,
        }


def plan_step(settings: PretrainSettings, windows: Windows) -> StepPlan:
    """Compile a run's step for its mesh and read off what it needs; hardly slower for many devices than for one.

    Raises:
        ConfigError: mesh, batch and model do not fit each other.
    """
    ahead = lower(settings, windows, host_devices(devices_of(settings.mesh)))
    compiled = compile_step(ahead)
    functional = ahead.objective.functional
    flops = training_flops(settings.model, functional.features, functional.outputs, windows.frames)
    return StepPlan(
        settings=settings,
        windows=windows,
        parameters=functional.parameter_count,
        model_flops=flops * settings.optimizer.batch_size,
        memory=memory_of(ahead, compiled),
        products=products_of(compiled.program),
        collectives=tuple(collectives_of(compiled.program, ahead.mesh, ahead.outputs)),
    )


def on_chip(step: StepPlan, chip: Chip, hours: float) -> ChipPlan:
    """The step on a chip, for epochs of so many hours of recording."""
    return ChipPlan(step, chip, roofline_of(step.products, step.memory, step.collectives, chip), hours)


def devices_of(mesh: MeshSettings) -> int:
    """Devices of a mesh whose sizes are all told."""
    return mesh.data * mesh.fsdp * mesh.tensor
