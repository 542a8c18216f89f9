"""What a run is trained on, as far as a step's shapes go."""

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
from selfpab_jax.train.step import Objective, jitted_train_step

# What a run is trained on, as far as a step's shapes go.


@dataclass(frozen=True)
class Windows:
    """Windows of spectrograms; the defaults are HUNT4's.

    Args:
        frames: T of a window.
        features: X of a frame.
        seconds: of recording that a window adds.
        sensors: their names.
        channels: their names.
    """

    frames: int = 599
    features: int = 156
    seconds: float = 300.0
    sensors: tuple[str, ...] = ("back", "thigh")
    channels: tuple[str, ...] = ("back_x", "back_y", "back_z", "thigh_x", "thigh_y", "thigh_z")


def windows_of(records: Path | None) -> Windows:
    """The windows of records, or HUNT4's where there are none yet.

    Raises:
        DataError: there are none at that place.
    """
    if records is None:
        return Windows()
    info = read_info(records_folder(records))
    return Windows(info.frames, info.features, info.new_seconds, info.sensors, info.channels)


# The real training step, compiled for devices that are not there, without a single parameter in memory.

MOST_DEVICES = 1024
"""Host devices that a plan may ask for: each has its threads, and larger meshes repeat what smaller ones show."""

# XLA's passes after which a program is what one device does, in the dtypes that JAX asked for.
PARTITIONED, INLINED = "spmd-partitioning", "call-inliner"
QUICK: dict[str, Any] = {
    "xla_backend_optimization_level": 0
}  # machine code that never runs; buffers and collectives stay as they are


@dataclass(frozen=True)
class Ahead:
    """A step before any device has seen it.

    Args:
        objective: model and task.
        mesh: of host devices that stand in for the real ones.
        state: shapes and shardings of what the step takes over.
        lowered: the step as JAX asks for it, for all devices together.
        outputs: names of its results in order.
    """

    objective: Objective
    mesh: jax.sharding.Mesh
    state: TrainState
    lowered: jax.stages.Lowered
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of it.

    Args:
        program: what one device does, as the partitioner left it: the same for every kind of device.
        memory: bytes of arguments, results and temporaries, as compiled for the host's CPU.
    """

    program: Program
    memory: Any


def host_devices(count: int) -> Sequence[Any]:
    """So many CPU devices; JAX makes them, if it has not started yet.

    Raises:
        ConfigError: too many, or JAX has started with fewer.
    """
    if not 1 <= count <= MOST_DEVICES:
        raise ConfigError(
            f"--mesh asks for {count} devices; a plan compiles for 1 to {MOST_DEVICES}. Beyond that, more devices on "
            "the data axis repeat what fewer show"
        )
    try:
        # Whatever this machine has, it is not what the plan is for.
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", max(2, count))  # a lone CPU has a program of its own
    except RuntimeError:
        pass  # JAX has started: as in a notebook, or in tests
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise ConfigError(
            f"--mesh asks for {count} devices, but JAX has started with {len(devices)} on the CPU; "
            "plan in a process of its own"
        )
    return devices[:count]


def lower(settings: PretrainSettings, windows: Windows, devices: Sequence[Any]) -> Ahead:
    """The step of a run as JAX asks XLA for it; takes seconds and allocates nothing.

    Raises:
        ConfigError: mesh, batch and model do not fit each other.
    """
    if settings.model.temporal_positions:
        raise ConfigError("model.temporal_positions: there is no training step with it to plan; leave it off")
    if settings.model.attention == "cudnn":
        raise ConfigError(
            "model.attention cudnn compiles on a GPU alone; plan with auto, which takes it there by itself"
        )
    try:
        features = features_of(settings.task, windows.features, windows.sensors, windows.channels)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    functional = make_functional(settings.model, features, features)
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
    with jax.set_mesh(mesh):
        lowered = step.lower(state, batch, stop)
    outputs = tuple(jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(lowered.out_info))
    return Ahead(objective, mesh, state, lowered, outputs)


def compile_step(ahead: Ahead) -> Compiled:
    """Compile it, and keep what one device does before XLA's compiler for CPUs makes it into what no accelerator does.

    That compiler turns bf16 into float32 and merges collectives.
    """
    last = PARTITIONED if ahead.mesh.size > 1 else INLINED
    with tempfile.TemporaryDirectory(prefix="selfpab-plan-") as folder:
        dump = {"xla_dump_to": folder, "xla_dump_hlo_pass_re": f"^{last}$", "xla_dump_hlo_as_text": True}
        compiled = ahead.lowered.compile(QUICK | dump)
        text = min(Path(folder).glob(f"*.after_{last}.*.txt"))
        return Compiled(parse(text.read_text()), compiled.memory_analysis())
