"""A summary of a checkpoint for `convert inspect`; no weight is read."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpab_jax.convert.checkpoint import Checkpoint, FamilyName, lightning_version, read_checkpoint, tensors_of
from selfpab_jax.convert.pickle_reader import StoredTensor
from selfpab_jax.convert.positions import is_position
from selfpab_jax.convert.table import MOST_LISTED, is_ignored
from selfpab_jax.convert.torch_file import open_torch_file
from selfpab_jax.errors import ModelError

KNOWN_KEYS = {
    "callbacks",
    "epoch",
    "global_step",
    "hparams_name",
    "hyper_parameters",
    "loops",
    "lr_schedulers",
    "optimizer_states",
    "pytorch-lightning_version",
    "state_dict",
}
"""Keys that Lightning 1.6 writes."""
PREFIXES = ("emb.lin_proj_layer.", "transformer_encoder.layers.", "prediction_head.")
"""How the names of the original's parameters start."""
DEEPEST = 8
"""Levels of nested values in which tensors are counted."""


def summarize(path: Path, family: FamilyName | None = None) -> tuple[list[str], str | None]:
    """Lines about a checkpoint, and the reason why it cannot be converted, if there is one.

    Raises:
        ModelError: it cannot be opened at all.
    """
    content = open_torch_file(path).content
    try:
        lines = _model_lines(read_checkpoint(path, family, any_version=True))
        reason = None
    except ModelError as error:
        lines, reason = [], str(error).removeprefix(f"{path}: ")
    tensors = _tensors_in(content.get("state_dict"))
    moments = _tensors_in(content.get("optimizer_states"))
    lines += [
        f"tensors: {len(tensors)} in the state_dict, {_megabytes(tensors)} on disk",
        f"training: epoch {_count(content, 'epoch')}, step {_count(content, 'global_step')}",
        f"optimizer state: {f'yes, {_megabytes(moments)} (--run continues from it)' if moments else 'no'}",
        f"written by: PyTorch Lightning {lightning_version(content)}",
        f"unknown: {', '.join(_unknown(content)) or 'nothing'}",
    ]
    return [f"{path}: {path.stat().st_size:,} bytes", *lines], reason


def _model_lines(checkpoint: Checkpoint) -> list[str]:
    settings = checkpoint.settings
    spectrogram = checkpoint.family.spectrogram(checkpoint.features)
    parameters = sum(math.prod(tensor.shape) for tensor in checkpoint.weights.values())
    positions = "frame and calendar" if settings.temporal_positions else "frame"
    return [
        f"family: {checkpoint.family.name}",
        f"features: {checkpoint.features:,} -> {checkpoint.outputs:,}, spectrogram window {spectrogram.fft_window}",
        f"encoder: width {settings.width}, {settings.heads} heads, feed-forward {settings.feedforward}, "
        f"{settings.layers} layers, dropout {settings.dropout:g}, {positions} positions",
        f"parameters: {parameters:,}",
    ]


def _tensors_in(value: Any, depth: int = 0) -> list[StoredTensor]:
    if isinstance(value, StoredTensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for item in items for tensor in _tensors_in(item, depth + 1)] if depth < DEEPEST else []


def _megabytes(tensors: list[StoredTensor]) -> str:
    return f"{sum(4 * math.prod(tensor.shape) for tensor in tensors) / 1e6:,.1f} MB"


def _count(content: Mapping[Any, Any], key: str) -> str:
    value = content.get(key)
    return f"{value:,}" if isinstance(value, int) else "unknown"


def _unknown(content: Mapping[Any, Any]) -> list[str]:
    """What is in a file beyond what is converted: unknown keys, ignored tensors, tensors of other names."""
    try:
        tensors = tensors_of(content)
    except ModelError:
        return ["everything"]
    found = [f"key {str(key)[:40].encode('unicode_escape').decode()}" for key in content if key not in KNOWN_KEYS]
    found += [f"ignored {name}" for name in tensors if is_ignored(name)]
    found += [
        f"tensor {name}" for name in tensors if not (name.startswith(PREFIXES) or is_position(name) or is_ignored(name))
    ]
    return found[:MOST_LISTED] + ([f"and {len(found) - MOST_LISTED:,} more"] if len(found) > MOST_LISTED else [])
