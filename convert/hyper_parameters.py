"""The original's `hyper_parameters` as our settings, and back; numbers may be stored as text such as '1e-4'."""

from collections.abc import Mapping
from typing import Any, TypeVar

from selfpab_jax.convert.pickle_reader import require_small
from selfpab_jax.errors import ModelError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model_dir import ModelConfig

Number = TypeVar("Number", int, float)

FRAME_ENCODING, CALENDAR_ENCODING = "AbsolutePositionalEncoding", "TemporalPositionalEncoding"
SUPPORTED = {"seq_operation": (None,), "output_activation": (None,), "n_prediction_head_layers": (1, "1")}
"""Options that change the function; every published run has these values."""
LARGEST_ARGUMENTS = 2**16
"""Values and characters; the published ones have about 600."""
DOWNSTREAM = "is a DownstreamMLP, a classifier on top of an encoder: convert the upstream_model.ckpt it was made from"


def arguments_of(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The arguments that the original's class was created with.

    Raises:
        ModelError: there are none, they are a DownstreamMLP's, or far too large.
    """
    stored = content.get("hyper_parameters")
    arguments = stored.get("args", stored) if isinstance(stored, dict) else None
    if not isinstance(arguments, dict) or not arguments:
        raise ModelError("it has no hyper_parameters, so the number of heads is unknown")
    if "upstream_algorithm" in arguments or "upstream_model_path" in arguments:
        raise ModelError(f"it {DOWNSTREAM}")
    require_small(arguments, "hyper_parameters", LARGEST_ARGUMENTS)
    return arguments


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
    return value if value is None or isinstance(value, (bool, int, float, str)) else None


def short(value: Any) -> str:
    """A value from a file, cut for an error message."""
    return repr(value)[:80] if isinstance(value, (type(None), bool, int, float, str)) else str(plain(value))[:80]
