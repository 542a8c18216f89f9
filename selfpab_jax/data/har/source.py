"""Samples that are missing: they end a continuous recording, and what lies around them is kept."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
from jaxtyping import Float

from selfpab_jax.data.har.base import Published
from selfpab_jax.data.har.prepared import Prepared
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError
from selfpab_jax.data.sources.checks import check_signal

# Samples that are missing: they end a continuous recording, and what lies around them is kept.


def finite_pieces(
    signal_NxC: Float[np.ndarray, "N C"], pieces: list[tuple[int, int]], channels: tuple[str, ...]
) -> tuple[list[tuple[int, int]], tuple[str, ...]]:
    """The pieces (first, last + 1) less every sample with NaN or infinity in a channel, and a note where there are.

    A piece without a finite sample is gone.
    """
    finite_N = np.asarray(np.isfinite(signal_NxC).all(axis=1))
    if finite_N.all():
        return pieces, ()
    parts = []
    for first, last in pieces:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], finite_N[first:last], [False]]).astype(np.int8)))
        parts += [(first + int(a), first + int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    lost = [channel for c, channel in enumerate(channels) if not np.isfinite(signal_NxC[:, c]).all()]
    note = f"{int((~finite_N).sum())} of {len(finite_N)} samples are NaN or infinite ({', '.join(lost)}): left out"
    return parts, (note,)


# A labeled data set as a source of spectrogram records: pre-training data, held to what all sources are held to.


@dataclass(frozen=True)
class ForRecords:
    """The data set's recordings without missing samples: they end a recording. Labels are class indices, -1 for none.

    Attributes:
        dataset: what `open_dataset` gives.
    """

    dataset: Published | Prepared
    label_column: str = "label"

    @property
    def name(self) -> str:
        """As records carry it."""
        return self.dataset.name

    @property
    def channels(self) -> tuple[str, ...]:
        """x, y and z of each chosen sensor."""
        return self.dataset.channels

    def files(self) -> Iterator[SourceFile]:
        """The data set's, in a fixed order."""
        return self.dataset.files()

    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a file.

        Raises:
            UnusableError: by the data set's reader, or a signal that cannot be believed.
        """
        recordings = [piece for recording in self.dataset.read(file) for piece in self._whole(recording)]
        if not recordings:
            raise UnusableError("no sample has numbers in all channels")
        for recording in recordings:
            check_signal(recording.signal_NxC, self.channels, recording.rate_hz)
        return recordings

    def _whole(self, recording: Recording) -> list[Recording]:
        start, labels_N = recording.start, recording.labels_N
        pieces, _ = finite_pieces(recording.signal_NxC, [(0, len(recording.signal_NxC))], self.channels)
        return [
            replace(
                recording,
                name=f"{recording.name}+{first}" if first else recording.name,
                start=None if start is None else start + timedelta(seconds=first / recording.rate_hz),
                signal_NxC=recording.signal_NxC[first:last],
                labels_N=None if labels_N is None else labels_N[first:last],
            )
            for first, last in pieces
        ]
