"""Cross-validation over subjects: no subject is in training and in test of the same fold.

Folds and inner splits are drawn by hashing the seed with each subject's name, not by a random generator (as
scikit-learn's splitters do): adding or leaving out a subject does not change the order of the others.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from selfpab_jax.data.splits import draw
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.probe.dataset import Corpus


@dataclass(frozen=True)
class Fold:
    """Subjects to test on and subjects to train on, sorted."""

    name: str
    test: tuple[str, ...]
    train: tuple[str, ...]


@dataclass(frozen=True)
class Folds:
    """Folds in order, with notes on what they lack."""

    folds: tuple[Fold, ...]
    notes: tuple[str, ...] = ()


def shuffled(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The names in a random order; leaving one out does not change the order of the others.

    Args:
        names: what is ordered; each once.
        seed: of the order.
        purpose: different purposes give independent orders.
    """
    return sorted(set(names), key=lambda name: (draw(seed, f"{purpose}/{name}"), name))


def leave_one_subject_out(subjects: Iterable[str]) -> Folds:
    """One fold per subject, trained on all others.

    Raises:
        DataError: fewer than two subjects.
    """
    names = sorted(set(subjects))
    _check_enough(names, 2)
    return Folds(tuple(_fold(name, {name}, names) for name in names))


def group_folds(subjects: Iterable[str], k: int, seed: int) -> Folds:
    """k folds of whole subjects, drawn at random; their sizes differ by at most one.

    Args:
        subjects: names.
        k: number of folds.
        seed: of the draw.

    Raises:
        ConfigError: k is below 2.
        DataError: fewer subjects than folds.
    """
    if k < 2:
        raise ConfigError(f"the number of folds is {k}; it must be at least 2")
    names = shuffled(subjects, seed, "folds")
    _check_enough(names, k)
    return Folds(tuple(_fold(f"fold {i + 1} of {k}", set(names[i::k]), names) for i in range(k)))


def inner_split(train: Iterable[str], fraction: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training subjects to fit on and training subjects to validate on; at least one each.

    Args:
        train: training subjects of one fold.
        fraction: of them to validate on, above 0 and below 1.
        seed: of the order; leaving a subject out does not change the order of the others.

    Raises:
        ConfigError: the fraction is out of range.
        DataError: there is only one training subject.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the fraction of inner validation subjects is {fraction}; it must be between 0 and 1")
    names = shuffled(train, seed, "inner")
    if len(names) < 2:
        raise DataError(
            f"training on {', '.join(names) or 'no subject'} alone leaves no subject to validate on; "
            "set protocol.choose to fixed"
        )
    validation = min(max(round(fraction * len(names)), 1), len(names) - 1)
    return tuple(sorted(names[validation:])), tuple(sorted(names[:validation]))


def check_folds(folds: Folds, corpus: Corpus, training_R: Bool[np.ndarray, " R"] | None = None) -> Folds:
    """The folds that can be trained, with a note for each that cannot and for each class that will be missed.

    A fold is skipped if its training rows have fewer than two classes. A class of a fold's test subjects that is not
    in its training rows cannot be predicted: it is noted, and counts as 0 in the scores.

    Args:
        folds: of subjects of the corpus.
        corpus: with the labels.
        training_R: rows that may be trained on (a label budget); all labeled ones where None.

    Raises:
        DataError: no fold can be trained.
    """
    usable_R = (corpus.label_R >= 0) & corpus.whole_R
    train_SxY = _label_counts(corpus, usable_R if training_R is None else usable_R & training_R)
    test_SxY = _label_counts(corpus, corpus.label_R >= 0)
    index = {subject: i for i, subject in enumerate(corpus.subjects)}
    kept, notes = [], list(folds.notes)
    for fold in folds.folds:
        trained_Y = np.asarray(train_SxY[[index[name] for name in fold.train]].any(axis=0))
        tested_Y = np.asarray(test_SxY[[index[name] for name in fold.test]].any(axis=0))
        if trained_Y.sum() < 2:
            only = ", ".join(_class_names(corpus, trained_Y)) or "no class"
            notes.append(f"{fold.name}: skipped, its training subjects have {only} only")
            continue
        if missed := _class_names(corpus, tested_Y & ~trained_Y):
            notes.append(
                f"{fold.name}: {', '.join(missed)} of the test subjects is in no training row and cannot be learned"
            )
        kept.append(fold)
    if not kept:
        raise DataError(f"no fold can be trained; {notes[-1] if notes else 'there is none'}")
    return Folds(tuple(kept), tuple(notes))


def _check_enough(names: list[str], least: int) -> None:
    if len(names) < least:
        raise DataError(f"{len(names)} subject(s) ({', '.join(names)}) are too few for {least} folds of whole subjects")


def _fold(name: str, test: set[str], names: list[str]) -> Fold:
    return Fold(name, tuple(sorted(test)), tuple(sorted(set(names) - test)))


def _label_counts(corpus: Corpus, row_R: Bool[np.ndarray, " R"]) -> Int64[np.ndarray, "S Y"]:
    classes = len(corpus.classes)
    pair_r = corpus.subject_R[row_R].astype(np.int64) * classes + corpus.label_R[row_R]
    return np.bincount(pair_r, minlength=len(corpus.subjects) * classes).reshape(-1, classes)


def _class_names(corpus: Corpus, present_Y: Bool[np.ndarray, " Y"]) -> list[str]:
    return [name for name, present in zip(corpus.classes, present_Y, strict=True) if present]
