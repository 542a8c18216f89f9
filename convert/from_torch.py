"""A checkpoint's weights as a model directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpab_jax.convert.checkpoint import Checkpoint
from selfpab_jax.convert.family import plain
from selfpab_jax.convert.pickle_reader import StoredTensor
from selfpab_jax.io import require_disk_space
from selfpab_jax.model_dir import ModelConfig, check_writable, write_model
from selfpab_jax.signal.normalization import Statistics

KEPT = "torch"
"""Part of the provenance that `to_torch` gives back as it was."""


def write_converted(
    checkpoint: Checkpoint, directory: Path, statistics: Statistics | None, *, overwrite: bool = False
) -> ModelConfig:
    """Write a checkpoint as a model directory, the same as `export` writes of a run.

    Raises:
        ModelError: the weights are damaged or not finite, the positions are unknown, the directory exists, or the
            disk is too small; nothing is left behind.
    """
    check_writable(directory, overwrite=overwrite)
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
        tables: checksums of its positional tables; they tell `to_torch` whether it has rebuilt the same bits.
    """
    content, family = checkpoint.file.content, checkpoint.family
    kept = {
        "args": plain(checkpoint.arguments),
        "epoch": _counted(content, "epoch"),
        "global_step": _counted(content, "global_step"),
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
            "source": f"{checkpoint.file.path.name}, written by PyTorch Lightning {checkpoint.version}",
            "steps": _counted(content, "global_step"),
            "batch_size": plain(checkpoint.arguments.get("batch_size")),
            "held_out_loss": _best_score(checkpoint),
            KEPT: plain(kept),
        },
    )


def _counted(content: Mapping[Any, Any], key: str) -> int | None:
    value = content.get(key)
    return value if isinstance(value, int) else None


def _best_score(checkpoint: Checkpoint) -> float | None:
    callbacks = checkpoint.file.content.get("callbacks")
    for name, state in callbacks.items() if isinstance(callbacks, dict) else ():
        score: Any = state.get("best_model_score") if isinstance(state, dict) else None
        if str(name).startswith("ModelCheckpoint") and isinstance(score, StoredTensor) and score.shape == ():
            return float(checkpoint.file.array(score))
    return None
