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
"""Classes of the module `torch` that name a dtype."""
CALLED = ("collections.OrderedDict", "torch._utils._rebuild_tensor_v2")
"""What a pickle of tensors calls; each is given its meaning here and none is imported."""
ALLOWED = frozenset((*CALLED, *(f"torch.{name}" for name in STORAGES)))
DAMAGED = (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError, struct.error, RecursionError)

LARGEST_CONTENT, DEEPEST = 2**22, 32
"""Values and characters that a file may come to, each counted wherever it is referred to, and how deep they nest."""


class Named(NamedTuple):
    """A name that the pickle refers to, one of `ALLOWED`."""

    name: str


class Storage(NamedTuple):
    """A tensor's bytes: the key of their entry in the zip, their dtype and how many values."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: nothing of it has been read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self.storage.dtype


class _Mark:
    """The pickle machine's mark."""


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


def require_small(value: Any, named: str, largest: int) -> None:
    """See that a value is a tree that one may walk: a few bytes of pickle can refer to themselves, or double on.

    Raises:
        ModelError: it comes to more than `largest` values and characters, or nests deeper than `DEEPEST`.
    """
    waiting, size = [(value, 0)], 0
    while waiting:
        part, depth = waiting.pop()
        size += 1 + (len(part) if isinstance(part, str) else 0)
        inside = (*part, *part.values()) if isinstance(part, dict) else part if type(part) in (list, tuple) else ()
        if size + len(waiting) + len(inside) > largest or (inside and depth == DEEPEST):
            raise ModelError(
                f"{named} is damaged or hostile: it refers to itself, or holds far more than a checkpoint needs"
            )
        waiting += [(each, depth + 1) for each in inside]


class _Machine:
    """The stack and memo of the pickle machine, without the power to import or to call."""

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
        self.pop()  # attributes of a dictionary (`_metadata`: versions of torch.nn's classes), which nothing needs
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
