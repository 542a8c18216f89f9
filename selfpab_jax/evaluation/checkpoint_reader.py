"""A run's checkpoint as an objective and parameters, for measuring and exporting."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from selfpab_jax.model.alteration import AlterationSettings
from selfpab_jax.model.blueprint import Blueprint, Parameters, draw_blueprint
from selfpab_jax.model.settings import ModelSettings
from selfpab_jax.model.task import TaskSettings
from selfpab_jax.train.checkpoint import read_parameters, statistics_of
from selfpab_jax.train.step import Objective


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
            for name, leaf in blueprint_of(facts).abstract.items()
        }

    parameters, facts = read_parameters(run, which, abstract)
    blueprint = blueprint_of(facts, compute)
    task = facts["settings"]["task"]
    objective = Objective(
        blueprint,
        TaskSettings(**{**task, "alteration": AlterationSettings(**task["alteration"])}),
        statistics_of(facts),
        tuple(facts["records"]["sensors"]),
        len(facts["records"]["channels"]),
    )
    return objective, parameters, facts


def blueprint_of(facts: dict[str, Any], compute: str | None = None) -> Blueprint:
    """The network that a checkpoint's facts describe."""
    settings = ModelSettings(**facts["settings"]["model"])
    if compute:
        settings = replace(settings, compute=compute)
    return draw_blueprint(settings, facts["features"], facts["outputs"])
