"""Mean and deviation of every feature over each job's own training rows."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from selfpab_jax.probe.batches import read_ahead
from selfpab_jax.probe.jobs import Jobs, Rows

CHUNK = 2048
STEADY = 1e-6
"""A feature whose deviation is at most this is constant, and is left at its scale."""


def centre(rows: Rows, used: np.ndarray) -> Float32[np.ndarray, " E"]:
    """A point amid the rows, subtracted from all of them for the sake of float32's digits.

    Each job's own mean is then taken relative to it, so that it cancels, whichever rows it came from.
    """
    some = used[:: max(1, len(used) // CHUNK)]
    return rows.features_RxE[some].astype(np.float32).mean(0)


def job_moments(
    rows: Rows, jobs: Jobs, used: np.ndarray, centre_E: Float32[np.ndarray, " E"]
) -> tuple[Float32[np.ndarray, "J E"], Float32[np.ndarray, "J E"]]:
    """Mean, relative to `centre_E`, and deviation; one pass over the rows for all jobs, one product a chunk.

    Jobs that share their rows (candidates, seeds) share their sums too.
    """
    keys = np.concatenate([jobs.train_JxS, jobs.group_J[:, None]], 1)
    first_U, of_J = np.unique(keys, axis=0, return_index=True, return_inverse=True)[1:]
    train_UxS, group_U = jobs.train_JxS[first_U], jobs.group_J[first_U]
    features_RxE = rows.features_RxE
    sums_UxE = np.zeros((len(first_U), features_RxE.shape[1]))
    squares_UxE, count_U = np.zeros_like(sums_UxE), np.zeros((len(first_U), 1))

    def read(chunk: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = used[chunk * CHUNK : (chunk + 1) * CHUNK]
        mask_UxN = train_UxS[:, rows.subject_R[chosen]] & jobs.rows_GxR[:, chosen][group_U]
        missing = CHUNK - len(chosen)  # padded by rows of no weight: one shape, one compilation
        return np.pad(mask_UxN, ((0, 0), (0, missing))), features_RxE[np.pad(chosen, (0, missing))]

    for mask_UxN, x_NxE in read_ahead(read, -(-len(used) // CHUNK)):
        some_sums_UxE, some_squares_UxE = _sums(mask_UxN, x_NxE, centre_E)
        count_U += mask_UxN.sum(1, keepdims=True)
        sums_UxE += some_sums_UxE
        squares_UxE += some_squares_UxE
    mean_UxE = sums_UxE / count_U
    deviation_UxE = np.sqrt(np.maximum(squares_UxE / count_U - mean_UxE**2, 0.0))
    deviation_UxE[deviation_UxE <= STEADY] = 1.0
    of_J = of_J.reshape(-1)
    return mean_UxE.astype(np.float32)[of_J], deviation_UxE.astype(np.float32)[of_J]


@jax.jit
def _sums(mask_UxN: Array, x_NxE: Array, centre_E: Array) -> tuple[Float[Array, "U E"], Float[Array, "U E"]]:
    weight_UxN, x_NxE = mask_UxN.astype(jnp.float32), x_NxE.astype(jnp.float32) - centre_E
    exact = jax.lax.Precision.HIGHEST
    return jnp.matmul(weight_UxN, x_NxE, precision=exact), jnp.matmul(weight_UxN, jnp.square(x_NxE), precision=exact)
