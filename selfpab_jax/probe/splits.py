"""Folds over subjects, label budgets, and the random orders behind both."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int64, UInt64

from selfpab_jax.data.splits import draw
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.probe.dataset import Corpus

# Random orders that keep when something is added or left out: by a hash of the seed and what is ordered.

GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
MIXERS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
LAST_SHIFT = np.uint64(31)


def number_keys(text_keys: UInt64[np.ndarray, " n"], numbers: Int[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """64 bits for each pair of a text's key and a number (SplitMix64's finalizer, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = text_keys + (numbers.astype(np.uint64) + np.uint64(1)) * GOLDEN_RATIO
        for shift, factor in MIXERS:
            mixed = (mixed ^ (mixed >> shift)) * factor
        return mixed ^ (mixed >> LAST_SHIFT)


def shuffled(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The names in a random order; leaving one out leaves the others' order as it is."""
    return sorted(set(names), key=lambda name: (draw(seed, f"{purpose}/{name}"), name))


# Cross-validation over subjects: nobody is in training and in test of one fold.


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
                f"{fold.name}: {', '.join(missed)} of the test subjects is in no training row and cannot be learned"
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


# Label budgets: what a head would have to learn from if less had been labeled.


def choose_windows(
    corpus: Corpus, subjects: Iterable[str], per_class: int | None, share: float | None, seed: int
) -> tuple[Bool[np.ndarray, " R"], tuple[str, ...]]:
    """The training rows of so many windows an activity, out of some subjects' windows.

    A window's activity is the most frequent label of its training rows (labeled, in the unpadded signal), ties to the
    smallest index; all of its training rows are chosen with it. For one seed a larger budget holds the smaller ones'
    windows, and a subject's windows keep their order whoever else is there.

    Args:
        corpus: whose rows they are.
        subjects: out of whose windows is chosen.
        per_class: windows of each activity, or None.
        share: of each activity's windows (rounded up), or None. With neither, all are chosen.
        seed: of the order.

    Returns:
        Which rows; a line for each activity that has fewer windows than asked for (all of them are taken).

    Raises:
        ConfigError: both a number and a share, one that cannot be, or a subject who is not there.
    """
    _check(corpus, subjects := tuple(subjects), per_class, share)
    wanted_S = np.isin(corpus.subjects, subjects)
    trainable_R = (corpus.label_R >= 0) & corpus.whole_R & wanted_S[corpus.subject_R]
    if per_class is None and share is None:
        return trainable_R, ()
    activity_W = _activities(corpus, trainable_R)
    order_W = np.argsort(_window_keys(corpus, seed), kind="stable")
    chosen_W, notes = np.zeros(len(activity_W), bool), []
    for label, name in enumerate(corpus.classes):
        windows_w = order_W[activity_W[order_W] == label]
        count = per_class if share is None else int(np.ceil(share * len(windows_w) - 1e-9))
        assert count is not None
        if len(windows_w) < count:
            notes.append(
                f"{name}: {len(windows_w)} window(s) in the training subjects, {count} asked for; all are taken"
            )
        chosen_W[windows_w[:count]] = True
    return trainable_R & chosen_W[corpus.window_R], tuple(notes)


def choose_subjects(subjects: Iterable[str], count: int, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """So many of the subjects, sorted, and a line where there are fewer (all of them are taken).

    For one seed more subjects hold the fewer, and leaving one out changes no other's place in the order.

    Raises:
        ConfigError: a count below 1.
    """
    if count < 1:
        raise ConfigError(f"a budget of {count} subjects: give 1 at least")
    order = shuffled(subjects, seed, "subjects")
    notes = (f"{len(order)} training subject(s), {count} asked for; all are taken",) if len(order) < count else ()
    return tuple(sorted(order[:count])), notes


def _check(corpus: Corpus, subjects: tuple[str, ...], per_class: int | None, share: float | None) -> None:
    if unknown := sorted(set(subjects) - set(corpus.subjects)):
        raise ConfigError(f"{corpus.name} has no subject {', '.join(unknown)}")
    if per_class is not None and share is not None:
        raise ConfigError("a label budget is windows per activity or a share of them, not both")
    if per_class is not None and per_class < 1:
        raise ConfigError(f"a label budget of {per_class} windows per activity: give 1 at least")
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"a label budget of the share {share}: give a number above 0, up to 1")


def _activities(corpus: Corpus, trainable_R: Bool[np.ndarray, " R"]) -> Int64[np.ndarray, " W"]:
    """The most frequent label of each window's trainable rows, -1 where it has none."""
    classes, windows = len(corpus.classes), len(corpus.rows_of_windows)
    cell_r = corpus.window_R[trainable_R].astype(np.int64) * classes + corpus.label_R[trainable_R]
    counts_WxY = np.bincount(cell_r, minlength=windows * classes).reshape(windows, classes)
    return np.where(counts_WxY.any(axis=1), counts_WxY.argmax(axis=1), -1)


def _window_keys(corpus: Corpus, seed: int) -> UInt64[np.ndarray, " W"]:
    """By seed, subject, recording and first frame, and nothing else."""
    of_recording = [draw(seed, f"windows/{recording.subject}/{recording.name}") for recording in corpus.recordings]
    keys_W = np.array(of_recording, np.uint64)[corpus.windows.recording_W]
    return number_keys(keys_W, corpus.windows.first_W)
