"""Label budgets in every fold: which rows each fold and seed may learn from."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from selfpab_jax.errors import DataError
from selfpab_jax.features.cache import TRAINING, FeatureTable, cached_features, code_version, corpus_digest
from selfpab_jax.features.sensors import Branch
from selfpab_jax.probe.baselines import BASELINES
from selfpab_jax.probe.baselines.config import BaselinePrediction
from selfpab_jax.probe.config import ProbeSettings
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.finetune import fit_predict_finetuned
from selfpab_jax.probe.heads.selection import probe_heads
from selfpab_jax.probe.predictions import Predictions, by_fold, confusions_of, share_errors_of
from selfpab_jax.probe.report.results import Arm, Budget
from selfpab_jax.probe.splits import (
    Fold,
    Folds,
    check_folds,
    choose_subjects,
    choose_windows,
    group_folds,
    leave_one_subject_out,
)
from selfpab_jax.progress import Tell, hours_told, named, now_and_then

# Label budgets in every fold: which rows each fold and seed may learn from.


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


# What is finished of a long probe, fold by fold, so that a killed one goes on where it was.


def labeled_digest(corpus: Corpus) -> str:
    """A hash of signals, windows, labels and classes."""
    digest = hashlib.sha256(json.dumps([corpus_digest(corpus), corpus.classes]).encode())
    for recording in corpus.recordings:
        digest.update(f"{recording.subject}/{recording.name}".encode())
        digest.update(np.ascontiguousarray(recording.labels_N, "<i2").data)
    return digest.hexdigest()


def kept(folder: Path, facts: Mapping[str, Any], compute: Callable[[], BaselinePrediction]) -> BaselinePrediction:
    """The prediction that `facts` decide: read from the folder if it was finished there, else computed into it."""
    decides = json.dumps([code_version(TRAINING), facts], sort_keys=True, default=str)
    key = hashlib.sha256(decides.encode()).hexdigest()[:32]
    path = folder / f"{key}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return BaselinePrediction(_probabilities(found["probabilities"]), json.loads(str(found["description"])))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # not there, or cut off
        pass
    prediction = compute()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        description = json.dumps(prediction.description, default=str)
        np.savez(file, probabilities=prediction.probabilities_RxY, description=description)
    temporary.replace(path)
    return prediction


def _probabilities(array: np.ndarray) -> Float32[np.ndarray, "R Y"]:
    return array.astype(np.float32, copy=False)


# The arms of a probe: heads on frozen features, fine-tuning and baselines, each in every fold under each budget.

TITLES = {
    "linear": "linear head",
    "mlp": "MLP head",
    "forest": "hand-made features, random forest",
    "transformer": "transformer from scratch",
    "deepconvlstm": "DeepConvLSTM from scratch",
    "cnn": "1-D CNN from scratch",
    "lstm_spectrogram": "LSTM on spectrograms from scratch",
    "lstm_signal": "LSTM on signals from scratch",
    "finetuned": "pre-trained encoder, fine-tuned with its head",
    "finetuned_random": "random encoder, trained with its head",
}


ArmAndMore = tuple[Arm | None, tuple[str, ...], Predictions]
"""An arm (None where it could not be scored), lines about it, the first seed's predictions by recording."""


def make_arms(
    settings: ProbeSettings,
    corpus: Corpus,
    branches: tuple[Branch, ...],
    budgets: list[LabelBudget],
    table: FeatureTable,
    cache: Path,
    tell: Tell,
) -> Iterator[ArmAndMore]:
    """Every arm that the settings ask for; one that cannot be scored is told, and the others go on."""
    for budget in budgets:
        yield from _head_arms(settings, corpus, budget, dict.fromkeys(settings.seeds, table), tell, trained=True)
    if settings.random_encoder:
        say = hours_told(tell, "features of random weights")
        tables = {
            seed: cached_features(corpus, branches, settings.features.extraction(seed), cache, say)
            for seed in settings.seeds
        }
        for budget in budgets:
            yield from _head_arms(settings, corpus, budget, tables, tell, trained=False)
    digest = labeled_digest(corpus) if settings.finetuned or settings.baselines else ""
    if settings.finetuned:
        finetune = settings.finetune
        if finetune.merge == "together":
            finetune = replace(finetune, merge=settings.features.merge)
        facts = {
            "settings": asdict(finetune),
            "encoder": table.description["encoder"],
            "columns": table.description["extraction"]["columns"],
            "corpus": digest,
        }

        def tune(fold: Fold, seed: int, mask: np.ndarray | None) -> BaselinePrediction:
            say = named(tell, f"fine-tuning, seed {seed}")
            return fit_predict_finetuned(corpus, fold, branches, finetune, seed, mask, say)

        for budget in budgets:
            name = "finetuned_random" if finetune.random_weights else "finetuned"
            kind = "random" if finetune.random_weights else "probe"
            yield _fold_arm(name, kind, tune, facts, settings, corpus, budget, cache)
    baseline = replace(settings.baseline, transformer=branches[0].encoder.config.model)
    for name in settings.baselines:
        facts = {"settings": asdict(baseline), "corpus": digest}

        def fit(fold: Fold, seed: int, mask: np.ndarray | None, name: str = name) -> BaselinePrediction:
            return BASELINES[name](corpus, fold, baseline, seed, mask, named(tell, f"{name}, seed {seed}"))

        for budget in budgets:
            yield _fold_arm(name, "baseline", fit, facts, settings, corpus, budget, cache)


def _head_arms(
    settings: ProbeSettings,
    corpus: Corpus,
    budget: LabelBudget,
    tables: Mapping[int, FeatureTable],
    tell: Tell,
    *,
    trained: bool,
) -> Iterator[ArmAndMore]:
    """One arm for each head; seeds with the same features train in one program."""
    seeds_of = {id(table): [seed for seed in tables if tables[seed] is table] for table in tables.values()}
    for name in settings.heads:
        head, selection = (
            (settings.linear, settings.selection) if name == "linear" else (settings.mlp, settings.mlp_selection)
        )
        selection = replace(selection, choose=settings.protocol.choose)
        probabilities: dict[int, Float32[np.ndarray, "R Y"]] = {}
        chosen: dict[int, dict[str, Any]] = {}
        notes: tuple[str, ...] = ()
        title = f"{'pre-trained' if trained else 'random'} encoder, {TITLES[name]}"
        for seeds in seeds_of.values():
            try:
                found = probe_heads(
                    tables[seeds[0]],
                    corpus,
                    budget.folds,
                    {name: head},
                    seeds,
                    selection=selection,
                    row_masks=budget.masks,
                    progress=now_and_then(tell),
                )[name]
            except DataError as error:
                notes += (_told(title, budget, error),)
                continue
            notes += found.notes
            for number, seed in enumerate(seeds):
                probabilities[seed] = found.probabilities_NxRxY[number]
                chosen[seed] = by_fold(found.choices, seed)
        arm_name = name if trained else f"random_{name}"
        kind = "probe" if trained else "random"
        yield _arm(arm_name, title, kind, settings, corpus, budget, probabilities, chosen, notes)


def _fold_arm(
    name: str,
    kind: str,
    fit: Callable[[Fold, int, np.ndarray | None], BaselinePrediction],
    facts: Mapping[str, Any],
    settings: ProbeSettings,
    corpus: Corpus,
    budget: LabelBudget,
    cache: Path,
) -> ArmAndMore:
    """An arm that is trained fold by fold; what is finished is kept in the cache."""
    probabilities, chosen = {}, {}
    for seed in settings.seeds:
        probabilities[seed] = np.full((len(corpus.label_R), len(corpus.classes)), np.nan, np.float32)
        chosen[seed] = {}
        for fold in budget.folds.folds:
            mask = None if budget.masks is None else budget.masks[fold.name, seed]
            amount = None if budget.budget is None else asdict(budget.budget)
            decides = {"arm": name, "budget": amount, "seed": seed, "fold": asdict(fold), **facts}
            try:
                found = kept(cache / "parts", decides, lambda f=fold, s=seed, m=mask: fit(f, s, m))
            except DataError as error:
                chosen[seed][fold.name] = {"left out": str(error)}
                continue
            rows_R = np.isin(corpus.subjects, fold.test)[corpus.subject_R]
            probabilities[seed][rows_R] = found.probabilities_RxY
            chosen[seed][fold.name] = found.description
    left_out = {
        _told(f"{TITLES[name]}, {fold}", budget, facts["left out"])
        for of_seed in chosen.values()
        for fold, facts in of_seed.items()
        if "left out" in facts
    }
    return _arm(name, TITLES[name], kind, settings, corpus, budget, probabilities, chosen, tuple(sorted(left_out)))


def _arm(
    name: str,
    title: str,
    kind: Any,
    settings: ProbeSettings,
    corpus: Corpus,
    budget: LabelBudget,
    probabilities: Mapping[int, np.ndarray],
    chosen: Mapping[int, Mapping[str, Any]],
    notes: tuple[str, ...],
) -> ArmAndMore:
    if missing := [seed for seed in settings.seeds if seed not in probabilities]:
        return None, (*notes, _told(title, budget, f"not scored, nothing for seed {missing[0]}")), {}
    for seed in settings.seeds:
        if seed in probabilities:
            _leave_out_untrained(corpus, budget, seed, probabilities[seed])
    scored = {seed: confusions_of(corpus, probabilities[seed]) for seed in settings.seeds}
    everywhere = set.intersection(*(set(confusions) for confusions, _ in scored.values()))
    if not everywhere:
        return None, (*notes, _told(title, budget, "not scored, no subject was predicted under every seed")), {}
    minutes = settings.protocol.share_minutes
    arm = Arm(
        name=name,
        title=title,
        kind=kind,
        seeds=settings.seeds,
        classes=corpus.classes,
        confusions=tuple({s: scored[seed][0][s] for s in sorted(everywhere)} for seed in settings.seeds),
        budget=budget.budget,
        chosen=tuple(chosen[seed] for seed in settings.seeds),
        share_errors=tuple(share_errors_of(corpus, probabilities[seed], everywhere, minutes) for seed in settings.seeds)
        if minutes
        else (),
    )
    return arm, notes, scored[settings.seeds[0]][1]


def _told(what: str, budget: LabelBudget, line: object) -> str:
    return f"{what}{'' if budget.budget is None else f', {budget.budget}'}: {line}"


def _leave_out_untrained(corpus: Corpus, budget: LabelBudget, seed: int, probabilities_RxY: np.ndarray) -> None:
    """A class without training rows in a fold is never predicted there: its part of a head is only as it was drawn."""
    for fold in budget.folds.folds:
        trained = np.bincount(
            corpus.label_R[budget.training_rows(corpus, fold, seed)], minlength=len(corpus.classes)
        ).astype(bool)
        if not trained.all():
            rows_R = np.isin(corpus.subjects, fold.test)[corpus.subject_R]
            probabilities_RxY[np.ix_(rows_R, ~trained)] = np.where(
                np.isnan(probabilities_RxY[rows_R][:, ~trained]), np.nan, 0
            )
