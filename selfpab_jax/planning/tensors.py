"""Which parameter a value in a program comes from or goes into, followed through loops."""

import re
from collections.abc import Iterator, Sequence

from selfpab_jax.planning.hlo import Instruction, Program

BARRIERS = {"dot", "reduce-window", "custom-call", "sort", "scatter", "gather"}
"""Where a tensor ceases to be that parameter or its gradient and becomes a part of something else."""

Place = tuple[str, str]
"""Computation and instruction."""


class Tensors:
    """Follows values through a program.

    Args:
        program: whose entry has the step's arguments.
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
        """What reads a value, within its computation."""
        return self._users.get(place, [])

    def parameter_behind(self, place: Place) -> str:
        """The one parameter that a value is made of, with nothing but constants beside it; or nothing."""
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
        """The parameter whose new value or moments are the nearest that a value goes into, or nothing."""
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
        if instruction.opcode == "reduce":  # over an axis of one entry it is none
            return computation[instruction.operands[0]].shapes[0].count != instruction.shapes[0].count
        return instruction.opcode in BARRIERS

    def before(self, at: Place) -> list[Place]:
        """What a value is made of; an element of a loop's state leads to what enters the loop."""
        computation = self._program.computations[at[0]]
        instruction = computation[at[1]]
        if instruction.opcode != "get-tuple-element":
            return [] if instruction.opcode == "tuple" else [(at[0], name) for name in instruction.operands]
        behind = computation[instruction.operands[0]]
        where = at[0]
        if behind.opcode == "parameter" and where in self._loops:
            where, loop = self._loops[where]
            behind = self._program.computations[where][self._program.computations[where][loop].operands[0]]
        elif behind.opcode == "opt-barrier":  # around what is computed again
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
    """`a.b` of `state.parameters['a.b']`; nothing where there is no such part."""
    found = re.search(r"\['([^']+)'\]", source) if within in source else None
    return found[1] if found else ""


def _index(instruction: Instruction) -> int:
    found = re.search(r"\bindex=(\d+)", instruction.attributes)
    assert found is not None  # XLA prints it with every get-tuple-element
    return int(found[1])
