"""Hyper-parameters selected without the test subject, on inner folds; then heads trained on all training subjects.

`probe_heads` goes from a table of features to the probabilities of every head for every test row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int

from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.features.cache import FeatureTable
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.heads.batch import LabeledFeatures, rows_around
from selfpab_jax.probe.heads.model import HeadSettings, predict_rows
from selfpab_jax.probe.heads.pairs import Choice, FoldSeeds, RowMasks, pair_folds_and_seeds
from selfpab_jax.probe.heads.training import train_heads
from selfpab_jax.probe.metrics import macro_f1
from selfpab_jax.probe.splits import Folds, group_folds, inner_split


@dataclass(frozen=True)
class SelectionSettings:
    """How learning rate, weight decay and stopping point are selected, separately for each fold and seed.

    The first of each tuple is used where nothing can be selected, and where scores tie. With standardized features and
    Adam, whose steps are about as long as the learning rate, three decades range from a head that barely leaves its
    initial parameters to one that fits whatever is separable; the stopping point is the finer scale of the same thing.
    The weight decay is an L2 penalty for few labels, where 0 overfits.

    Args:
        choose: select on `inner`, a part of the training subjects, by macro-F1; on `test`, the test subjects: the
            original's habit, which is too optimistic; or `fixed`: not at all, all epochs with the first of each tuple.
        learning_rates: candidates.
        weight_decays: candidates.
        share: fraction of the training subjects that `inner` selects on.
        inner_folds: if 2 or more, `inner` selects on all training subjects, in so many folds, instead of one split.

    Raises:
        ConfigError: a value is out of range.
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
        if not 0 < self.share < 1:
            raise ConfigError(f"selection.share is {self.share}; it must be between 0 and 1")
        if self.inner_folds < 1:
            raise ConfigError(f"selection.inner_folds is {self.inner_folds}; it must be at least 1")

    @property
    def candidates(self) -> tuple[tuple[float, float], ...]:
        """Pairs of learning rate and weight decay, the preferred one first."""
        return tuple((rate, decay) for rate in self.learning_rates for decay in self.weight_decays)


@dataclass(frozen=True)
class HeadPredictions:
    """What a head predicts for every row that a fold tests.

    Attributes:
        seeds: of the first axis.
        probabilities_NxRxY: for each seed; NaN for rows that no trained fold tests.
        choices: hyper-parameters of each fold and seed.
        notes: lines about folds that were skipped, and about selection on the test subjects.
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
    select_layer: bool = False,
    row_masks: RowMasks | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, HeadPredictions]:
    """Select, train and apply each head in every fold and seed; a fold's test rows are predicted by its heads only.

    Heads train on labeled rows whose frame is within the unpadded signal, and predict all rows of the test subjects. A
    label budget (`row_masks`) holds for training and for selection.

    Args:
        table: features of the corpus' rows.
        corpus: labels and subjects of the rows.
        folds: test and training subjects.
        heads: settings by name.
        seeds: of splits and initial parameters.
        selection: of hyper-parameters.
        select_layer: also select one of the layers, which the head then sees alone; the middle one where nothing can be
            selected.
        row_masks: label budgets; all labels if not given.
        progress: called with a line now and then.

    Raises:
        ConfigError: no seed, or the same one twice; or a layer is to be selected where `selection` selects nothing.
        DataError: features of other rows than the corpus', or no fold with a row to train on.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds are {list(seeds)}; give one or more, each once")
    if len(table.features_RxLxD) != len(corpus.label_R):
        raise DataError(
            f"there are features of {len(table.features_RxLxD)} rows, but the corpus has {len(corpus.label_R)}; "
            "compute the features of this corpus"
        )
    selection = selection or SelectionSettings()
    if select_layer and selection.choose != "inner":
        raise ConfigError(f"a layer is selected on inner folds, and selection.choose is {selection.choose}")
    data = labeled_features(table, corpus)
    pairs, notes = pair_folds_and_seeds(folds.folds, seeds, corpus.subjects, data, row_masks)
    if selection.choose == "test":
        notes += ("hyper-parameters and stopping were selected on the test subjects themselves: too optimistic",)
    classes, results = len(corpus.classes), {}
    for name, settings in heads.items():
        layers = range(table.layers) if select_layer else (None,)
        seen = {layer: labeled_features(table, corpus, head_offsets(settings, corpus), layer) for layer in layers}
        choices_of_layers = [
            [
                replace(choice, layer=layer)
                for choice in select_hyperparameters(
                    of_layer, pairs, corpus.subjects, settings, selection, classes, progress
                )
            ]
            for layer, of_layer in seen.items()
        ]
        choices = [_best_layer(of_pair) for of_pair in zip(*choices_of_layers, strict=True)]
        probabilities_NxRxY = np.full((len(seeds), len(data.label_R), classes), np.nan, np.float32)
        for layer in dict.fromkeys(choice.layer for choice in choices):
            pair_K = np.array([pair for pair, choice in enumerate(choices) if choice.layer == layer])
            batch = pairs.selected_heads(seen[layer], [choices[pair] for pair in pair_K], pair_K)
            trained = train_heads(seen[layer], batch, settings, classes, progress=progress)
            of_folds = [pairs.folds[pair] for pair in pair_K]
            for fold in dict.fromkeys(of_folds):
                heads_K = np.array([head for head, of_head in enumerate(of_folds) if of_head == fold])
                rows_n = np.flatnonzero(np.isin(corpus.subjects, fold.test)[corpus.subject_R])
                seed_K = np.array([list(seeds).index(pairs.seeds[pair]) for pair in pair_K[heads_K]])
                found = predict_rows(seen[layer], trained, heads_K, rows_n)
                probabilities_NxRxY[seed_K[:, None], rows_n] = found
        results[name] = HeadPredictions(tuple(seeds), probabilities_NxRxY, tuple(choices), notes)
    return results


def labeled_features(
    table: FeatureTable, corpus: Corpus, offsets: Sequence[int] = (), layer: int | None = None
) -> LabeledFeatures:
    """The rows of a corpus as a head sees them; those that are not wholly within the signal have no label.

    Args:
        table: features of the rows.
        corpus: labels and subjects of the rows.
        offsets: of the rows around each that the head sees, from `head_offsets`.
        layer: the only one that the head sees; all if not given.
    """
    return LabeledFeatures(
        features_RxLxD=table.features_RxLxD if layer is None else table.features_RxLxD[:, layer : layer + 1],
        label_R=np.where(corpus.whole_R, corpus.label_R, -1),
        subject_R=corpus.subject_R,
        density_RxY=corpus.density_RxY,
        around_RxW=rows_around(corpus.rows_of_windows, offsets) if offsets else None,
    )


def head_offsets(settings: HeadSettings, corpus: Corpus) -> tuple[int, ...]:
    """Where the frames that a head sees are, relative to its own; none but for a temporal head."""
    return settings.offsets(corpus.spectrogram.rate_hz / corpus.spectrogram.fft_hop)


def _best_layer(choices: Sequence[Choice]) -> Choice:
    """The choice with the highest score; of equals the first, and the middle one where there are no scores."""
    scored = [choice for choice in choices if choice.macro_f1 is not None]
    return max(scored, key=lambda choice: choice.macro_f1 or 0.0) if scored else choices[len(choices) // 2]


def select_hyperparameters(
    data: LabeledFeatures,
    pairs: FoldSeeds,
    subjects: Sequence[str],
    head: HeadSettings,
    selection: SelectionSettings,
    classes: int,
    progress: Callable[[str], None] | None = None,
) -> list[Choice]:
    """One choice for each pair of fold and seed; all candidates of all pairs train side by side, in one program.

    A pair has too few labels to select on if fewer than half of its classes are in both inner training and validation;
    it takes the preferred candidate then, as it does with a single training subject.

    Args:
        data: the rows.
        pairs: folds and seeds.
        subjects: names by index.
        head: what is trained.
        selection: candidates, and where they are compared.
        classes: Y.
        progress: called with a line now and then.
    """
    rate, decay = selection.candidates[0]
    preferred = [
        Choice(fold.name, seed, rate, decay, head.epochs, "fixed")
        for fold, seed in zip(pairs.folds, pairs.seeds, strict=True)
    ]
    if selection.choose == "fixed":
        return preferred
    splits = _inner_splits(pairs, subjects, selection, data, classes)
    if not len(splits.pair_K):
        return [replace(choice, note="too few labels or subjects to select on") for choice in preferred]

    candidates = np.array(selection.candidates)
    split_J, candidate_J = (a.ravel() for a in np.indices((len(splits.pair_K), len(candidates))))
    heads = pairs.head_batch(
        data,
        splits.pair_K[split_J],
        splits.train_KxS[split_J],
        validation_JxS=splits.validation_KxS[split_J],
        learning_rate_J=candidates[candidate_J, 0],
        weight_decay_J=candidates[candidate_J, 1],
    )
    trained = train_heads(data, heads, head, classes, keep_heads=False, progress=progress)
    confusions = trained.validation_JxPxYxY.reshape(len(splits.pair_K), len(candidates), head.epochs, classes, classes)
    choices = []
    for pair, choice in enumerate(preferred):
        own_K = splits.pair_K == pair
        trained_Y = pairs.head_batch(data, np.array([pair])).training_counts(data, classes)[0] > 0
        if 2 * (splits.covered_KxY[own_K].any(0) & trained_Y).sum() < trained_Y.sum():
            choices.append(replace(choice, note="too few labels or subjects to select on"))
            continue
        # A candidate that diverged in one of the inner folds is excluded in all of them.
        finite_CxP = (confusions[own_K].sum((-1, -2)) > 0).all(0)
        score_CxP = np.where(finite_CxP, np.nan_to_num(macro_f1(confusions[own_K].sum(0)), nan=-1.0), -1.0)
        if score_CxP.max() < 0:
            choices.append(replace(choice, note="all candidates diverged"))
            continue
        # Of equal scores, the first candidate's at the latest point.
        candidate, from_last = np.unravel_index(score_CxP[:, ::-1].argmax(), score_CxP.shape)
        rate, decay = selection.candidates[candidate]
        point = head.epochs - int(from_last)
        score = float(score_CxP[candidate, point - 1])
        choices.append(Choice(choice.fold, choice.seed, rate, decay, point, selection.choose, score))
    return choices


@dataclass(frozen=True)
class _InnerSplits:
    """Subjects of inner training and validation, for each way of splitting each pair of fold and seed.

    Attributes:
        pair_K: pair that is split.
        train_KxS: inner training subjects.
        validation_KxS: validation subjects.
        covered_KxY: classes with rows in both.
    """

    pair_K: Int[np.ndarray, " K"]
    train_KxS: Bool[np.ndarray, "K S"]
    validation_KxS: Bool[np.ndarray, "K S"]
    covered_KxY: Bool[np.ndarray, "K Y"]


def _inner_splits(
    pairs: FoldSeeds, subjects: Sequence[str], selection: SelectionSettings, data: LabeledFeatures, classes: int
) -> _InnerSplits:
    """The splits that have rows to train and to validate on within the label budget."""
    splits: list[tuple[int, Sequence[str], Sequence[str]]] = []
    for pair, (fold, seed) in enumerate(zip(pairs.folds, pairs.seeds, strict=True)):
        # A budget of subjects leaves the others without a label: they serve neither for training nor for selection.
        labeled = np.unique(data.subject_R[pairs.budget_rows_GxR[pairs.budget_J[pair]] & (data.label_R >= 0)])
        names = [name for name in fold.train if name in {subjects[index] for index in labeled}]
        if selection.choose == "test":
            splits.append((pair, fold.train, fold.test))
        elif len(names) < 2:
            continue
        elif selection.inner_folds == 1:
            splits.append((pair, *inner_split(names, selection.share, seed)))
        else:
            inner = group_folds(names, min(selection.inner_folds, len(names)), seed)
            splits += [(pair, part.train, part.test) for part in inner.folds]
    pair_K = np.array([pair for pair, _, _ in splits], np.int64)
    train_KxS, validation_KxS = np.zeros((2, len(splits), len(subjects)), bool)
    for k, (_, train, validation) in enumerate(splits):
        train_KxS[k], validation_KxS[k] = np.isin(subjects, train), np.isin(subjects, validation)
    heads = pairs.head_batch(data, pair_K, train_KxS, validation_JxS=validation_KxS)
    train_KxY = heads.training_counts(data, classes) > 0
    validation_KxY = heads.validation_counts(data, classes) > 0
    kept_K = train_KxY.any(1) & validation_KxY.any(1)
    return _InnerSplits(pair_K[kept_K], train_KxS[kept_K], validation_KxS[kept_K], (train_KxY & validation_KxY)[kept_K])
