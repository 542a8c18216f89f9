"""The sets of weights in a file, wherever and under whatever prefix they are stored, and the choice of one.

Training loops save one and the same network as a `state_dict` of its own or under a key, and wrappers (of
DistributedDataParallel, torch.compile, DeepSpeed, FSDP, Lightning modules, averaged models) put a prefix before every
name. A set is recognized by the names of the original's tensors.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from selfpab_jax.convert.hyper_parameters import DOWNSTREAM
from selfpab_jax.convert.pickle_objects import Opaque, StoredTensor
from selfpab_jax.convert.table import MOST_LISTED, is_ignored
from selfpab_jax.errors import ModelError

LONGEST_NAME, MOST_TENSORS, MOST_SETS = 400, 20_000, 100
DEEPEST = 5
"""Levels of keys that are searched."""
WRAPPERS = frozenset(
    ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module")
)
"""What wrappers call the module that they hold; torch.compile, FSDP and checkpointing also wrap single layers."""
OWN_NAMES = re.compile(r"(emb\.(lin_proj_layer|pos_encoder)|transformer_encoder\.layers|prediction_head)\.")
"""How the names of the original's tensors start."""
ANCHORS = (
    "emb.lin_proj_layer.weight",
    "transformer_encoder.layers.0.linear1.weight",
    "prediction_head.mlp.out_layer.weight",
)
"""What every complete set holds."""
AVERAGED = re.compile(r"(^|[._])(ema|swa|avg|average|averaged|averaging|shadow|polyak)\d*([._]|$)", re.IGNORECASE)
"""How averages of the weights over training steps are called."""
OF_TRAINING = ("callbacks", "loops", "optimizer", "optimizers", "optimizer_state", "optimizer_states")
"""Keys under which weights are not the model's own."""
CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
LIGHTNING_AVERAGE = "averaging_state"
"""A key of files whose `state_dict` is Lightning's average; the model's own weights are in `current_model_state`."""
NUMBER_AVERAGED = "n_averaged"
"""A counter that torch's `AveragedModel` stores beside its weights."""


@dataclass(frozen=True)
class WeightSet:
    """Tensors under the original's names.

    Args:
        keys: that lead to them in the file.
        prefix: of their names, with its dot.
        tensors: by the original's name, in the file's order.
        unwrapped: tensors within which a wrapper's name was left out.
        foreign: tensors of the same dictionary that no set holds, by the file's name.
        is_averaged: an average over training steps.
        is_main: the model's own weights, not kept by a callback and no average.
    """

    keys: tuple[str, ...]
    prefix: str
    tensors: dict[str, StoredTensor]
    unwrapped: int = 0
    foreign: dict[str, StoredTensor] = field(default_factory=dict)
    is_averaged: bool = False
    is_main: bool = True

    @property
    def name(self) -> str:
        """By which the user chooses it: keys and prefix."""
        return ".".join((*self.keys, *self.prefix.split("."))).rstrip(".") or "state_dict"

    @property
    def is_complete(self) -> bool:
        """Whether it has an embedding, a layer and a head."""
        return all(anchor in self.tensors for anchor in ANCHORS)


@dataclass(frozen=True)
class Chosen:
    """The set that is converted.

    Args:
        weights: the set.
        notes: lines for the user about where it was and what was skipped.
    """

    weights: WeightSet
    notes: tuple[str, ...]


def choose_weights(content: Mapping[Any, Any], wanted: str | None = None) -> Chosen:
    """Find the weights in the content of a file.

    Without a choice by name these are the model's own weights, not an average of them.

    Args:
        content: of the file.
        wanted: name of a set, or a part of it between dots.

    Raises:
        ModelError: there are none, several could be meant, or none has the wanted name.
    """
    found = find_weights(content)
    if not found:
        raise ModelError(f"it has no state_dict of tensors: nothing in it is called {ANCHORS[0]}")
    candidates = [each for each in found if each.is_complete] or found
    if wanted is not None:
        exact = [each for each in candidates if each.name == wanted]
        matching = exact or [each for each in candidates if f".{wanted}." in f".{each.name}."]
        reason = f"--weights {wanted} fits {'several' if matching else 'none'} of its sets of weights"
    else:
        matching = [each for each in candidates if each.is_main] or candidates
        reason = f"it holds {len(matching)} sets of weights"
    if len(matching) != 1:
        listed = ", ".join(each.name for each in (matching or candidates)[:20])
        raise ModelError(f"{reason}: choose one with --weights NAME ({listed})")
    chosen = matching[0]
    if wanted is None:
        _require_nothing_else(chosen)
    return Chosen(chosen, tuple(_notes(chosen, candidates)))


def find_weights(content: Mapping[Any, Any]) -> list[WeightSet]:
    """Every set of weights, in the file's order; sets that share all their tensors count once.

    Raises:
        ModelError: the file is a classifier on top of an encoder, or two tensors have one name.
    """
    found: list[WeightSet] = []
    seen: set[int] = set()
    pending: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while pending:
        keys, value = pending.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        lightning = keys == ("state_dict",) and LIGHTNING_AVERAGE in content
        for each in _sets_in(keys, value, is_average=lightning):
            if all(each.tensors != other.tensors for other in found):
                found.append(each)
        if len(found) > MOST_SETS:
            raise ModelError(f"it holds more than {MOST_SETS} sets of weights")
        inside = value.items() if len(keys) < DEEPEST else ()
        pending += [
            ((*keys, key), mapping)
            for key, item in inside
            if isinstance(key, str) and (mapping := _mapping(item)) and len(seen) + len(pending) < MOST_TENSORS
        ]
    return found


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else value.items if isinstance(value, Opaque) else {}


def _sets_in(keys: tuple[str, ...], values: Mapping[Any, Any], *, is_average: bool) -> list[WeightSet]:
    named = {name: value for name, value in values.items() if isinstance(name, str)}
    split = {name: own for name in named if (own := _split(name))}
    if not any(own == ANCHORS[0] for _, own in split.values()):
        return []
    tensors = {name: value for name, value in named.items() if isinstance(value, StoredTensor)}
    _require_readable(tensors)
    groups: dict[str, dict[str, str]] = {}
    for name, (prefix, own) in split.items():
        if name not in tensors:
            kind = named[name].name if isinstance(named[name], Opaque) else type(named[name]).__name__
            raise ModelError(f"{name} is stored as {kind[:80]}, which is not read; save plain tensors")
        other = groups.setdefault(prefix, {}).setdefault(own, name)
        if other != name:
            raise ModelError(f"{other} and {name} could both be {own}")
    prefixes = sorted((prefix for prefix, group in groups.items() if ANCHORS[0] in group), key=len, reverse=True)
    foreign: dict[str, dict[str, StoredTensor]] = {prefix: {} for prefix in prefixes}
    for name, tensor in tensors.items():
        if name not in split or split[name][0] not in prefixes:
            home = next((prefix for prefix in prefixes if name.startswith(prefix)), prefixes[-1])
            foreign[home][name] = tensor
    sets = []
    for prefix in (prefix for prefix in groups if prefix in prefixes):
        label = ".".join((*keys, prefix))
        counted = f"{prefix.removesuffix('module.')}{NUMBER_AVERAGED}" in named
        averaged = is_average or counted or AVERAGED.search(CAMEL_CASE.sub("_", label)) is not None
        own = {own: tensors[name] for own, name in groups[prefix].items()}
        unwrapped = sum(name != prefix + own for own, name in groups[prefix].items())
        main = not averaged and not (keys and keys[0] in OF_TRAINING)
        sets.append(WeightSet(keys, prefix, own, unwrapped, foreign[prefix], averaged, main))
    return sets


def _split(name: str) -> tuple[str, str] | None:
    """Prefix and the original's name of a tensor, without wrappers within it; None for other tensors."""
    if len(name) > LONGEST_NAME:
        return None
    parts = name.split(".")
    for start, part in enumerate(parts):
        if part in ("emb", "transformer_encoder", "prediction_head"):
            own = ".".join(part for part in parts[start:] if part not in WRAPPERS)
            if OWN_NAMES.match(own):
                return "".join(f"{part}." for part in parts[:start]), own
    return None


def _require_readable(named: Mapping[str, Any]) -> None:
    if not all(len(name) <= LONGEST_NAME and name.isprintable() for name in named):
        raise ModelError("it is damaged: its tensors have no readable names")
    if len(named) > MOST_TENSORS:
        raise ModelError(f"it has {len(named):,} tensors, which no encoder of the original has")
    if any("upstream_models" in name.split(".") for name in named):
        raise ModelError(f"it {DOWNSTREAM}")


def _require_nothing_else(chosen: WeightSet) -> None:
    """Refuse tensors that are nobody's, unless the user has chosen the set by its name."""
    unknown = [name for name, tensor in chosen.foreign.items() if not _is_negligible(name, tensor, chosen.prefix)]
    if unknown:
        more = len(unknown) - MOST_LISTED
        listed = "; ".join(f"{name} is unexpected" for name in unknown[:MOST_LISTED])
        raise ModelError(f"the tensors do not fit the model: {listed}" + (f"; and {more:,} more" if more > 0 else ""))


def _is_negligible(name: str, tensor: StoredTensor, prefix: str) -> bool:
    """Whether a tensor is a counter, a metric, or part of an average that is not stored as a set."""
    counter = tensor.shape in ((), (1,)) and tensor.dtype.startswith(("int", "uint", "bool"))
    return counter or is_ignored(name.removeprefix(prefix)) or AVERAGED.search(CAMEL_CASE.sub("_", name)) is not None


def _notes(chosen: WeightSet, candidates: list[WeightSet]) -> list[str]:
    notes = []
    if chosen.name != "state_dict" or chosen.unwrapped:
        kind = "averaged weights" if chosen.is_averaged else "weights"
        stripped = f", prefix `{chosen.prefix}` stripped" if chosen.prefix else ""
        stripped += f", wrappers left out of {chosen.unwrapped} names" if chosen.unwrapped else ""
        under = f"under `{'.'.join(chosen.keys)}`" if chosen.keys else "at the top of the file"
        notes.append(f"{kind}: {len(chosen.tensors)} tensors {under}{stripped}")
    for other in candidates:
        if other is not chosen:
            kind = "averaged (EMA) weights" if other.is_averaged else "other weights"
            notes.append(f"not converted: {kind} in `{other.name}`; --weights {other.name} converts them")
    passed = [name for name in chosen.foreign if not is_ignored(name.removeprefix(chosen.prefix))]
    if passed:
        notes.append(f"skipped: {len(passed)} other tensors ({', '.join(passed[:3])}{', ...' if passed[3:] else ''})")
    return notes
