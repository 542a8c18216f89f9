"""From a run's checkpoint to a model directory."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import FunctionalModel, Parameters, make_functional
from selfpab_jax.model.masking import MaskingSettings, TaskSettings
from selfpab_jax.model_dir import ModelConfig, write_model
from selfpab_jax.signal.stft import SpectrogramSettings
from selfpab_jax.train.checkpoint import read_parameters, statistics_of
from selfpab_jax.train.run_dir import SUBJECTS_FILE
from selfpab_jax.train.step import Objective

# A run's checkpoint as an objective and parameters, for measuring and exporting.


def read_checkpoint(run: Path, which: str, compute: str | None = None) -> tuple[Objective, Parameters, dict[str, Any]]:
    """Objective, parameters and facts of a run's `best` or `latest` checkpoint, on the default device.

    Args:
        run: the run's directory.
        which: `best` or `latest`.
        compute: dtype of matrix products; the run's own where not set.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def abstract(facts: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
            for name, leaf in functional_of(facts).abstract.items()
        }

    parameters, facts = read_parameters(run, which, abstract)
    functional = functional_of(facts, compute)
    task = facts["settings"]["task"]
    objective = Objective(
        functional,
        TaskSettings(**{**task, "masking": MaskingSettings(**task["masking"])}),
        statistics_of(facts),
        tuple(facts["records"]["sensors"]),
        len(facts["records"]["channels"]),
    )
    return objective, parameters, facts


def functional_of(facts: dict[str, Any], compute: str | None = None) -> FunctionalModel:
    """The network that a checkpoint's facts describe."""
    settings = ModelSettings(**facts["settings"]["model"])
    if compute:
        settings = replace(settings, compute=compute)
    return make_functional(settings, facts["features"], facts["outputs"])


# A run's checkpoint as a model directory.


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
        model=replace(ModelSettings(**settings["model"]), layout="exact", attention="auto", rematerialize="nothing"),
        features=facts["features"],
        outputs=facts["outputs"],
        channels=tuple(records["channels"]),
        sensors=tuple(records["sensors"]),
        spectrogram=SpectrogramSettings(**records["settings"]),
        frames=records["frames"],
        provenance={
            "hours": facts["hours"],
            "steps": facts["step"],
            "batch_size": settings["optimizer"]["batch_size"],
            "held_out_loss": facts["validation"]["best"],
            "source": records["source"],
            "seed": settings["seed"],
            "subjects": subjects,
        },
    )


def _subjects(run: Path) -> list[str]:
    path = run / SUBJECTS_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
