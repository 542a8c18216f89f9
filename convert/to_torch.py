"""PyTorch, where it is installed: only writing its files and running its modules needs it."""

import importlib
import math
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpab_jax.convert.family import arguments_for, encodings_of
from selfpab_jax.convert.from_torch import KEPT
from selfpab_jax.convert.table import build_tables, match_ours, sizes_of, torch_of
from selfpab_jax.errors import ModelError
from selfpab_jax.io import atomic_path, require_disk_space
from selfpab_jax.model_dir import WEIGHTS_FILE, open_tensors, read_config

# PyTorch, where it is installed: only writing its files and running its modules needs it.


def require_torch() -> Any:
    """The module `torch`.

    Raises:
        ModelError: it is not installed; says how to get the CPU build.
    """
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise ModelError(
            "this needs PyTorch, which is not installed: `pip install torch --index-url "
            "https://download.pytorch.org/whl/cpu` gets the CPU build (the extra selfpab-jax[convert] the default one)"
        ) from None


# A model directory as a checkpoint that the original and plain PyTorch open.

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
    path = directory / WEIGHTS_FILE
    arrays = open_tensors(path)
    try:
        pairs = match_ours(arrays, sizes_of(config.model, config.features, config.outputs), config.model.layers)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    tables = build_tables(torch, encodings_of(arguments), config.model.width)
    require_disk_space(target, 4 * sum(math.prod(each.shape) for each in (*arrays.values(), *tables.values())))
    parameters = {pair.torch: torch.from_numpy(torch_of(arrays[pair.ours].read(), pair.rule)) for pair in pairs}
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
    with atomic_path(target) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's own writer tells a full disk so
            raise ModelError(f"{target} could not be written: {str(error).splitlines()[0]}") from None
    return _notes(tables, kept.get("tables") or {})


def _notes(tables: Mapping[str, Any], checksums: Mapping[str, int]) -> list[str]:
    """Tables that this PyTorch rebuilds with other last bits than the file that was converted had."""
    return [
        f"{name}: the last bits differ from the converted file's: this PyTorch computes sines differently"
        for name, table in tables.items()
        if name in checksums and zlib.crc32(table.numpy().data) != checksums[name]
    ]
