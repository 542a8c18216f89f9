"""A summary of a checkpoint for `convert inspect`; no weight is read."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfpab_jax.convert.checkpoint import Checkpoint, ReadOptions, lightning_version, read_checkpoint
from selfpab_jax.convert.pickle_objects import StoredTensor
from selfpab_jax.convert.table import MOST_LISTED, is_ignored
from selfpab_jax.convert.torch_file import open_torch_file
from selfpab_jax.convert.weights import WeightSet, find_weights
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
BYTES = {"float64": 8, "int64": 8, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "bool": 1}
DEEPEST = 8
"""Levels of nested values in which tensors are counted."""


def summarize(path: Path, options: ReadOptions | None = None) -> tuple[list[str], str | None]:
    """Lines about a checkpoint, and the reason why it cannot be converted, if there is one.

    Args:
        path: of the file.
        options: as for its conversion; files of all releases of PyTorch Lightning are described.

    Raises:
        ModelError: it cannot be opened at all.
    """
    content, options = open_torch_file(path).content, options or ReadOptions()
    try:
        checkpoint = read_checkpoint(path, replace(options, any_version=True))
        lines, reason = [*_model_lines(checkpoint), *checkpoint.notes], None
    except ModelError as error:
        lines, reason = [], str(error).removeprefix(f"{path}: ")
    sets = _sets(content)
    chosen = [each for each in sets if each.name == options.weights] or [each for each in sets if each.is_main] or sets
    main = chosen[0] if chosen else None
    tensors = list(main.tensors.values()) if main else _tensors_in(content.get("state_dict", content))
    lines += (
        [f"weights: {', '.join(f'{each.name} ({len(each.tensors)} tensors)' for each in sets)}"] if sets[1:] else []
    )
    moments = _tensors_in(content.get("optimizer_states"))
    lines += [
        f"tensors: {len(tensors)} in {main.name if main else 'the state_dict'}, {_megabytes(tensors)} on disk",
        f"training: epoch {_count(content, 'epoch')}, step {_count(content, 'global_step')}",
        f"optimizer state: {f'yes, {_megabytes(moments)} (--run continues from it)' if moments else 'no'}",
        f"written by: PyTorch Lightning {lightning_version(content)}",
        f"unknown: {', '.join(_unknown(content, sets, main)) or 'nothing'}",
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


def _sets(content: Mapping[Any, Any]) -> list[WeightSet]:
    try:
        return find_weights(content)
    except ModelError:
        return []


def _tensors_in(value: Any, depth: int = 0) -> list[StoredTensor]:
    if isinstance(value, StoredTensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for item in items for tensor in _tensors_in(item, depth + 1)] if depth < DEEPEST else []


def _megabytes(tensors: list[StoredTensor]) -> str:
    sizes = (math.prod(tensor.shape) * BYTES.get(tensor.dtype, 4) for tensor in tensors)
    return f"{sum(sizes) / 1e6:,.1f} MB"


def _count(content: Mapping[Any, Any], key: str) -> str:
    value = content.get(key)
    return f"{value:,}" if isinstance(value, int) else "unknown"


def _unknown(content: Mapping[Any, Any], sets: list[WeightSet], main: WeightSet | None) -> list[str]:
    """What is in a file beyond what is converted: unknown keys, ignored tensors, tensors of other names."""
    if not sets:
        return ["everything"]
    known = KNOWN_KEYS.union(*(each.keys[:1] for each in sets))
    found = [f"key {_printable(key)}" for key in content if key not in known and not _in_a_set(content[key], sets)]
    foreign = main.foreign if main else {}
    found += [f"ignored {name}" for name in foreign if is_ignored(name)]
    found += [f"tensor {_printable(name)}" for name in foreign if not is_ignored(name)]
    return found[:MOST_LISTED] + ([f"and {len(found) - MOST_LISTED:,} more"] if len(found) > MOST_LISTED else [])


def _in_a_set(value: Any, sets: list[WeightSet]) -> bool:
    return isinstance(value, StoredTensor) and any(not each.keys for each in sets)


def _printable(name: Any) -> str:
    return str(name)[:80].encode("unicode_escape").decode()
