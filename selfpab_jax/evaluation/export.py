"""A run's checkpoint as a model directory."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from selfpab_jax.evaluation.checkpoint_reader import read_checkpoint
from selfpab_jax.model.settings import ModelSettings
from selfpab_jax.model_directory import ModelConfig, write_model
from selfpab_jax.signal.stft import SpectrogramSettings
from selfpab_jax.train.run_directory import SUBJECTS_FILE


def export_run(run: Path, directory: Path, which: str = "best", *, overwrite: bool = False) -> ModelConfig:
    """Write the `best` or `latest` checkpoint of a run as a model directory.

    Raises:
        RunError: the run has no such checkpoint.
        ModelError: the directory exists, or cannot be written.
    """
    objective, parameters, facts = read_checkpoint(run, which)
    config = config_of(facts, _subjects(run))
    arrays = {name: np.asarray(array) for name, array in parameters.items()}
    write_model(directory, config, arrays, objective.statistics, overwrite=overwrite)
    return config


def config_of(facts: dict[str, Any], subjects: list[str]) -> ModelConfig:
    """The model directory's configuration from a checkpoint's facts."""
    settings, records = facts["settings"], facts["records"]
    family = "monoselfpab" if settings["task"]["kind"] == "cross_sensor" else "selfpab"
    return ModelConfig(
        family=family,
        # How it is computed is the user's choice, not a fact of the model.
        model=replace(ModelSettings(**settings["model"]), layout="exact", attention="auto", rematerialise="nothing"),
        features=facts["features"],
        outputs=facts["outputs"],
        channels=tuple(records["channels"]),
        sensors=tuple(records["sensors"]),
        spectrogram=SpectrogramSettings(**records["settings"]),
        frames=records["frames"],
        provenance={
            "hours": facts["hours"],
            "steps": facts["step"],
            "batch_size": settings["optimiser"]["batch_size"],
            "held_out_loss": facts["validation"]["best"],
            "source": records["source"],
            "seed": settings["seed"],
            "subjects": subjects,
        },
    )


def _subjects(run: Path) -> list[str]:
    path = run / SUBJECTS_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
