"""Hyper-parameters chosen without the test subject: nested selection, then training on all training subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int

from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.features.cache import FeatureTable
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.heads.batch import Jobs, Rows, make_jobs
from selfpab_jax.probe.heads.model import HeadSettings, predict_rows
from selfpab_jax.probe.heads.training import Progress, train_jobs
from selfpab_jax.probe.metrics import macro_f1
from selfpab_jax.probe.splits import Fold, Folds, group_folds, inner_split

# Hyper-parameters chosen without the test subject: nested selection, then training on all training subjects.

RowMasks = Mapping[tuple[str, int], Bool[np.ndarray, " R"]]
"""The label budget of each fold (by name) and seed."""


@dataclass(frozen=True)
class SelectionSettings:
    """How learning rate, weight decay and stopping point are chosen, for each fold and seed by itself.

    The first of each tuple is taken where nothing can be chosen and where scores tie. With standardized features and
    Adam, whose steps are about the learning rate long, three decades go from a head that barely leaves its start to one
    that fits what is separable; with the stopping point that is the finer scale of the same thing. The weight decay is
    an L2 penalty for few labels, where 0 overfits.

    Args:
        choose: `inner`: on a part of the training subjects, by macro-F1; `test`: on the test subjects, the original's
            habit, which flatters; `fixed`: not at all, all epochs with the first of each tuple.
        learning_rates: candidates.
        weight_decays: candidates.
        share: of the training subjects that `inner` chooses on.
        inner_folds: with 2 or more, `inner` chooses on all training subjects, as so many folds, in place of one split.
    """

    choose: Literal["inner", "test", "fixed"] = "inner"
    learning_rates: tuple[float, ...] = (1e-3, 1e-4, 1e-2)
    weight_decays: tuple[float, ...] = (1e-2, 0.0)
    share: float = 0.25
    inner_folds: int = 1

    def __post_init__(self) -> None:
        if self.choose not in ("inner", "test", "fixed"):
            raise ConfigError(f"selection.choose is {self.choose!r}; it must be one of inner, test, fixed")
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ConfigError("selection.learning_rates must be one or more numbers greater than 0")
        if not self.weight_decays or min(self.weight_decays) < 0:
            raise ConfigError("selection.weight_decays must be one or more numbers, none negative")
        if not 0 < self.share < 1 or self.inner_folds < 1:
            raise ConfigError("selection.share must lie between 0 and 1, selection.inner_folds must be at least 1")

    @property
    def candidates(self) -> tuple[tuple[float, float], ...]:
        """(learning rate, weight decay), the preferred first."""
        return tuple((rate, decay) for rate in self.learning_rates for decay in self.weight_decays)


@dataclass(frozen=True)
class Choice:
    """What was chosen for one fold and seed, and on what.

    Attributes:
        fold: name.
        seed: of split, initial parameters and label budget.
        learning_rate: chosen.
        weight_decay: chosen.
        point: stopping point, counted from 1 to the epochs of the settings.
        chosen_on: `inner`, `test` or `fixed`.
        macro_f1: that it reached where it was chosen; None where nothing was chosen.
        note: why nothing was chosen, though it was asked for; or empty.
    """

    fold: str
    seed: int
    learning_rate: float
    weight_decay: float
    point: int
    chosen_on: Literal["inner", "test", "fixed"]
    macro_f1: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Splits:
    """Who trains and who is measured on, by index of subject, for each way of splitting each task."""

    task_K: Int[np.ndarray, " K"]
    train_KxS: Bool[np.ndarray, "K S"]
    validation_KxS: Bool[np.ndarray, "K S"]


@dataclass(frozen=True)
class Tasks:
    """One head wanted for each fold and seed.

    Attributes:
        folds: of each task.
        seeds: of each task.
        train_JxS: its training subjects.
        group_J: its label budget in `rows_GxR`.
        rows_GxR: label budgets; one of all rows where there are none.
    """

    folds: tuple[Fold, ...]
    seeds: tuple[int, ...]
    train_JxS: Bool[np.ndarray, "J S"]
    group_J: Int[np.ndarray, " J"]
    rows_GxR: Bool[np.ndarray, "G R"]

    def jobs(self, rows: Rows, task_K: Int[np.ndarray, " K"], **of_jobs: np.ndarray) -> Jobs:
        """Jobs that belong to these tasks: their seeds and label budgets, and what else is said."""
        seed_K = np.array(self.seeds)[task_K]
        train_KxS = of_jobs.pop("train_JxS", self.train_JxS[task_K])
        return make_jobs(
            train_KxS, rows, seed_J=seed_K, rows_GxR=self.rows_GxR, group_J=self.group_J[task_K], **of_jobs
        )


def make_tasks(
    folds: Sequence[Fold], seeds: Sequence[int], subjects: Sequence[str], rows: Rows, row_masks: RowMasks | None
) -> tuple[Tasks, tuple[str, ...]]:
    """A task for each fold and seed whose rows have two classes to tell apart, and a line for each other.

    Raises:
        DataError: no task is left, or a fold and seed without its label budget.
    """
    masks: list[np.ndarray] = [] if row_masks else [np.ones(len(rows.label_R), bool)]
    kept: list[tuple[Fold, int, np.ndarray, int]] = []
    notes = []
    for fold in folds:
        for seed in seeds:
            train_S = np.isin(subjects, fold.train)
            if row_masks:
                if (fold.name, seed) not in row_masks:
                    raise DataError(f"no label budget was drawn for {fold.name}, seed {seed}")
                # Training subjects are told apart elsewhere; the test subjects' rows are there for `choose="test"`.
                masks.append(row_masks[fold.name, seed] | np.isin(subjects, fold.test)[rows.subject_R])
            labels_r = rows.label_R[masks[-1] & train_S[rows.subject_R] & (rows.label_R >= 0)]
            if not len(labels_r) or labels_r.min() == labels_r.max():
                lack = "one class only" if len(labels_r) else "no labeled row"
                notes.append(f"{fold.name}, seed {seed}: left out, {lack} to train on")
                continue
            kept.append((fold, seed, train_S, len(masks) - 1))
    if not kept:
        raise DataError("no fold has labeled rows of two classes to train on; check labels, folds and label budget")
    kept_folds, kept_seeds, trains, groups = zip(*kept, strict=True)
    return Tasks(kept_folds, kept_seeds, np.stack(trains), np.array(groups), np.stack(masks)), tuple(notes)


def choose(
    rows: Rows,
    tasks: Tasks,
    subjects: Sequence[str],
    head: HeadSettings,
    selection: SelectionSettings,
    classes: int,
    progress: Progress | None = None,
) -> list[Choice]:
    """One choice for each task: all candidates of all tasks train side by side, in one program.

    A task has too few labels to choose on where its validation covers less than half of its classes with classes that
    the inner training has too; it takes the preferred candidate then, as it does where it has one training subject.
    """
    rate, decay = selection.candidates[0]
    preferred = [
        Choice(fold.name, seed, rate, decay, head.epochs, "fixed")
        for fold, seed in zip(tasks.folds, tasks.seeds, strict=True)
    ]
    if selection.choose == "fixed":
        return preferred
    splits = _splits(tasks, subjects, selection, rows)
    splits = _with_rows(splits, tasks, rows, classes)
    if not len(splits.task_K):
        return [replace(choice, note="too few labels or subjects to choose on") for choice in preferred]

    candidates = np.array(selection.candidates)
    of_split, of_candidate = (a.ravel() for a in np.indices((len(splits.task_K), len(candidates))))
    jobs = tasks.jobs(
        rows,
        splits.task_K[of_split],
        train_JxS=splits.train_KxS[of_split],
        validation_JxS=splits.validation_KxS[of_split],
        learning_rate_J=candidates[of_candidate, 0],
        weight_decay_J=candidates[of_candidate, 1],
    )
    trained = train_jobs(rows, jobs, head, classes, keep_heads=False, progress=progress)
    confusions = trained.validation_JxPxYxY.reshape(len(splits.task_K), len(candidates), head.epochs, classes, classes)
    has_YxK = _covered(splits, tasks, rows, classes)
    choices = []
    for task, choice in enumerate(preferred):
        mine = splits.task_K == task
        trained_Y = tasks.jobs(rows, np.array([task])).counts_JxY(rows, classes)[0] > 0
        if 2 * (has_YxK[:, mine].any(1) & trained_Y).sum() < trained_Y.sum():
            choices.append(replace(choice, note="too few labels or subjects to choose on"))
            continue
        # A candidate that diverged in one of the inner folds is out in all of them.
        finite_CxP = (confusions[mine].sum((-1, -2)) > 0).all(0)
        score_CxP = np.where(finite_CxP, np.nan_to_num(macro_f1(confusions[mine].sum(0)), nan=-1.0), -1.0)
        if score_CxP.max() < 0:
            choices.append(replace(choice, note="all candidates diverged"))
            continue
        candidate, from_last = np.unravel_index(score_CxP[:, ::-1].argmax(), score_CxP.shape)
        rate, decay = selection.candidates[candidate]
        point = head.epochs - int(from_last)
        score = float(score_CxP[candidate, point - 1])
        choices.append(Choice(choice.fold, choice.seed, rate, decay, point, selection.choose, score))
    return choices


def final_jobs(rows: Rows, tasks: Tasks, choices: Sequence[Choice]) -> Jobs:
    """The chosen heads on all of their training subjects, each stopped where its choice says."""
    return tasks.jobs(
        rows,
        np.arange(len(choices)),
        learning_rate_J=np.array([choice.learning_rate for choice in choices], np.float32),
        weight_decay_J=np.array([choice.weight_decay for choice in choices], np.float32),
        stop_J=np.array([choice.point for choice in choices]),
    )


def _splits(tasks: Tasks, subjects: Sequence[str], selection: SelectionSettings, rows: Rows) -> Splits:
    splits: list[tuple[int, Sequence[str], Sequence[str]]] = []
    for task, (fold, seed) in enumerate(zip(tasks.folds, tasks.seeds, strict=True)):
        # A budget of people leaves the others without a label: they can neither train nor be chosen on.
        labeled = np.unique(rows.subject_R[tasks.rows_GxR[tasks.group_J[task]] & (rows.label_R >= 0)])
        people = [name for name in fold.train if name in {subjects[index] for index in labeled}]
        if selection.choose == "test":
            splits.append((task, fold.train, fold.test))
        elif len(people) < 2:
            continue
        elif selection.inner_folds == 1:
            splits.append((task, *inner_split(people, selection.share, seed)))
        else:
            inner = group_folds(people, min(selection.inner_folds, len(people)), seed)
            splits += [(task, part.train, part.test) for part in inner.folds]
    flags = np.zeros((2, len(splits), len(subjects)), bool)
    for k, (_, train, validation) in enumerate(splits):
        flags[0, k], flags[1, k] = np.isin(subjects, train), np.isin(subjects, validation)
    return Splits(np.array([task for task, _, _ in splits], np.int64), flags[0], flags[1])


def _counts(splits: Splits, tasks: Tasks, rows: Rows, classes: int) -> tuple[np.ndarray, np.ndarray]:
    jobs = tasks.jobs(rows, splits.task_K, train_JxS=splits.train_KxS, validation_JxS=splits.validation_KxS)
    return jobs.counts_JxY(rows, classes), jobs.counts_of_validation_JxY(rows, classes)


def _with_rows(splits: Splits, tasks: Tasks, rows: Rows, classes: int) -> Splits:
    """Without the splits that a label budget leaves nothing to train or to measure on."""
    if not len(splits.task_K):
        return splits
    train_KxY, validation_KxY = _counts(splits, tasks, rows, classes)
    kept = train_KxY.any(1) & validation_KxY.any(1)
    return Splits(splits.task_K[kept], splits.train_KxS[kept], splits.validation_KxS[kept])


def _covered(splits: Splits, tasks: Tasks, rows: Rows, classes: int) -> Bool[np.ndarray, "Y K"]:
    """Classes that a split both trains and measures."""
    train_KxY, validation_KxY = _counts(splits, tasks, rows, classes)
    return ((train_KxY > 0) & (validation_KxY > 0)).T


# From a table of features to every head's probabilities for every test row.


@dataclass(frozen=True)
class HeadPredictions:
    """What a head says of every row that a fold tests.

    Attributes:
        seeds: of the first axis.
        probabilities_NxRxY: for each seed; NaN for rows that no trained fold tests.
        choices: hyper-parameters of each fold and seed.
        notes: lines about folds that were left out, and about where the test subjects were chosen on.
    """

    seeds: tuple[int, ...]
    probabilities_NxRxY: Float32[np.ndarray, "N R Y"]
    choices: tuple[Choice, ...]
    notes: tuple[str, ...]


def probe_heads(
    table: FeatureTable,
    corpus: Corpus,
    folds: Folds,
    heads: Mapping[str, HeadSettings],
    seeds: Sequence[int],
    *,
    selection: SelectionSettings | None = None,
    row_masks: RowMasks | None = None,
    progress: Progress | None = None,
) -> dict[str, HeadPredictions]:
    """Choose, train and apply each head in every fold and seed; a fold's test rows meet that fold's heads only.

    Trained on are rows with a label whose frame lies in the unpadded signal; predicted are all rows of the test
    subjects. A label budget (`row_masks`) holds for training and for choosing.

    Raises:
        ConfigError: no seed, or one twice.
        DataError: features of other rows than the corpus', or no fold with a row to train on.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds are {list(seeds)}; give one or more, each once")
    label_R = np.where(corpus.whole_R, corpus.label_R, -1)
    rows = Rows(table.features_RxLxD, label_R, corpus.subject_R)
    tasks, notes = make_tasks(folds.folds, seeds, corpus.subjects, rows, row_masks)
    selection = selection or SelectionSettings()
    if selection.choose == "test":
        notes += ("hyper-parameters and stopping were chosen on the test subjects themselves, which flatters",)
    classes, results = len(corpus.classes), {}
    for name, settings in heads.items():
        choices = choose(rows, tasks, corpus.subjects, settings, selection, classes, progress)
        trained = train_jobs(rows, final_jobs(rows, tasks, choices), settings, classes, progress=progress)
        probabilities_NxRxY = np.full((len(seeds), len(label_R), classes), np.nan, np.float32)
        for fold in dict.fromkeys(tasks.folds):
            mine = np.array([job for job, of_job in enumerate(tasks.folds) if of_job == fold])
            chosen = np.flatnonzero(np.isin(corpus.subjects, fold.test)[corpus.subject_R])
            of_seed = [list(seeds).index(tasks.seeds[job]) for job in mine]
            probabilities_NxRxY[np.array(of_seed)[:, None], chosen] = predict_rows(rows, trained, mine, chosen)
        results[name] = HeadPredictions(tuple(seeds), probabilities_NxRxY, tuple(choices), notes)
    return results
