"""A checkpoint's weights as a model directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpab_jax.convert.checkpoint import Checkpoint
from selfpab_jax.convert.hyper_parameters import plain
from selfpab_jax.convert.pickle_objects import StoredTensor
from selfpab_jax.io import require_disk_space
from selfpab_jax.model_dir import ModelConfig, require_writable, write_model
from selfpab_jax.signal.normalization import Statistics

KEPT = "torch"
"""The entry of the provenance with what `to_torch` restores unchanged."""


def write_converted(
    checkpoint: Checkpoint, directory: Path, statistics: Statistics | None, *, overwrite: bool = False
) -> ModelConfig:
    """Write a checkpoint as a model directory, like those that `export` writes.

    Args:
        checkpoint: to convert.
        directory: to create.
        statistics: that its inputs are normalized with; None for a model that must be given normalized frames.
        overwrite: replace an existing model directory.

    Raises:
        ModelError: the weights are damaged or not finite, or the positions are unknown.
        StorageError: the directory exists or cannot be written; nothing is left behind.
    """
    require_writable(directory, overwrite=overwrite)
    tables = checkpoint.check_weights()
    parameters = checkpoint.parameters()
    require_disk_space(directory, sum(array.nbytes for array in parameters.values()))
    config = config_of(checkpoint, tables)
    write_model(directory, config, parameters, statistics, overwrite=overwrite)
    return config


def config_of(checkpoint: Checkpoint, tables: Mapping[str, int]) -> ModelConfig:
    """The model directory's configuration.

    Args:
        checkpoint: the checkpoint.
        tables: checksums of its positional tables, with which `to_torch` checks the ones that it builds.
    """
    content, family, name = checkpoint.file.content, checkpoint.family, checkpoint.weight_set.name
    kept = {
        "args": plain(checkpoint.arguments) if checkpoint.has_arguments else None,
        "epoch": _count(content, "epoch"),
        "global_step": _count(content, "global_step"),
        "pytorch-lightning_version": checkpoint.version,
        "tables": dict(tables),
    }
    return ModelConfig(
        family=family.name,
        model=checkpoint.settings,
        features=checkpoint.features,
        outputs=checkpoint.outputs,
        channels=family.channels,
        sensors=family.sensors,
        spectrogram=family.spectrogram(checkpoint.features),
        frames=family.frames,
        provenance={
            "source": checkpoint.source,
            **({} if name == "state_dict" else {"weights": name}),
            **({"cast_from": checkpoint.cast_from} if checkpoint.cast_from else {}),
            "steps": _count(content, "global_step"),
            "batch_size": plain(checkpoint.arguments.get("batch_size")),
            "held_out_loss": _best_score(checkpoint),
            KEPT: plain(kept),
        },
    )


def _count(content: Mapping[Any, Any], key: str) -> int | None:
    value = content.get(key)
    return value if isinstance(value, int) else None


def _best_score(checkpoint: Checkpoint) -> float | None:
    callbacks = checkpoint.file.content.get("callbacks")
    for name, state in callbacks.items() if isinstance(callbacks, dict) else ():
        score: Any = state.get("best_model_score") if isinstance(state, dict) else None
        if str(name).startswith("ModelCheckpoint") and isinstance(score, StoredTensor) and score.shape == ():
            return float(checkpoint.file.array(score))
        if str(name).startswith("ModelCheckpoint") and isinstance(score, float):
            return score
    return None
