"""Pairs of a fold and a seed, each of which gets a head: their subjects, label budgets, rows, and what is selected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from selfpab_jax.errors import DataError
from selfpab_jax.probe.heads.batch import HeadBatch, LabeledFeatures, make_head_batch
from selfpab_jax.probe.splits import Fold

RowMasks = Mapping[tuple[str, int], Bool[np.ndarray, " R"]]
"""The label budget of each fold (by name) and seed."""


@dataclass(frozen=True)
class Choice:
    """What was selected for one fold and seed, and on what.

    Attributes:
        fold: name.
        seed: of split, initial parameters and label budget.
        learning_rate: selected.
        weight_decay: selected.
        point: stopping point, counted from 1 to the epochs of the settings.
        chosen_on: `inner`, `test` or `fixed`.
        macro_f1: reached where it was selected; None if nothing was selected.
        note: why nothing was selected although it was asked for; or empty.
        layer: depth of the features, where it was selected too.
    """

    fold: str
    seed: int
    learning_rate: float
    weight_decay: float
    point: int
    chosen_on: Literal["inner", "test", "fixed"]
    macro_f1: float | None = None
    note: str = ""
    layer: int | None = None


@dataclass(frozen=True)
class FoldSeeds:
    """Pairs of a fold and a seed, each of which gets one head.

    Attributes:
        folds: of each pair.
        seeds: of each pair.
        train_JxS: training subjects of each pair.
        budget_J: label budget of each pair, as an index into `budget_rows_GxR`.
        budget_rows_GxR: rows within each label budget; a single one of all rows if there is none.
    """

    folds: tuple[Fold, ...]
    seeds: tuple[int, ...]
    train_JxS: Bool[np.ndarray, "J S"]
    budget_J: Int[np.ndarray, " J"]
    budget_rows_GxR: Bool[np.ndarray, "G R"]

    def head_batch(
        self,
        data: LabeledFeatures,
        pair_K: Int[np.ndarray, " K"],
        train_KxS: Bool[np.ndarray, "K S"] | None = None,
        **options: Any,
    ) -> HeadBatch:
        """Heads with the seeds and label budgets of these pairs.

        Args:
            data: the rows.
            pair_K: pair of each head.
            train_KxS: training subjects of each head; those of its pair if not given.
            options: further arguments of `make_head_batch`.
        """
        return make_head_batch(
            self.train_JxS[pair_K] if train_KxS is None else train_KxS,
            data,
            seed_J=np.array(self.seeds)[pair_K],
            budget_J=self.budget_J[pair_K],
            budget_rows_GxR=self.budget_rows_GxR,
            **options,
        )

    def selected_heads(
        self, data: LabeledFeatures, choices: Sequence[Choice], pair_K: Int[np.ndarray, " K"] | None = None
    ) -> HeadBatch:
        """A head for each of these pairs, on all of its training subjects, with the selected hyper-parameters.

        Args:
            data: the rows.
            choices: of the pairs.
            pair_K: the pairs; all if not given.
        """
        return self.head_batch(
            data,
            np.arange(len(choices)) if pair_K is None else pair_K,
            learning_rate_J=np.array([choice.learning_rate for choice in choices], np.float32),
            weight_decay_J=np.array([choice.weight_decay for choice in choices], np.float32),
            stop_J=np.array([choice.point for choice in choices]),
        )


def pair_folds_and_seeds(
    folds: Sequence[Fold],
    seeds: Sequence[int],
    subjects: Sequence[str],
    data: LabeledFeatures,
    row_masks: RowMasks | None,
) -> tuple[FoldSeeds, tuple[str, ...]]:
    """Every fold with every seed whose training rows have two classes or more, and a line about each other.

    Args:
        folds: test and training subjects.
        seeds: of the heads.
        subjects: names by index.
        data: labels and subjects of the rows.
        row_masks: label budgets; all labels if not given.

    Raises:
        DataError: no pair is left, or a fold and seed has no label budget.
    """
    masks: list[np.ndarray] = [] if row_masks else [np.ones(len(data.label_R), bool)]
    kept: list[tuple[Fold, int, np.ndarray, int]] = []
    notes = []
    for fold in folds:
        for seed in seeds:
            train_S = np.isin(subjects, fold.train)
            if row_masks:
                if (fold.name, seed) not in row_masks:
                    raise DataError(f"no label budget was drawn for {fold.name}, seed {seed}")
                # Only training subjects are trained on in any case; the test rows serve `choose="test"`.
                masks.append(row_masks[fold.name, seed] | np.isin(subjects, fold.test)[data.subject_R])
            labels_r = data.label_R[masks[-1] & train_S[data.subject_R] & (data.label_R >= 0)]
            if not len(labels_r) or labels_r.min() == labels_r.max():
                lack = "one class only" if len(labels_r) else "no labeled row"
                notes.append(f"{fold.name}, seed {seed}: skipped, {lack} to train on")
                continue
            kept.append((fold, seed, train_S, len(masks) - 1))
    if not kept:
        raise DataError("no fold has labeled rows of two classes to train on; check labels, folds and label budget")
    kept_folds, kept_seeds, trains, budgets = zip(*kept, strict=True)
    return FoldSeeds(kept_folds, kept_seeds, np.stack(trains), np.array(budgets), np.stack(masks)), tuple(notes)
