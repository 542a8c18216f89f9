"""A model directory as a checkpoint that the original and plain PyTorch open."""

import math
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import safetensors

from selfpab_jax.convert.from_torch import KEPT
from selfpab_jax.convert.hyper_parameters import arguments_for, encodings_of
from selfpab_jax.convert.positions import build_tables
from selfpab_jax.convert.room import replaced_when_whole, require_room
from selfpab_jax.convert.table import match_ours, sizes_of, torch_of
from selfpab_jax.convert.torch_extra import require_torch
from selfpab_jax.errors import ModelError
from selfpab_jax.model_directory import WEIGHTS_FILE, read_config

LIGHTNING = "1.6.4"


def write_torch(directory: Path, target: Path, *, overwrite: bool = False) -> list[str]:
    """Write a model directory as a checkpoint of weights, as Lightning 1.6 does with `save_weights_only`.

    Args:
        directory: of `export` or `from-torch`.
        target: the `.ckpt` file.
        overwrite: replace the file if it is there.

    Returns:
        What one should know: differences in the last bits of the positional tables.

    Raises:
        ModelError: the model cannot be read, the file exists, PyTorch is missing, or the disk is too small.
    """
    torch = require_torch()
    if target.is_dir() or (target.exists() and not overwrite):
        raise ModelError(f"{target} exists; choose another file" + ("" if target.is_dir() else " or add --overwrite"))
    config, _ = read_config(directory)
    kept = config.provenance.get(KEPT) or {}
    arguments = arguments_for(config, kept.get("args") or {})
    tables = build_tables(torch, encodings_of(arguments), config.model.width)
    path = directory / WEIGHTS_FILE
    with _opened(path) as weights:
        shapes = {name: _shape(weights.get_slice(name)) for name in weights.keys()}  # noqa: SIM118
        try:
            pairs = match_ours(shapes, sizes_of(config.model, config.features, config.outputs), config.model.layers)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
        require_room(target, 4 * sum(math.prod(each.shape) for each in (*shapes.values(), *tables.values())))
        parameters = {
            pair.torch: torch.from_numpy(torch_of(weights.get_tensor(pair.ours), pair.rule)) for pair in pairs
        }
    embedding = [pair.torch for pair in pairs if pair.ours.startswith("encoder.embed.")]
    tensors = parameters | tables
    content = {
        "epoch": kept.get("epoch") or 0,
        "global_step": kept.get("global_step") or config.provenance.get("steps") or 0,
        "pytorch-lightning_version": LIGHTNING,
        "state_dict": OrderedDict((name, tensors[name]) for name in dict.fromkeys([*embedding, *tables, *tensors])),
        "hparams_name": "kwargs",
        "hyper_parameters": {"args": arguments},
    }
    with replaced_when_whole(target) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's own writer tells a full disk so
            raise ModelError(f"{target} could not be written: {str(error).splitlines()[0]}") from None
    return _notes(tables, kept.get("tables") or {})


class _Shape(NamedTuple):
    shape: tuple[int, ...]
    dtype: str


def _shape(tensor: Any) -> _Shape:
    return _Shape(tuple(tensor.get_shape()), "float32" if tensor.get_dtype() == "F32" else str(tensor.get_dtype()))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; copy the whole model directory again") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path} is damaged ({error}); copy it again") from None


def _notes(tables: Mapping[str, Any], checksums: Mapping[str, int]) -> list[str]:
    """Tables that this PyTorch rebuilds with other last bits than the file that was converted had."""
    return [
        f"{name}: the last bits differ from the converted file's: this PyTorch computes sines differently"
        for name, table in tables.items()
        if name in checksums and zlib.crc32(table.numpy().data) != checksums[name]
    ]
