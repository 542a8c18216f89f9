"""What the encoder has seen in pre-training of the people it is probed on."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.features.cache import FeatureTable, cached_features
from selfpab_jax.features.sensors import open_branches
from selfpab_jax.model_dir import ModelConfig, read_config
from selfpab_jax.probe.config import ProbeSettings
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.methods import label_budgets, make_arms
from selfpab_jax.probe.predictions import Predictions, timelines_of
from selfpab_jax.probe.prepare import choose_people, prepare_corpus
from selfpab_jax.probe.report.embedding_map import EmbeddingMap, choose_rows, project
from selfpab_jax.probe.report.results import Arm, EncoderFacts, ProbeResult
from selfpab_jax.probe.report.timeline import Timeline
from selfpab_jax.progress import Tell, hours_told

# What the encoder has seen in pre-training of the people it is probed on.


def seen_subjects(provenance: Mapping[str, Any], dataset: str, subjects: Iterable[str]) -> tuple[str, ...]:
    """The subjects that the model card lists as trained on, by name, sorted.

    A user's own tables, in pre-training (`recordings`) or here (`tables`), may be of any people, and name them by file;
    the same names are taken for the same people, which errs on the safe side. Data sets of other names are other
    people.
    """
    if not _may_be_the_same(provenance, dataset):
        return ()
    return tuple(sorted(set(subjects) & {str(name) for name in provenance.get("subjects") or ()}))


def leakage_lines(provenance: Mapping[str, Any], dataset: str, subjects: Iterable[str]) -> tuple[str, ...]:
    """A line where the encoder was, or may have been, pre-trained on people that are probed; none where it was not."""
    subjects = tuple(subjects)
    if not provenance.get("subjects") and _may_be_the_same(provenance, dataset):
        return ("the model card does not list the people that the encoder was pre-trained on: they may be among these",)
    seen = seen_subjects(provenance, dataset, subjects)
    if not seen:
        return ()
    names = ", ".join(seen[:6]) + (f" and {len(seen) - 6} more" if len(seen) > 6 else "")
    return (
        f"leakage: the encoder was pre-trained on recordings of {len(seen)} of these {len(subjects)} people ({names}); "
        "scores on them say little about new people",
    )


def _may_be_the_same(provenance: Mapping[str, Any], dataset: str) -> bool:
    return dataset == "tables" or provenance.get("source") in (None, dataset, "recordings", "tables")


# The whole way of a probe: recordings, rows, features, heads and baselines in every fold, scores.

NOTES_TOLD = 8


@dataclass(frozen=True)
class Probed:
    """A probe's result with what its pictures need.

    Attributes:
        result: scores of all arms.
        timelines: of the headline arm's first seed.
        embedding: of the encoder's features.
    """

    result: ProbeResult
    timelines: list[Timeline]
    embedding: EmbeddingMap | None


def run_probe(
    settings: ProbeSettings, model: Path, data: Path, *, cache: Path, strict: bool = False, tell: Tell = print
) -> Probed:
    """Score heads on a frozen encoder, and what they are compared with, by cross-validation over people.

    Args:
        settings: what to do.
        model: model directory.
        data: the data set's files, as published or as its TFDS builder prepared them.
        cache: folder that keeps features and finished baselines; a killed probe goes on from it.
        strict: stop at the first file that cannot be used.
        tell: takes lines for people.

    Raises:
        ConfigError, DataError, ModelError: what cannot be done, in a line.
    """
    began = time.monotonic()
    config, _ = read_config(model)
    corpus = open_corpus(settings, config, data, strict=strict, tell=tell)
    branches = open_branches(model, corpus.channels, settings.dataset.roles)
    budgets, notes = label_budgets(settings, corpus)
    tell(
        f"{corpus.name}: {len(corpus.subjects)} subjects, {_hours(corpus):.1f} h, {len(corpus.classes)} classes, "
        f"{len(budgets[0].folds.folds)} folds; {len(corpus.set_aside)} line(s) on what was set aside"
    )
    tell(f"classes: {_class_list(corpus)}")
    for note in notes[:NOTES_TOLD]:
        tell(note)
    table = cached_features(corpus, branches, settings.features.extraction(None), cache, hours_told(tell, "features"))
    arms: list[Arm] = []
    shown: Predictions | None = None
    for arm, arm_notes, predictions in make_arms(settings, corpus, branches, budgets, table, cache, tell):
        notes += arm_notes
        if arm is None:
            tell(arm_notes[-1])
            continue
        arms.append(arm)
        shown = predictions if shown is None else shown
        tell(f"{arm.full_title}: macro-F1 {100 * arm.summary.macro_f1.mean:.1f}")
    if not arms:
        raise DataError(f"{corpus.name}: no arm could be scored; {notes[-1]}")
    source = open_dataset_of(settings, data)
    result = ProbeResult(
        dataset=corpus.name,
        title=source.card.title,
        version=source.card.version,
        classes=corpus.classes,
        channels=corpus.channels,
        encoder=_encoder_facts(model, config),
        protocol=_protocol(settings, corpus, config),
        selection=settings.protocol.choose,
        arms=tuple(arms),
        leakage=leakage_lines(config.provenance, corpus.name, corpus.subjects),
        set_aside=tuple(f"{entry.what}: {entry.reason}" for entry in corpus.set_aside),
        notes=tuple(dict.fromkeys(notes)),
        published=settings.published,
        seconds=time.monotonic() - began,
        device=jax.devices()[0].device_kind,
    )
    return Probed(result, timelines_of(corpus, shown or {}), _embedding(corpus, table))


def open_dataset_of(settings: ProbeSettings, data: Path) -> Any:
    """The data set that the settings name."""
    chosen = settings.dataset
    if not chosen.name:
        raise ConfigError("dataset.name is not set: name a data set (harth, uschad, ...), or tables for your own files")
    if twice := sorted({"name", "path", "sensors", "version"} & set(chosen.options)):
        raise ConfigError(f"dataset.options.{twice[0]}: give dataset.{twice[0]} (the path is --data)")
    return open_dataset(chosen.name, data, sensors=chosen.sensors, version=chosen.version, **chosen.options)


def open_corpus(settings: ProbeSettings, config: ModelConfig, data: Path, *, strict: bool, tell: Tell) -> Corpus:
    """The chosen people's recordings at the encoder's rate, with windows."""
    chosen, protocol = settings.dataset, settings.protocol
    source = open_dataset_of(settings, data)
    without = chosen.without
    if chosen.unseen_only:
        people = {file.subject for file in source.files()}
        if not config.provenance.get("subjects") and (unknown := leakage_lines(config.provenance, source.name, people)):
            raise ConfigError(f"dataset.unseen_only: {unknown[0]}; name those to leave out by dataset.without")
        seen = seen_subjects(config.provenance, source.name, people)
        without = tuple(sorted({*without, *seen}))
        tell(f"{len(seen)} of {len(people)} subjects were seen in pre-training and are left out")
    spectrogram = config.spectrogram
    frames_a_second = spectrogram.rate_hz / spectrogram.fft_hop
    frames = config.frames
    if protocol.window_seconds is not None:
        frames = spectrogram.frame_count(round(protocol.window_seconds * spectrogram.rate_hz))
        if frames < 1:
            raise ConfigError(
                f"protocol.window_seconds is {protocol.window_seconds}; a window needs one frame at least"
            )
    shift = frames if protocol.shift_seconds is None else max(1, round(protocol.shift_seconds * frames_a_second))
    cut = source.card.cut_at_activity if protocol.cut_at_activity is None else protocol.cut_at_activity
    return prepare_corpus(
        choose_people(source, chosen.only, without),
        spectrogram=spectrogram,
        frames=frames,
        shift=shift,
        short=protocol.short,
        cut_at_activity=cut,
        resampling=protocol.resampling,
        min_seconds=protocol.min_seconds,
        strict=strict,
    )


def _encoder_facts(model: Path, config: ModelConfig) -> EncoderFacts:
    provenance = config.provenance
    return EncoderFacts(
        directory=str(model),
        family=config.family,
        width=config.model.width,
        layers=config.model.layers,
        pretraining_hours=provenance.get("hours"),
        subjects_known=bool(provenance.get("subjects")),
    )


def _protocol(settings: ProbeSettings, corpus: Corpus, config: ModelConfig) -> dict[str, Any]:
    protocol, spectrogram = settings.protocol, config.spectrogram
    hop_seconds = spectrogram.fft_hop / spectrogram.rate_hz
    longest = int(corpus.windows.length_W.max())
    return {
        "people": f"{len(corpus.subjects)}"
        + (", none of whom the model card lists as pre-trained on" if settings.dataset.unseen_only else ""),
        "folds": f"{protocol.folds} of whole subjects" if protocol.folds else "leave one subject out",
        "chosen by": {
            "inner": "inner folds of the training subjects",
            "test": "the test subject, which flatters",
            "fixed": "nobody: fixed",
        }[protocol.choose],
        "window": f"{longest} frames, {longest * hop_seconds:g} s",
        "shift": f"{protocol.shift_seconds:g} s" if protocol.shift_seconds else "a window",
        "short recordings": protocol.short,
        "scored": f"per sample at {spectrogram.rate_hz:g} Hz",
        "features": f"layers {settings.features.layers}, {settings.features.merge}",
        "seeds": ", ".join(map(str, settings.seeds)),
    }


def _embedding(corpus: Corpus, table: FeatureTable) -> EmbeddingMap | None:
    rows = choose_rows(corpus.label_R, corpus.subject_R)
    if len(rows) < 3:
        return None
    features = np.asarray(table.features_RxLxD[rows, -1], np.float32)
    if not np.isfinite(features).all():
        return None
    subjects = tuple(corpus.subjects[index] for index in corpus.subject_R[rows])
    return EmbeddingMap(project(features, method="pca"), corpus.label_R[rows], subjects, "pca")


def _class_list(corpus: Corpus) -> str:
    """Minutes and people of each class: a misspelled label is one of its own, of one person."""
    minutes = np.zeros(len(corpus.classes))
    people: list[set[str]] = [set() for _ in corpus.classes]
    for recording in corpus.recordings:
        counts = np.bincount(recording.labels_N[recording.labels_N >= 0], minlength=len(corpus.classes))
        minutes += counts / corpus.spectrogram.rate_hz / 60
        for label in np.flatnonzero(counts):
            people[label].add(recording.subject)
    return ", ".join(
        f"{name} ({len(who)} {'person' if len(who) == 1 else 'people'}, {of:.1f} min)"
        for name, who, of in zip(corpus.classes, people, minutes, strict=True)
    )


def _hours(corpus: Corpus) -> float:
    return sum(len(r.labels_N) for r in corpus.recordings) / corpus.spectrogram.rate_hz / 3600
