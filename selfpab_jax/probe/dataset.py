"""A labeled data set at the encoder's rate: recordings, and the windows over their frames."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int32

from selfpab_jax.signal.stft import SpectrogramSettings


@dataclass(frozen=True)
class LabeledSignal:
    """One continuous recording at the encoder's rate.

    Attributes:
        subject: whose.
        name: of the recording.
        start_ms: milliseconds since 1970 on the recorder's clock, -1 where unknown.
        signal_NxC: in g.
        labels_N: class index, -1 where there is none.
    """

    subject: str
    name: str
    start_ms: int
    signal_NxC: Float32[np.ndarray, "N C"]
    labels_N: Int16[np.ndarray, " N"]


@dataclass(frozen=True)
class Windows:
    """Where windows lie: window w feeds `length_W[w]` frames of recording `recording_W[w]`, from `first_W[w]` on.

    Frames beyond the recording's last are zeros after normalization, and no rows.
    """

    recording_W: Int32[np.ndarray, " W"]
    first_W: Int32[np.ndarray, " W"]
    length_W: Int32[np.ndarray, " W"]


@dataclass(frozen=True)
class SetAside:
    """Something of the data that is not used, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """A data set ready for encoders and heads. A row is a frame of a window that lies in the recording.

    Attributes:
        name: of the data set.
        classes: names by index.
        channels: of the signals.
        spectrogram: how signals become frames.
        recordings: by subject, else as the files gave them; names are unique within a subject.
        windows: over their frames; a recording of N samples has floor((N - 1) / hop) + 1 frames, the signal being
            zero-padded so that every sample lies in one.
        frame_labels: for each recording the class index of each frame, -1 where there is none.
        set_aside: what could not be used.
    """

    name: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    spectrogram: SpectrogramSettings
    recordings: tuple[LabeledSignal, ...]
    windows: Windows
    frame_labels: tuple[Int16[np.ndarray, " T"], ...]
    set_aside: tuple[SetAside, ...] = ()

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Sorted names."""
        return tuple(sorted({recording.subject for recording in self.recordings}))

    @cached_property
    def frame_counts(self) -> Int32[np.ndarray, " recordings"]:
        """T of each recording."""
        return np.array([len(labels_T) for labels_T in self.frame_labels], np.int32)

    @cached_property
    def window_R(self) -> Int32[np.ndarray, " R"]:
        """The window of each row; rows go by window, then frame."""
        return np.repeat(np.arange(len(self.rows_of_windows), dtype=np.int32), self.rows_of_windows)

    @cached_property
    def rows_of_windows(self) -> Int32[np.ndarray, " W"]:
        """Rows of each window: its frames within the recording."""
        windows = self.windows
        return np.minimum(windows.length_W, self.frame_counts[windows.recording_W] - windows.first_W)

    @cached_property
    def frame_R(self) -> Int32[np.ndarray, " R"]:
        """The frame of its recording that each row is."""
        first_row_W = np.cumsum(self.rows_of_windows) - self.rows_of_windows
        within_R = np.arange(len(self.window_R)) - first_row_W[self.window_R]
        return (self.windows.first_W[self.window_R] + within_R).astype(np.int32)

    @cached_property
    def recording_R(self) -> Int32[np.ndarray, " R"]:
        """The recording of each row."""
        return self.windows.recording_W[self.window_R]

    @cached_property
    def subject_R(self) -> Int32[np.ndarray, " R"]:
        """Index into `subjects` of each row."""
        index = {subject: i for i, subject in enumerate(self.subjects)}
        of_recording = np.array([index[recording.subject] for recording in self.recordings], np.int32)
        return of_recording[self.recording_R]

    @cached_property
    def label_R(self) -> Int16[np.ndarray, " R"]:
        """Class index of each row, -1 where there is none."""
        first_frame = np.cumsum(self.frame_counts) - self.frame_counts
        return np.concatenate(self.frame_labels)[first_frame[self.recording_R] + self.frame_R]

    @cached_property
    def whole_R(self) -> Bool[np.ndarray, " R"]:
        """Whether the row's frame lies in the unpadded signal; others are predicted, and not trained on."""
        settings = self.spectrogram
        whole = np.array([settings.frame_count(len(recording.labels_N)) for recording in self.recordings])
        return self.frame_R < whole[self.recording_R]
