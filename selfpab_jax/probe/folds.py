"""Cross-validation over subjects: nobody is in training and in test of one fold."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.order import shuffled


@dataclass(frozen=True)
class Fold:
    """Subjects to test on and subjects to train on, sorted."""

    name: str
    test: tuple[str, ...]
    train: tuple[str, ...]


@dataclass(frozen=True)
class Folds:
    """Folds in order, and what is to be said about them."""

    folds: tuple[Fold, ...]
    notes: tuple[str, ...] = ()


def leave_one_subject_out(subjects: Iterable[str]) -> Folds:
    """A fold for each subject, trained on all others.

    Raises:
        DataError: fewer than two subjects.
    """
    names = sorted(set(subjects))
    _check_enough(names, 2)
    return Folds(tuple(_fold(name, {name}, names) for name in names))


def group_folds(subjects: Iterable[str], k: int, seed: int) -> Folds:
    """k folds of whole subjects, drawn; sizes differ by at most one.

    Raises:
        ConfigError: k below 2.
        DataError: fewer subjects than folds.
    """
    if k < 2:
        raise ConfigError(f"{k} folds: give 2 at least")
    names = shuffled(subjects, seed, "folds")
    _check_enough(names, k)
    return Folds(tuple(_fold(f"fold {i + 1} of {k}", set(names[i::k]), names) for i in range(k)))


def _check_enough(names: list[str], least: int) -> None:
    if len(names) < least:
        raise DataError(f"{len(names)} subject(s) ({', '.join(names)}) do not make {least} folds of whole subjects")


def _fold(name: str, test: set[str], names: list[str]) -> Fold:
    return Fold(name, tuple(sorted(test)), tuple(sorted(set(names) - test)))


def inner_split(train: Iterable[str], share: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training subjects to fit on, and training subjects to choose hyper-parameters on; at least one each.

    Args:
        train: of one fold.
        share: of them that are for choosing, above 0 and below 1.
        seed: of the order; leaving a subject out leaves the others' order as it is.

    Raises:
        ConfigError: a share out of range.
        DataError: a single training subject.
    """
    if not 0 < share < 1:
        raise ConfigError(f"inner share is {share}: give a number between 0 and 1")
    names = shuffled(train, seed, "inner")
    if len(names) < 2:
        raise DataError(
            f"training on {', '.join(names) or 'no subject'} alone leaves no subject to choose hyper-parameters on; "
            "give them fixed"
        )
    validation = min(max(round(share * len(names)), 1), len(names) - 1)
    return tuple(sorted(names[validation:])), tuple(sorted(names[:validation]))


def check_folds(folds: Folds, corpus: Corpus, training_R: np.ndarray | None = None) -> Folds:
    """The folds that can be trained, with a line for each that cannot and for each class that will be missed.

    A fold is refused where its training rows have fewer than two classes. A class of a fold's test subjects that is not
    in its training rows cannot be predicted; that is told, and counts as 0 in the scores.

    Args:
        folds: of subjects of the corpus.
        corpus: whose labels are looked at.
        training_R: rows that may be trained on (a label budget); None: all with a label.

    Raises:
        DataError: no fold can be trained.
    """
    usable_R = (corpus.label_R >= 0) & corpus.whole_R
    train_SxY = _counts(corpus, usable_R if training_R is None else usable_R & training_R)
    test_SxY = _counts(corpus, corpus.label_R >= 0)
    index = {subject: i for i, subject in enumerate(corpus.subjects)}
    kept, notes = [], list(folds.notes)
    for fold in folds.folds:
        trained_Y = np.asarray(train_SxY[[index[name] for name in fold.train]].any(axis=0))
        tested_Y = np.asarray(test_SxY[[index[name] for name in fold.test]].any(axis=0))
        if trained_Y.sum() < 2:
            only = ", ".join(_names(corpus, trained_Y)) or "no class"
            notes.append(f"{fold.name}: refused, its training subjects have {only} only")
            continue
        if missed := _names(corpus, tested_Y & ~trained_Y):
            notes.append(
                f"{fold.name}: {', '.join(missed)} of the test subjects is in no training row and cannot be learnt"
            )
        kept.append(fold)
    if not kept:
        raise DataError(f"no fold can be trained; {notes[-1] if notes else 'there is none'}")
    return Folds(tuple(kept), tuple(notes))


def _counts(corpus: Corpus, row_R: np.ndarray) -> np.ndarray:
    classes = len(corpus.classes)
    cell_r = corpus.subject_R[row_R].astype(np.int64) * classes + corpus.label_R[row_R]
    return np.bincount(cell_r, minlength=len(corpus.subjects) * classes).reshape(-1, classes)


def _names(corpus: Corpus, there_Y: np.ndarray) -> list[str]:
    return [name for name, there in zip(corpus.classes, there_Y, strict=True) if there]
