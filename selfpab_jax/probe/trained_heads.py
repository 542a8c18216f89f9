"""Heads as they are after training, and what they predict."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int

from selfpab_jax.probe.batches import read_ahead
from selfpab_jax.probe.heads import Head, head_logits
from selfpab_jax.probe.jobs import Rows

CHUNK = 2048
"""Rows that are predicted at a time."""


@dataclass(frozen=True)
class TrainedHeads:
    """Heads with what they need to predict.

    Attributes:
        head: parameters, each with a leading axis of jobs; empty where only the validation was wanted.
        centre_E: subtracted from every row.
        mean_JxE: the job's own, relative to the centre; zero where features are not standardised.
        deviation_JxE: likewise, one where they are not.
        validation_JxPxYxY: confusion (truth, prediction) of the validation rows at each stopping point; all zero where
            a head had diverged.
        steps_P: steps taken at each stopping point.
    """

    head: dict[str, Float32[np.ndarray, "J ..."]]
    centre_E: Float32[np.ndarray, " E"]
    mean_JxE: Float32[np.ndarray, "J E"]
    deviation_JxE: Float32[np.ndarray, "J E"]
    validation_JxPxYxY: Float64[np.ndarray, "J P Y Y"]
    steps_P: Int[np.ndarray, " P"]


def predict_rows(
    rows: Rows, trained: TrainedHeads, jobs_K: Int[np.ndarray, " K"], chosen: Int[np.ndarray, " N"]
) -> Float32[np.ndarray, "K N Y"]:
    """Probabilities that some of the trained heads give some of the rows, in bounded memory."""
    head, mean, deviation = jax.tree.map(
        lambda a: jnp.asarray(a[jobs_K]), (trained.head, trained.mean_JxE, trained.deviation_JxE)
    )
    features_RxE, centre_E = rows.features_RxE, jnp.asarray(trained.centre_E)

    def read(chunk: int) -> np.ndarray:
        part = chosen[chunk * CHUNK : (chunk + 1) * CHUNK]
        x_NxE = features_RxE[part]
        return np.pad(x_NxE, ((0, CHUNK - len(part)), (0, 0)))  # one shape, one compilation

    outputs = [
        np.asarray(_probabilities(head, mean, deviation, centre_E, x_NxE))
        for x_NxE in read_ahead(read, -(-len(chosen) // CHUNK))
    ]
    classes = trained.validation_JxPxYxY.shape[-1]
    return np.concatenate(outputs, 1)[:, : len(chosen)] if outputs else np.zeros((len(jobs_K), 0, classes), np.float32)


@jax.jit
def _probabilities(head: Head, mean: Array, deviation: Array, centre_E: Array, x_NxE: Array) -> Float[Array, "K N Y"]:
    x_NxE = x_NxE.astype(jnp.float32) - centre_E
    return jax.nn.softmax(jax.vmap(head_logits, (0, 0, 0, None))(head, mean, deviation, x_NxE), axis=-1)
