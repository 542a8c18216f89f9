"""The real training step, compiled for devices that this machine does not have; no parameter is allocated."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from selfpab_jax.data.records.format import read_info, records_folder
from selfpab_jax.errors import ConfigError
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model.masking import features_of
from selfpab_jax.planning.hlo import Program, parse
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.optimizer import adamw, learning_rate
from selfpab_jax.train.state import (
    TrainState,
    abstract_state,
    batch_sharding,
    check_batch,
    make_mesh,
    on_every_device,
    parameter_shardings,
)
from selfpab_jax.train.step import FrameInfo, Objective, jitted_train_step


@dataclass(frozen=True)
class WindowShape:
    """The windows that a step is compiled for; the defaults are those of HUNT4.

    Args:
        frames: per window.
        features: per frame.
        seconds: of recording that each window adds.
        sensors: names.
        channels: names.
    """

    frames: int = 599
    features: int = 156
    seconds: float = 300.0
    sensors: tuple[str, ...] = ("back", "thigh")
    channels: tuple[str, ...] = ("back_x", "back_y", "back_z", "thigh_x", "thigh_y", "thigh_z")


def windows_of(records: Path | None) -> WindowShape:
    """The windows of records, or those of HUNT4 where not given.

    Raises:
        DataError: there are no records in that folder.
    """
    if records is None:
        return WindowShape()
    info = read_info(records_folder(records))
    return WindowShape(info.frames, info.features, info.new_seconds, info.sensors, info.channels)


MOST_DEVICES = 1024
"""Most host devices of a plan: each has threads of its own, and larger meshes repeat what smaller ones show."""

# The XLA passes after which a program is that of one device, still in the dtypes that JAX asked for.
PARTITIONED, INLINED = "spmd-partitioning", "call-inliner"
QUICK: dict[str, Any] = {
    "xla_backend_optimization_level": 0  # the code never runs; buffers and collectives are the same
}


@dataclass(frozen=True)
class LoweredStep:
    """A step before compilation.

    Args:
        objective: model and task.
        mesh: of host devices that represent the real ones.
        state: shapes and shardings of the state of the run.
        lowered: the step as JAX lowers it, for all devices together.
        outputs: names of its results in order.
    """

    objective: Objective
    mesh: jax.sharding.Mesh
    state: TrainState
    lowered: jax.stages.Lowered
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class CompiledStep:
    """A compiled step.

    Args:
        program: of one device after partitioning; the same for every kind of device.
        memory: bytes of arguments, results and temporaries, as compiled for the host's CPU.
    """

    program: Program
    memory: Any


def host_devices(count: int) -> Sequence[Any]:
    """CPU devices of this number; JAX creates them if it has not started yet.

    Raises:
        ConfigError: the number is too large, or JAX has started with fewer.
    """
    if not 1 <= count <= MOST_DEVICES:
        raise ConfigError(
            f"--mesh asks for {count} devices; a plan compiles for 1 to {MOST_DEVICES}. Beyond that, more devices on "
            "the data axis repeat what fewer show"
        )
    try:
        # The plan is for other devices than those of this machine.
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", max(2, count))  # a lone CPU has a program of its own
    except RuntimeError:
        pass  # JAX has started: as in a notebook, or in tests
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise ConfigError(
            f"--mesh asks for {count} devices, but JAX has started with {len(devices)} on the CPU; "
            "run the plan in a process of its own"
        )
    return devices[:count]


def lower(settings: PretrainSettings, windows: WindowShape, devices: Sequence[Any]) -> LoweredStep:
    """Lower the step of a run; this takes seconds and allocates nothing.

    Args:
        settings: of the run.
        windows: that it is trained on.
        devices: of the mesh.

    Raises:
        ConfigError: mesh, batch and model do not fit each other.
    """
    if settings.model.attention == "cudnn":
        raise ConfigError("model.attention cudnn compiles only on a GPU; plan with auto, which uses it there")
    try:
        features = features_of(settings.task, windows.features, windows.sensors, windows.channels)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    functional = make_functional(settings.model, features, features, second_head=settings.task.second_head != "none")
    mesh = make_mesh(settings.mesh, devices)
    parameter_shardings(functional, mesh)
    optimizer = settings.optimizer
    check_batch(optimizer.batch_size, optimizer.accumulate, mesh)
    of_features = np.ones(windows.features, np.float32)
    objective = Objective(
        functional,
        settings.task,
        Statistics(0 * of_features, of_features, "plain"),
        windows.sensors,
        len(windows.channels),
    )
    schedule = learning_rate(optimizer, optimizer.steps or 100_000, settings.model.width)  # a constant of the program
    update = adamw(optimizer, schedule)
    step = jitted_train_step(objective, update, schedule, mesh, seed=settings.seed, accumulate=optimizer.accumulate)
    state = abstract_state(functional, update, mesh)
    shape = (optimizer.batch_size, windows.frames, windows.features)
    batch = jax.ShapeDtypeStruct(shape, jnp.float16, sharding=batch_sharding(mesh))
    stop = jax.ShapeDtypeStruct((mesh.size,), bool, sharding=on_every_device(mesh))
    times = jax.ShapeDtypeStruct((*shape[:2], 5), jnp.int32, sharding=batch_sharding(mesh))
    info = FrameInfo(None, times) if settings.model.temporal_positions else FrameInfo()  # pyright: ignore[reportArgumentType]
    with jax.set_mesh(mesh):
        lowered = step.lower(state, batch, stop, info)
    outputs = tuple(jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(lowered.out_info))
    return LoweredStep(objective, mesh, state, lowered, outputs)


def compile_step(step: LoweredStep) -> CompiledStep:
    """Compile a step, and keep the program of one device from before the passes that are specific to CPUs.

    Those passes turn bf16 into float32 and merge collectives, which no accelerator does.
    """
    last = PARTITIONED if step.mesh.size > 1 else INLINED
    with tempfile.TemporaryDirectory(prefix="selfpab-plan-") as folder:
        dump = {"xla_dump_to": folder, "xla_dump_hlo_pass_re": f"^{last}$", "xla_dump_hlo_as_text": True}
        compiled = step.lowered.compile(QUICK | dump)
        text = min(Path(folder).glob(f"*.after_{last}.*.txt"))
        return CompiledStep(parse(text.read_text()), compiled.memory_analysis())
