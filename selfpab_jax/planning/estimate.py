"""A run on chips that are not there: what its step needs, and how long an epoch takes."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from selfpab_jax.model.flops import training_flops
from selfpab_jax.planning.ahead import compile_step, host_devices, lower
from selfpab_jax.planning.collectives import Collective, collectives_of
from selfpab_jax.planning.memory import Memory, memory_of
from selfpab_jax.planning.products import Products, products_of
from selfpab_jax.planning.roofline import Roofline, roofline_of
from selfpab_jax.planning.windows import Windows
from selfpab_jax.train.chips import Chip
from selfpab_jax.train.settings import PretrainSettings
from selfpab_jax.train.sharding import MeshSettings


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
        return math.ceil(windows / self.step.settings.optimiser.batch_size) * self.roofline.bound

    @property
    def device_hours(self) -> float:
        """Of an epoch, at the bound."""
        return self.epoch_seconds * self.step.devices / 3600

    @property
    def loader_bytes(self) -> float:
        """Bytes of float16 spectrograms that a host must deliver in a second, at the bound."""
        mesh, windows = self.step.settings.mesh, self.step.windows
        share = self.step.settings.optimiser.batch_size / (mesh.data * mesh.fsdp)  # windows of a device in a step
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
            "batch_size": step.settings.optimiser.batch_size,
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
    blueprint = ahead.objective.blueprint
    flops = training_flops(settings.model, blueprint.features, blueprint.outputs, windows.frames)
    return StepPlan(
        settings=settings,
        windows=windows,
        parameters=blueprint.parameter_count,
        model_flops=flops * settings.optimiser.batch_size,
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
