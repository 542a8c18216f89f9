"""Division of recordings into training, validation and test splits, and nested, seeded subsets of a split."""

import difflib
import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int8, Int64, Shaped, UInt64

from selfpab_jax.data.records.dataset import RecordIndex
from selfpab_jax.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)


@dataclass(frozen=True)
class SplitSettings:
    """How recordings are divided.

    Attributes:
        by: subject: no subject is in two splits. recording: files are drawn, as the original did.
        validation, test: fractions of the subjects or files; 0 for none.
        seed: seed of the draw.
        validation_subjects, test_subjects: names of subjects, instead of a fraction.

    Raises:
        ConfigError: fractions outside of 0 to 1, or subjects named in a split by recording.
    """

    by: Literal["subject", "recording"] = "subject"
    validation: float = 0.1
    test: float = 0.1
    seed: int = 0
    validation_subjects: tuple[str, ...] = ()
    test_subjects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, fraction in (("validation", self.validation), ("test", self.test)):
            if not 0 <= fraction < 1:
                raise ConfigError(f"{name} is {fraction}: give a fraction of 0 or more and below 1")
        if self.validation + self.test >= 1:
            raise ConfigError(f"validation {self.validation} and test {self.test} leave nothing to train on")
        if self.by == "recording" and (self.validation_subjects or self.test_subjects):
            raise ConfigError("subjects can only be named with --split_by subject")
        if both := set(self.validation_subjects) & set(self.test_subjects):
            raise ConfigError(f"{', '.join(sorted(both))}: named for validation and for test")


def draw(seed: int, key: str) -> int:
    """A 64-bit number that depends on seed and key only: adding a file changes no other file's number."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest(), "little")


def assign_subjects(subjects: list[str], settings: SplitSettings) -> dict[str, int]:
    """The split of every subject.

    Raises:
        DataError: a named subject does not exist, or too few are left for the fractions.
    """
    assigned: dict[str, int] = {}
    for split, named in ((VALIDATION, settings.validation_subjects), (TEST, settings.test_subjects)):
        for subject in named:
            if subject not in set(subjects):
                near = difflib.get_close_matches(subject, subjects, 1) or subjects[:1]
                raise DataError(f"subject {subject!r} is not among the {len(subjects)}; did you mean {near[0]!r}?")
            assigned[subject] = split
    rest = [subject for subject in subjects if subject not in assigned]
    keys = np.array([draw(settings.seed, subject) for subject in rest], np.uint64)
    validation = 0.0 if settings.validation_subjects else settings.validation
    test = 0.0 if settings.test_subjects else settings.test
    splits = assign(keys, validation, test, "subjects", of=len(subjects))
    return assigned | {subject: int(split) for subject, split in zip(rest, splits, strict=True)}


def assign(
    keys_N: UInt64[np.ndarray, " N"], validation: float, test: float, what: str, of: int
) -> Int8[np.ndarray, " N"]:
    """The split of every key: the smallest keys are for test, the next ones for validation, the rest for training.

    Args:
        keys_N: random numbers.
        validation, test: fractions of `of`; at least one key each if above 0.
        what: of what the keys are, for the message.
        of: number that the fractions refer to.

    Raises:
        DataError: nothing would be left to train on.
    """
    tests, validations = (max(1, round(fraction * of)) if fraction > 0 else 0 for fraction in (test, validation))
    if tests + validations >= len(keys_N):
        raise DataError(
            f"{len(keys_N)} {what} cannot be split into training, {validations} for validation and {tests} for test; "
            "use --split_by recording or --validation 0 --test 0"
        )
    order = np.argsort(keys_N, kind="stable")
    splits_N = np.full(len(keys_N), TRAIN, np.int8)
    splits_N[order[:tests]] = TEST
    splits_N[order[tests : tests + validations]] = VALIDATION
    return splits_N


# Nested, seeded subsets of a split, by hours or by subjects, as positions of records.

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
