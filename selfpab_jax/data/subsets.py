"""Nested, seeded subsets of a split by hours or by subjects, as positions: nothing is copied."""

import numpy as np
from jaxtyping import Int64

from selfpab_jax.data.records.dataset import RecordIndex
from selfpab_jax.errors import DataError

SECONDS_AN_HOUR = 3600.0


def select(
    index: RecordIndex, *, hours: float | None = None, subjects: int | None = None, seed: int = 0
) -> Int64[np.ndarray, " R"]:
    """Positions of the records of a subset, ascending.

    Subjects are put in a random order and the first ones taken; then the stretches of recording of those are put in
    a random order, and their records taken from the first on until they add up to `hours`: whole stretches, the last
    one cut short, so that hours are hours of recording also where windows overlap. So for one seed 10 h lie inside
    100 h, and 5 subjects inside 10. (With both, a larger number of subjects spreads the hours over more of them: hours
    nest for a fixed number of subjects.) With one window a file it is the original's uniform draw of files.

    Args:
        index: of the split.
        hours: of recording; the last record may pass it.
        subjects: how many.
        seed: of both orders.

    Raises:
        DataError: nothing asked for, or more than there is.
    """
    chosen = np.arange(len(index), dtype=np.int64)
    if subjects is not None:
        chosen = chosen[_of_subjects(index.subject, subjects, seed)]
    if hours is not None:
        chosen = _of_hours(chosen, index, hours, seed, "" if subjects is None else f" of these {subjects} subjects")
    return np.sort(chosen)


def hours_of(index: RecordIndex, rows: Int64[np.ndarray, " R"]) -> float:
    """Hours of recording in the records at these positions, overlaps counted once where each stretch is taken from
    its first record on (as `select` does)."""
    return float(index.seconds[rows].sum(dtype=np.float64)) / SECONDS_AN_HOUR


def _of_subjects(subject: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    names, codes = np.unique(subject, return_inverse=True)
    if not 1 <= wanted <= len(names):
        raise DataError(f"{wanted} subjects were asked for; the split has {len(names)}")
    order = np.random.default_rng([seed, 0]).permutation(len(names))
    taken = np.zeros(len(names), bool)
    taken[order[:wanted]] = True
    return taken[codes]


def _of_hours(chosen: np.ndarray, index: RecordIndex, wanted: float, seed: int, of: str) -> np.ndarray:
    there = hours_of(index, chosen)
    if not 0 < wanted <= there * (1 + 1e-9):
        raise DataError(f"{wanted:g} hours were asked for; the split{of} has {there:.4g}")
    # Shuffled over all of the split's stretches first, so that the order does not depend on which subjects were chosen.
    place = np.random.default_rng([seed, 1]).random(int(index.stretch.max()) + 1)
    order = place[index.stretch[chosen]].argsort(kind="stable")
    total = np.cumsum(index.seconds[chosen][order], dtype=np.float64)
    count = int(np.searchsorted(total, wanted * SECONDS_AN_HOUR * (1 - 1e-9))) + 1
    return chosen[order[:count]]


def evenly(there: int, wanted: int | None) -> Int64[np.ndarray, " R"]:
    """So many of `there` positions, evenly spaced; all of them where not set or where there are fewer."""
    if wanted is None or wanted >= there:
        return np.arange(there)
    return np.linspace(0, there, wanted, endpoint=False).astype(np.int64)
