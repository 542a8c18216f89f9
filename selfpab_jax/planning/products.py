"""Matrix products of a program: their floating-point operations and the bytes they read and write."""

import math
from dataclasses import dataclass

from selfpab_jax.planning.hlo import Computation, Instruction, Program


@dataclass(frozen=True)
class Products:
    """All matrix products of a step on one device.

    Args:
        flops: by the dtype of their operands; a multiply-add is two.
        bytes: of operands and results, each product's counted for itself.
        count: how many run.
    """

    flops: dict[str, int]
    bytes: int
    count: int

    @property
    def total_flops(self) -> int:
        """Of all dtypes."""
        return sum(self.flops.values())


def products_of(program: Program) -> Products:
    """Count a program's matrix products, loops as often as they run."""
    flops: dict[str, int] = {}
    moved = count = 0
    for instruction, computation, times in program.walk():
        if instruction.opcode != "dot":
            continue
        left, right = (computation[name].shapes[0] for name in instruction.operands)
        dtype = left.dtype if left.dtype == right.dtype else f"{left.dtype} x {right.dtype}"
        flops[dtype] = flops.get(dtype, 0) + times * _flops(instruction, computation)
        moved += times * (left.bytes + right.bytes + instruction.shapes[0].bytes)
        count += times
    return Products(flops, moved, count)


def _flops(dot: Instruction, computation: Computation) -> int:
    left = computation[dot.operands[0]].shapes[0]
    return 2 * dot.shapes[0].count * math.prod(left.sizes[axis] for axis in dot.numbers("lhs_contracting_dims"))
