"""Memory of a step on one device: what is known exactly, and bounds for the rest."""

import math
from dataclasses import dataclass

import jax
from jaxtyping import PyTree

from selfpab_jax.planning.compile import CompiledStep, LoweredStep
from selfpab_jax.planning.hlo import DataFlow, Instruction, Place, Program

SAME_VALUE = {
    "convert", "copy", "transpose", "reshape", "bitcast", "broadcast", "pad", "slice", "all-gather",
    "get-tuple-element", "opt-barrier",
}  # fmt: skip
BACKWARD = "transpose("  # in the name of every operation of the backward pass


@dataclass(frozen=True)
class Memory:
    """Bytes per device.

    Args:
        parameters, optimizer: exact; the second are the two moments of AdamW and its counters.
        batch: its part of a batch of float16 spectrograms, and the stop flags.
        gradients: of its parameters, in float32.
        kept: values of the forward pass that matrix products of the backward pass read, in the dtypes that JAX asked
            for.
        temporaries: everything that the step needs in addition to its arguments, including gradients and activations,
            as compiled for the CPU.
    """

    parameters: int
    optimizer: int
    batch: int
    gradients: int
    kept: int
    temporaries: int

    @property
    def state(self) -> int:
        """What exists between two steps."""
        return self.parameters + self.optimizer + self.batch

    @property
    def least(self) -> int:
        """Lower bound: the state and the larger of activations and gradients, which replace each other step by step."""
        return self.state + max(self.kept, self.gradients)

    @property
    def most(self) -> int:
        """Upper bound: as compiled for the CPU, where bf16 products are computed in float32 and little is fused."""
        return self.state + self.temporaries


def memory_of(lowered: LoweredStep, compiled: CompiledStep) -> Memory:
    """The memory of a step on one device."""
    parameters = device_bytes(lowered.state.parameters)
    analysis = compiled.memory
    optimizer = device_bytes((lowered.state.optimizer, lowered.state.step))
    return Memory(
        parameters=parameters,
        optimizer=optimizer,
        batch=analysis.argument_size_in_bytes - parameters - optimizer,
        gradients=parameters,
        kept=kept_bytes(compiled.program),
        temporaries=analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
    )


def device_bytes(tree: PyTree) -> int:
    """Bytes of arrays, or of shapes with shardings, on one device."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def kept_bytes(program: Program) -> int:
    """Bytes of forward values that matrix products of the backward pass read, without parameters."""
    flow = DataFlow(program, ())
    names = {id(computation): name for name, computation in program.computations.items()}
    kept: dict[Place, int] = {}
    for instruction, computation, _ in program.walk():
        if instruction.opcode != "dot" or BACKWARD not in instruction.source:
            continue
        for operand in instruction.operands:
            place, size = _origin(program, flow, (names[id(computation)], operand))
            origin = program.computations[place[0]][place[1]]
            if BACKWARD not in origin.source and origin.opcode != "parameter":
                kept[place] = min(size, kept.get(place, size))
    return sum(kept.values())


def _origin(program: Program, flow: DataFlow, place: Place) -> tuple[Place, int]:
    """Where a value was computed before copies, casts and loops, and the fewest bytes that it had on the way."""
    size = _bytes(program.computations[place[0]][place[1]])
    while program.computations[place[0]][place[1]].opcode in SAME_VALUE:
        before = flow.before(place)
        if len(before) != 1:
            break
        place = before[0]
        size = min(size, _bytes(program.computations[place[0]][place[1]]))
    return place, size


def _bytes(instruction: Instruction) -> int:
    return sum(shape.bytes for shape in instruction.shapes)
