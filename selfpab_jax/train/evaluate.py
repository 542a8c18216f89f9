"""Held-out loss, and the baselines beside it."""

from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Int64

from selfpab_jax.data.loader import in_order
from selfpab_jax.data.records.dataset import Records, RecordSource
from selfpab_jax.errors import DataError
from selfpab_jax.model.functional import Parameters
from selfpab_jax.train.state import MeshSettings, make_mesh, reading_share, replicated
from selfpab_jax.train.step import ErrorStep, Objective, held_out_keys, to_devices

# The held-out loss: what early stop and the best checkpoint go by.

AHEAD = 2
"""Batches that the device is given beyond the one that is waited for: what is queued holds its memory."""


def held_out_loss(
    errors: ErrorStep,
    parameters: Parameters,
    source: RecordSource,
    rows: Int[np.ndarray, " n"],
    *,
    batch_size: int,
    mesh: Mesh,
) -> float:
    """Mean loss over the windows, each altered in its own fixed way, without dropout.

    The mean is taken in float64 in the order of the rows, so that it does not depend on mesh or processes.
    """
    share, shares = reading_share(mesh, batch_size)
    losses: list[Array] = []
    for batch in in_order(source, rows, batch_size=batch_size, process_index=share, process_count=shares):
        spectrogram, row = (to_devices(mesh, batch[name], batch_size) for name in ("spectrogram", "row"))
        losses.append(errors(parameters, spectrogram, row))  # read in the end: the device goes on with the next batch
        if len(losses) > AHEAD:
            losses[-1 - AHEAD].block_until_ready()
    return float(np.concatenate([np.asarray(loss) for loss in losses])[: len(rows)].astype(np.float64).mean())


# What can be guessed without a model: the feature mean, and a straight line across what is hidden.


def interpolate(
    target: Float[np.ndarray, "T X"], mask: Bool[np.ndarray, "T X"], channels: int
) -> Float[np.ndarray, "T X"]:
    """Fill hidden frames along time, then hidden bins along frequency, linearly between the nearest visible ones.

    At an edge the nearest visible value goes on. It is told which entries are hidden, swapped frames included,
    which the model is not; in the cross-sensor task it even sees the rest of the target.

    Args:
        target: unaltered frames, channel-major features.
        mask: entries to be guessed: whole frames, and bins that are the same in all channels.
        channels: channels C.
    """
    frames_hidden = np.asarray(mask.all(axis=1))
    bins_hidden = mask.all(axis=0).reshape(channels, -1)[0]
    filled = _fill(target, frames_hidden, axis=0)
    by_channel = filled.reshape(len(target), channels, -1)
    return _fill(by_channel, bins_hidden, axis=2).reshape(target.shape)


def _fill(values: np.ndarray, hidden: np.ndarray, axis: int) -> np.ndarray:
    visible = np.flatnonzero(~hidden)
    if not hidden.any() or not len(visible):
        return values
    at = np.flatnonzero(hidden)
    after = np.searchsorted(visible, at)
    left = visible[np.maximum(after - 1, 0)]
    right = visible[np.minimum(after, len(visible) - 1)]
    left, right = np.where(after == 0, right, left), np.where(after == len(visible), left, right)
    share = np.where(right > left, (at - left) / np.maximum(right - left, 1), 0.0).astype(values.dtype)
    share = share.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    filled = values.copy()
    guess = np.take(values, left, axis) * (1 - share) + np.take(values, right, axis) * share
    filled[(slice(None),) * axis + (at,)] = guess
    return filled


# Held-out losses of a checkpoint beside the two baselines, with pictures.


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
    rows: Int64[np.ndarray, " n"] | None = None,
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
    def reconstruct(parameters: Parameters, spectrogram: jax.Array, rows: jax.Array) -> tuple:
        return objective.reconstruct(parameters, spectrogram, held_out_keys(seed, rows), training=False)

    power = 1 if objective.task.loss == "masked_l1" else 2
    channels = objective.channels * objective.functional.outputs // records.info.features
    totals = np.zeros(3)
    kept: list[Example] = []
    seen = 0
    for batch in in_order(records.source(split), rows, batch_size=batch_size):
        with jax.set_mesh(mesh):
            masked, output = solve(
                parameters,
                to_devices(mesh, batch["spectrogram"], batch_size),
                to_devices(mesh, batch["row"].astype(np.int32), batch_size),
            )
        target, mask, output, altered = (np.asarray(x) for x in (masked.target, masked.mask, output, masked.input))
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
