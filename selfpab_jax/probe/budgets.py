"""Label budgets: which training rows a method may learn from if less had been labeled.

Budgets are nested: for one seed a larger budget contains every smaller one. What is chosen depends on a hash of the
seed and of what is chosen from, so that other subjects and recordings do not change it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, Int64, UInt64

from selfpab_jax.data.splits import draw
from selfpab_jax.errors import ConfigError
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold, Folds, shuffled

GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
MIXERS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
LAST_SHIFT = np.uint64(31)


@dataclass(frozen=True)
class Budget:
    """How much of the labels a method may train on.

    Attributes:
        kind: `windows` of each activity, a `fraction` of the windows of each activity (0 to 1), or training `subjects`.
        amount: how many, or which fraction.
    """

    kind: Literal["windows", "fraction", "subjects"]
    amount: int | float

    def __str__(self) -> str:
        if self.kind == "fraction":
            return f"{100 * self.amount:g}% of the windows of each activity"
        one = self.amount == 1
        if self.kind == "subjects":
            return "1 training subject" if one else f"{self.amount:g} training subjects"
        return "1 window per activity" if one else f"{self.amount:g} windows per activity"


@dataclass(frozen=True)
class LabelBudget:
    """A budget applied to the folds of a corpus.

    Attributes:
        budget: None for all labels.
        folds: that can be trained.
        masks: rows that each fold (by name) and seed may learn from; None for all labels.
    """

    budget: Budget | None
    folds: Folds
    masks: dict[tuple[str, int], Bool[np.ndarray, " R"]] | None

    def training_rows(self, corpus: Corpus, fold: Fold, seed: int) -> Bool[np.ndarray, " R"]:
        """Rows whose labels a fold and seed may learn from."""
        of_fold_R = np.isin(corpus.subjects, fold.train)[corpus.subject_R]
        rows_R = of_fold_R & corpus.whole_R & (corpus.label_R >= 0)
        return rows_R if self.masks is None else rows_R & self.masks[fold.name, seed]


def label_budgets(
    corpus: Corpus, folds: Folds, budgets: Iterable[Budget | None], seeds: Sequence[int]
) -> tuple[list[LabelBudget], tuple[str, ...]]:
    """Each budget applied to all folds and seeds, and notes on budgets that could not be filled.

    Args:
        corpus: with the labels.
        folds: that can be trained, see `check_folds`.
        budgets: None stands for all labels.
        seeds: each draws its own rows.

    Raises:
        ConfigError: a budget is not valid.
    """
    applied, notes = [], ()
    for budget in budgets:
        if budget is None:
            applied.append(LabelBudget(None, folds, None))
            continue
        masks = {}
        for fold in folds.folds:
            for seed in seeds:
                masks[fold.name, seed], more = _rows_within(budget, corpus, fold, seed)
                notes += tuple(f"{fold.name}, {budget}: {line}" for line in more)
        applied.append(LabelBudget(budget, folds, masks))
    return applied, notes


def _rows_within(
    budget: Budget, corpus: Corpus, fold: Fold, seed: int
) -> tuple[Bool[np.ndarray, " R"], tuple[str, ...]]:
    if budget.kind == "subjects":
        subjects, notes = choose_subjects(fold.train, int(budget.amount), seed)
        return np.isin(corpus.subjects, subjects)[corpus.subject_R], notes
    windows = int(budget.amount) if budget.kind == "windows" else None
    return choose_windows(corpus, fold.train, windows, budget.amount if windows is None else None, seed)


def choose_windows(
    corpus: Corpus, subjects: Iterable[str], per_class: int | None, fraction: float | None, seed: int
) -> tuple[Bool[np.ndarray, " R"], tuple[str, ...]]:
    """The training rows of a number of windows of each activity, from some subjects.

    The activity of a window is the most frequent label of its training rows (labeled, in the unpadded signal); ties go
    to the smallest index. All training rows of a chosen window are chosen.

    Args:
        corpus: with the rows.
        subjects: whose windows are chosen from.
        per_class: number of windows of each activity, or None.
        fraction: of the windows of each activity (rounded up), or None. With neither, all windows are chosen.
        seed: of the order.

    Returns:
        Which rows; a note for each activity that has fewer windows than asked for (all of them are taken).

    Raises:
        ConfigError: both a number and a fraction are given, one is not valid, or a subject is unknown.
    """
    _check(corpus, subjects := tuple(subjects), per_class, fraction)
    wanted_S = np.isin(corpus.subjects, subjects)
    trainable_R = (corpus.label_R >= 0) & corpus.whole_R & wanted_S[corpus.subject_R]
    if per_class is None and fraction is None:
        return trainable_R, ()
    activity_W = _activities(corpus, trainable_R)
    order_W = np.argsort(_window_keys(corpus, seed), kind="stable")
    chosen_W, notes = np.zeros(len(activity_W), bool), []
    for label, name in enumerate(corpus.classes):
        windows_w = order_W[activity_W[order_W] == label]
        count = per_class if fraction is None else int(np.ceil(fraction * len(windows_w) - 1e-9))
        assert count is not None
        if len(windows_w) < count:
            notes.append(f"{name}: only {len(windows_w)} of {count} windows in the training subjects; all are taken")
        chosen_W[windows_w[:count]] = True
    return trainable_R & chosen_W[corpus.window_R], tuple(notes)


def choose_subjects(subjects: Iterable[str], count: int, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A number of the subjects, sorted, and a note if there are fewer (all of them are taken).

    Args:
        subjects: names to choose from.
        count: how many.
        seed: of the order.

    Raises:
        ConfigError: the number is below 1.
    """
    if count < 1:
        raise ConfigError(f"budgets.subjects is {count}; it must be at least 1")
    order = shuffled(subjects, seed, "subjects")
    notes = (f"only {len(order)} of {count} training subjects; all are taken",) if len(order) < count else ()
    return tuple(sorted(order[:count])), notes


def number_keys(text_keys: UInt64[np.ndarray, " n"], numbers: Int[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """64 bits for each pair of a text's key and a number (the finalizer of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = text_keys + (numbers.astype(np.uint64) + np.uint64(1)) * GOLDEN_RATIO
        for shift, factor in MIXERS:
            mixed = (mixed ^ (mixed >> shift)) * factor
        return mixed ^ (mixed >> LAST_SHIFT)


def _check(corpus: Corpus, subjects: tuple[str, ...], per_class: int | None, fraction: float | None) -> None:
    if unknown := sorted(set(subjects) - set(corpus.subjects)):
        raise ConfigError(f"{corpus.name} has no subject {', '.join(unknown)}")
    if per_class is not None and fraction is not None:
        raise ConfigError("a label budget is a number of windows per activity or a fraction of them, not both")
    if per_class is not None and per_class < 1:
        raise ConfigError(f"budgets.windows is {per_class}; it must be at least 1")
    if fraction is not None and not 0 < fraction <= 1:
        raise ConfigError(f"budgets.fractions is {fraction}; it must be above 0 and at most 1")


def _activities(corpus: Corpus, trainable_R: Bool[np.ndarray, " R"]) -> Int64[np.ndarray, " W"]:
    """The most frequent label of each window's trainable rows; -1 where it has none."""
    classes, windows = len(corpus.classes), len(corpus.rows_of_windows)
    pair_r = corpus.window_R[trainable_R].astype(np.int64) * classes + corpus.label_R[trainable_R]
    counts_WxY = np.bincount(pair_r, minlength=windows * classes).reshape(windows, classes)
    return np.where(counts_WxY.any(axis=1), counts_WxY.argmax(axis=1), -1)


def _window_keys(corpus: Corpus, seed: int) -> UInt64[np.ndarray, " W"]:
    """Depend on seed, subject, recording and first frame, and on nothing else."""
    of_recording = [draw(seed, f"windows/{recording.subject}/{recording.name}") for recording in corpus.recordings]
    keys_W = np.array(of_recording, np.uint64)[corpus.windows.recording_W]
    return number_keys(keys_W, corpus.windows.first_W)
