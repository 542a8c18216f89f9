"""From a run's checkpoint to a model directory."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from selfpab_jax.config import parse_settings
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import FunctionalModel, Parameters, make_functional
from selfpab_jax.model.masking import TaskSettings
from selfpab_jax.model_dir import ModelConfig, SubjectListing, WeightsDtype, listed_subjects, write_model
from selfpab_jax.signal.stft import SpectrogramSettings
from selfpab_jax.train.checkpoint import read_parameters, statistics_of
from selfpab_jax.train.run_dir import PROBE_FILE, SUBJECTS_FILE
from selfpab_jax.train.step import Objective


def read_checkpoint(run: Path, which: str, compute: str | None = None) -> tuple[Objective, Parameters, dict[str, Any]]:
    """Objective, parameters and metadata of a run's `best` or `latest` checkpoint, on the default device.

    Args:
        run: the run's directory.
        which: `best`, `latest`, or the step of a kept state.
        compute: dtype of matrix products; that of the run where not given.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def abstract(metadata: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
            for name, leaf in functional_of(metadata).abstract.items()
        }

    parameters, metadata = read_parameters(run, which, abstract)
    functional = functional_of(metadata, compute)
    task = metadata["settings"]["task"]
    objective = Objective(
        functional,
        parse_settings(TaskSettings, task),
        statistics_of(metadata),
        tuple(metadata["records"]["sensors"]),
        len(metadata["records"]["channels"]),
    )
    return objective, parameters, metadata


def functional_of(metadata: dict[str, Any], compute: str | None = None) -> FunctionalModel:
    """The network that a checkpoint's metadata describes."""
    settings = parse_settings(ModelSettings, metadata["settings"]["model"])
    if compute:
        settings = replace(settings, compute=compute)
    second_head = metadata["settings"]["task"].get("second_head", "none") != "none"
    return make_functional(settings, metadata["features"], metadata["outputs"], second_head=second_head)


def export_run(
    run: Path,
    directory: Path,
    which: str = "best",
    *,
    subjects: SubjectListing = "hashed",
    weights: WeightsDtype = "float32",
    overwrite: bool = False,
) -> ModelConfig:
    """Write a checkpoint of a run as a model directory.

    Args:
        run: the run's directory.
        directory: to create.
        which: `best`, `latest`, or the step of a kept state.
        subjects: how the subjects of the training split are listed. Hashes hide names from a reader, while `probe`
            still finds its test subjects among them; without a list, it can only warn that it cannot check.
        weights: dtype of the weights' file.
        overwrite: replace an existing model directory.

    Raises:
        RunError: the run has no such checkpoint.
        StorageError: the directory exists or cannot be written.
    """
    objective, parameters, metadata = read_checkpoint(run, which)
    chosen_by = _chosen_by(run, metadata, subjects)
    config = config_of(metadata, listed_subjects(_subjects(run), subjects), chosen_by=chosen_by)
    kept = make_functional(config.model, config.features, config.outputs).abstract  # a second head served training only
    arrays = {name: np.asarray(parameters[name]) for name in kept}
    write_model(directory, config, arrays, objective.statistics, weights=weights, overwrite=overwrite)
    return config


def config_of(metadata: dict[str, Any], subjects: list[str], *, chosen_by: dict[str, Any] | None = None) -> ModelConfig:
    """The model directory's configuration from a checkpoint's metadata.

    Args:
        metadata: of the checkpoint.
        subjects: that it was trained on, as they are to be listed.
        chosen_by: what the checkpoint was chosen by, if it was a probe.
    """
    settings, records = metadata["settings"], metadata["records"]
    family = "monoselfpab" if settings["task"]["kind"] == "cross_sensor" else "selfpab"
    return ModelConfig(
        family=family,
        # How it is computed is up to the user, not a property of the model.
        model=replace(
            parse_settings(ModelSettings, settings["model"]), layout="exact", attention="auto", rematerialize="nothing"
        ),
        features=metadata["features"],
        outputs=metadata["outputs"],
        channels=tuple(records["channels"]),
        sensors=tuple(records["sensors"]),
        spectrogram=SpectrogramSettings(**records["settings"]),
        frames=records["frames"],
        scale=metadata["statistics"].get("scale", "linear"),
        provenance={
            "hours": metadata["hours"],
            "steps": metadata["step"],
            "batch_size": settings["optimizer"]["batch_size"],
            "held_out_loss": metadata["validation"]["best"],
            "source": records["source"],
            "seed": settings["seed"],
            "subjects": subjects,
            **(chosen_by or {}),
        },
    )


def _subjects(run: Path) -> list[str]:
    path = run / SUBJECTS_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _chosen_by(run: Path, metadata: dict[str, Any], listing: SubjectListing) -> dict[str, Any]:
    """Where a probe chose the checkpoint: its macro-F1, data set and subjects, which must not score the encoder."""
    validation, path = metadata["validation"], run / PROBE_FILE
    if not validation.get("probe_step") or not path.exists():
        return {}
    probe = json.loads(path.read_text(encoding="utf-8"))
    return {
        "choosing_macro_f1": validation["probe"],
        "choosing_source": probe["source"],
        "choosing_subjects": listed_subjects(probe["subjects"], listing),
    }
