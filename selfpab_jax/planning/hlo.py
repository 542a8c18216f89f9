"""XLA's text of a program, read as far as a plan needs it: instructions, shapes, and how often each one runs."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}
"""Of an entry, where the number in a dtype's name does not say so."""


@dataclass(frozen=True)
class Shape:
    """Dtype and sizes of an array."""

    dtype: str
    sizes: tuple[int, ...]

    @property
    def count(self) -> int:
        """Entries."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """Bytes without padding."""
        bits = BITS.get(self.dtype)
        number = re.search(r"\d+", self.dtype)
        return self.count * (bits if bits is not None else int(number[0]) if number else 8) // 8


@dataclass(frozen=True)
class Instruction:
    """A line of a computation: `name = shapes opcode(operands), attributes`."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool
    argument: str = ""

    @property
    def source(self) -> str:
        """Where JAX made it, such as `jit(step)/jvp(bti,io->bto)/dot_general`."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found[1].replace("\\'", "'") if found else ""

    def called(self, attribute: str) -> str:
        """The computation that an attribute names."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""

    def numbers(self, attribute: str) -> tuple[int, ...]:
        """The entries of an attribute such as `lhs_contracting_dims={2,3}`."""
        found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
        return tuple(int(word) for word in found[1].split(",") if word) if found else ()


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Program:
    """Computations by name; `entry` names the first."""

    computations: dict[str, Computation] = field(default_factory=dict)
    entry: str = ""

    def walk(self, name: str = "", times: int = 1) -> Iterator[tuple[Instruction, Computation, int]]:
        """Every instruction that runs, the computation it stands in, and how often a call of the program runs it."""
        computation = self.computations[name or self.entry]
        for instruction in computation.values():
            yield instruction, computation, times
            if instruction.opcode == "while":
                yield from self.walk(instruction.called("body"), times * self.turns(instruction))
            elif instruction.opcode in ("call", "async-start"):
                yield from self.walk(instruction.called("to_apply") or instruction.called("calls"), times)
            elif instruction.opcode == "fusion":
                yield from self.walk(instruction.called("calls"), times)

    def turns(self, loop: Instruction) -> int:
        """How often a loop runs, from the constant that its counter is compared with.

        Raises:
            ValueError: it is no loop that counts up from 0 to a constant, as JAX's scans and maps do.
        """
        condition = self.computations[loop.called("condition")]
        for instruction in condition.values():
            if instruction.opcode == "compare" and "direction=LT" in instruction.attributes:
                limit = condition[instruction.operands[1]]
                if limit.opcode == "constant":
                    return int(limit.argument)
        raise ValueError(f"the length of the loop {loop.name} is not a constant")


def parse(text: str) -> Program:
    """Read a module as XLA prints it."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for raw in text.splitlines():
        line = re.sub(r"/\*.*?\*/", "", raw)
        head = re.match(r"(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$", line)
        if head and " = " not in line.split("{")[0]:
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            instruction = _instruction(line)
            current[instruction.name] = instruction
    return Program(computations, entry)


def _instruction(line: str) -> Instruction:
    name, _, rest = line.strip().partition(" = ")
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].strip()
    opcode, _, _ = rest.partition("(")
    rest = rest[len(opcode) :]
    end = _closing(rest)
    inner = rest[1:end]
    return Instruction(
        name=name.removeprefix("ROOT ").lstrip("%"),
        opcode=opcode,
        shapes=tuple(
            Shape(dtype, tuple(int(size) for size in sizes.split(",") if size))
            for dtype, sizes in re.findall(r"\b([a-z]\w*)\[([\d,]*)\]", kind)
        ),
        operands=tuple(re.findall(r"%([\w.\-]+)", inner)) if opcode not in ("constant", "parameter") else (),
        attributes=rest[end + 1 :],
        is_root=name.startswith("ROOT "),
        argument=inner if len(inner) < 32 else "",
    )


def _closing(text: str) -> int:
    """Where the parenthesis closes that the text begins with."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return at
    raise ValueError(f"unbalanced: {text[:80]}")
