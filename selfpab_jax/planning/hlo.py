"""The text form of an XLA program (HLO), parsed as far as a plan needs it.

Instructions with their shapes and how often each runs, which parameter a value comes from, and all matrix products.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}
"""Bits per entry of dtypes whose name does not contain them."""


@dataclass(frozen=True)
class ArrayShape:
    """Dtype and dimensions of an array."""

    dtype: str
    sizes: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of entries."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """Size in bytes, without padding."""
        bits = BITS.get(self.dtype)
        number = re.search(r"\d+", self.dtype)
        return self.count * (bits if bits is not None else int(number[0]) if number else 8) // 8


@dataclass(frozen=True)
class Instruction:
    """A line of a computation: `name = shapes opcode(operands), attributes`."""

    name: str
    opcode: str
    shapes: tuple[ArrayShape, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool
    argument: str = ""

    @property
    def source(self) -> str:
        """The JAX operation that it comes from, e.g. `jit(step)/jvp(bti,io->bto)/dot_general`."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found[1].replace("\\'", "'") if found else ""

    def called(self, attribute: str) -> str:
        """The name of the computation that an attribute refers to."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""

    def numbers(self, attribute: str) -> tuple[int, ...]:
        """The numbers of an attribute such as `lhs_contracting_dims={2,3}`."""
        found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
        return tuple(int(word) for word in found[1].split(",") if word) if found else ()


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Program:
    """A program: computations by name, of which `entry` is executed."""

    computations: dict[str, Computation] = field(default_factory=dict)
    entry: str = ""

    def walk(self, name: str = "", times: int = 1) -> Iterator[tuple[Instruction, Computation, int]]:
        """Every instruction that runs, its computation, and how often it runs in one call of the program.

        Args:
            name: of the computation to start from; the entry where not given.
            times: how often that computation runs.
        """
        computation = self.computations[name or self.entry]
        for instruction in computation.values():
            yield instruction, computation, times
            if instruction.opcode == "while":
                yield from self.walk(instruction.called("body"), times * self.trip_count(instruction))
            elif instruction.opcode in ("call", "async-start"):
                yield from self.walk(instruction.called("to_apply") or instruction.called("calls"), times)
            elif instruction.opcode == "fusion":
                yield from self.walk(instruction.called("calls"), times)

    def trip_count(self, loop: Instruction) -> int:
        """Number of iterations of a loop, from the constant that its counter is compared with.

        Raises:
            ValueError: the loop does not count from 0 to a constant, as the scans and maps of JAX do.
        """
        condition = self.computations[loop.called("condition")]
        for instruction in condition.values():
            if instruction.opcode == "compare" and "direction=LT" in instruction.attributes:
                limit = condition[instruction.operands[1]]
                if limit.opcode == "constant":
                    return int(limit.argument)
        raise ValueError(f"the length of the loop {loop.name} is not a constant")


def parse(text: str) -> Program:
    """Parse a module as XLA prints it."""
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
            for operand in instruction.operands:
                if "#" in operand and operand not in current:
                    current[operand] = _element(operand, current)
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
            ArrayShape(dtype, tuple(int(size) for size in sizes.split(",") if size))
            for dtype, sizes in re.findall(r"\b([a-z]\w*)\[([\d,]*)\]", kind)
        ),
        operands=tuple(re.findall(r"%([\w.\-]+(?:#\d+)?)", inner)) if opcode not in ("constant", "parameter") else (),
        attributes=rest[end + 1 :],
        is_root=name.startswith("ROOT "),
        argument=inner if len(inner) < 32 else "",
    )


def _element(operand: str, computation: Computation) -> Instruction:
    """The get-tuple-element that newer versions of XLA write as `name#index` where it is used."""
    name, _, index = operand.partition("#")
    shape = computation[name].shapes[int(index)]
    return Instruction(operand, "get-tuple-element", (shape,), (name,), f", index={index}", False)


def _closing(text: str) -> int:
    """Index of the parenthesis that closes the one at the start of the text."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return at
    raise ValueError(f"unbalanced: {text[:80]}")


# Data flow: which parameter a value comes from or goes into, followed through loops.

BARRIERS = {"dot", "reduce-window", "custom-call", "sort", "scatter", "gather"}
"""Operations after which a tensor is no longer the parameter or its gradient."""

Place = tuple[str, str]
"""Names of a computation and of an instruction in it."""


class DataFlow:
    """Follows values through a program.

    Args:
        program: a training step; its entry has the arguments of the step.
        outputs: names of its results in order.
    """

    def __init__(self, program: Program, outputs: Sequence[str]):
        self._program, self._outputs = program, outputs
        self._users: dict[Place, list[Instruction]] = {}
        self._loops: dict[str, Place] = {}
        for name, computation in program.computations.items():
            for instruction in computation.values():
                for operand in dict.fromkeys(instruction.operands):
                    self._users.setdefault((name, operand), []).append(instruction)
                if instruction.opcode == "while":
                    self._loops[instruction.called("body")] = (name, instruction.name)

    def users(self, place: Place) -> list[Instruction]:
        """The instructions that read a value, within its computation."""
        return self._users.get(place, [])

    def parameter_behind(self, place: Place) -> str:
        """The name of the only parameter that a value is computed from; empty if there is none or several."""
        found, waiting, seen = set(), [place], {place}
        while waiting:
            at = waiting.pop()
            instruction = self._program.computations[at[0]][at[1]]
            if instruction.opcode == "parameter":
                found.add(parameter_named(instruction.source, "state.parameters"))
            for before in self.before(at):
                if self._changes(before):
                    return ""
                if before not in seen:
                    seen.add(before)
                    waiting.append(before)
        return found.pop() if len(found) == 1 else ""

    def new_state_from(self, place: Place) -> str:
        """The parameter whose new value or moments a value goes into most directly; empty if there is none."""
        layer, seen = [place], {place}
        while layer:
            after = [each for at in layer for each in self._after(at)]
            for at, user, position in after:
                if at[0] == self._program.entry and user.is_root:
                    return parameter_named(self._outputs[position])
            layer = []
            for at, user, position in after:
                for each in self._through(at[0], user, position):
                    if each not in seen:
                        seen.add(each)
                        layer.append(each)
        return ""

    def _changes(self, at: Place) -> bool:
        computation = self._program.computations[at[0]]
        instruction = computation[at[1]]
        if instruction.opcode == "reduce":  # over an axis with one entry it changes nothing
            return computation[instruction.operands[0]].shapes[0].count != instruction.shapes[0].count
        return instruction.opcode in BARRIERS

    def before(self, at: Place) -> list[Place]:
        """The operands of a value; for an element of the state of a loop, the value that enters the loop."""
        computation = self._program.computations[at[0]]
        instruction = computation[at[1]]
        if instruction.opcode != "get-tuple-element":
            return [] if instruction.opcode == "tuple" else [(at[0], name) for name in instruction.operands]
        behind = computation[instruction.operands[0]]
        where = at[0]
        if behind.opcode == "parameter" and where in self._loops:
            where, loop = self._loops[where]
            behind = self._program.computations[where][self._program.computations[where][loop].operands[0]]
        elif behind.opcode == "opt-barrier":  # around rematerialized operations
            behind = computation[behind.operands[0]]
        return [(where, behind.operands[_index(instruction)])] if behind.opcode == "tuple" else []

    def _after(self, at: Place) -> Iterator[tuple[Place, Instruction, int]]:
        for user in self.users(at):
            for position, operand in enumerate(user.operands):
                if operand == at[1]:
                    yield at, user, position

    def _through(self, computation: str, user: Instruction, position: int) -> Iterator[Place]:
        if self._changes((computation, user.name)) or user.opcode == "while":
            return
        if user.opcode != "tuple":
            yield computation, user.name
        elif user.is_root and computation in self._loops:
            outer = self._loops[computation]
            for taken in self.users(outer):
                if taken.opcode == "get-tuple-element" and _index(taken) == position:
                    yield outer[0], taken.name


def parameter_named(source: str, within: str = "") -> str:
    """`a.b` of `state.parameters['a.b']`; empty if there is no such part."""
    found = re.search(r"\['([^']+)'\]", source) if within in source else None
    return found[1] if found else ""


def _index(instruction: Instruction) -> int:
    found = re.search(r"\bindex=(\d+)", instruction.attributes)
    assert found is not None  # XLA prints it with every get-tuple-element
    return int(found[1])


# Matrix products.


@dataclass(frozen=True)
class Products:
    """All matrix products of a step on one device.

    Args:
        flops: by the dtype of the operands; a multiply-add counts as two.
        bytes: of all operands and results.
        count: number of products that run.
    """

    flops: dict[str, int]
    bytes: int
    count: int

    @property
    def total_flops(self) -> int:
        """FLOPs in all dtypes."""
        return sum(self.flops.values())


def products_of(program: Program) -> Products:
    """Count the matrix products of a program, those in loops as often as they run."""
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
