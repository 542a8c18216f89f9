"""What a checkpoint's pickle may hold besides plain values, as data: tensors, arrays, paths, namespaces, other objects.

A pickle describes an object by the name of a callable and its arguments. The functions here know what some of these
names mean and build an equal plain value themselves; an object of any other class stays an `Opaque`.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

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
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
"""Classes of the module `torch` that stand for a dtype."""
_RUNNING = "builtins os posix nt pty subprocess multiprocessing asyncio threading _thread sys shutil socket runpy"
_READING = "importlib ctypes types io _io pickle _pickle marshal webbrowser pip pdb"
RUNNING = frozenset((*_RUNNING.split(), *_READING.split()))
"""Modules whose functions run, write or fetch something: a file that names one of them is hostile."""
_BUILTINS = "set frozenset bytearray bytes complex range xrange slice object dict list tuple int float str bool type"
HARMLESS = frozenset(("types.SimpleNamespace", *(f"builtins.{name}" for name in _BUILTINS.split())))
"""Classes of such modules that are only data."""


class Named(NamedTuple):
    """A class or function that the pickle refers to by name; as a value, it is its name."""

    name: str


class NumpyType(NamedTuple):
    """A dtype of NumPy, as text such as `<f8`."""

    text: str


class Storage(NamedTuple):
    """The bytes of one or more tensors: the key of their zip entry, their dtype and the number of values.

    An array that is within the pickle has its bytes here.
    """

    key: str
    dtype: str
    count: int
    data: bytes | bytearray | None = None


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


class Namespace(dict[Any, Any]):
    """A namespace as the dictionary of its attributes."""


@dataclass(eq=False)
class Opaque:
    """An object of a class that is neither imported nor called: its name, and what the pickle stores of it.

    Args:
        name: of the class.
        arguments: of its creation.
        attributes: by name.
        items: of a mapping.
        values: of a sequence.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    attributes: dict[Any, Any] = field(default_factory=dict)
    items: dict[Any, Any] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)

    def contents(self) -> tuple[Any, ...]:
        """Everything that it holds."""
        return (self.arguments, self.attributes, self.items, self.values)


@dataclass(eq=False)
class Unbuilt:
    """A dtype or array of NumPy whose content follows.

    Args:
        kind: `numpy.dtype` or `numpy.ndarray`.
        text: of the dtype.
        places: in the memo, where the finished value belongs too.
    """

    kind: str
    text: str = ""
    places: list[int] = field(default_factory=list)


def checked_name(name: str) -> str:
    """A name under Python 3's name of its module.

    Raises:
        ModelError: the module runs, writes or fetches something.
    """
    name = re.sub(r"^__builtin__\.", "builtins.", re.sub(r"^copy_reg\.", "copyreg.", name))
    if name.split(".")[0] in RUNNING and name not in HARMLESS:
        raise ModelError(f"its pickle names {name[:200]}, which is refused; nothing was run")
    return name


def construct(called: Named, arguments: tuple[Any, ...]) -> Any:
    """What a call with these arguments stands for; nothing is called but the functions of this file.

    Raises:
        ModelError: it is a function that this file does not know.
    """
    known = CONSTRUCTORS.get(called.name)
    if known is not None:
        return known(*arguments)
    if called.name in KEPT_OPAQUE or RANDOM_STATE.fullmatch(called.name) or _is_class(called.name):
        return Opaque(called.name, arguments)
    raise ModelError(f"its pickle calls {called.name[:200]}, which is refused; nothing was run")


def instantiate(of: Named, arguments: tuple[Any, ...]) -> Any:
    """A new object of a class, of which the pickle will give the content."""
    if of.name in NAMESPACES:
        return Namespace()
    return {} if of.name in DICTIONARIES else Opaque(of.name, arguments)


def build(value: Any, state: Any) -> Any:
    """An object after its state is set."""
    if isinstance(value, Unbuilt):
        return _numpy_type(value, state) if value.kind == "numpy.dtype" else _numpy_array(state)
    if isinstance(value, Opaque):
        for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
            value.attributes |= part if isinstance(part, dict) else {}
        return value
    if isinstance(value, Namespace):
        value.update(of_type(state, dict))
    # Attributes of other dictionaries are `_metadata`, the versions of torch.nn's classes, which nobody needs.
    return of_type(value, dict)


def of_type(value: Any, kind: type) -> Any:
    """The value, if it is of this type.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{kind.__name__} expected")
    return value


def tensor_of(storage: Any, offset: Any, shape: Any, stride: Any, *more: Any) -> Any:
    """A tensor by its place in a storage; `more` are what gradients need, and flags of lazy operations."""
    sizes = tuple(of_type(size, int) for size in (offset, *of_type(shape, tuple), *of_type(stride, tuple)))
    if min(sizes) < 0 or len(shape) != len(stride) or math.prod(shape) >= 2**63:
        raise ValueError("a tensor of impossible shape")
    if len(more) > 2 and more[2]:
        return Opaque("torch.Tensor, conjugated or negated when it is read")
    return StoredTensor(of_type(storage, Storage), offset, shape, stride)


def _tensor_with_dtype(
    storage: Any, offset: Any, shape: Any, stride: Any, gradient: Any, hooks: Any, dtype: Any, *_: Any
) -> Any:
    name = of_type(dtype, Named).name.removeprefix("torch.")
    whole = of_type(storage, Storage)
    try:
        count = whole.count // np.dtype(name).itemsize
    except TypeError:
        return Opaque(f"torch.Tensor of {name[:40]}")
    return tensor_of(Storage(whole.key, name, count), offset, shape, stride)


def _typed(call: Any, _: Any, arguments: Any, *__: Any) -> Any:
    return construct(of_type(call, Named), of_type(arguments, tuple))


def _pairs(given: Any = ()) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for pair in given.items() if isinstance(given, dict) else given:
        key, value = pair
        found[checked_key(key)] = value
    return found


def checked_key(key: Any) -> Any:
    """A key of a dictionary, if it is one that can be hashed at little cost.

    Raises:
        ValueError: it is a list or the like.
    """
    inside = key if type(key) is tuple else (key,)
    if len(inside) > 64 or not all(isinstance(k, (str, int, float, bytes, Named, Opaque, type(None))) for k in inside):
        raise ValueError("a key is neither text nor a number")
    return key


def _sequence(given: Any = ()) -> list[Any]:
    if not isinstance(given, (list, tuple, dict)):
        raise ValueError("a sequence expected")
    return list(given)


def _bytes(given: Any = b"", encoding: Any = "latin1") -> bytes:
    if isinstance(given, str) and encoding in ("latin1", "latin-1", "utf-8", "ascii"):
        return given.encode(encoding)
    return bytes(of_type(given, (bytes, bytearray)))  # type: ignore[arg-type]


def _path(kind: type[PurePosixPath | PureWindowsPath], *parts: Any) -> str:
    return str(kind(*(of_type(part, str) for part in parts)))


def _reconstructed(of: Any, base: Any, state: Any) -> Any:
    value = instantiate(of_type(of, Named), ())
    if isinstance(state, dict):
        (value.items if isinstance(value, Opaque) else value).update(state)
    return value


# NumPy

NUMBER = re.compile(r"[<>|=]?(\?|b1|[iu][1248]|f[248]|c8|c16)")
TEXT = re.compile(r"[<>|=]?[US]\d{1,5}")


def _numpy_type(value: Unbuilt, state: Any) -> NumpyType | Opaque:
    order, fields = of_type(state, tuple)[1], state[3]
    text = value.text.lstrip("<>|=")
    if order not in ("<", ">", "|", "=") or fields is not None or not (NUMBER.fullmatch(text) or TEXT.fullmatch(text)):
        return Opaque("numpy.dtype", (value.text,))
    return NumpyType(order + text)


def _numpy_array(state: Any) -> Any:
    _, shape, dtype, is_fortran, data = of_type(state, tuple)
    return _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> Any:
    if not (isinstance(dtype, NumpyType) and NUMBER.fullmatch(dtype.text) and isinstance(data, (bytes, bytearray))):
        return Opaque("numpy.ndarray", (dtype, shape))
    found = np.frombuffer(data, np.dtype(dtype.text))
    if not found.dtype.isnative:
        return Opaque("numpy.ndarray of a big-endian machine")
    sizes = tuple(of_type(size, int) for size in of_type(shape, tuple))
    if min(sizes, default=0) < 0 or math.prod(sizes) != len(found):
        raise ValueError("an array of impossible shape")
    steps = [math.prod(sizes[:axis] if order == "F" else sizes[axis + 1 :]) for axis in range(len(sizes))]
    return StoredTensor(Storage("", found.dtype.name, len(found), data), 0, sizes, tuple(steps))


def _scalar(dtype: Any, data: Any = None, *_: Any) -> Any:
    if not (isinstance(dtype, NumpyType) and isinstance(data, (bytes, str))):
        return Opaque("numpy.generic", (dtype,))
    content = data.encode("latin1") if isinstance(data, str) else data
    value = np.frombuffer(content, np.dtype(dtype.text), 1)[0].item()
    return value if isinstance(value, (bool, int, float, str, bytes)) else Opaque("numpy.generic", (dtype,))


CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _pairs,
    "collections.defaultdict": lambda _=None, given=(): _pairs(given),
    "collections.Counter": _pairs,
    "builtins.dict": _pairs,
    "collections.deque": lambda given=(), *_: _sequence(given),
    **dict.fromkeys(("builtins.set", "builtins.frozenset", "builtins.list"), _sequence),
    "builtins.tuple": lambda given=(): tuple(_sequence(given)),
    **dict.fromkeys(("_codecs.encode", "builtins.bytes", "builtins.bytearray"), _bytes),
    **{
        f"{module}.{name}": lambda *parts, kind=kind: _path(kind, *parts)
        for module in ("pathlib", "pathlib._local")
        for kind, names in (
            (PurePosixPath, ("PosixPath", "PurePosixPath", "Path", "PurePath")),
            (PureWindowsPath, ("WindowsPath", "PureWindowsPath")),
        )
        for name in names
    },
    "torch.Size": lambda sizes=(): tuple(_sequence(sizes)),
    "torch.device": lambda kind, index=None: of_type(kind, str) + ("" if index is None else f":{of_type(index, int)}"),
    "torch.serialization._get_layout": lambda name: of_type(name, str),
    "torch._utils._rebuild_tensor": tensor_of,
    "torch._utils._rebuild_tensor_v2": tensor_of,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch._utils._rebuild_device_tensor_from_numpy": lambda data, *_: data,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": lambda data, *_: data,
    "torch._utils._rebuild_xla_tensor": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "copyreg._reconstructor": _reconstructed,
    "copyreg.__newobj__": lambda of, *arguments: instantiate(of_type(of, Named), arguments),
    "numpy.dtype": lambda text, *_: Unbuilt("numpy.dtype", of_type(text, str)),
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in (
            ("multiarray._reconstruct", lambda *_: Unbuilt("numpy.ndarray")),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _array),
        )
    },
}
"""What is known by name; older and newer names stand side by side."""

NAMESPACES = ("argparse.Namespace", "types.SimpleNamespace")
DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict")
"""Classes whose objects are read as dictionaries."""
_REBUILT = "qtensor sparse_tensor sparse_csr_tensor nested_tensor meta_tensor_no_storage wrapper_subclass"
_VALUES = (
    "datetime.datetime datetime.date datetime.time datetime.timedelta datetime.timezone functools.partial "
    "builtins.complex builtins.range builtins.xrange builtins.slice builtins.object operator.getitem _operator.getitem"
)
KEPT_OPAQUE = frozenset((*_VALUES.split(), *(f"torch._utils._rebuild_{kind}" for kind in _REBUILT.split())))
"""Callables with a name in lower case that only make a value."""
RANDOM_STATE = re.compile(r"numpy\.random\.[\w.]+")


def _is_class(name: str) -> bool:
    """Whether a name is written like a class; a storage is one, but stands for a dtype."""
    return name.rsplit(".", 1)[-1].lstrip("_")[:1].isupper() and name.removeprefix("torch.") not in STORAGES
