"""Label budgets in every fold: which rows each fold and seed may learn from."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from selfpab_jax.probe.budgets import choose_subjects, choose_windows
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.folds import Fold, Folds, check_folds, group_folds, leave_one_subject_out
from selfpab_jax.probe.results import Budget
from selfpab_jax.probe.settings import ProbeSettings


@dataclass(frozen=True)
class LabelBudget:
    """The folds that a label budget leaves, and the rows of each fold and seed (None: all)."""

    budget: Budget | None
    folds: Folds
    masks: dict[tuple[str, int], Bool[np.ndarray, " R"]] | None

    def training_rows(self, corpus: Corpus, fold: Fold, seed: int) -> Bool[np.ndarray, " R"]:
        """Rows whose labels a fold and seed may learn from."""
        theirs_R = np.isin(corpus.subjects, fold.train)[corpus.subject_R]
        rows_R = theirs_R & corpus.whole_R & (corpus.label_R >= 0)
        return rows_R if self.masks is None else rows_R & self.masks[fold.name, seed]


def label_budgets(settings: ProbeSettings, corpus: Corpus) -> tuple[list[LabelBudget], tuple[str, ...]]:
    """Folds and rows of each budget, and lines about what they lack."""
    protocol = settings.protocol
    folds = (
        group_folds(corpus.subjects, protocol.folds, protocol.fold_seed)
        if protocol.folds
        else leave_one_subject_out(corpus.subjects)
    )
    folds = check_folds(folds, corpus)
    notes = folds.notes
    budgets = []
    for budget in settings.budgets.budgets():
        if budget is None:
            budgets.append(LabelBudget(None, folds, None))
            continue
        masks = {}
        for fold in folds.folds:
            for seed in settings.seeds:
                masks[fold.name, seed], more = _rows_within(budget, corpus, fold, seed)
                notes += tuple(f"{fold.name}, {budget}: {line}" for line in more)
        budgets.append(LabelBudget(budget, folds, masks))
    return budgets, notes


def _rows_within(budget: Budget, corpus: Corpus, fold: Fold, seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    if budget.kind == "subjects":
        people, notes = choose_subjects(fold.train, int(budget.amount), seed)
        return np.isin(corpus.subjects, people)[corpus.subject_R], notes
    windows = int(budget.amount) if budget.kind == "windows" else None
    return choose_windows(corpus, fold.train, windows, budget.amount if windows is None else None, seed)
