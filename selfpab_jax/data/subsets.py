"""Nested, seeded subsets of a split, by hours or by subjects, as positions of records."""

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from selfpab_jax.data.records.dataset import RecordIndex
from selfpab_jax.errors import DataError

SECONDS_PER_HOUR = 3600.0


def select(
    index: RecordIndex, *, hours: float | None = None, subjects: int | None = None, seed: int = 0
) -> Int64[np.ndarray, " R"]:
    """Positions of the records of a subset, ascending.

    Subjects are shuffled and the first ones taken; then the continuous segments of their recordings are shuffled, and
    records taken from the first on until they add up to `hours`: whole segments, the last one cut short, so that hours
    are hours of recording also where windows overlap. For one seed, 10 h are a subset of 100 h, and 5 subjects of 10.
    (With both, more subjects spread the hours over more of them: hours nest for a fixed number of subjects.) With one
    window per file it is the original's uniform draw of files.

    Args:
        index: of the split.
        hours: hours of recording; the last record may exceed them.
        subjects: number of subjects.
        seed: seed of both orders.

    Raises:
        DataError: hours or subjects are not above 0, or more than the split has.
    """
    chosen = np.arange(len(index), dtype=np.int64)
    if subjects is not None:
        chosen = chosen[_of_subjects(index.subject, subjects, seed)]
    if hours is not None:
        chosen = _of_hours(chosen, index, hours, seed, "" if subjects is None else f" of these {subjects} subjects")
    return np.sort(chosen)


def hours_of(index: RecordIndex, rows: Int64[np.ndarray, " R"]) -> float:
    """Hours of recording in the records at these positions.

    Overlaps count once if each segment is taken from its first record on, as `select` does.
    """
    return float(index.seconds[rows].sum(dtype=np.float64)) / SECONDS_PER_HOUR


def _of_subjects(subject: Shaped[np.ndarray, " R"], wanted: int, seed: int) -> Bool[np.ndarray, " R"]:
    names, codes = np.unique(subject, return_inverse=True)
    if not 1 <= wanted <= len(names):
        raise DataError(f"{wanted} subjects were asked for; the split has {len(names)}")
    order = np.random.default_rng([seed, 0]).permutation(len(names))
    taken = np.zeros(len(names), bool)
    taken[order[:wanted]] = True
    return taken[codes]


def _of_hours(
    chosen: Int64[np.ndarray, " r"], index: RecordIndex, wanted: float, seed: int, of: str
) -> Int64[np.ndarray, " s"]:
    available = hours_of(index, chosen)
    if not 0 < wanted <= available * (1 + 1e-9):
        raise DataError(f"{wanted:g} hours were asked for; the split{of} has {available:.4g}")
    # All of the split's segments are shuffled, so that the order does not depend on which subjects were chosen.
    place = np.random.default_rng([seed, 1]).random(int(index.segment.max()) + 1)
    order = place[index.segment[chosen]].argsort(kind="stable")
    total = np.cumsum(index.seconds[chosen][order], dtype=np.float64)
    count = int(np.searchsorted(total, wanted * SECONDS_PER_HOUR * (1 - 1e-9))) + 1
    return chosen[order[:count]]


def evenly(available: int, wanted: int | None) -> Int64[np.ndarray, " R"]:
    """`wanted` of `available` positions, evenly spaced; all of them if it is not set or there are fewer."""
    if wanted is None or wanted >= available:
        return np.arange(available, dtype=np.int64)
    return np.linspace(0, available, wanted, endpoint=False).astype(np.int64)
