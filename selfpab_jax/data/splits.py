"""Division of recordings into training, validation and test splits."""

import difflib
import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int8, UInt64

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
