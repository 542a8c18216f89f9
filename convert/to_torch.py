"""A model directory as a checkpoint that the original and plain PyTorch open; PyTorch must be installed."""

import importlib
import math
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpab_jax.convert.from_torch import KEPT
from selfpab_jax.convert.hyper_parameters import arguments_for, encodings_of
from selfpab_jax.convert.positions import build_tables
from selfpab_jax.convert.table import to_torch
from selfpab_jax.errors import ModelError, StorageError
from selfpab_jax.io import atomic_path, require_disk_space
from selfpab_jax.model_dir import WEIGHTS_FILE, find_model, open_tensors, read_config

LIGHTNING = "1.6.4"
EMBEDDING = "emb.lin_proj_layer."


def write_torch(directory: Path, target: Path, *, overwrite: bool = False) -> list[str]:
    """Write a model directory as a checkpoint of weights, as Lightning 1.6 does with `save_weights_only`.

    Args:
        directory: that `export` or `from-torch` wrote.
        target: the `.ckpt` file.
        overwrite: replace an existing file.

    Returns:
        Warnings: differences in the last bits of the positional tables.

    Raises:
        ModelError: the model cannot be read, the original cannot express its input, or PyTorch is missing.
        StorageError: the file exists or cannot be written.
    """
    torch = require_torch()
    if target.is_dir() or (target.exists() and not overwrite):
        raise StorageError(f"{target} exists; choose another file" + ("" if target.is_dir() else " or add --overwrite"))
    directory = find_model(directory)
    config, _ = read_config(directory)
    if config.scale != "linear":
        raise ModelError(
            f"{directory}: the model takes magnitudes on the scale {config.scale}, which the original does not know; "
            "its features would mean nothing there"
        )
    kept = config.provenance.get(KEPT) or {}
    arguments = kept.get("args") or arguments_for(config)
    path = directory / WEIGHTS_FILE
    stored = open_tensors(path)
    tables = build_tables(torch, encodings_of(arguments), config.model.width)
    require_disk_space(target, 4 * sum(math.prod(each.shape) for each in (*stored.values(), *tables.values())))
    try:
        arrays = to_torch(stored, config.model, config.features, config.outputs)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()} | tables
    embedding = [name for name in tensors if name.startswith(EMBEDDING)]
    content = {
        "epoch": kept.get("epoch") or 0,
        "global_step": kept.get("global_step") or config.provenance.get("steps") or 0,
        "pytorch-lightning_version": LIGHTNING,
        "state_dict": OrderedDict((name, tensors[name]) for name in dict.fromkeys([*embedding, *tables, *tensors])),
        "hparams_name": "kwargs",
        "hyper_parameters": {"args": arguments},
    }
    with atomic_path(target) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # which torch raises when the disk is full
            raise StorageError(f"{target} could not be written: {str(error).splitlines()[0]}") from None
    return _table_warnings(tables, kept.get("tables") or {})


def require_torch() -> Any:
    """The module `torch`, which only writing its files and running its modules needs.

    Raises:
        ModelError: it is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise ModelError(
            "this needs PyTorch, which is not installed: `pip install torch --index-url "
            "https://download.pytorch.org/whl/cpu` gets the CPU build (the extra selfpab-jax[convert] the default one)"
        ) from None


def _table_warnings(tables: Mapping[str, Any], checksums: Mapping[str, int]) -> list[str]:
    """Tables that this PyTorch builds with other last bits than those in the converted file."""
    return [
        f"{name}: the last bits differ from the converted file's: this PyTorch computes sines differently"
        for name, table in tables.items()
        if name in checksums and zlib.crc32(table.numpy().data) != checksums[name]
    ]
