"""What a record holds, and the facts that travel with a set of records."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32

from selfpab_jax.signal.stft import SpectrogramSettings

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfpab_jax.errors import DataError

# How a record is laid out: the TFDS features, and the frame labels.

WRITER_OPTIONS = "group_size:1,uncompressed"
"""One record a group, for random access. Compression would save 13% and quadruple the time of a read."""


def record_features(frames: int, features: int, labels: bool) -> "tfds.features.FeaturesDict":
    """The TFDS features of a record (T frames of X features), with frame labels or without."""
    import tensorflow_datasets as tfds

    layout = {
        "spectrogram": tfds.features.Tensor(
            shape=(frames, features),
            dtype=np.float16,
            encoding=tfds.features.Encoding.BYTES,
            doc="magnitudes, not normalized; feature c * F + f is bin f of channel c",
        ),
        "subject": tfds.features.Text(),
        "recording": tfds.features.Text(doc="file, and stretch in it"),
        "start": tfds.features.Scalar(np.int64, doc="ms since 1970 on the recorder's clock, -1 where unknown"),
        "source": tfds.features.Text(),
    }
    if labels:
        layout["labels"] = tfds.features.Tensor(shape=(frames,), dtype=np.int32)
    return tfds.features.FeaturesDict(layout)


def frame_labels(labels_N: Int32[np.ndarray, " N"], settings: SpectrogramSettings) -> Int32[np.ndarray, " T"]:
    """The most frequent label of each frame's samples, ties to the smallest."""
    classes, codes_N = np.unique(labels_N, return_inverse=True)
    before_NxY = np.zeros((len(labels_N) + 1, len(classes)), np.int32)
    np.cumsum(codes_N[:, None] == np.arange(len(classes)), axis=0, out=before_NxY[1:])
    first_T = np.arange(settings.frame_count(len(labels_N))) * settings.fft_hop
    counts_TxY = before_NxY[first_T + settings.fft_window] - before_NxY[first_T]
    return classes[counts_TxY.argmax(axis=1)].astype(np.int32)


# What `records.json` beside the shards says: settings, sizes, and every shard's fingerprint.

NAME = "spectrograms"
VERSION = "1.0.0"
INFO_FILE = "records.json"
REJECTED_FILE = "rejected.jsonl"


@dataclass(frozen=True)
class SplitSize:
    """Size of a split: hours count every stretch of recording once, also where windows overlap."""

    records: int
    hours: float
    subjects: int


@dataclass(frozen=True)
class ShardFile:
    """A finished shard as it should be found again."""

    file: str
    split: str
    records: int
    bytes: int
    fingerprint: str


@dataclass(frozen=True)
class RecordsInfo:
    """Everything a reader needs to know before it opens a shard.

    Attributes:
        settings: of the spectrograms.
        window_samples, shift_samples: of the windows, at the settings' rate.
        channels: names in order, `<sensor>_<axis>`; sensors: their sensors in order.
        frames, features: T and X of a record.
        labels: whether records carry frame labels.
        source: hunt4, recordings or a data set's name; options: all options of the build.
        rejected: files set aside; files: files read.
        splits: by name; a split without records is not there.
        shards: in the order of the splits' records.
    """

    settings: SpectrogramSettings
    window_samples: int
    shift_samples: int
    channels: tuple[str, ...]
    sensors: tuple[str, ...]
    frames: int
    features: int
    labels: bool
    source: str
    options: dict
    files: int
    rejected: int
    splits: dict[str, SplitSize]
    shards: tuple[ShardFile, ...]

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return self.window_samples / self.settings.rate_hz

    @property
    def new_seconds(self) -> float:
        """Recording that a window adds to the one before it."""
        return min(self.window_samples, self.shift_samples) / self.settings.rate_hz

    def check_fits(self, trained_on: dict[str, Any], folder: Path) -> None:
        """These records can stand in for those that a model was trained on.

        Args:
            trained_on: `records` of a checkpoint's facts.
            folder: of these, for the message.

        Raises:
            DataError: other channels or other spectrograms.
        """
        mine = {"channels": list(self.channels), "settings": asdict(self.settings)}
        for name, what in (("channels", "channels"), ("settings", "spectrogram settings")):
            if mine[name] != trained_on[name]:
                raise DataError(
                    f"{folder} has the {what} {mine[name]}, the model was trained on {trained_on[name]}; "
                    "build the records with the same"
                )

    def shard_files(self, split: str) -> list[ShardFile]:
        """The shards of a split, in order."""
        return [shard for shard in self.shards if shard.split == split]


def write_info(info: RecordsInfo, folder: Path) -> None:
    """Writes `records.json`."""
    (folder / INFO_FILE).write_text(json.dumps(asdict(info), indent=1) + "\n")


def read_info(folder: Path) -> RecordsInfo:
    """Reads `records.json`.

    Raises:
        DataError: missing, or not of this version.
    """
    path = folder / INFO_FILE
    try:
        fields = json.loads(path.read_text())
        fields["settings"] = SpectrogramSettings(**fields["settings"])
        fields["splits"] = {name: SplitSize(**size) for name, size in fields["splits"].items()}
        fields["shards"] = tuple(ShardFile(**shard) for shard in fields["shards"])
        return RecordsInfo(**fields | {name: tuple(fields[name]) for name in ("channels", "sensors")})
    except FileNotFoundError:
        raise DataError(f"{path} is missing: no finished records here (selfpab-jax records build makes them)") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}); build the records again") from None


def records_folder(path: Path) -> Path:
    """The folder with the shards, given it or the `--out` folder above it.

    Raises:
        DataError: neither.
    """
    for folder in (path, path / NAME / VERSION, path / VERSION):
        if (folder / INFO_FILE).is_file():
            return folder
    if (path / ".building").is_dir():
        raise DataError(f"{path}: its build has not finished; repeat the command of `records build` to go on")
    raise DataError(
        f"{path}: no records here (expected {NAME}/{VERSION}/{INFO_FILE}); selfpab-jax records build makes them"
    )
