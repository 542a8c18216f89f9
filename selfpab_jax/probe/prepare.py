"""From a labeled source to a corpus: files are read, checked, resampled, cut and divided into labeled frames."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Int

from selfpab_jax.data.har.base import LabeledSource
from selfpab_jax.data.har.card import DatasetCard
from selfpab_jax.data.sources.base import Recording, Skipped, SkippedLog, SourceFile, UnusableError, milliseconds
from selfpab_jax.data.sources.segments import RATE_TOLERANCE, bridge_gaps, cut
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.features.windows import Short, make_windows, whole_recordings
from selfpab_jax.probe.alignment import frame_densities, frame_labels, padded_frame_count
from selfpab_jax.probe.dataset import Corpus, LabeledSignal
from selfpab_jax.progress import Progress
from selfpab_jax.signal.resample import fourier_resample, fourier_resample_labels, resample, resample_labels
from selfpab_jax.signal.stft import SpectrogramSettings

Resampling = Literal["polyphase", "fourier"]
FrameLabels = Literal["majority", "densities"]
"""What a frame is trained on: its most frequent class, or the share of each class in its samples."""
RESAMPLERS = {"polyphase": (resample, resample_labels), "fourier": (fourier_resample, fourier_resample_labels)}
"""Functions for the signal and for the labels."""


def prepare_corpus(
    source: LabeledSource,
    *,
    spectrogram: SpectrogramSettings,
    frames: int,
    shift: int,
    short: Short = "pad",
    whole: bool = False,
    labels: FrameLabels = "majority",
    cut_at_activity: bool = False,
    resampling: Resampling = "polyphase",
    min_seconds: float = 1.0,
    strict: bool = False,
    task: str | None = "read",
) -> Corpus:
    """Read every file of a source and place windows over its recordings.

    Memory holds all signals at the encoder's rate, and one file at a time as it was read.

    Skipped are: what the source skips; a file that cannot be read, or whose number of channels or sampling rate
    is not the declared one; samples that are not finite (short gaps are interpolated, longer ones split the recording);
    a subject without any label. Labels that are not among the classes count as no label. `Corpus.skipped` lists it all.

    Args:
        source: the data set.
        spectrogram: how signals become frames; signals are resampled to its rate.
        frames: length of a window.
        shift: frames from the start of one window to the start of the next; `frames` for windows side by side.
        short: how the end of a recording is covered, see `make_windows`.
        whole: one window for each recording instead, see `whole_recordings`.
        labels: what frames are trained on.
        cut_at_activity: split recordings at each change of label and drop unlabeled segments, as the original does
            for data sets that were recorded one activity at a time.
        resampling: `polyphase`, or `fourier` as the original.
        min_seconds: shorter recordings are skipped.
        strict: raise an error instead of skipping.
        task: name of the progress display; none is shown where None.

    Raises:
        ConfigError: an option is not valid.
        DataError: nothing can be used; or, with `strict`, something would be skipped.
    """
    if resampling not in RESAMPLERS:
        raise ConfigError(f"resampling is {resampling!r}; it must be polyphase or fourier")
    log = PreparationLog(strict, [*source.passed_over()])
    recordings: list[LabeledSignal] = []
    files = list(source.files())
    with Progress(task or "read", len(files), "files", enabled=task is not None) as progress:
        for done, file in enumerate(files, 1):
            for recording in _read(source, file, log):
                for piece in bridge_gaps(recording, source.channels, log.add):
                    resampled = _resample(piece, spectrogram.rate_hz, resampling)
                    for segment in _cut_at_activity(resampled) if cut_at_activity else [resampled]:
                        recordings += _labeled_signal(segment, min_seconds, log)
            progress.update(done, file.name)
    usable = {recording.subject for recording in recordings if (recording.labels_N >= 0).any()}
    log.add_subjects(usable, min_seconds)
    recordings = _ordered(recording for recording in recordings if recording.subject in usable)
    if not recordings:
        reasons = "; ".join(f"{entry.what}: {entry.reason}" for entry in log.entries[:3])
        raise DataError(f"{source.name}: no recording can be used ({reasons or 'there is none'})")
    counts = [padded_frame_count(len(recording.labels_N), spectrogram.fft_hop) for recording in recordings]

    def of_frames(function: Callable[..., np.ndarray]) -> tuple[np.ndarray, ...]:
        sizes = len(source.card.classes), spectrogram.fft_window, spectrogram.fft_hop
        return tuple(
            function(recording.labels_N, *sizes, count) for recording, count in zip(recordings, counts, strict=True)
        )

    return Corpus(
        name=source.name,
        classes=source.card.class_names,
        channels=source.channels,
        spectrogram=spectrogram,
        recordings=tuple(recordings),
        windows=whole_recordings(counts) if whole else make_windows(counts, frames, shift, short),
        frame_labels=of_frames(frame_labels),
        skipped=tuple(log.entries),
        frame_densities=of_frames(frame_densities) if labels == "densities" else (),
    )


@dataclass
class PreparationLog(SkippedLog):
    """What was skipped, and the counts per subject that decide whether a subject is skipped.

    Args:
        samples: number of samples of each subject.
        labeled: number of labeled samples of each subject.
        short_seconds: lengths of each subject's recordings that were too short.
    """

    samples: Counter[str] = field(default_factory=Counter)
    labeled: Counter[str] = field(default_factory=Counter)
    short_seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add_subjects(self, usable: set[str], min_seconds: float) -> None:
        """Record each subject without a usable label, and each one with recordings that were too short."""
        for subject, samples in sorted(self.samples.items()):
            if not self.labeled[subject]:
                self.add(subject, f"none of its {samples} samples has a label")
            elif subject not in usable:
                self.add(subject, f"none of its {self.labeled[subject]} labeled samples is in a usable recording")
        for subject, seconds in sorted(self.short_seconds.items()):
            count = "1 recording" if len(seconds) == 1 else f"{len(seconds)} recordings"
            self.add(subject, f"{count} shorter than {min_seconds:g} s, {sum(seconds):.3g} s in all")


def _read(source: LabeledSource, file: SourceFile, log: PreparationLog) -> Iterator[Recording]:
    """The recordings of a file that are as the card declares them."""
    what = f"{file.subject}, {file.name}" if file.name != file.subject else file.subject
    try:
        recordings = source.read(file)
    except UnusableError as reason:
        log.add(what, str(reason))
        return
    declared, channels = source.card.rate_hz, source.channels
    for recording in recordings:
        for note in recording.notes:
            log.add(what, note)
        labels_N, rate = recording.labels_N, recording.rate_hz
        if recording.signal_NxC.ndim != 2 or recording.signal_NxC.shape[1] != len(channels):
            log.add(
                what,
                f"{recording.name} has {recording.signal_NxC.shape[-1]} channels, "
                f"not the {len(channels)} of {', '.join(channels)}: is a sensor missing?",
            )
        elif not abs(rate / declared - 1) <= RATE_TOLERANCE:
            log.add(what, f"{recording.name} has {rate:.4g} Hz, but {source.name} declares {declared:g} Hz")
        elif labels_N is not None and len(labels_N) != len(recording.signal_NxC):
            log.add(what, f"{recording.name} has {len(labels_N)} labels for {len(recording.signal_NxC)} samples")
        else:
            known_N = _known_labels(recording, len(source.card.classes), what, log)
            log.samples[recording.subject] += len(known_N)
            log.labeled[recording.subject] += int((known_N >= 0).sum())
            yield replace(recording, labels_N=known_N)


def _known_labels(recording: Recording, classes: int, what: str, log: PreparationLog) -> Int[np.ndarray, " N"]:
    """The labels of a recording, with -1 for those that are not a class."""
    labels_N = recording.labels_N
    if labels_N is None:
        return np.full(len(recording.signal_NxC), -1, np.int32)
    unknown_N = (labels_N < -1) | (labels_N >= classes)
    if not unknown_N.any():
        return labels_N
    seen = ", ".join(str(label) for label in np.unique(labels_N[unknown_N])[:5])
    log.add(
        what,
        f"{recording.name}: {int(unknown_N.sum())} samples of label {seen}, which is not a class; taken as unlabeled",
    )
    return np.where(unknown_N, -1, labels_N)


def _resample(recording: Recording, rate_hz: float, resampling: Resampling) -> Recording:
    if recording.rate_hz == rate_hz:
        return recording
    of_signal, of_labels = RESAMPLERS[resampling]
    assert recording.labels_N is not None
    return replace(
        recording,
        rate_hz=rate_hz,
        signal_NxC=of_signal(recording.signal_NxC, recording.rate_hz, rate_hz),
        labels_N=of_labels(recording.labels_N, recording.rate_hz, rate_hz),
    )


def _cut_at_activity(recording: Recording) -> list[Recording]:
    """Its segments of one label, without the unlabeled ones."""
    labels_N = recording.labels_N
    assert labels_N is not None
    edges = [0, *(np.flatnonzero(np.diff(labels_N)) + 1).tolist(), len(labels_N)]
    segments = [cut(recording, first, last) for first, last in pairwise(edges) if last > first and labels_N[first] >= 0]
    # Copies, so that the unlabeled samples do not stay in memory.
    return [replace(segment, signal_NxC=segment.signal_NxC.copy()) for segment in segments]


def _labeled_signal(recording: Recording, min_seconds: float, log: PreparationLog) -> list[LabeledSignal]:
    """The recording as the corpus holds it; nothing if it is too short."""
    labels_N = recording.labels_N
    assert labels_N is not None
    seconds = len(labels_N) / recording.rate_hz
    if not len(labels_N) or seconds < min_seconds:
        log.short_seconds[recording.subject].append(seconds)
        return []
    return [
        LabeledSignal(
            subject=recording.subject,
            name=recording.name,
            start_ms=milliseconds(recording.start),
            signal_NxC=recording.signal_NxC.astype(np.float32, copy=False),
            labels_N=labels_N.astype(np.int16),
        )
    ]


def _ordered(recordings: Iterable[LabeledSignal]) -> list[LabeledSignal]:
    """By subject, then in the order of the files; names are made unique within a subject (`name#2`)."""
    ordered, seen = [], Counter[tuple[str, str]]()
    for recording in sorted(recordings, key=lambda recording: recording.subject):
        key = (recording.subject, recording.name)
        seen[key] += 1
        ordered.append(recording if seen[key] == 1 else replace(recording, name=f"{recording.name}#{seen[key]}"))
    return ordered


@dataclass(frozen=True)
class SubjectSource:
    """A labeled source with the files of some subjects only.

    Attributes:
        dataset: the whole source.
        subjects: whose files are kept.
    """

    dataset: LabeledSource
    subjects: frozenset[str]

    @property
    def card(self) -> DatasetCard:
        """Card of the data set."""
        return self.dataset.card

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.dataset.name

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the signals' columns."""
        return self.dataset.channels

    def files(self) -> Iterator[SourceFile]:
        """The files of the chosen subjects."""
        return (file for file in self.dataset.files() if file.subject in self.subjects)

    def read(self, file: SourceFile) -> list[Recording]:
        """The recordings of a file, as the data set reads them."""
        return self.dataset.read(file)

    def passed_over(self) -> list[Skipped]:
        """What the data set skips."""
        return self.dataset.passed_over()


def select_subjects(dataset: LabeledSource, only: tuple[str, ...], without: tuple[str, ...]) -> LabeledSource:
    """The data set with some of its subjects.

    Args:
        dataset: the whole source.
        only: subjects to keep; all where empty.
        without: subjects to leave out.

    Raises:
        DataError: the data set has no subject of this name, or no subject is left.
    """
    if not only and not without:
        return dataset
    names = {file.subject for file in dataset.files()}
    if unknown := sorted({*only, *without} - names):
        known = sorted(names)
        more = ", ..." if len(known) > 8 else ""
        raise DataError(f"{dataset.name} has no subject {', '.join(unknown)}; it has {', '.join(known[:8])}{more}")
    chosen = (set(only) or names) - set(without)
    if not chosen:
        raise DataError(f"{dataset.name}: no subject is left; change dataset.only or dataset.without")
    return SubjectSource(dataset, frozenset(chosen))
