"""A whole probe: recordings, features, heads and baselines in every fold, scores, report."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from selfpab_jax.data.har.base import LabeledSource
from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.features.cache import FeatureTable, cached_features
from selfpab_jax.features.sensors import open_sensor_encoders
from selfpab_jax.model_dir import ModelConfig, find_subjects, read_config
from selfpab_jax.probe.budgets import label_budgets
from selfpab_jax.probe.config import DatasetSettings, ProbeSettings, ProtocolSettings
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.heads.saved import require_head_writable, write_head
from selfpab_jax.probe.methods import Outcome, ProbeSetup, Reports, run_methods
from selfpab_jax.probe.prepare import prepare_corpus, select_subjects
from selfpab_jax.probe.refit import WhichHead, check_refit, refit_head
from selfpab_jax.probe.report.embedding_map import EmbeddingMap, choose_rows, project
from selfpab_jax.probe.report.page import write_report
from selfpab_jax.probe.report.results import RESULT_FILE, EncoderInfo, MethodResult, ProbeResult, save_result
from selfpab_jax.probe.report.timeline import timelines_of
from selfpab_jax.probe.splits import check_folds, group_folds, leave_one_subject_out
from selfpab_jax.progress import Progress

NOTES_SHOWN = 8
"""Notes on folds and budgets that are printed at the start; all are in the report."""


def probe_encoder(
    settings: ProbeSettings,
    model: Path | str,
    data: Path | str,
    out: Path | str,
    *,
    cache: Path | str | None = None,
    save_head: Path | str | None = None,
    save_head_kind: WhichHead = "best",
    strict: bool = False,
    overwrite: bool = False,
    verbose: bool = True,
) -> ProbeResult:
    """Score heads on a frozen encoder, and what they are compared with, by cross-validation over subjects.

    Writes probe.json, three CSV tables, figures and report.html; and a head for new recordings where `save_head` names
    a folder.

    Args:
        settings: of the probe.
        model: model directory, or har-small, which ships with the package.
        data: the data set's files, as published or as its TFDS builder prepared them.
        out: folder of the results; created if it is missing.
        cache: folder for features and finished folds, from which a killed probe continues; OUT/cache by default.
        save_head: folder for a head that is trained on all labeled subjects, with the settings that the folds chose
            (`selfpab_jax.predict` applies it).
        save_head_kind: `linear`, `mlp`, `temporal`, or the `best` of those that were probed, by macro-F1 on held-out
            subjects.
        strict: stop at the first file that cannot be used.
        overwrite: replace earlier results in `out`, and an earlier head.
        verbose: show progress and notes on stderr.

    Raises:
        ConfigError: a setting is wrong, or `out` has results already.
        DataError: the data are missing, or nothing can be scored.
        ModelError: the model directory is damaged or does not fit the data.
        StorageError: `out` or `cache` cannot be written.
    """
    began, model, data, out = time.monotonic(), Path(model), Path(data), Path(out)
    _check_out(out, overwrite)
    if save_head is not None:
        check_refit(settings, save_head_kind)
        require_head_writable(Path(save_head), overwrite=overwrite)
    console = Progress("probe", enabled=verbose)
    config, _ = read_config(model)
    source = open_source(settings.dataset, data)
    corpus = open_corpus(settings, source, config, strict=strict, console=console)
    encoders = open_sensor_encoders(model, corpus.channels, settings.dataset.roles)

    protocol = settings.protocol
    folds = (
        group_folds(corpus.subjects, protocol.folds, protocol.fold_seed)
        if protocol.folds
        else leave_one_subject_out(corpus.subjects)
    )
    folds = check_folds(folds, corpus)
    budgets, budget_notes = label_budgets(corpus, folds, settings.budgets.budgets(), settings.seeds)
    notes = [*_window_notes(protocol, corpus, config), *folds.notes, *budget_notes]
    console.log(
        f"{corpus.name}: {len(corpus.subjects)} subjects, {corpus.hours:.1f} h, {len(corpus.classes)} classes, "
        f"{len(folds.folds)} folds, {len(corpus.skipped)} entries on skipped data"
    )
    console.log(f"classes: {_class_list(corpus)}")
    for note in notes[:NOTES_SHOWN]:
        console.log(note)

    cache = out / "cache" if cache is None else Path(cache)
    task = "features" if verbose else None
    features = cached_features(corpus, encoders, settings.features.extraction(None), cache, task=task)
    setup = ProbeSetup(settings, corpus, encoders, features, budgets, cache, verbose)
    methods: list[MethodResult] = []
    shown: Outcome | None = None
    for outcome in run_methods(setup):
        notes += outcome.notes
        if outcome.result is None:
            console.log(outcome.notes[-1])
            continue
        methods.append(outcome.result)
        shown = outcome if shown is None else shown
        error = outcome.result.duration_error
        durations = "" if error is None else f", duration error {100 * error:.1f}"
        score = 100 * outcome.result.summary.macro_f1.mean
        console.log(f"{outcome.result.full_title}: macro-F1 {score:.1f}{durations}")
    if not methods:
        raise DataError(f"{corpus.name}: no method could be scored; {notes[-1]}")

    result = ProbeResult(
        dataset=corpus.name,
        title=source.card.title,
        version=source.card.version,
        classes=corpus.classes,
        channels=corpus.channels,
        encoder=_encoder_info(model, config),
        protocol=_protocol(settings, corpus, config),
        selection=protocol.choose,
        methods=tuple(methods),
        leakage=leakage_warnings(config.provenance, corpus.name, corpus.subjects),
        skipped=tuple(f"{entry.what}: {entry.reason}" for entry in corpus.skipped),
        notes=tuple(dict.fromkeys(notes)),
        published=settings.published,
        seconds=time.monotonic() - began,
        device=jax.devices()[0].device_kind,
    )
    save_result(result, out)
    if save_head is not None:
        with Progress("head of all subjects", unit="points", enabled=verbose) as display:
            head = refit_head(
                setup, methods, source.card, save_head_kind, warnings=result.warnings, progress=Reports(display)
            )
        write_head(save_head, head, overwrite=overwrite)
        console.log(f"{save_head}: {head.kind} head, trained on all {len(corpus.subjects)} subjects")
    timelines = timelines_of(corpus, shown.predictions, shown.fractions) if shown else []
    write_report(result, out, timelines=timelines, embedding=_embedding(corpus, features))
    return result


def open_source(settings: DatasetSettings, data: Path) -> LabeledSource:
    """The data set that the settings name, with all of its subjects.

    Raises:
        ConfigError: no data set is named, the name is unknown, or an option is not valid.
        DataError: there are no files.
    """
    if not settings.name:
        raise ConfigError("dataset.name is not set: name a data set (harth, uschad, ...), or tables for your own files")
    if twice := sorted({"name", "path", "sensors", "version"} & set(settings.options)):
        raise ConfigError(f"dataset.options.{twice[0]}: give dataset.{twice[0]} (the path is --data)")
    return open_dataset(settings.name, data, sensors=settings.sensors, version=settings.version, **settings.options)


def open_corpus(
    settings: ProbeSettings, source: LabeledSource, config: ModelConfig, *, strict: bool, console: Progress
) -> Corpus:
    """The recordings of the chosen subjects at the encoder's rate, with windows.

    Args:
        settings: of the probe.
        source: all recordings.
        config: of the model.
        strict: stop at the first file that cannot be used.
        console: for messages and progress.

    Raises:
        ConfigError: a setting does not fit the data or the model.
        DataError: nothing can be used.
    """
    dataset, protocol = settings.dataset, settings.protocol
    without = dataset.without
    if dataset.unseen_only:
        subjects = {file.subject for file in source.files()}
        if not config.provenance.get("subjects") and (
            unknown := leakage_warnings(config.provenance, source.name, subjects)
        ):
            raise ConfigError(f"dataset.unseen_only: {unknown[-1]}; name subjects to leave out by dataset.without")
        seen = seen_subjects(config.provenance, source.name, subjects)
        chose = choosing_subjects(config.provenance, source.name, subjects)
        without = tuple(sorted({*without, *seen, *chose}))
        console.log(f"{len(seen)} of {len(subjects)} subjects were seen in pre-training and are left out")
        if chose:
            console.log(f"{len(chose)} of {len(subjects)} subjects chose the checkpoint and are left out")
    frames, shift = _window(protocol, config)
    return prepare_corpus(
        select_subjects(source, dataset.only, without),
        spectrogram=config.spectrogram,
        frames=frames,
        shift=shift,
        short=protocol.short,
        whole=protocol.whole_recordings,
        labels=protocol.frame_labels,
        cut_at_activity=source.card.cut_at_activity if protocol.cut_at_activity is None else protocol.cut_at_activity,
        resampling=protocol.resampling,
        min_seconds=protocol.min_seconds,
        strict=strict,
        task="read" if console.enabled else None,
    )


# What the encoder has seen of the subjects in pre-training.


def seen_subjects(provenance: Mapping[str, Any], dataset: str, subjects: Iterable[str]) -> tuple[str, ...]:
    """The subjects that the model card lists as trained on, by name or hashed; sorted.

    A user's own tables, in pre-training (`recordings`) or here (`tables`), may be of any subjects and are named by
    file; equal names are taken for the same subject, to be on the safe side. Data sets with different names have
    different subjects.

    Args:
        provenance: of the model card.
        dataset: name of the data set.
        subjects: names in the data set.
    """
    if not _may_overlap(provenance, dataset):
        return ()
    return find_subjects(provenance, subjects)


def choosing_subjects(provenance: Mapping[str, Any], dataset: str, subjects: Iterable[str]) -> tuple[str, ...]:
    """The subjects whose labels chose the encoder's checkpoint (`probe.keep_best` of pre-training); sorted.

    Args:
        provenance: of the model card.
        dataset: name of the data set.
        subjects: names in the data set.
    """
    if dataset != "tables" and provenance.get("choosing_source") not in (dataset, "tables"):
        return ()
    return find_subjects(provenance, subjects, "choosing_subjects")


def leakage_warnings(provenance: Mapping[str, Any], dataset: str, subjects: Iterable[str]) -> tuple[str, ...]:
    """A warning if the encoder was, or may have been, pre-trained on subjects that are probed; otherwise none.

    Args:
        provenance: of the model card.
        dataset: name of the data set.
        subjects: names in the data set.
    """
    subjects, warnings = tuple(subjects), []
    if chose := choosing_subjects(provenance, dataset, subjects):
        warnings.append(
            f"leakage: the encoder's checkpoint was chosen by the labels of {len(chose)} of these {len(subjects)} "
            f"subjects ({_few(chose)}); score it on others"
        )
    if not provenance.get("subjects") and _may_overlap(provenance, dataset):
        warnings.append("leakage cannot be checked: the model card does not list the subjects of pre-training")
    elif seen := seen_subjects(provenance, dataset, subjects):
        warnings.append(
            f"leakage: the encoder was pre-trained on recordings of {len(seen)} of these {len(subjects)} subjects "
            f"({_few(seen)}); their scores do not show how well it works on new subjects"
        )
    return tuple(warnings)


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _may_overlap(provenance: Mapping[str, Any], dataset: str) -> bool:
    return dataset == "tables" or provenance.get("source") in (None, dataset, "recordings", "tables")


# Details.


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out must be a folder")
    if (out / RESULT_FILE).exists() and not overwrite:
        raise ConfigError(f"{out} has results already; choose another --out or add --overwrite")


def _window(protocol: ProtocolSettings, config: ModelConfig) -> tuple[int, int]:
    """Frames of a window, and from the start of one window to the next."""
    spectrogram, frames = config.spectrogram, config.frames
    if protocol.window_seconds is not None:
        frames = spectrogram.frame_count(round(protocol.window_seconds * spectrogram.rate_hz))
        if frames < 1:
            raise ConfigError(
                f"protocol.window_seconds is {protocol.window_seconds}; a window needs at least one frame"
            )
    if protocol.shift_seconds is None:
        return frames, frames
    frames_per_second = spectrogram.rate_hz / spectrogram.fft_hop
    return frames, max(1, round(protocol.shift_seconds * frames_per_second))


def _window_notes(protocol: ProtocolSettings, corpus: Corpus, config: ModelConfig) -> list[str]:
    """What windows do to recordings that are shorter, or longer, than those of pre-training."""
    longest, counts = int(corpus.windows.length_W.max()), corpus.frame_counts
    if protocol.whole_recordings:
        if counts.max() <= config.frames:
            return []
        return [
            f"the longest recording has {counts.max()} frames; the encoder was pre-trained on windows of "
            f"{config.frames}, and attention takes time with the square of the frames"
        ]
    short = int((counts < longest).sum())
    if protocol.short == "fit" or not short:
        return []
    return [
        f"{short} of {len(counts)} recordings are shorter than a window of {longest} frames: zeros fill it, and the "
        "encoder attends to them, as the original's does; protocol.whole_recordings or protocol.short fit avoid that"
    ]


def _encoder_info(model: Path, config: ModelConfig) -> EncoderInfo:
    provenance = config.provenance
    return EncoderInfo(
        directory=str(model),
        family=config.family,
        width=config.model.width,
        layers=config.model.layers,
        pretraining_hours=provenance.get("hours"),
        subjects_known=bool(provenance.get("subjects")),
    )


def _protocol(settings: ProbeSettings, corpus: Corpus, config: ModelConfig) -> dict[str, Any]:
    """The protocol in words."""
    protocol, spectrogram = settings.protocol, config.spectrogram
    hop_seconds = spectrogram.fft_hop / spectrogram.rate_hz
    longest = int(corpus.windows.length_W.max())
    return {
        "subjects": f"{len(corpus.subjects)}"
        + (", none of whom the model card lists as pre-trained on" if settings.dataset.unseen_only else ""),
        "folds": f"{protocol.folds} of whole subjects" if protocol.folds else "leave one subject out",
        "selected on": {
            "inner": "inner folds of the training subjects",
            "test": "the test subject, which is too optimistic",
            "fixed": "nothing: fixed hyper-parameters",
        }[protocol.choose],
        "window": "a whole recording"
        if protocol.whole_recordings
        else f"{longest} frames, {longest * hop_seconds:g} s",
        "shift": f"{protocol.shift_seconds:g} s" if protocol.shift_seconds else "a window",
        "short recordings": "not padded" if protocol.whole_recordings else protocol.short,
        "frames are trained on": {"majority": "their most frequent label", "densities": "the share of each class"}[
            protocol.frame_labels
        ],
        "scored": f"per sample at {spectrogram.rate_hz:g} Hz",
        "features": f"layers {settings.features.layers}, {settings.features.merge}"
        + (", without the calendar positions of pre-training" if config.model.temporal_positions else ""),
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
    """Minutes and subjects of each class, which reveal a misspelled label as a class of one subject."""
    minutes = np.zeros(len(corpus.classes))
    subjects: list[set[str]] = [set() for _ in corpus.classes]
    for recording in corpus.recordings:
        counts = np.bincount(recording.labels_N[recording.labels_N >= 0], minlength=len(corpus.classes))
        minutes += counts / corpus.spectrogram.rate_hz / 60
        for label in np.flatnonzero(counts):
            subjects[label].add(recording.subject)
    return ", ".join(
        f"{name} ({len(who)} {'subject' if len(who) == 1 else 'subjects'}, {of:.1f} min)"
        for name, who, of in zip(corpus.classes, subjects, minutes, strict=True)
    )
