"""A labeled source made into a corpus: read, checked, resampled, cut, framed."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from typing import Literal

import numpy as np

from selfpab_jax.data.har.card import DatasetCard, LabeledSource
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError, milliseconds
from selfpab_jax.data.sources.segments import RATE_TOLERANCE, bridge_gaps
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.features.windows import Short, make_windows
from selfpab_jax.probe.alignment import frame_labels, padded_frame_count
from selfpab_jax.probe.dataset import Corpus, LabeledSignal, SetAside
from selfpab_jax.signal.resample import fourier_resample, fourier_resample_labels, resample, resample_labels
from selfpab_jax.signal.stft import SpectrogramSettings

# A labeled source made into a corpus: read, checked, resampled, cut, framed.

Resampling = Literal["polyphase", "fourier"]
Progress = Callable[[int, int, str], None]
"""Told after each file: files done, files in all, the file's name."""
RESAMPLERS = {"polyphase": (resample, resample_labels), "fourier": (fourier_resample, fourier_resample_labels)}


def prepare_corpus(
    source: LabeledSource,
    *,
    spectrogram: SpectrogramSettings,
    frames: int,
    shift: int,
    short: Short = "pad",
    cut_at_activity: bool = False,
    resampling: Resampling = "polyphase",
    min_seconds: float = 1.0,
    strict: bool = False,
    progress: Progress | None = None,
) -> Corpus:
    """Reads every file of a source and lays windows over it. Memory: the signals once, and one file.

    What cannot be used is set aside with a line, and the rest goes on: a file that cannot be read or has another number
    of channels or another rate than declared; samples that are not numbers (short gaps are bridged, longer ones
    end a recording); labels beyond the classes (taken as none); a subject without any label.

    Args:
        source: a data set.
        spectrogram: how signals become frames; its rate is what signals are brought to.
        frames: of a window.
        shift: frames from one window to the next; `frames` for windows side by side.
        short: what happens at the end of recordings, see `make_windows`.
        cut_at_activity: a recording ends at each change of label, and stretches without a label are left out, as in the
            original's protocol for data sets recorded one activity at a time.
        resampling: "polyphase", or "fourier" as the original.
        min_seconds: shorter recordings are set aside.
        strict: the first thing that would be set aside is an error.
        progress: told after each file.

    Raises:
        ConfigError: an option that cannot be.
        DataError: nothing is left, or with `strict` the first line.
    """
    if resampling not in RESAMPLERS:
        raise ConfigError(f"resampling is {resampling!r}: give polyphase or fourier")
    ledger = Ledger(strict)
    recordings: list[LabeledSignal] = []
    files = list(source.files())
    for done, file in enumerate(files, 1):
        for recording in _read(source, file, ledger):
            for piece in bridge_gaps(recording, source.channels, ledger.add):
                moved = _at_rate(piece, spectrogram.rate_hz, resampling)
                for part in _cut(moved) if cut_at_activity else [moved]:
                    recordings += _kept(part, min_seconds, ledger)
        if progress is not None:
            progress(done, len(files), file.name)
    usable = {recording.subject for recording in recordings if (recording.labels_N >= 0).any()}
    ledger.tell_subjects(usable, min_seconds)
    recordings = _in_order(recording for recording in recordings if recording.subject in usable)
    if not recordings:
        reasons = "; ".join(f"{entry.what}: {entry.reason}" for entry in ledger.entries[:3])
        raise DataError(f"{source.name}: nothing of it can be used ({reasons or 'it has no recordings'})")
    labels = [
        frame_labels(
            recording.labels_N,
            len(source.card.classes),
            spectrogram.fft_window,
            spectrogram.fft_hop,
            padded_frame_count(len(recording.labels_N), spectrogram.fft_hop),
        )
        for recording in recordings
    ]
    return Corpus(
        name=source.name,
        classes=source.card.class_names,
        channels=source.channels,
        spectrogram=spectrogram,
        recordings=tuple(recordings),
        windows=make_windows([len(labels_T) for labels_T in labels], frames, shift, short),
        frame_labels=tuple(labels),
        set_aside=tuple(ledger.entries),
    )


@dataclass
class Ledger:
    """What was set aside so far (with strict, the first entry is an error), and what each subject had."""

    strict: bool
    entries: list[SetAside] = field(default_factory=list)
    samples: Counter[str] = field(default_factory=Counter)
    labeled: Counter[str] = field(default_factory=Counter)
    short: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, reason: str) -> None:
        """Notes it.

        Raises:
            DataError: strict.
        """
        if self.strict:
            raise DataError(f"{what}: {reason}")
        self.entries.append(SetAside(what, reason))

    def tell_subjects(self, usable: set[str], min_seconds: float) -> None:
        """A line for each subject without a label that can be used, and for each that had recordings too short."""
        for subject, samples in sorted(self.samples.items()):
            if not self.labeled[subject]:
                self.add(subject, f"none of its {samples} samples has a label")
            elif subject not in usable:
                self.add(subject, f"none of its {self.labeled[subject]} labeled samples is in a usable recording")
        for subject, seconds in sorted(self.short.items()):
            plural = "a recording" if len(seconds) == 1 else f"{len(seconds)} recordings"
            self.add(subject, f"{plural} shorter than {min_seconds:g} s, {sum(seconds):.3g} s in all")


def _read(source: LabeledSource, file: SourceFile, ledger: Ledger) -> Iterator[Recording]:
    """The file's recordings that have what the card declares."""
    what = f"{file.subject}, {file.name}" if file.name != file.subject else file.subject
    try:
        recordings = source.read(file)
    except UnusableError as reason:
        ledger.add(what, str(reason))
        return
    declared, channels = source.card.rate_hz, source.channels
    for recording in recordings:
        for text in recording.notes:
            ledger.add(what, text)
        labels_N, rate = recording.labels_N, recording.rate_hz
        if recording.signal_NxC.ndim != 2 or recording.signal_NxC.shape[1] != len(channels):
            ledger.add(
                what,
                f"{recording.name} has {recording.signal_NxC.shape[-1]} channels, "
                f"not the {len(channels)} of {', '.join(channels)}: is a sensor missing?",
            )
        elif not abs(rate / declared - 1) <= RATE_TOLERANCE:
            ledger.add(what, f"{recording.name} has {rate:.4g} Hz, where {source.name} declares {declared:g} Hz")
        elif labels_N is not None and len(labels_N) != len(recording.signal_NxC):
            ledger.add(what, f"{recording.name} has {len(labels_N)} labels for {len(recording.signal_NxC)} samples")
        else:
            known_N = _known(labels_N, recording, len(source.card.classes), what, ledger)
            ledger.samples[recording.subject] += len(known_N)
            ledger.labeled[recording.subject] += int((known_N >= 0).sum())
            yield replace(recording, labels_N=known_N)


def _known(labels_N: np.ndarray | None, recording: Recording, classes: int, what: str, ledger: Ledger) -> np.ndarray:
    """The labels, -1 where they are no class."""
    if labels_N is None:
        return np.full(len(recording.signal_NxC), -1, np.int32)
    unknown_N = (labels_N < -1) | (labels_N >= classes)
    if not unknown_N.any():
        return labels_N
    seen = ", ".join(str(label) for label in np.unique(labels_N[unknown_N])[:5])
    ledger.add(
        what,
        f"{recording.name}: {int(unknown_N.sum())} samples of label {seen}, which is no class; taken as unlabeled",
    )
    return np.where(unknown_N, -1, labels_N)


def _at_rate(recording: Recording, rate_hz: float, resampling: Resampling) -> Recording:
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


def _cut(recording: Recording) -> list[Recording]:
    """Its stretches of one label, without those that have none."""
    labels_N, start, rate = recording.labels_N, recording.start, recording.rate_hz
    assert labels_N is not None
    edges = [0, *(np.flatnonzero(np.diff(labels_N)) + 1).tolist(), len(labels_N)]
    return [
        replace(
            recording,
            name=f"{recording.name}+{first}" if first else recording.name,
            start=None if start is None else start + timedelta(seconds=first / rate),
            signal_NxC=recording.signal_NxC[first:last].copy(),
            labels_N=labels_N[first:last],
        )
        for first, last in pairwise(edges)
        if last > first and labels_N[first] >= 0
    ]


def _kept(recording: Recording, min_seconds: float, ledger: Ledger) -> list[LabeledSignal]:
    """As the corpus holds it; nothing where it is too short."""
    labels_N = recording.labels_N
    assert labels_N is not None
    seconds = len(labels_N) / recording.rate_hz
    if not len(labels_N) or seconds < min_seconds:
        ledger.short[recording.subject].append(seconds)
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


def _in_order(recordings: Iterable[LabeledSignal]) -> list[LabeledSignal]:
    """By subject, else as they came (by file, then time), with names that are one recording's only."""
    ordered, seen = [], Counter[tuple[str, str]]()
    for recording in sorted(recordings, key=lambda recording: recording.subject):
        key = (recording.subject, recording.name)
        seen[key] += 1
        ordered.append(recording if seen[key] == 1 else replace(recording, name=f"{recording.name}#{seen[key]}"))
    return ordered


# A part of a data set's people.


@dataclass(frozen=True)
class SubjectSource:
    """The files of some subjects of a data set.

    Attributes:
        dataset: whose.
        subjects: theirs.
    """

    dataset: LabeledSource
    subjects: frozenset[str]

    @property
    def card(self) -> DatasetCard:
        """The data set's."""
        return self.dataset.card

    @property
    def name(self) -> str:
        """The data set's."""
        return self.dataset.name

    @property
    def channels(self) -> tuple[str, ...]:
        """The data set's."""
        return self.dataset.channels

    def files(self) -> Iterator[SourceFile]:
        """Those of the chosen subjects."""
        return (file for file in self.dataset.files() if file.subject in self.subjects)

    def read(self, file: SourceFile) -> list[Recording]:
        """As the data set reads it."""
        return self.dataset.read(file)


def choose_people(dataset: LabeledSource, only: tuple[str, ...], without: tuple[str, ...]) -> LabeledSource:
    """The data set with these people only.

    Raises:
        DataError: a name that the data set does not have, or nobody left.
    """
    if not only and not without:
        return dataset
    there = {file.subject for file in dataset.files()}
    if unknown := sorted({*only, *without} - there):
        names = ", ".join(sorted(there)[:8])
        raise DataError(f"{dataset.name} has no subject {', '.join(unknown)}; there are {names}, ...")
    chosen = (set(only) or there) - set(without)
    if not chosen:
        raise DataError(f"{dataset.name}: no subject is left; change dataset.only or dataset.without")
    return SubjectSource(dataset, frozenset(chosen))
