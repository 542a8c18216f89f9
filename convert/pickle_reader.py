"""A pickle read as data: opcodes are interpreted one by one, and no callable is ever imported or called."""

import math
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from selfpab_jax.errors import ModelError

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
"""Classes of the module `torch` that stand for a dtype."""
CALLED = ("collections.OrderedDict", "torch._utils._rebuild_tensor_v2")
"""What a pickle of tensors calls; the reader implements both itself and imports neither."""
ALLOWED = frozenset((*CALLED, *(f"torch.{name}" for name in STORAGES)))
DAMAGED = (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError, struct.error, RecursionError)

LARGEST_CONTENT, DEEPEST = 2**22, 32
"""Limits on the values and characters of a file, each counted wherever it is referred to, and on nesting."""


class Named(NamedTuple):
    """A callable that the pickle refers to by name, one of `ALLOWED`."""

    name: str


class Storage(NamedTuple):
    """The bytes of one or more tensors: the key of their zip entry, their dtype and the number of values."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """The position of a tensor in its storage; nothing of it has been read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self.storage.dtype


class _Mark:
    """A mark on the stack."""


def read_pickle(data: bytes) -> Any:
    """The value of a pickle that holds only plain values, dictionaries and tensors.

    Raises:
        ModelError: it names any other callable, uses an opcode that such a pickle does not need, refers to itself, or
            is damaged.
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
    pending, size = [(value, 0)], 0
    while pending:
        item, depth = pending.pop()
        size += 1 + (len(item) if isinstance(item, str) else 0)
        inside = (*item, *item.values()) if isinstance(item, dict) else item if type(item) in (list, tuple) else ()
        if size + len(pending) + len(inside) > largest or (inside and depth == DEEPEST):
            raise ModelError(
                f"{name} is damaged or hostile: it refers to itself, or holds far more than a checkpoint needs"
            )
        pending += [(each, depth + 1) for each in inside]


class _Machine:
    """The stack and memo of a pickle interpreter that can neither import nor call."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

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
            raise ModelError(f"its pickle uses {name}, which no file of tensors needs; nothing was run")

    def refer(self, name: str) -> None:
        if name not in ALLOWED:
            raise ModelError(f"its pickle names {name[:200]}, which is refused; nothing was run")
        self.stack.append(Named(name))

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
        self.memo[key] = self.stack[-1]

    def make_tuple(self, length: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(length)][::-1]))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise ValueError("a key is neither text nor a number")
            _of_type(target, dict)[key] = value

    def append(self, values: list[Any]) -> None:
        _of_type(self.stack[-1], list).extend(values)

    def reduce(self) -> None:
        arguments, called = _of_type(self.pop(), tuple), _of_type(self.pop(), Named)
        if called.name == "collections.OrderedDict":
            pairs = arguments[0] if arguments else []
            self.stack.append({})
            self.set_items([part for pair in pairs for part in pair])
        elif called.name == "torch._utils._rebuild_tensor_v2":
            self.stack.append(_tensor(*arguments[:4]))
        else:
            raise ModelError(f"its pickle calls {called.name}, which is refused; nothing was run")

    def load_storage(self) -> None:
        kind, of, key, _, count = _of_type(self.pop(), tuple)
        if kind != "storage" or count < 0:
            raise ValueError("a storage of another kind")
        dtype = STORAGES[_of_type(of, Named).name.removeprefix("torch.")]
        self.stack.append(Storage(_of_type(key, str), dtype, _of_type(count, int)))

    def drop_state(self) -> None:
        self.pop()  # attributes of a dictionary (`_metadata`: versions of torch.nn's classes), which are not needed
        _of_type(self.stack[-1], dict)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> StoredTensor:
    sizes = tuple(_of_type(size, int) for size in (offset, *_of_type(shape, tuple), *_of_type(stride, tuple)))
    if min(sizes) < 0 or len(shape) != len(stride) or math.prod(shape) >= 2**63:
        raise ValueError("a tensor of impossible shape")
    return StoredTensor(_of_type(storage, Storage), offset, shape, stride)


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{kind.__name__} expected")
    return value


_PUSHES = frozenset(
    ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT")
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": lambda machine, name: machine.refer(name.replace(" ", ".")),
    "INST": lambda machine, name: machine.refer(name.replace(" ", ".")),
    "STACK_GLOBAL": lambda machine, _: machine.refer(".".join([_of_type(machine.pop(), str) for _ in range(2)][::-1])),
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
    "REDUCE": lambda machine, _: machine.reduce(),
    "BINPERSID": lambda machine, _: machine.load_storage(),
    "BUILD": lambda machine, _: machine.drop_state(),
}
