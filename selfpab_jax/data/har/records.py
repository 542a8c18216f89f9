"""Labeled data sets as sources of spectrogram records, for pre-training."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from selfpab_jax.data.har.base import LabeledSource
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError
from selfpab_jax.data.sources.checks import check_signal
from selfpab_jax.data.sources.segments import cut, runs


@dataclass(frozen=True)
class LabeledRecordsSource:
    """A data set's recordings, checked as every source of records; missing samples end a recording.

    Labels are class indices, -1 where there is none.

    Attributes:
        dataset: the data set, from `open_dataset`.
        label_column: set, so that the records carry the labels.
    """

    dataset: LabeledSource
    label_column: str = "label"

    @property
    def name(self) -> str:
        """The source's name in the records."""
        return self.dataset.name

    @property
    def channels(self) -> tuple[str, ...]:
        """x, y and z of each selected sensor."""
        return self.dataset.channels

    def files(self) -> Iterator[SourceFile]:
        """The files of the data set, in a fixed order."""
        return self.dataset.files()

    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a file.

        Raises:
            UnusableError: the data set's reader cannot use the file, or the signal is not plausible.
        """
        recordings = []
        for recording in self.dataset.read(file):
            finite_N = np.asarray(np.isfinite(recording.signal_NxC).all(axis=1))
            recordings += [cut(recording, int(first), int(last)) for first, last in zip(*runs(finite_N), strict=True)]
        if not recordings:
            raise UnusableError("sensor missing: no sample has numbers in all channels")
        for recording in recordings:
            check_signal(recording.signal_NxC, self.channels, recording.rate_hz)
        return recordings
