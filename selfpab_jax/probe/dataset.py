"""A labeled data set at the encoder's rate: recordings, the windows over their frames, and one row per frame."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int32, Int64

from selfpab_jax.data.sources.base import Skipped
from selfpab_jax.features.windows import WindowIndex
from selfpab_jax.signal.stft import SpectrogramSettings


@dataclass(frozen=True)
class LabeledSignal:
    """One continuous recording at the encoder's rate.

    Attributes:
        subject: name of the subject.
        name: of the recording, unique within the subject.
        start_ms: milliseconds since 1970 on the recorder's clock; -1 where unknown.
        signal_NxC: acceleration in g.
        labels_N: class index of each sample; -1 for no label.
    """

    subject: str
    name: str
    start_ms: int
    signal_NxC: Float32[np.ndarray, "N C"]
    labels_N: Int16[np.ndarray, " N"]


@dataclass(frozen=True)
class Corpus:
    """A data set ready for encoders and heads.

    A row is a frame of a window that is within its recording. Rows are ordered by window, then frame; a frame that
    several windows cover has several rows.

    Attributes:
        name: of the data set.
        classes: class names by index.
        channels: names of the signals' columns.
        spectrogram: how signals become frames.
        recordings: by subject, then in the order of the files.
        windows: over the frames of the recordings. A recording of N samples has floor((N - 1) / hop) + 1 frames: the
            signal is zero-padded so that every sample is in a frame.
        frame_labels: class index of each frame of each recording; -1 for no label.
        skipped: what could not be used, and why.
        frame_densities: share of each class in each frame of each recording, where heads and networks are to be trained
            on shares; empty where they are trained on `frame_labels`.
    """

    name: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    spectrogram: SpectrogramSettings
    recordings: tuple[LabeledSignal, ...]
    windows: WindowIndex
    frame_labels: tuple[Int16[np.ndarray, " _T"], ...]
    skipped: tuple[Skipped, ...] = ()
    frame_densities: tuple[Float32[np.ndarray, "_T Y"], ...] = ()

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Sorted names."""
        return tuple(sorted({recording.subject for recording in self.recordings}))

    @property
    def hours(self) -> float:
        """Length of all recordings."""
        return sum(len(recording.labels_N) for recording in self.recordings) / self.spectrogram.rate_hz / 3600

    @property
    def frame_counts(self) -> Int32[np.ndarray, " recordings"]:
        """Number of frames T of each recording."""
        return self._frame_counts

    @property
    def rows_of_windows(self) -> Int32[np.ndarray, " W"]:
        """Number of rows of each window: its frames within the recording."""
        return self._rows_of_windows

    # Cached apart, because type checkers do not take a cached_property for the property of a protocol.

    @cached_property
    def _frame_counts(self) -> Int32[np.ndarray, " recordings"]:
        return np.array([len(labels_T) for labels_T in self.frame_labels], np.int32)

    @cached_property
    def _rows_of_windows(self) -> Int32[np.ndarray, " W"]:
        windows = self.windows
        return np.minimum(windows.length_W, self.frame_counts[windows.recording_W] - windows.first_W)

    @cached_property
    def window_R(self) -> Int32[np.ndarray, " R"]:
        """Window of each row."""
        return np.repeat(np.arange(len(self.rows_of_windows), dtype=np.int32), self.rows_of_windows)

    @cached_property
    def frame_R(self) -> Int32[np.ndarray, " R"]:
        """Frame of each row, counted from the start of its recording."""
        first_row_W = np.cumsum(self.rows_of_windows) - self.rows_of_windows
        within_R = np.arange(len(self.window_R)) - first_row_W[self.window_R]
        return (self.windows.first_W[self.window_R] + within_R).astype(np.int32)

    @cached_property
    def recording_R(self) -> Int32[np.ndarray, " R"]:
        """Recording of each row, as an index."""
        return self.windows.recording_W[self.window_R]

    @cached_property
    def subject_R(self) -> Int32[np.ndarray, " R"]:
        """Subject of each row, as an index into `subjects`."""
        index = {subject: i for i, subject in enumerate(self.subjects)}
        of_recording = np.array([index[recording.subject] for recording in self.recordings], np.int32)
        return of_recording[self.recording_R]

    @cached_property
    def label_R(self) -> Int16[np.ndarray, " R"]:
        """Class index of each row; -1 for no label."""
        return np.concatenate(self.frame_labels)[self.frame_of_rows]

    @cached_property
    def density_RxY(self) -> Float32[np.ndarray, "R Y"] | None:
        """Share of each class in each row's frame; None where rows are trained on their labels."""
        return np.concatenate(self.frame_densities)[self.frame_of_rows] if self.frame_densities else None

    def trained_classes(self, rows_R: Bool[np.ndarray, " R"]) -> Bool[np.ndarray, " Y"]:
        """The classes that occur in what these rows are trained on."""
        if self.density_RxY is not None:
            return (self.density_RxY[rows_R] > 0).sum(axis=0) > 0
        return np.bincount(self.label_R[rows_R], minlength=len(self.classes)).astype(bool)

    @cached_property
    def first_frames(self) -> Int64[np.ndarray, " recordings"]:
        """Index of each recording's first frame among the frames of all recordings, one after another."""
        counts = self.frame_counts.astype(np.int64)
        return np.cumsum(counts) - counts

    @cached_property
    def frame_of_rows(self) -> Int64[np.ndarray, " R"]:
        """Index of each row's frame among the frames of all recordings, one after another."""
        return self.first_frames[self.recording_R] + self.frame_R

    @cached_property
    def whole_R(self) -> Bool[np.ndarray, " R"]:
        """Whether the row's frame is within the unpadded signal; the other rows are predicted, but not trained on."""
        settings = self.spectrogram
        whole = np.array([settings.frame_count(len(recording.labels_N)) for recording in self.recordings])
        return self.frame_R < whole[self.recording_R]
