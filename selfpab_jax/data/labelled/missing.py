"""Samples that are missing: they end a continuous recording, and what lies around them is kept."""

import numpy as np
from jaxtyping import Float


def finite_pieces(
    signal_NxC: Float[np.ndarray, "N C"], pieces: list[tuple[int, int]], channels: tuple[str, ...]
) -> tuple[list[tuple[int, int]], tuple[str, ...]]:
    """The pieces (first, last + 1) less every sample with NaN or infinity in a channel, and a note where there are.

    A piece without a finite sample is gone.
    """
    finite_N = np.asarray(np.isfinite(signal_NxC).all(axis=1))
    if finite_N.all():
        return pieces, ()
    parts = []
    for first, last in pieces:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], finite_N[first:last], [False]]).astype(np.int8)))
        parts += [(first + int(a), first + int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    lost = [channel for c, channel in enumerate(channels) if not np.isfinite(signal_NxC[:, c]).all()]
    note = f"{int((~finite_N).sum())} of {len(finite_N)} samples are NaN or infinite ({', '.join(lost)}): left out"
    return parts, (note,)
