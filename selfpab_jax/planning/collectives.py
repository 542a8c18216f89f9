"""Collectives of a partitioned program: what each moves, between which devices, and for what purpose."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from selfpab_jax.planning.hlo import DataFlow, Instruction, Place, Program


def groups_of(attributes: str, devices: int) -> Int[np.ndarray, "groups members"]:
    """The groups of devices of a collective, from any of the three notations of XLA.

    Args:
        attributes: of the instruction, with `replica_groups=` or, for a permutation, `source_target_pairs=`.
        devices: number of devices of the program.

    Returns:
        Positions of the devices in the mesh, one row per group.

    Raises:
        ValueError: the notation is unknown.
    """
    if found := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", attributes):
        return np.array([[int(word) for word in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", found[1])])
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        shape, iota, order = (_numbers(text) for text in found.groups(""))
        return _arranged(iota, order).reshape(shape)
    if found := re.search(
        r"replica_groups=mesh\[([^\]]+)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}", attributes
    ):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        order = _arranged(_numbers(found[2] or str(devices)), _numbers(found[3] or ""))
        chosen = re.findall(r"'(\w+)'(?!:)", found[4])
        if found[4].count("'") == 2 * len(chosen):
            names = list(axes)
            grid = order.reshape(list(axes.values()))
            within = [names.index(name) for name in chosen]
            grid = np.moveaxis(grid, within, range(-len(within), 0))
            return grid.reshape(-1, int(np.prod([axes[name] for name in chosen])))
    if re.search(r"replica_groups=\{\}", attributes):
        return np.arange(devices)[None]
    raise ValueError(f"groups of devices in an unknown notation: {attributes[:160]}")


def axes_of(groups: Int[np.ndarray, "groups members"], mesh: Mesh) -> tuple[str, ...]:
    """The axes of the mesh along which the members of a group differ."""
    places = np.stack(np.unravel_index(groups, tuple(mesh.shape.values())))
    differ = (places != places[:, :, :1]).any((1, 2))
    return tuple(name for name, differs in zip(mesh.shape, differ, strict=True) if differs)


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def _arranged(sizes: list[int], order: list[int]) -> np.ndarray:
    grid = np.arange(int(np.prod(sizes))).reshape(sizes)
    return grid.transpose(order) if order else grid


KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
Role = Literal["parameters", "gradients", "activations", "masking", "scalars"]


@dataclass(frozen=True)
class Collective:
    """One collective of a step.

    Args:
        kind: one of `KINDS`.
        role: what it moves; `masking` are random numbers that every device sorts for the whole batch.
        tensor: the parameter that is gathered or whose gradient is summed, otherwise the JAX operation.
        dtype: of the entries.
        bytes: of the whole tensor, after gathering or before scattering.
        sent: bytes that a device sends, with a ring algorithm.
        axes: of the mesh that it runs over.
        groups: positions of the devices in the mesh, one row per group.
        times: how often it runs in a step.
    """

    kind: str
    role: Role
    tensor: str
    dtype: str
    bytes: int
    sent: float
    axes: tuple[str, ...]
    groups: Int[np.ndarray, "groups members"]
    times: int


def collectives_of(program: Program, mesh: Mesh, outputs: Sequence[str]) -> list[Collective]:
    """The collectives of a program after partitioning, in the dtypes that JAX asked for.

    An all-reduce of which each device keeps only its own part counts as a reduce-scatter, as the compilers for GPUs and
    TPUs make it one.

    Args:
        program: after partitioning, before the passes of a compiler for a device.
        mesh: that it was partitioned for.
        outputs: names of its results in order.
    """
    flow = DataFlow(program, outputs)
    names = {id(computation): name for name, computation in program.computations.items()}
    found = []
    for instruction, computation, times in program.walk():
        kind = instruction.opcode
        if kind not in KINDS:
            continue
        groups = groups_of(instruction.attributes, mesh.size)
        if groups.shape[1] == 1:
            continue
        place = (names[id(computation)], instruction.name)
        if kind == "all-reduce" and _keeps_a_part(flow, place):
            kind = "reduce-scatter"
        # The larger side: the result of an all-gather, the operand of a reduce-scatter.
        size = max(
            sum(shape.bytes for shape in instruction.shapes),
            sum(shape.bytes for name in instruction.operands for shape in computation[name].shapes),
        )
        role, tensor = _purpose(instruction, flow, place)
        found.append(
            Collective(
                kind=kind,
                role=role,
                tensor=tensor,
                dtype=instruction.shapes[0].dtype,
                bytes=size,
                sent=size * fraction_sent(kind, groups.shape[1]),
                axes=axes_of(groups, mesh),
                groups=groups,
                times=times,
            )
        )
    return found


def fraction_sent(kind: str, members: int) -> float:
    """Bytes that each device of a ring sends, as a fraction of the bytes of the whole tensor."""
    if kind == "collective-permute":
        return 1.0
    return (2 if kind == "all-reduce" else 1) * (members - 1) / members


def _keeps_a_part(flow: DataFlow, place: Place) -> bool:
    waiting, slices = flow.users(place), 0
    while waiting:
        user, *waiting = waiting
        if user.opcode in ("reshape", "bitcast", "transpose", "copy", "convert"):
            waiting = [*waiting, *flow.users((place[0], user.name))]
        elif user.opcode != "dynamic-slice":
            return False
        slices += user.opcode == "dynamic-slice"
    return slices > 0


def _purpose(instruction: Instruction, flow: DataFlow, place: Place) -> tuple[Role, str]:
    if all(shape.count == 1 for shape in instruction.shapes):
        return "scalars", instruction.source
    if instruction.opcode == "all-gather":
        if name := flow.parameter_behind(place):
            return "parameters", name
        if re.search(r"top_k$|\bjit\(_uniform\)", instruction.source):  # its name in older and newer versions
            return "masking", instruction.source
    elif name := flow.new_state_from(place):
        return "gradients", name
    return "activations", instruction.source
