"""Bytes of a step on one device: what is known to the byte, and between which bounds the rest lies."""

import math
from dataclasses import dataclass

import jax
from jaxtyping import PyTree

from selfpab_jax.planning.compile import Ahead, Compiled
from selfpab_jax.planning.hlo import Instruction, Place, Program, Tensors

SAME_VALUE = {
    "convert", "copy", "transpose", "reshape", "bitcast", "broadcast", "pad", "slice", "all-gather",
    "get-tuple-element", "opt-barrier",
}  # fmt: skip
BACKWARD = "transpose("  # how JAX marks what its reverse pass made


@dataclass(frozen=True)
class Memory:
    """Bytes a device.

    Args:
        parameters, optimizer: exact; the second are AdamW's two moments and its counts.
        batch: the device's part of a batch of float16 spectrograms, and the flags that stop a run.
        gradients: of all its parameters in float32.
        kept: what the reverse pass's matrix products read of the forward pass, in the dtypes that JAX asked for.
        temporaries: all that the step needs beside its arguments, gradients and activations included, as XLA laid it
            out for the CPU.
    """

    parameters: int
    optimizer: int
    batch: int
    gradients: int
    kept: int
    temporaries: int

    @property
    def state(self) -> int:
        """What is there between two steps."""
        return self.parameters + self.optimizer + self.batch

    @property
    def least(self) -> int:
        """State, and the larger of activations and gradients, which take each other's place as the pass goes back."""
        return self.state + max(self.kept, self.gradients)

    @property
    def most(self) -> int:
        """As compiled for the CPU, where bf16 products are made in float32 and little is fused."""
        return self.state + self.temporaries


def memory_of(ahead: Ahead, compiled: Compiled) -> Memory:
    """A step's bytes on one device."""
    parameters = device_bytes(ahead.state.parameters)
    analysis = compiled.memory
    optimizer = device_bytes((ahead.state.optimizer, ahead.state.step))
    return Memory(
        parameters=parameters,
        optimizer=optimizer,
        batch=analysis.argument_size_in_bytes - parameters - optimizer,
        gradients=parameters,
        kept=kept_bytes(compiled.program),
        temporaries=analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
    )


def device_bytes(tree: PyTree) -> int:
    """Bytes that one device holds of arrays, or of shapes with shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def kept_bytes(program: Program) -> int:
    """Bytes of the forward pass's values that matrix products of the reverse pass read; parameters do not count."""
    tensors = Tensors(program, ())
    names = {id(computation): name for name, computation in program.computations.items()}
    kept: dict[Place, int] = {}
    for instruction, computation, _ in program.walk():
        if instruction.opcode != "dot" or BACKWARD not in instruction.source:
            continue
        for operand in instruction.operands:
            place, size = _origin(program, tensors, (names[id(computation)], operand))
            origin = program.computations[place[0]][place[1]]
            if BACKWARD not in origin.source and origin.opcode != "parameter":
                kept[place] = min(size, kept.get(place, size))
    return sum(kept.values())


def _origin(program: Program, tensors: Tensors, place: Place) -> tuple[Place, int]:
    """Where a value was made that copies, casts and loops hand on, and the fewest bytes it had on the way."""
    size = _bytes(program.computations[place[0]][place[1]])
    while program.computations[place[0]][place[1]].opcode in SAME_VALUE:
        before = tensors.before(place)
        if len(before) != 1:
            break
        place = before[0]
        size = min(size, _bytes(program.computations[place[0]][place[1]]))
    return place, size


def _bytes(instruction: Instruction) -> int:
    return sum(shape.bytes for shape in instruction.shapes)
