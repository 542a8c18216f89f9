"""What is in a checkpoint, in lines for people; no weight is read."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpab_jax.convert.checkpoint import Checkpoint, read_checkpoint, tensors_of, unknown_parts, version_of
from selfpab_jax.convert.family import FamilyName
from selfpab_jax.convert.pickle_reader import StoredTensor
from selfpab_jax.convert.table import TOLD, is_ignored, is_position
from selfpab_jax.convert.torch_file import open_torch_file
from selfpab_jax.errors import ModelError


def summarize(path: Path, family: FamilyName | None = None) -> tuple[list[str], str | None]:
    """Lines about a checkpoint, and why it cannot be converted, if so.

    Raises:
        ModelError: it cannot be opened at all.
    """
    content = open_torch_file(path).content
    try:
        lines = _model(read_checkpoint(path, family, any_version=True))
        reason = None
    except ModelError as error:
        lines, reason = [], str(error).removeprefix(f"{path}: ")
    tensors = _tensors(content.get("state_dict"))
    lines += [
        f"tensors: {len(tensors)} in the state_dict, {_megabytes(tensors)} on the disk",
        f"training: epoch {_said(content, 'epoch')}, step {_said(content, 'global_step')}",
        f"optimizer state: {_optimizer(content)}",
        f"written by: PyTorch Lightning {version_of(content)}",
        f"unknown: {', '.join(_unknown(content)) or 'nothing'}",
    ]
    return [f"{path}: {path.stat().st_size:,} bytes", *lines], reason


def _model(checkpoint: Checkpoint) -> list[str]:
    settings = checkpoint.settings
    spectrogram = checkpoint.family.spectrogram(checkpoint.features)
    parameters = sum(math.prod(checkpoint.tensors[pair.torch].shape) for pair in checkpoint.pairs)
    positions = "frame and calendar" if settings.temporal_positions else "frame"
    return [
        f"family: {checkpoint.family.name}",
        f"features: {checkpoint.features:,} -> {checkpoint.outputs:,}, spectrogram window {spectrogram.fft_window}",
        f"encoder: width {settings.width}, {settings.heads} heads, feed-forward {settings.feedforward}, "
        f"{settings.layers} layers, dropout {settings.dropout:g}, {positions} positions",
        f"parameters: {parameters:,}",
    ]


def _tensors(value: Any, depth: int = 0) -> list[StoredTensor]:
    if isinstance(value, StoredTensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for part in parts for tensor in _tensors(part, depth + 1)] if depth < 8 else []


def _megabytes(tensors: list[StoredTensor]) -> str:
    return f"{sum(4 * math.prod(tensor.shape) for tensor in tensors) / 1e6:,.1f} MB"


def _said(content: Mapping[Any, Any], key: str) -> str:
    value = content.get(key)
    return f"{value:,}" if isinstance(value, int) else "unknown"


def _optimizer(content: Mapping[Any, Any]) -> str:
    moments = _tensors(content.get("optimizer_states"))
    return f"yes, {_megabytes(moments)} (--run continues from it)" if moments else "no"


def _unknown(content: Mapping[Any, Any]) -> list[str]:
    try:
        tensors = tensors_of(content)
        parts = unknown_parts(content)
    except ModelError:
        return ["everything"]
    heads = ("emb.lin_proj_layer.", "transformer_encoder.layers.", "prediction_head.")
    strange = [n for n in tensors if not (n.startswith(heads) or is_position(n) or is_ignored(n))]
    found = parts + [f"tensor {name}" for name in strange]
    return found[:TOLD] + ([f"and {len(found) - TOLD:,} more"] if len(found) > TOLD else [])
