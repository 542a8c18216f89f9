"""The original's `hyper_parameters` as our settings, and back; numbers may be stored as text such as '1e-4'."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from selfpab_jax.convert.pickle_objects import Named, Opaque, StoredTensor
from selfpab_jax.convert.pickle_reader import require_small
from selfpab_jax.convert.positions import FRAME_ENCODING, FRAME_TABLE, NUMBERED_FRAME_TABLE, is_position
from selfpab_jax.errors import ModelError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model_dir import ModelConfig

Number = TypeVar("Number", int, float)

CALENDAR_ENCODING = "TemporalPositionalEncoding"
SUPPORTED = {"seq_operation": (None,), "output_activation": (None,), "n_prediction_head_layers": (1, "1")}
"""Options that change the function; every published run has these values."""
PLACES = ("hyper_parameters", "hparams", "hyperparameters", "args", "config", "cfg", "opt", "options")
"""Where training loops store them; Lightning's is the first."""
LAYER = re.compile(r"transformer_encoder\.layers\.(\d{1,6})\.")
PUBLISHED_DROPOUT = 0.1
LARGEST_ARGUMENTS = 2**16
"""Values and characters; the published ones have about 600."""
DOWNSTREAM = "is a DownstreamMLP, a classifier on top of an encoder: convert the upstream_model.ckpt it was made from"


def arguments_of(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The arguments that the original's class was created with; empty where the file has none.

    Raises:
        ModelError: they are a DownstreamMLP's, or far too large.
    """
    for key in PLACES:
        arguments = as_mapping(content.get(key))
        inner = as_mapping(arguments.get("args"))
        arguments = inner or arguments
        if "upstream_algorithm" in arguments or "upstream_model_path" in arguments:
            raise ModelError(f"it {DOWNSTREAM}")
        if arguments and (key == PLACES[0] or "nhead" in arguments):
            require_small(arguments, "hyper_parameters", LARGEST_ARGUMENTS)
            return {str(name): value for name, value in arguments.items()}
    return {}


def as_mapping(value: Any) -> dict[Any, Any]:
    """A dictionary, the attributes of an object, or OmegaConf's nodes as a dictionary; empty for anything else."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Opaque):
        return {}
    nodes = value.attributes.get("_content")
    if isinstance(nodes, dict):
        return {name: _node(node) for name, node in nodes.items()}
    return {**value.attributes, **value.items}


def _node(node: Any) -> Any:
    return node.attributes["_val"] if isinstance(node, Opaque) and "_val" in node.attributes else node


def completed(
    arguments: Mapping[str, Any], tensors: Mapping[str, StoredTensor], heads: int | None = None
) -> dict[str, Any]:
    """Arguments, with the sizes of the tensors where the file does not name them.

    Args:
        arguments: of the file.
        tensors: under the original's names.
        heads: their number, which no tensor shows.

    Raises:
        ModelError: the number of heads is unknown, or not the file's.
    """
    if heads is None and "nhead" not in arguments:
        missing = "hyper-parameter nhead" if arguments else "hyper_parameters"
        raise ModelError(f"it has no {missing}, so the number of heads is unknown: add --heads N (6 as published)")
    if heads is not None and "nhead" in arguments and number(arguments, "nhead", int) != heads:
        raise ModelError(f"its hyper-parameter nhead is {short(arguments['nhead'])}, not {heads} as --heads gives")

    def axis(name: str, place: int) -> int:
        shape = tensors[name].shape if name in tensors else ()
        return shape[place] if len(shape) == 2 else 0

    numbers = {int(found[1]) for name in tensors if (found := LAYER.match(name))}
    inferred = {
        "d_model": axis("emb.lin_proj_layer.weight", 0),
        "dim_feedforward": axis("transformer_encoder.layers.0.linear1.weight", 0),
        "n_encoder_layers": len(numbers),
        "nhead": heads,
        "input_dim": axis("emb.lin_proj_layer.weight", 1),
        "output_dim": axis("prediction_head.mlp.out_layer.weight", 0),
        "dropout": PUBLISHED_DROPOUT,
    }
    return inferred | _inferred_encodings(tensors) | dict(arguments)


def _inferred_encodings(tensors: Mapping[str, StoredTensor]) -> dict[str, Any]:
    tables = [name for name in tensors if is_position(name)]
    if not tables or FRAME_TABLE in tables:
        return {"positional_encoding": FRAME_ENCODING}
    places = {int(name.split(".")[3]) for name in tables}
    names = [
        FRAME_ENCODING if NUMBERED_FRAME_TABLE.format(n=place) in tables else CALENDAR_ENCODING
        for place in sorted(places)
    ]
    return {"positional_encoding": names}


def settings_of(arguments: Mapping[str, Any], temporal_positions: bool) -> ModelSettings:
    """Sizes of the encoder, in float32 as the original computes.

    Raises:
        ModelError: an argument is missing, not a number, or asks for something that our encoder does not do.
    """
    for name, values in SUPPORTED.items():
        if name in arguments and arguments[name] not in values:
            raise ModelError(f"hyper-parameter {name} is {short(arguments[name])}; only {values[0]} is supported")
    try:
        return ModelSettings(
            width=size(arguments, "d_model"),
            heads=size(arguments, "nhead"),
            feedforward=size(arguments, "dim_feedforward"),
            layers=size(arguments, "n_encoder_layers"),
            dropout=number(arguments, "dropout", float),
            compute="float32",
            temporal_positions=temporal_positions,
        )
    except ValueError as error:
        raise ModelError(f"its hyper-parameters do not describe a model: {error}") from None


def number(arguments: Mapping[str, Any], name: str, kind: type[Number]) -> Number:
    """An argument as a number, also where it is stored as text.

    Args:
        arguments: by name.
        name: of the argument.
        kind: `int` or `float`.

    Raises:
        ModelError: it is missing, or not such a number.
    """
    value = arguments.get(name)
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            found = float(value)
            if found == kind(found):
                return kind(found)
        except (ValueError, OverflowError):
            pass
    raise ModelError(f"hyper-parameter {name} is {short(value)}; a number is needed")


def size(arguments: Mapping[str, Any], name: str) -> int:
    """An argument as a size.

    Raises:
        ModelError: it is missing, not an integer, or below 1.
    """
    found = number(arguments, name, int)
    if found < 1:
        raise ModelError(f"hyper-parameter {name} is {found}; it must be at least 1")
    return found


def encodings_of(arguments: Mapping[str, Any]) -> str | list[str]:
    """The positional encodings by name: a single one, or a list whose members are numbered in the `state_dict`.

    Raises:
        ModelError: others than the published ones.
    """
    stored = arguments.get("positional_encoding", FRAME_ENCODING)
    names = list(stored) if isinstance(stored, (list, tuple)) else stored
    known = (FRAME_ENCODING, [FRAME_ENCODING], [CALENDAR_ENCODING, FRAME_ENCODING], [FRAME_ENCODING, CALENDAR_ENCODING])
    if names not in known:
        raise ModelError(
            f"positional encoding {short(stored)} is unknown; it must be {FRAME_ENCODING}, alone or with "
            f"{CALENDAR_ENCODING}"
        )
    return names


def arguments_for(config: ModelConfig) -> dict[str, Any]:
    """Arguments with which the original creates such a model; what the model does not determine is as published."""
    model = config.model
    return {
        "batch_size": config.provenance.get("batch_size") or 64,
        "d_model": model.width,
        "dim_feedforward": model.feedforward,
        "dim_prediction_head": None,
        "dropout": model.dropout,
        "epochs": 1,
        "loss": "maskedL1",
        "lr": 1e-4,
        "lr_scheduler": "LinearWUSchedule",
        "metrics": None,
        "n_encoder_layers": model.layers,
        "n_prediction_head_layers": 1,
        "nhead": model.heads,
        "optimizer": "AdamW",
        "output_activation": None,
        "positional_encoding": [CALENDAR_ENCODING, FRAME_ENCODING] if model.temporal_positions else FRAME_ENCODING,
        "seq_operation": None,
        "weight_decay": 1e-5,
        "input_dim": config.features,
        "output_dim": config.outputs,
        "total_step_count": config.provenance.get("steps") or 1,
        "_epochs": 1,
    }


def plain(value: Any) -> Any:
    """A value without anything that JSON cannot hold (mostly tensors, which become None)."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return [plain(item) for item in value]
    value = value.name if isinstance(value, Named) else value
    return value if value is None or isinstance(value, (bool, int, float, str)) else None


def short(value: Any) -> str:
    """A value from a file, cut for an error message."""
    return repr(value)[:80] if isinstance(value, (type(None), bool, int, float, str)) else str(plain(value))[:80]
