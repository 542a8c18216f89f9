"""A pickle read as data: opcodes are interpreted one by one, and no callable is ever imported or called."""

import pickletools
import struct
from collections.abc import Callable
from typing import Any

from selfpab_jax.convert.pickle_objects import (
    STORAGES,
    Named,
    Opaque,
    Storage,
    Unbuilt,
    build,
    checked_key,
    checked_name,
    construct,
    instantiate,
    of_type,
)
from selfpab_jax.errors import ModelError

DAMAGED = (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError, struct.error, RecursionError)

LARGEST_CONTENT, DEEPEST = 2**22, 32
"""Limits on the values and characters of a file, each counted wherever it is referred to, and on nesting."""
LARGEST_COPIES = 2**28
"""Values, characters and bytes that are copied while objects are made: a few bytes could ask for any number."""
HOSTILE = "is damaged or hostile: it refers to itself, or holds far more than a checkpoint needs"


class _Mark:
    """A mark on the stack."""


def read_pickle(data: bytes) -> Any:
    """The value of a pickle: plain values, dictionaries and tensors; other objects as `pickle_objects` reads them.

    Raises:
        ModelError: it names a module that runs something, calls an unknown function, uses an opcode that a checkpoint
            does not need, refers to itself, or is damaged.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                value = machine.pop()
                require_small(value, "its pickle", LARGEST_CONTENT)
                return value
            machine.do(opcode.name, argument)
    except DAMAGED as error:
        raise ModelError(f"its pickle is damaged ({type(error).__name__}: {str(error)[:80]})") from None
    raise ModelError("its pickle is damaged (it has no end)")


def require_small(value: Any, name: str, largest: int) -> None:
    """Check that a value is a small tree: a few bytes of pickle can refer to themselves or grow exponentially.

    Args:
        value: to check.
        name: for the error message.
        largest: number of values and characters.

    Raises:
        ModelError: it has more than `largest` values and characters, or nests deeper than `DEEPEST`.
    """
    pending, size, seen = [(value, 0)], 0, set()
    while pending:
        item, depth = pending.pop()
        size += 1 + (len(item) if isinstance(item, str) else 0)
        if isinstance(item, Opaque):  # which may refer to its parent: it is entered once, and nothing else enters it
            inside = () if id(item) in seen else item.contents()
            seen.add(id(item))
        else:
            inside = (*item, *item.values()) if isinstance(item, dict) else item if type(item) in (list, tuple) else ()
        if size + len(pending) + len(inside) > largest or (inside and depth == DEEPEST):
            raise ModelError(f"{name} {HOSTILE}")
        below = depth if isinstance(item, Opaque) else depth + 1
        pending += [(each, below) for each in inside]


class _Machine:
    """The stack and memo of a pickle interpreter that can neither import nor call."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def pop(self) -> Any:
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise ValueError("a value is missing")
        return value

    def do(self, name: str, argument: Any) -> None:
        if name in _PUSHES:
            if isinstance(argument, int) and argument.bit_length() > 256:
                raise ValueError("an impossible number")
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise ModelError(f"its pickle uses {name}, which no checkpoint needs; nothing was run")

    def refer(self, name: str) -> None:
        self.stack.append(Named(checked_name(name)))

    def count_copies(self, *values: Any) -> None:
        self.copied += 1 + sum(len(value) for value in values if isinstance(value, (str, bytes, list, tuple, dict)))
        if self.copied > LARGEST_COPIES:
            raise ModelError(f"its pickle {HOSTILE}")

    def since_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while not isinstance(self.stack[at], _Mark):
            at -= 1
            if at < 0:
                raise ValueError("a mark is missing")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def put(self, key: int) -> None:
        self.memo[key] = value = self.stack[-1]
        if isinstance(value, Unbuilt):
            value.places.append(key)

    def make_tuple(self, length: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(length)][::-1]))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        target = target.items if isinstance(target, Opaque) else of_type(target, dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        (target.values if isinstance(target, Opaque) else of_type(target, list)).extend(values)

    def reduce(self) -> None:
        arguments, called = of_type(self.pop(), tuple), of_type(self.pop(), Named)
        self.count_copies(*arguments)
        self.stack.append(construct(called, arguments))

    def make_object(self, *, keywords: bool) -> None:
        given = of_type(self.pop(), dict) if keywords else {}
        arguments, of = of_type(self.pop(), tuple), of_type(self.pop(), Named)
        self.stack.append(instantiate(of, (*arguments, *given.values())))

    def load_storage(self) -> None:
        kind, of, key, _, count = of_type(self.pop(), tuple)
        if kind != "storage" or count < 0:
            raise ValueError("a storage of another kind")
        dtype = STORAGES[of_type(of, Named).name.removeprefix("torch.").removeprefix("storage.")]
        self.stack.append(Storage(of_type(key, str), dtype, of_type(count, int)))

    def build(self) -> None:
        state, value = self.pop(), self.pop()
        self.count_copies(*(state if isinstance(state, tuple) else (state,)))
        built = build(value, state)
        self.stack.append(built)
        if isinstance(value, Unbuilt):
            self.memo |= dict.fromkeys(value.places, built)
            value.places.clear()


_NUMBERS = "BININT BININT1 BININT2 INT LONG LONG1 LONG4 BINFLOAT FLOAT"
_TEXTS = "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
_PUSHES = frozenset((*_NUMBERS.split(), *_TEXTS.split()))
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": lambda machine, name: machine.refer(name.replace(" ", ".")),
    "STACK_GLOBAL": lambda machine, _: machine.refer(".".join([of_type(machine.pop(), str) for _ in range(2)][::-1])),
    "BINPUT": lambda machine, key: machine.put(key),
    "LONG_BINPUT": lambda machine, key: machine.put(key),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "LONG_BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.stack.append(machine.since_mark()),
    "REDUCE": lambda machine, _: machine.reduce(),
    "NEWOBJ": lambda machine, _: machine.make_object(keywords=False),
    "NEWOBJ_EX": lambda machine, _: machine.make_object(keywords=True),
    "BINPERSID": lambda machine, _: machine.load_storage(),
    "BUILD": lambda machine, _: machine.build(),
}
