"""The one table of names and shapes between the original's `state_dict` and ours, read in both directions."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Float32

from selfpab_jax.convert.family import FRAME_ENCODING
from selfpab_jax.errors import ModelError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.encoder import CALENDAR

# The one table of names and shapes between the original's `state_dict` and ours, read in both directions.

Arrays = dict[str, Float32[np.ndarray, "..."]]
TOLD = 100
"""Problems that an error lists; the others are counted."""
POSITION_ROWS = 10_000
"""Rows of the original's table of frame positions, whatever the length of its windows."""


class Rule(NamedTuple):
    """One line of the table: `torch` and `ours` are names, `{n}` a layer; brackets join axes as torch.nn stores them.

    X features in, O out, D width, M feed-forward, S = 3 (query, key, value), H heads, K head size.
    """

    torch: str
    torch_axes: str
    ours: str
    axes: str


_THEIRS, _OURS = "transformer_encoder.layers.{n}.", "encoder.layers.{n}."
RULES = (
    Rule("emb.lin_proj_layer.weight", "D X", "encoder.embed.kernel", "X D"),
    Rule("emb.lin_proj_layer.bias", "D", "encoder.embed.bias", "D"),
    Rule(_THEIRS + "self_attn.in_proj_weight", "(S H K) D", _OURS + "attention.qkv_kernel", "D S H K"),
    Rule(_THEIRS + "self_attn.in_proj_bias", "(S H K)", _OURS + "attention.qkv_bias", "S H K"),
    Rule(_THEIRS + "self_attn.out_proj.weight", "D (H K)", _OURS + "attention.out_kernel", "H K D"),
    Rule(_THEIRS + "self_attn.out_proj.bias", "D", _OURS + "attention.out_bias", "D"),
    Rule(_THEIRS + "linear1.weight", "M D", _OURS + "expand.kernel", "D M"),
    Rule(_THEIRS + "linear1.bias", "M", _OURS + "expand.bias", "M"),
    Rule(_THEIRS + "linear2.weight", "D M", _OURS + "contract.kernel", "M D"),
    Rule(_THEIRS + "linear2.bias", "D", _OURS + "contract.bias", "D"),
    Rule(_THEIRS + "norm1.weight", "D", _OURS + "norm1.scale", "D"),
    Rule(_THEIRS + "norm1.bias", "D", _OURS + "norm1.bias", "D"),
    Rule(_THEIRS + "norm2.weight", "D", _OURS + "norm2.scale", "D"),
    Rule(_THEIRS + "norm2.bias", "D", _OURS + "norm2.bias", "D"),
    Rule("prediction_head.mlp.out_layer.weight", "O D", "head.kernel", "D O"),
    Rule("prediction_head.mlp.out_layer.bias", "O", "head.bias", "O"),
)
"""Every parameter, in the order in which the original's classes register them."""

FRAME_TABLE, NUMBERED_FRAME_TABLE = "emb.pos_encoder.pe", "emb.pos_encoder.pos_encoders.{n}.pe"
CALENDAR_TABLES = {
    f"emb.pos_encoder.pos_encoders.{{n}}.{name}_embed.emb.weight": rows for name, rows in reversed(CALENDAR.items())
}
"""Fixed tables, which we compute instead of storing: by frame, and LTA2V's by calendar with their rows."""

IGNORED = (r"(?:val_|test_)?metrics\..+",)
"""What else a `state_dict` may hold: torchmetrics' counters, which no output depends on."""


class Shaped(Protocol):
    """An array, a tensor on disk, or anything else with a shape and a dtype."""

    @property
    def shape(self) -> Sequence[int]:
        """Sizes of the axes."""
        ...

    @property
    def dtype(self) -> object:
        """Named float32 if it is."""
        ...


@dataclass(frozen=True)
class Pair:
    """A parameter under both names."""

    torch: str
    ours: str
    rule: Rule


def is_position(name: str) -> bool:
    """Whether a tensor is one of the fixed tables."""
    return any(
        _layer_of(pattern, name) is not None for pattern in (FRAME_TABLE, NUMBERED_FRAME_TABLE, *CALENDAR_TABLES)
    )


def is_ignored(name: str) -> bool:
    """Whether the table says that a tensor has no part in the model."""
    return any(re.fullmatch(pattern, name) for pattern in IGNORED)


def sizes_of(settings: ModelSettings, features: int | None = None, outputs: int | None = None) -> dict[str, int]:
    """Sizes of the axes in the table; without `features` or `outputs` these are taken as they come."""
    sizes = {"D": settings.width, "M": settings.feedforward, "S": 3, "H": settings.heads, "K": settings.head_size}
    return sizes | {axis: size for axis, size in (("X", features), ("O", outputs)) if size is not None}


def match(tensors: Mapping[str, Shaped], sizes: Mapping[str, int], layers: int) -> list[Pair]:
    """Pair every parameter of the model with the tensor that holds it; positions and ignored extras are passed over.

    Raises:
        ModelError: tensors that are missing, unexpected, match twice, or have another shape or dtype, up to `TOLD`.
    """
    _require_layers(layers, len(tensors))
    problems, found = [], []
    for name, tensor in tensors.items():
        if is_position(name) or is_ignored(name):
            continue
        pairs = [
            Pair(name, rule.ours.format(n=layer), rule)
            for rule in RULES
            if (layer := _layer_of(rule.torch, name)) is not None and layer < layers
        ]
        problems += [] if pairs else [f"{name} is unexpected"]
        for pair in pairs:
            problems += _misfits(tensor, pair.torch, pair.rule.torch_axes, sizes)
        found += pairs
    expected = expand(layers)
    for ours, count in Counter(pair.ours for pair in found).items():
        if count > 1:
            twice = [pair.torch for pair in found if pair.ours == ours]
            problems.append(f"{' and '.join(twice)} both match {ours}")
    for name, count in Counter(pair.torch for pair in found).items():
        if count > 1:
            problems.append(f"{name} matches {' and '.join(pair.ours for pair in found if pair.torch == name)}")
    there = {pair.ours for pair in found}
    problems += [f"{pair.torch} is missing" for pair in expected if pair.ours not in there]
    if problems:
        raise ModelError(f"the tensors do not fit the model: {_told(problems)}")
    by_name = {pair.ours: pair for pair in found}
    return [by_name[pair.ours] for pair in expected]


def match_ours(arrays: Mapping[str, Shaped], sizes: Mapping[str, int], layers: int) -> list[Pair]:
    """Pair every parameter of the model with our array of it: `match` the other way.

    Raises:
        ModelError: arrays that are missing, unexpected, or have another shape or dtype: up to `TOLD` of them.
    """
    _require_layers(layers, len(arrays))
    pairs = expand(layers)
    known = {pair.ours for pair in pairs}
    problems = [f"{name} is unexpected" for name in arrays if name not in known]
    for pair in pairs:
        there = arrays.get(pair.ours)
        problems += [f"{pair.ours} is missing"] if there is None else _misfits(there, pair.ours, pair.rule.axes, sizes)
    if problems:
        raise ModelError(f"the arrays do not fit the model: {_told(problems)}")
    return pairs


def expand(layers: int) -> list[Pair]:
    """Every parameter of a model with so many layers, in the original's order."""
    at = [position for position, rule in enumerate(RULES) if "{n}" in rule.torch]
    before, within, after = RULES[: at[0]], RULES[at[0] : at[-1] + 1], RULES[at[-1] + 1 :]
    numbered: Iterable[tuple[Rule, int]] = [
        *((rule, 0) for rule in before),
        *((rule, layer) for layer in range(layers) for rule in within),
        *((rule, 0) for rule in after),
    ]
    return [Pair(rule.torch.format(n=layer), rule.ours.format(n=layer), rule) for rule, layer in numbered]


def ours_of(tensor: Float32[np.ndarray, "..."], rule: Rule, sizes: Mapping[str, int]) -> Float32[np.ndarray, "..."]:
    """A view of a torch tensor with our axes; copies nothing."""
    axes = _split(rule.torch_axes)
    by_axis = _sizes_seen(tensor.shape, rule.torch_axes, sizes)
    return tensor.reshape([by_axis[axis] for axis in axes]).transpose([axes.index(axis) for axis in _split(rule.axes)])


def torch_of(array: Float32[np.ndarray, "..."], rule: Rule) -> Float32[np.ndarray, "..."]:
    """The contiguous torch tensor of one of our arrays: the inverse of `ours_of`, bit for bit."""
    axes = _split(rule.axes)
    turned = array.transpose([axes.index(axis) for axis in _split(rule.torch_axes)])
    by_axis = dict(zip(axes, array.shape, strict=True))
    shape = [math.prod(by_axis[axis] for axis in _split(group)) for group in _groups(rule.torch_axes)]
    return np.ascontiguousarray(turned).reshape(shape)


def to_ours(
    tensors: Mapping[str, np.ndarray], settings: ModelSettings, features: int | None = None, outputs: int | None = None
) -> Arrays:
    """Our parameters from tensors under torch names, as views.

    Raises:
        ModelError: as `match`.
    """
    sizes = sizes_of(settings, features, outputs)
    return {
        pair.ours: ours_of(tensors[pair.torch], pair.rule, sizes) for pair in match(tensors, sizes, settings.layers)
    }


def to_torch(parameters: Mapping[str, np.ndarray], settings: ModelSettings) -> Arrays:
    """Tensors under torch names from our parameters, in the original's order, without the positional tables.

    Raises:
        ModelError: as `match_ours`.
    """
    match_ours(parameters, sizes_of(settings), settings.layers)
    return {pair.torch: torch_of(np.asarray(parameters[pair.ours]), pair.rule) for pair in expand(settings.layers)}


def _require_layers(layers: int, there: int) -> None:
    """See that there is at least one tensor a layer, before a list of all that they need is made."""
    if layers > there:
        raise ModelError(f"a model of {layers} layers cannot lie in {there} tensors")


def _told(problems: Sequence[str]) -> str:
    more = len(problems) - TOLD
    return "; ".join(problems[:TOLD]) + (f"; and {more:,} more" if more > 0 else "")


def _misfits(tensor: Shaped, name: str, axes: str, sizes: Mapping[str, int]) -> list[str]:
    known = [
        math.prod(sizes[axis] for axis in _split(group)) if set(_split(group)) <= sizes.keys() else None
        for group in _groups(axes)
    ]
    shape, dtype = tuple(tensor.shape), str(tensor.dtype)
    fits = len(shape) == len(known) and all(size in (None, there) for size, there in zip(known, shape, strict=True))
    wanted = " x ".join("any" if size is None else str(size) for size in known)
    problems = [] if fits else [f"{name} has shape {' x '.join(map(str, shape)) or 'of a scalar'}, not {wanted}"]
    return problems + ([] if dtype == "float32" else [f"{name} is {dtype}, not float32"])


def _sizes_seen(shape: Sequence[int], axes: str, sizes: Mapping[str, int]) -> dict[str, int]:
    seen = {group: size for group, size in zip(_groups(axes), shape, strict=True) if len(group) == 1}
    return {**sizes, **seen}


def _groups(axes: str) -> list[str]:
    return re.findall(r"\([^)]*\)|\w", axes)


def _split(axes: str) -> list[str]:
    return re.findall(r"\w", axes)


def _layer_of(pattern: str, name: str) -> int | None:
    """The number at `{n}`, 0 for a pattern without one, None where the name does not match."""
    found = re.fullmatch(re.escape(pattern).replace(r"\{n\}", r"(\d{1,4})"), name)
    return None if found is None else int(found.group(1)) if found.groups() else 0


# The original's fixed positional tables: recognized in a file, and built for one with PyTorch's own operations.

ROWS_AT_A_TIME = 256


def deviates(table_RxD: Float[np.ndarray, "R D"]) -> bool:
    """Whether a table differs from the sinusoids (base 10,000) by more than float32 rounding explains.

    The original computes rate and angle in float32, so the tolerance grows with the angle: 1e-6 at row 0, and 1e-4
    at frame 599 of the fastest feature.
    """
    rows, width = table_RxD.shape
    exponent = np.arange(0, width, 2) * (math.log(10_000.0) / width)
    rate = np.exp(-exponent)
    for start in range(0, rows, ROWS_AT_A_TIME):
        part = table_RxD[start : start + ROWS_AT_A_TIME]
        angle = np.arange(start, start + len(part))[:, None] * rate
        tolerance = 1e-6 + angle * 1.3e-7 * (1 + exponent)
        for features, wave in ((part[:, 0::2], np.sin), (part[:, 1::2], np.cos)):
            if not (np.abs(features - wave(angle)) <= tolerance).all():
                return True
    return False


def table_shapes(encodings: str | list[str], width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tables, in the order in which the original's modules register them.

    Args:
        encodings: as `hyper_parameters.encodings_of`; those of a list are numbered.
        width: D.
    """
    if isinstance(encodings, str):
        return {FRAME_TABLE: (1, POSITION_ROWS, width)}
    shapes: dict[str, tuple[int, ...]] = {}
    for number, encoding in enumerate(encodings):
        if encoding == FRAME_ENCODING:
            shapes[NUMBERED_FRAME_TABLE.format(n=number)] = (1, POSITION_ROWS, width)
        else:
            shapes |= {name.format(n=number): (rows, width) for name, rows in CALENDAR_TABLES.items()}
    return shapes


def build_tables(torch: Any, encodings: str | list[str], width: int) -> dict[str, Any]:
    """The tables as tensors, by the module `torch`: its exponential, sine and cosine decide the last bits."""
    rate = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10_000.0) / width))

    def table(rows: int) -> Any:
        angle = torch.arange(rows).float()[:, None] * rate
        built = torch.empty(rows, width)
        torch.sin(angle, out=built[:, 0::2])
        torch.cos(angle, out=built[:, 1::2])
        return built

    return {name: table(shape[-2]).reshape(shape) for name, shape in table_shapes(encodings, width).items()}
