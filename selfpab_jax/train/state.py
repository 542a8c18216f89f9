"""The mesh, the state of a run as a pytree, and which axis of which parameter is on which axis of the mesh."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key

from selfpab_jax.errors import ConfigError
from selfpab_jax.model.encoder import BATCH_AXES
from selfpab_jax.model.functional import FunctionalModel, Parameters

MESH_AXES = ("data", "fsdp", "tensor")

MESH_AXIS_OF = {
    # logical axis of a parameter (named where the model creates it) -> mesh axis
    "width": "fsdp",
    "heads": "tensor",
    "hidden": "tensor",
}


@dataclass(frozen=True)
class MeshSettings:
    """Devices along each axis; at most one may be -1, which takes all remaining devices.

    Args:
        data: replicas of the parameters, each with its part of the batch.
        fsdp: shards of parameters and optimizer state, each with its part of the batch.
        tensor: shards of attention heads and feed-forward, each with the whole batch.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise ConfigError(f"mesh.data, mesh.fsdp, mesh.tensor are {sizes}; each must be 1 or more, at most one -1")


def make_mesh(settings: MeshSettings, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over all devices of all processes.

    Raises:
        ConfigError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [settings.data, settings.fsdp, settings.tensor]
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        asked = " x ".join(f"{axis} {size}" for axis, size in zip(MESH_AXES, sizes, strict=True))
        raise ConfigError(
            f"mesh: {asked} does not multiply to the {len(devices)} available devices; change mesh.data, mesh.fsdp or "
            "mesh.tensor"
        )
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices)


def parameter_shardings(functional: FunctionalModel, mesh: Mesh) -> dict[str, NamedSharding]:
    """The sharding of every parameter.

    Raises:
        ConfigError: an axis does not divide, or two axes of a parameter are on the same mesh axis.
    """
    shardings = {}
    for name, shape in functional.abstract.items():
        spec = [MESH_AXIS_OF.get(axis) if axis else None for axis in functional.axes[name]]
        used = [axis for axis in spec if axis]
        if len(used) != len(set(used)):
            raise ConfigError(f"sharding table: two axes of {name} are on one mesh axis: {spec}")
        for logical, axis, size in zip(functional.axes[name], spec, shape.shape, strict=True):
            if axis and size % mesh.shape[axis]:
                raise ConfigError(
                    f"mesh.{axis} {mesh.shape[axis]} does not divide the {size} {logical} entries of {name}; "
                    f"choose a mesh.{axis} that divides {size}"
                )
        shardings[name] = NamedSharding(mesh, PartitionSpec(*spec))
    return shardings


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Samples spread over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def on_every_device(mesh: Mesh) -> NamedSharding:
    """One entry per device."""
    return NamedSharding(mesh, PartitionSpec(MESH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_shard(mesh: Mesh, batch_size: int) -> tuple[int, int]:
    """Which part of a global batch the devices of this process need, as (index, count): part i of n equal ones.

    Processes that share a tensor axis need the same samples.

    Args:
        mesh: over all devices of all processes.
        batch_size: samples of the global batch.

    Raises:
        ConfigError: the devices of this process need samples that are not contiguous.
    """
    needed = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    spans = {part[0].indices(batch_size)[:2] for part in needed if part is not None}
    low, high = min(start for start, _ in spans), max(stop for _, stop in spans)
    size = high - low
    if sum(stop - start for start, stop in spans) != size or batch_size % size or low % size:
        raise ConfigError(
            "mesh: the devices of a process are not contiguous on the data and fsdp axes; "
            "choose mesh.data x mesh.fsdp as a multiple or a divisor of the number of processes"
        )
    return low // size, batch_size // size


def check_batch(batch_size: int, accumulate: int, mesh: Mesh | AbstractMesh) -> None:
    """Check that a micro-batch can be divided evenly over the mesh.

    Args:
        batch_size: samples of the global batch.
        accumulate: micro-batches that it is cut into.
        mesh: the devices.

    Raises:
        ConfigError: it cannot.
    """
    ways = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if (batch_size // accumulate) % ways:
        parts = f"{batch_size} samples" + (f" in {accumulate} micro-batches" if accumulate > 1 else "")
        raise ConfigError(
            f"optimizer.batch_size: {parts} cannot be divided evenly over data {mesh.shape['data']} x fsdp "
            f"{mesh.shape['fsdp']} devices; make the (micro-)batch a multiple of {ways}"
        )


def sharding_table(functional: FunctionalModel, shardings: Mapping[str, NamedSharding], mesh: Mesh) -> str:
    """A table to print: each parameter of one layer, how it is sharded, and the bytes per device.

    Args:
        functional: the model.
        shardings: of its parameters.
        mesh: the devices.
    """
    whole = sum(shape.size * 4 for shape in functional.abstract.values())
    local = sum(math.prod(shardings[name].shard_shape(shape.shape)) * 4 for name, shape in functional.abstract.items())
    device = mesh.devices.flat[0].device_kind
    total = (
        f"{functional.parameter_count:,} parameters; each device holds {local / 2**20:.1f} of {whole / 2**20:.1f} MiB"
        f" of them and {2 * local / 2**20:.1f} MiB of AdamW's moments"
    )
    if mesh.size == 1:
        return f"one device ({device}), nothing to shard; {total}"
    rows = []
    for name, shape in functional.abstract.items():
        if ".layers." in name and ".layers.0." not in name:
            continue
        spec = shardings[name].spec
        cut = (
            ", ".join(f"{a or '-'}:{m}" for a, m in zip(functional.axes[name], spec, strict=True) if m) or "replicated"
        )
        rows.append(f"  {name:<46} {'x'.join(map(str, shape.shape)):>16}  {cut}")
    sizes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    head = f"mesh {sizes} of {mesh.size} devices ({device}); batch over {' x '.join(BATCH_AXES)}"
    return "\n".join([head, *rows, f"  {total}"])


class TrainState(NamedTuple):
    """Steps taken, parameters, and the optimizer's own state."""

    step: Int[Array, ""]
    parameters: Parameters
    optimizer: optax.OptState


@dataclass(frozen=True)
class Validation:
    """What validation has found so far.

    Attributes:
        best: the lowest held-out loss, infinite before the first.
        best_step: its step.
        since: validations since then.
        probe: the highest macro-F1 of the probe, where it chooses the best checkpoint.
        probe_step: its step; 0 where it chooses none.
    """

    best: float = math.inf
    best_step: int = 0
    since: int = 0
    probe: float = -math.inf
    probe_step: int = 0

    def with_measurement(self, loss: float, step: int) -> "Validation":
        """After one more held-out loss."""
        if loss < self.best:
            return replace(self, best=loss, best_step=step, since=0)
        return replace(self, since=self.since + 1)

    def with_probe(self, macro_f1: float, step: int) -> "Validation":
        """After one more probe."""
        return replace(self, probe=macro_f1, probe_step=step) if macro_f1 > self.probe else self

    def as_json(self) -> dict[str, Any]:
        """For the metadata of a checkpoint."""
        best = self.best if math.isfinite(self.best) else None
        of_probe = {"probe": self.probe, "probe_step": self.probe_step} if self.probe_step else {}
        return {"best": best, "best_step": self.best_step, "since": self.since, **of_probe}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Validation":
        """As `as_json` wrote it."""
        return cls(**{name: value for name, value in stored.items() if value is not None})


def _fresh(functional: FunctionalModel, optimizer: optax.GradientTransformation, key: Key[Array, ""]) -> TrainState:
    parameters = functional.initialize(key)
    return TrainState(jax.numpy.zeros((), "int32"), parameters, optimizer.init(parameters))


def state_shardings(functional: FunctionalModel, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """A sharding for every leaf of the state: moments as their parameters, scalars replicated.

    Args:
        functional: the model.
        optimizer: AdamW with its schedule.
        mesh: the devices.
    """
    of_parameter = parameter_shardings(functional, mesh)
    abstract = jax.eval_shape(lambda key: _fresh(functional, optimizer, key), jax.random.key(0))

    def of_leaf(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.sharding.NamedSharding:
        names = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]
        return of_parameter[names[-1]] if names and leaf.ndim else replicated(mesh)

    return jax.tree_util.tree_map_with_path(of_leaf, abstract)


def create_state(
    functional: FunctionalModel, optimizer: optax.GradientTransformation, mesh: Mesh, key: Key[Array, ""]
) -> TrainState:
    """New parameters and moments, created sharded, so that no host holds a full copy; the same on any mesh.

    Args:
        functional: the model.
        optimizer: AdamW with its schedule.
        mesh: the devices.
        key: for the parameters.
    """
    shardings = state_shardings(functional, optimizer, mesh)
    with jax.set_mesh(mesh):
        return jax.jit(lambda key: _fresh(functional, optimizer, key), out_shardings=shardings)(key)


def abstract_state(functional: FunctionalModel, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state: what a checkpoint is restored into.

    Args:
        functional: the model.
        optimizer: AdamW with its schedule.
        mesh: the devices.
    """
    abstract = jax.eval_shape(lambda key: _fresh(functional, optimizer, key), jax.random.key(0))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        state_shardings(functional, optimizer, mesh),
    )
