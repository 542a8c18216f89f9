"""What a build is to make: everything that decides the bytes of the records, and nothing else."""

import json
from dataclasses import asdict, dataclass, field

from selfpab_jax.data.source import Source
from selfpab_jax.data.splits import SplitSettings
from selfpab_jax.errors import DataError
from selfpab_jax.signal.stft import SpectrogramSettings

FORMAT = 1
"""Changes where the same plan would give other bytes."""
SHARD_BYTES = 256 * 2**20
LARGEST_G = 16
LARGEST_FLOAT16 = 65504


@dataclass(frozen=True)
class RecordSettings:
    """What one record holds: a window of so many samples, each shifted by so many, as a spectrogram.

    Raises:
        DataError: a window without a frame, no shift, or magnitudes that float16 cannot hold.
    """

    spectrogram: SpectrogramSettings = field(default_factory=SpectrogramSettings)
    window_samples: int = 15000
    shift_samples: int = 15000

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise DataError(f"a window of {self.window_samples} samples is shorter than a frame")
        if self.shift_samples < 1:
            raise DataError(f"the shift is {self.shift_samples} samples; it must be at least 1")
        if self.spectrogram.fft_window / 2 * LARGEST_G > LARGEST_FLOAT16:
            raise DataError(
                f"fft_window {self.spectrogram.fft_window}: magnitudes would not fit into float16 (8188 do)"
            )

    @property
    def frames(self) -> int:
        """T of a record."""
        return self.spectrogram.frame_count(self.window_samples)

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return self.window_samples / self.spectrogram.rate_hz

    @property
    def shift_seconds(self) -> float:
        """From the start of one window to the next."""
        return self.shift_samples / self.spectrogram.rate_hz

    @property
    def new_seconds(self) -> float:
        """Recording that a window adds to the one before it in its stretch; the first one adds a whole window."""
        return min(self.window_samples, self.shift_samples) / self.spectrogram.rate_hz


@dataclass(frozen=True)
class Plan:
    """Source and settings of a build."""

    source: Source
    records: RecordSettings = field(default_factory=RecordSettings)
    splits: SplitSettings = field(default_factory=SplitSettings)
    shard_bytes: int = SHARD_BYTES

    @property
    def features(self) -> int:
        """X of a record."""
        return self.records.spectrogram.features(len(self.source.channels))

    @property
    def has_labels(self) -> bool:
        """Whether records carry frame labels."""
        return getattr(self.source, "label_column", None) is not None

    def options(self) -> dict:
        """Everything but the list of files, as JSON types."""
        options = {
            "format": FORMAT,
            "source": {"name": self.source.name, **asdict(self.source)},  # type: ignore[call-overload]
            "records": asdict(self.records),
            "splits": asdict(self.splits),
            "shard_bytes": self.shard_bytes,
        }
        return json.loads(json.dumps(options))


@dataclass(frozen=True)
class Shard:
    """One file of records to be: its number, split and how many recordings go into it."""

    number: int
    split: str
    files: int
