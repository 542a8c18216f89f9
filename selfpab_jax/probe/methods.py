"""The methods that a probe compares: heads on frozen features, fine-tuning, and baselines trained from scratch.

Each method is trained in every fold with every seed and label budget, and scored on the fold's test subjects.
"""

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32

from selfpab_jax.errors import DataError
from selfpab_jax.features.cache import TRAINING, FeatureTable, cached_features, code_version, corpus_digest
from selfpab_jax.features.sensors import SensorEncoder
from selfpab_jax.io import atomic_path
from selfpab_jax.probe.alignment import (
    Predictions,
    recording_fractions,
    score_rows,
    subject_duration_errors,
)
from selfpab_jax.probe.baselines import BASELINES
from selfpab_jax.probe.baselines.config import BaselinePrediction
from selfpab_jax.probe.budgets import LabelBudget
from selfpab_jax.probe.config import ProbeSettings
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.finetune import fit_predict_finetuned
from selfpab_jax.probe.heads.selection import Choice, probe_heads
from selfpab_jax.probe.metrics import SegmentFractions
from selfpab_jax.probe.report.results import Kind, MethodResult
from selfpab_jax.probe.splits import Fold
from selfpab_jax.progress import Progress

TITLES = {
    "linear": "linear head",
    "mlp": "MLP head",
    "temporal": "temporal head",
    "forest": "hand-made features, random forest",
    "transformer": "transformer from scratch",
    "deepconvlstm": "DeepConvLSTM from scratch",
    "cnn": "1-D CNN from scratch",
    "lstm_spectrogram": "LSTM on spectrograms from scratch",
    "lstm_signal": "LSTM on signals from scratch",
    "finetuned": "pre-trained encoder, fine-tuned with its head",
    "finetuned_random": "random encoder, trained with its head",
}

FeatureSource = Literal["pre-trained encoder", "random encoder", "spectrogram"]
FEATURE_SOURCES: dict[FeatureSource, tuple[str, Kind]] = {
    "pre-trained encoder": ("", "probe"),
    "random encoder": ("random_", "random"),
    "spectrogram": ("spectrogram_", "baseline"),
}
"""Where the features of heads are from: prefix of the method's name, and its kind."""

FitFold = Callable[[Fold, int, Bool[np.ndarray, " R"] | None, Callable[[str], None]], BaselinePrediction]
"""Trains on a fold with a seed and the rows of a label budget, reports progress, and predicts the test subjects."""


@dataclass(frozen=True)
class ProbeSetup:
    """What all methods of a probe share.

    Attributes:
        settings: of the probe.
        corpus: recordings and labels.
        encoders: pre-trained, one or one per sensor.
        features: of the pre-trained encoder.
        budgets: label budgets with their folds.
        cache: folder for features and finished folds.
        verbose: show progress.
    """

    settings: ProbeSettings
    corpus: Corpus
    encoders: tuple[SensorEncoder, ...]
    features: FeatureTable
    budgets: list[LabelBudget]
    cache: Path
    verbose: bool


@dataclass(frozen=True)
class Outcome:
    """What a method gave with one label budget.

    Attributes:
        result: None if it could not be scored.
        notes: what a reader of the scores should know.
        predictions: of the first seed, by recording.
        fractions: that classes take of segments, of the first seed, by recording; empty where they are not scored.
    """

    result: MethodResult | None
    notes: tuple[str, ...]
    predictions: Predictions = field(default_factory=dict)
    fractions: Mapping[int, SegmentFractions] = field(default_factory=dict)


def run_methods(setup: ProbeSetup) -> Iterator[Outcome]:
    """Train and score every method of the settings; one that cannot be scored does not stop the others."""
    settings = setup.settings
    for budget in setup.budgets:
        yield from _run_heads(setup, budget, dict.fromkeys(settings.seeds, setup.features), "pre-trained encoder")
    if settings.random_encoder:
        task = "features of random weights" if setup.verbose else None
        features = {
            seed: cached_features(
                setup.corpus, setup.encoders, settings.features.extraction(seed), setup.cache, task=task
            )
            for seed in settings.seeds
        }
        for budget in setup.budgets:
            yield from _run_heads(setup, budget, features, "random encoder")
    if settings.spectrogram:
        task = "features of the spectrogram" if setup.verbose else None
        extraction = replace(settings.features.extraction(None), layers="input")
        table = cached_features(setup.corpus, setup.encoders, extraction, setup.cache, task=task)
        for budget in setup.budgets:
            yield from _run_heads(setup, budget, dict.fromkeys(settings.seeds, table), "spectrogram")
    digest = labeled_digest(setup.corpus) if settings.finetuned or settings.baselines else ""
    if settings.finetuned:
        yield from _run_finetuned(setup, digest)
    baseline = replace(settings.baseline, transformer=setup.encoders[0].encoder.config.model)
    for name in settings.baselines:
        inputs = {"settings": asdict(baseline), "corpus": digest}

        def fit(
            fold: Fold, seed: int, mask_R: np.ndarray | None, report: Callable[[str], None], name: str = name
        ) -> BaselinePrediction:
            return BASELINES[name](setup.corpus, fold, baseline, seed, mask_R, report)

        for budget in setup.budgets:
            yield _run_folds(setup, budget, name, "baseline", fit, inputs)


def _run_heads(
    setup: ProbeSetup, budget: LabelBudget, features: Mapping[int, FeatureTable], source: FeatureSource
) -> Iterator[Outcome]:
    """One outcome per head; seeds with the same features are trained in one program."""
    settings = setup.settings
    seeds_of = {id(table): [seed for seed in features if features[seed] is table] for table in features.values()}
    for name in settings.heads:
        head, selection = settings.of_head(name)
        probabilities: dict[int, Float32[np.ndarray, "R Y"]] = {}
        chosen: dict[int, dict[str, Any]] = {}
        notes: tuple[str, ...] = ()
        title = f"{source}, {TITLES[name]}"
        with Progress(title, unit="points", enabled=setup.verbose) as progress:
            for seeds in seeds_of.values():
                try:
                    found = probe_heads(
                        features[seeds[0]],
                        setup.corpus,
                        budget.folds,
                        {name: head},
                        seeds,
                        selection=selection,
                        select_layer=settings.features.layers == "auto" and features[seeds[0]].layers > 1,
                        row_masks=budget.masks,
                        progress=Reports(progress),
                    )[name]
                except DataError as error:
                    notes += (_note(title, budget, error),)
                    continue
                notes += found.notes
                if layers := Counter(choice.layer for choice in found.choices if choice.layer is not None):
                    times = ", ".join(f"{layer} ({count} times)" for layer, count in sorted(layers.items()))
                    notes += (_note(title, budget, f"layers that were selected: {times}"),)
                for number, seed in enumerate(seeds):
                    probabilities[seed] = found.probabilities_NxRxY[number]
                    chosen[seed] = {choice.fold: _as_dict(choice) for choice in found.choices if choice.seed == seed}
        prefix, kind = FEATURE_SOURCES[source]
        method = prefix + name
        yield _score(setup, budget, method, title, kind, probabilities, chosen, notes)


def _run_finetuned(setup: ProbeSetup, digest: str) -> Iterator[Outcome]:
    """Encoder and head trained together."""
    finetune = setup.settings.finetune
    if finetune.merge == "together":
        finetune = replace(finetune, merge=setup.settings.features.merge)
    description = setup.features.description
    inputs = {
        "settings": asdict(finetune),
        "encoder": description["encoder"],
        "columns": description["extraction"]["columns"],
        "corpus": digest,
    }

    def fit(fold: Fold, seed: int, mask_R: np.ndarray | None, report: Callable[[str], None]) -> BaselinePrediction:
        return fit_predict_finetuned(setup.corpus, fold, setup.encoders, finetune, seed, mask_R, report)

    name, kind = ("finetuned_random", "random") if finetune.random_weights else ("finetuned", "probe")
    for budget in setup.budgets:
        yield _run_folds(setup, budget, name, kind, fit, inputs)


def _run_folds(
    setup: ProbeSetup, budget: LabelBudget, name: str, kind: Kind, fit: FitFold, inputs: Mapping[str, Any]
) -> Outcome:
    """A method that is trained fold by fold; finished folds are kept in the cache."""
    corpus, seeds, folds, title = setup.corpus, setup.settings.seeds, budget.folds.folds, TITLES[name]
    probabilities, chosen, notes = {}, {}, set()
    with Progress(title, len(seeds) * len(folds), "folds", enabled=setup.verbose) as progress:
        for seed in seeds:
            probabilities[seed] = np.full((len(corpus.label_R), len(corpus.classes)), np.nan, np.float32)
            chosen[seed] = {}
            for fold in folds:
                done = len(folds) * seeds.index(seed) + folds.index(fold)

                def train(fold: Fold = fold, seed: int = seed, done: int = done) -> BaselinePrediction:
                    mask_R = None if budget.masks is None else budget.masks[fold.name, seed]
                    return fit(fold, seed, mask_R, lambda line: progress.update(done, f"seed {seed}, {line}"))

                amount = None if budget.budget is None else asdict(budget.budget)
                key = {"method": name, "budget": amount, "seed": seed, "fold": asdict(fold), **inputs}
                try:
                    found = cached_prediction(setup.cache / "folds", key, train)
                except DataError as error:
                    chosen[seed][fold.name] = {"skipped": str(error)}
                    notes.add(_note(f"{title}, {fold.name}", budget, error))
                    continue
                rows_R = np.isin(corpus.subjects, fold.test)[corpus.subject_R]
                probabilities[seed][rows_R] = found.probabilities_RxY
                chosen[seed][fold.name] = found.description
    return _score(setup, budget, name, title, kind, probabilities, chosen, tuple(sorted(notes)))


def _score(
    setup: ProbeSetup,
    budget: LabelBudget,
    name: str,
    title: str,
    kind: Kind,
    probabilities: Mapping[int, Float32[np.ndarray, "R Y"]],
    chosen: Mapping[int, Mapping[str, Any]],
    notes: tuple[str, ...],
) -> Outcome:
    corpus, seeds = setup.corpus, setup.settings.seeds
    if missing := [seed for seed in seeds if seed not in probabilities]:
        return Outcome(None, (*notes, _note(title, budget, f"not scored, nothing for seed {missing[0]}")))
    for seed in seeds:
        _clear_untrained_classes(corpus, budget, seed, probabilities[seed])
    scored = {seed: score_rows(corpus, probabilities[seed]) for seed in seeds}
    subjects = set.intersection(*(set(confusions) for confusions, _ in scored.values()))
    if not subjects:
        return Outcome(None, (*notes, _note(title, budget, "not scored, no subject was predicted with every seed")))
    minutes = setup.settings.protocol.duration_minutes
    fractions = [recording_fractions(corpus, probabilities[seed], subjects, minutes) for seed in seeds if minutes]
    result = MethodResult(
        name=name,
        title=title,
        kind=kind,
        seeds=seeds,
        classes=corpus.classes,
        confusions=tuple({s: scored[seed][0][s] for s in sorted(subjects)} for seed in seeds),
        budget=budget.budget,
        chosen=tuple(chosen[seed] for seed in seeds),
        duration_errors=tuple(subject_duration_errors(corpus, of_seed) for of_seed in fractions),
    )
    return Outcome(result, notes, scored[seeds[0]][1], fractions[0] if fractions else {})


def _clear_untrained_classes(
    corpus: Corpus, budget: LabelBudget, seed: int, probabilities_RxY: Float32[np.ndarray, "R Y"]
) -> None:
    """Never predict a class without training rows in a fold: its part of a head is as it was initialized."""
    for fold in budget.folds.folds:
        trained_Y = corpus.trained_classes(budget.training_rows(corpus, fold, seed))
        if not trained_Y.all():
            rows_R = np.isin(corpus.subjects, fold.test)[corpus.subject_R]
            probabilities_RxY[np.ix_(rows_R, ~trained_Y)] = np.where(
                np.isnan(probabilities_RxY[rows_R][:, ~trained_Y]), np.nan, 0
            )


class Reports:
    """Counts what heads report, and shows it."""

    def __init__(self, progress: Progress):
        self._progress, self._count = progress, 0

    def __call__(self, line: str) -> None:
        """Show a line."""
        self._count += 1
        self._progress.update(self._count, line)


def _as_dict(choice: Choice) -> dict[str, Any]:
    return {name: value for name, value in vars(choice).items() if name not in ("fold", "seed")}


def _note(what: str, budget: LabelBudget, line: object) -> str:
    return f"{what}{'' if budget.budget is None else f', {budget.budget}'}: {line}"


# Finished folds on disk, so that a killed probe continues where it was.


def labeled_digest(corpus: Corpus) -> str:
    """A hash of signals, windows, labels and classes, and of what frames are trained on."""
    densities = bool(corpus.frame_densities)
    digest = hashlib.sha256(json.dumps([corpus_digest(corpus), corpus.classes, densities]).encode())
    for recording in corpus.recordings:
        digest.update(f"{recording.subject}/{recording.name}".encode())
        digest.update(np.ascontiguousarray(recording.labels_N, "<i2").data)
    return digest.hexdigest()


def cached_prediction(
    folder: Path, key: Mapping[str, Any], compute: Callable[[], BaselinePrediction]
) -> BaselinePrediction:
    """The prediction of a fold from the cache, or computed into it.

    Args:
        folder: of the cache; created if it is missing.
        key: everything that the prediction depends on, besides the code.
        compute: trains and predicts.

    Raises:
        StorageError: the cache cannot be written.
    """
    parts = json.dumps([code_version(TRAINING), key], sort_keys=True, default=str)
    path = folder / f"{hashlib.sha256(parts.encode()).hexdigest()[:32]}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            probabilities = found["probabilities"].astype(np.float32, copy=False)
            return BaselinePrediction(probabilities, json.loads(str(found["description"])))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # missing or cut off
        pass
    prediction = compute()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        description = json.dumps(prediction.description, default=str)
        np.savez(file, probabilities=prediction.probabilities_RxY, description=description)
    return prediction
