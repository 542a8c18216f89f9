"""The held-out loss: what early stop and the best checkpoint go by."""

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from selfpab_jax.data.loader import in_order
from selfpab_jax.data.records import RecordSource
from selfpab_jax.model.blueprint import Parameters
from selfpab_jax.train.sharding import reading_share
from selfpab_jax.train.step import ErrorStep, to_devices

AHEAD = 2
"""Batches that the device is given beyond the one that is waited for: what is queued holds its memory."""


def held_out_loss(
    errors: ErrorStep,
    parameters: Parameters,
    source: RecordSource,
    rows: Int[np.ndarray, "n"],
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
