"""The table of names and shapes between the original's `state_dict` and our parameters, read in both directions."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from selfpab_jax.convert.positions import is_position
from selfpab_jax.errors import ModelError
from selfpab_jax.model.config import ModelSettings

Arrays = dict[str, Float32[np.ndarray, "..."]]
MOST_LISTED = 100
"""Problems that an error message lists; the others are counted."""


class Rule(NamedTuple):
    """One line of the table.

    Letters are axes: X features in, O features out, D width, M feed-forward, S = 3 for query, key and value, H heads,
    K head size. Brackets join axes as torch.nn stores them; `{n}` in a name is a layer.

    Args:
        torch: name of the original's tensor.
        torch_axes: its axes.
        ours: name of our parameter.
        axes: its axes.
        place: along S, where the parameter is only this part of the tensor.
    """

    torch: str
    torch_axes: str
    ours: str
    axes: str
    place: int | None = None


_THEIRS, _OURS = "transformer_encoder.layers.{n}.", "encoder.layers.{n}."
_HEADS = tuple(enumerate(("query", "key", "value")))
RULES = (
    Rule("emb.lin_proj_layer.weight", "D X", "encoder.embed.kernel", "X D"),
    Rule("emb.lin_proj_layer.bias", "D", "encoder.embed.bias", "D"),
    *(
        Rule(_THEIRS + "self_attn.in_proj_weight", "(S H K) D", f"{_OURS}attention.{name}_kernel", "D H K", place)
        for place, name in _HEADS
    ),
    *(
        Rule(_THEIRS + "self_attn.in_proj_bias", "(S H K)", f"{_OURS}attention.{name}_bias", "H K", place)
        for place, name in _HEADS
    ),
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

IGNORED = re.compile(r"(?:val_|test_)?metrics\..+")
"""What else a `state_dict` may hold: torchmetrics' counters, which no output depends on."""


@runtime_checkable
class ShapedArray(Protocol):
    """An array, a tensor on disk, or anything else with a shape and a dtype."""

    @property
    def shape(self) -> Sequence[int]:
        """Sizes of the axes."""
        ...

    @property
    def dtype(self) -> object:
        """Its text is `float32` if it is."""
        ...


def is_ignored(name: str) -> bool:
    """Whether a tensor is none of the model's."""
    return IGNORED.fullmatch(name) is not None


def rules_for(layers: int) -> list[Rule]:
    """The table of a model with this many layers: every name written out, in the original's order."""
    numbered = [place for place, rule in enumerate(RULES) if "{n}" in rule.torch]
    first, last = numbered[0], numbered[-1] + 1
    within = [
        rule._replace(torch=rule.torch.format(n=layer), ours=rule.ours.format(n=layer))
        for layer in range(layers)
        for rule in RULES[first:last]
    ]
    return [*RULES[:first], *within, *RULES[last:]]


def torch_names(layers: int) -> list[str]:
    """Names of the original's parameters, in its order."""
    return list(dict.fromkeys(rule.torch for rule in rules_for(layers)))


def to_ours(
    tensors: Mapping[str, np.ndarray], settings: ModelSettings, features: int | None = None, outputs: int | None = None
) -> Arrays:
    """Our parameters from tensors under torch names, as views of them.

    Args:
        tensors: a `state_dict`, or arrays of the same shapes (AdamW's moments).
        settings: sizes of the encoder.
        features: of an input frame; any number where not given.
        outputs: features of a reconstructed frame; any number where not given.

    Raises:
        ModelError: as `require_torch_names`.
    """
    require_torch_names(tensors, settings, features, outputs)
    sizes = _sizes(settings, features, outputs)
    return {rule.ours: _ours_of(tensors[rule.torch], rule, sizes) for rule in rules_for(settings.layers)}


def to_torch(
    parameters: Mapping[str, ShapedArray],
    settings: ModelSettings,
    features: int | None = None,
    outputs: int | None = None,
) -> Arrays:
    """Contiguous tensors under torch names from our parameters: the inverse of `to_ours`, bit for bit.

    Tensors are in the original's order, without the positional tables.

    Args:
        parameters: arrays, or tensors on disk, which are read one after another.
        settings: sizes of the encoder.
        features: of an input frame; any number where not given.
        outputs: features of a reconstructed frame; any number where not given.

    Raises:
        ModelError: parameters that are missing, unexpected, or have another shape or dtype.
    """
    rules, sizes = _rules_that_fit(settings, len(parameters)), _sizes(settings, features, outputs)
    by_tensor: dict[str, list[Rule]] = {}
    for rule in rules:
        by_tensor.setdefault(rule.torch, []).append(rule)
    _require_fit(parameters, {rule.ours: rule.axes for rule in rules}, sizes, "the arrays do not fit the model")
    return {
        name: _torch_of([np.asarray(parameters[rule.ours]) for rule in of_tensor], of_tensor[0])
        for name, of_tensor in by_tensor.items()
    }


def require_torch_names(
    tensors: Mapping[str, ShapedArray],
    settings: ModelSettings,
    features: int | None = None,
    outputs: int | None = None,
) -> None:
    """Check that a `state_dict` holds every parameter of the model; positions and ignored extras may be there.

    Args:
        tensors: the `state_dict`.
        settings: sizes of the encoder.
        features: of an input frame; any number where not given.
        outputs: features of a reconstructed frame; any number where not given.

    Raises:
        ModelError: tensors that are missing, unexpected, or have another shape or dtype.
    """
    rules = _rules_that_fit(settings, len(tensors))
    relevant = {name: tensor for name, tensor in tensors.items() if not (is_position(name) or is_ignored(name))}
    expected = {rule.torch: rule.torch_axes for rule in rules}
    _require_fit(relevant, expected, _sizes(settings, features, outputs), "the tensors do not fit the model")


def _sizes(settings: ModelSettings, features: int | None, outputs: int | None) -> dict[str, int]:
    sizes = {"D": settings.width, "M": settings.feedforward, "S": 3, "H": settings.heads, "K": settings.head_size}
    return sizes | {axis: size for axis, size in (("X", features), ("O", outputs)) if size is not None}


def _rules_that_fit(settings: ModelSettings, found: int) -> list[Rule]:
    """The table; refuses a model of absurdly many layers before its list of names is made."""
    if settings.layers > found:
        raise ModelError(f"{found} tensors are too few for a model of {settings.layers} layers")
    return rules_for(settings.layers)


def _require_fit(
    found: Mapping[str, ShapedArray], expected: Mapping[str, str], sizes: Mapping[str, int], message: str
) -> None:
    problems = [f"{name} is unexpected" for name in found if name not in expected]
    for name, axes in expected.items():
        problems += _misfits(found[name], name, axes, sizes) if name in found else [f"{name} is missing"]
    if problems:
        more = len(problems) - MOST_LISTED
        listed = "; ".join(problems[:MOST_LISTED]) + (f"; and {more:,} more" if more > 0 else "")
        raise ModelError(f"{message}: {listed}")


def _misfits(array: ShapedArray, name: str, axes: str, sizes: Mapping[str, int]) -> list[str]:
    wanted = [
        math.prod(sizes[axis] for axis in _split(group)) if set(_split(group)) <= sizes.keys() else None
        for group in _groups(axes)
    ]
    shape, dtype = tuple(array.shape), str(array.dtype)
    fits = len(shape) == len(wanted) and all(want in (None, size) for want, size in zip(wanted, shape, strict=True))
    should = " x ".join("any" if size is None else str(size) for size in wanted)
    problems = [] if fits else [f"{name} has shape {' x '.join(map(str, shape)) or 'of a scalar'}, not {should}"]
    return problems + ([] if dtype == "float32" else [f"{name} is {dtype}, not float32"])


def _ours_of(tensor: Float32[np.ndarray, "..."], rule: Rule, sizes: Mapping[str, int]) -> Float32[np.ndarray, "..."]:
    """A view of a torch tensor, or of a part of it, with our axes."""
    alone = {group: size for group, size in zip(_groups(rule.torch_axes), tensor.shape, strict=True) if len(group) == 1}
    by_axis = {**sizes, **alone}
    axes = _split(rule.torch_axes)
    array = tensor.reshape([by_axis[axis] for axis in axes])
    if rule.place is not None:
        array, axes = array[rule.place], axes[1:]  # S comes first
    return array.transpose([axes.index(axis) for axis in _split(rule.axes)])


def _torch_of(arrays: Sequence[Float32[np.ndarray, "..."]], rule: Rule) -> Float32[np.ndarray, "..."]:
    """The torch tensor of one of our arrays, or of query, key and value together."""
    axes = _split(rule.axes)
    by_axis = dict(zip(axes, arrays[0].shape, strict=True)) | {"S": len(arrays)}
    order = [axes.index(axis) for axis in _split(rule.torch_axes) if axis != "S"]
    turned = [array.transpose(order) for array in arrays]
    whole = turned[0] if rule.place is None else np.stack(turned)
    shape = [math.prod(by_axis[axis] for axis in _split(group)) for group in _groups(rule.torch_axes)]
    return np.ascontiguousarray(whole).reshape(shape)


def _groups(axes: str) -> list[str]:
    return re.findall(r"\([^)]*\)|\w", axes)


def _split(axes: str) -> list[str]:
    return re.findall(r"\w", axes)
