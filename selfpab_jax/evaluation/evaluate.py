"""Held-out losses of a checkpoint beside the two baselines, with pictures."""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool, Float, Int64

from selfpab_jax.data.loader import in_order
from selfpab_jax.data.records import Records
from selfpab_jax.errors import DataError
from selfpab_jax.evaluation.baselines import interpolate
from selfpab_jax.model.blueprint import Parameters
from selfpab_jax.train.sharding import MeshSettings, make_mesh, replicated
from selfpab_jax.train.step import Objective, held_out_keys, to_devices


@dataclass(frozen=True)
class Scores:
    """Mean held-out loss over windows; `windows` of them, those with nothing hidden counting 0 as in training."""

    windows: int
    model: float
    feature_mean: float
    interpolation: float


@dataclass(frozen=True)
class Example:
    """One held-out window, for a picture."""

    name: str
    target: Float[np.ndarray, "T X"]
    altered: Float[np.ndarray, "T X"]
    output: Float[np.ndarray, "T X"]
    mask: Bool[np.ndarray, "T X"]


def evaluate(
    objective: Objective,
    parameters: Parameters,
    records: Records,
    *,
    split: str,
    seed: int,
    rows: Int64[np.ndarray, "n"] | None = None,
    batch_size: int = 32,
    examples: int = 3,
) -> tuple[Scores, list[Example]]:
    """Measure a model on a split, each record altered in the fixed way that validation alters it.

    Args:
        objective: model, task and the statistics it was trained with.
        parameters: of the model.
        records: of the same features as the model's.
        split: `validation`, `test` or `train`.
        seed: the run's, so that the validation loss is the one in its log.
        rows: windows of the split, all where not given.
        batch_size: windows at a time, rounded up to a multiple of the devices.
        examples: how many windows to keep for pictures, of different subjects, with frames and bins hidden.

    Raises:
        DataError: the split is missing or its records do not fit the model.
    """
    if split not in records.info.splits:
        raise DataError(f"the records have no split {split!r}; there are {', '.join(records.info.splits)}")
    mesh = make_mesh(MeshSettings())
    parameters = jax.device_put(parameters, replicated(mesh))
    batch_size = -(-batch_size // mesh.size) * mesh.size
    rows = np.arange(len(records.source(split))) if rows is None else rows
    index = records.index(split)

    @jax.jit
    def solve(parameters: Parameters, spectrogram: jax.Array, rows: jax.Array) -> tuple:
        return objective.solve(parameters, spectrogram, held_out_keys(seed, rows), training=False)

    power = 1 if objective.task.loss == "masked_l1" else 2
    channels = objective.channels * objective.blueprint.outputs // records.info.features
    totals = np.zeros(3)
    kept: list[Example] = []
    seen = 0
    for batch in in_order(records.source(split), rows, batch_size=batch_size):
        with jax.set_mesh(mesh):
            puzzle, output = solve(
                parameters,
                to_devices(mesh, batch["spectrogram"], batch_size),
                to_devices(mesh, batch["row"].astype(np.int32), batch_size),
            )
        target, mask, output, altered = (np.asarray(x) for x in (puzzle.target, puzzle.mask, output, puzzle.input))
        for i in range(min(batch_size, len(rows) - seen)):
            guesses = (output[i], np.zeros_like(target[i]), interpolate(target[i], mask[i], channels))
            hidden = max(int(mask[i].sum()), 1)
            totals += [float((np.abs(guess - target[i])[mask[i]] ** power).sum()) / hidden for guess in guesses]
            subject = str(index.subject[int(batch["row"][i])])
            tells_much = mask[i].all(axis=1).any() and mask[i].all(axis=0).any()
            if len(kept) < examples and tells_much and subject not in {example.name for example in kept}:
                kept.append(Example(subject, target[i], altered[i], output[i], mask[i]))
        seen += batch_size
    return Scores(len(rows), *(totals / len(rows)).tolist()), kept
