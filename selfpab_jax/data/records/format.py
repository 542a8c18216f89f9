"""The files of a set of records: the layout of a record, `records.json`, and what else is beside the shards."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int32, Int64, Shaped

from selfpab_jax.data.records.usage import SegmentUsage
from selfpab_jax.errors import DataError
from selfpab_jax.io import write_text
from selfpab_jax.signal.stft import SpectrogramSettings

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

NAME = "spectrograms"
VERSION = "1.0.0"
INFO_FILE = "records.json"
SKIPPED_FILE = "skipped.jsonl"
QUALITY_FOLDER = "quality"
FAILED_FOLDER = "failed"
"""In the `out` folder: what became of each file, where nothing could be built; the next build removes it."""
SKIPPED_FILE_0_1 = "rejected.jsonl"
"""Its name in records of version 0.1."""
STAGING = ".building"
"""Folder of an unfinished build."""
REPLACED = ".replaced"
"""Where earlier records wait until those that replace them are finished."""
FINGERPRINT_BYTES = 32768
ROUNDING_MS = 2


# A record: its TFDS features and frame labels.

VALID_FRAMES = "frames"
"""Name of a record's number of valid frames, in records that may be padded."""

WRITER_OPTIONS = "group_size:1,uncompressed"
"""One record per group, for random access. Compression would save 13% and quadruple the time of a read."""


def record_features(
    frames: int, features: int, labels: bool, may_be_padded: bool = False
) -> "tfds.features.FeaturesDict":
    """The TFDS features of a record.

    Args:
        frames: T, frames of a record.
        features: X, features of a frame.
        labels: whether there are frame labels.
        may_be_padded: whether there is a number of valid frames.
    """
    import tensorflow_datasets as tfds

    layout = {
        "spectrogram": tfds.features.Tensor(
            shape=(frames, features),
            dtype=np.float16,
            encoding=tfds.features.Encoding.BYTES,
            doc="magnitudes, not normalized; feature c * F + f is bin f of channel c",
        ),
        "subject": tfds.features.Text(),
        "recording": tfds.features.Text(doc="file, and segment in it"),
        "start": tfds.features.Scalar(np.int64, doc="ms since 1970 on the recorder's clock, -1 where unknown"),
        "source": tfds.features.Text(),
    }
    if may_be_padded:
        layout[VALID_FRAMES] = tfds.features.Scalar(np.int32, doc="valid frames; those after them are padding, and 0")
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


# `records.json`: settings, sizes, and the fingerprint of every shard.


@dataclass(frozen=True)
class SplitSize:
    """Size of a split; hours count every part of a recording once, also where windows overlap.

    Attributes:
        records: all of them.
        hours: of recording in them.
        subjects: whose recordings they are.
        padded: records that hold a segment shorter than a window.
        padded_hours: of recording in those.
        padding: share of padding in all frames of the split.
    """

    records: int
    hours: float
    subjects: int
    padded: int = 0
    padded_hours: float = 0.0
    padding: float = 0.0


@dataclass(frozen=True)
class ShardFile:
    """A finished shard: file name, split, number of records, size and fingerprint."""

    file: str
    split: str
    records: int
    bytes: int
    fingerprint: str


@dataclass(frozen=True)
class RecordsInfo:
    """Content of `records.json`.

    Attributes:
        settings: of the spectrograms.
        window_samples, shift_samples: of the windows, at the settings' rate.
        channels: names in order, `<sensor>_<axis>`.
        sensors: names of the channels' sensors, in order.
        frames, features: T and X of a record.
        labels: whether records have frame labels.
        source: hunt4, recordings, or the name of a data set.
        options: all options of the build.
        files: number of files read.
        skipped: number of files that could not be used.
        splits: sizes by name; a split without records is missing.
        shards: in the order of the splits' records.
        usage: hours of recording that were read, and what became of them; None in records of version 0.1.
        skipped_hours: hours in the files that could not be used, an estimate; 0 where unknown.
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
    skipped: int
    splits: dict[str, SplitSize]
    shards: tuple[ShardFile, ...]
    usage: SegmentUsage | None = None
    skipped_hours: float = 0.0

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return self.window_samples / self.settings.rate_hz

    @property
    def new_seconds(self) -> float:
        """Seconds of recording that a window adds to the one before it."""
        return min(self.window_samples, self.shift_samples) / self.settings.rate_hz

    def check_fits(self, trained_on: dict[str, Any], folder: Path) -> None:
        """Check that a model that was trained on other records can be used with these.

        Args:
            trained_on: `records` of a checkpoint's metadata.
            folder: of these records, for the message.

        Raises:
            DataError: other channels or other spectrograms.
        """
        mine = {"channels": list(self.channels), "settings": asdict(self.settings)}
        for name, what in (("channels", "channels"), ("settings", "spectrogram settings")):
            if mine[name] != trained_on[name]:
                raise DataError(
                    f"{folder} has the {what} {mine[name]}, the model was trained on {trained_on[name]}; "
                    "build the records with the same settings"
                )

    def shard_files(self, split: str) -> list[ShardFile]:
        """The shards of a split, in order."""
        return [shard for shard in self.shards if shard.split == split]


def write_info(info: RecordsInfo, folder: Path) -> None:
    """Write `records.json`."""
    write_text(folder / INFO_FILE, json.dumps(asdict(info), indent=1) + "\n")


def read_info(folder: Path) -> RecordsInfo:
    """Read `records.json`.

    Raises:
        DataError: missing, or not of this version.
    """
    path = folder / INFO_FILE
    try:
        fields = json.loads(path.read_text())
        if "rejected" in fields:  # version 0.1
            fields["skipped"] = fields.pop("rejected")
        fields["settings"] = SpectrogramSettings(**fields["settings"])
        fields["splits"] = {name: SplitSize(**size) for name, size in fields["splits"].items()}
        fields["shards"] = tuple(ShardFile(**shard) for shard in fields["shards"])
        if fields.get("usage") is not None:
            fields["usage"] = SegmentUsage(**fields["usage"])
        return RecordsInfo(**fields | {name: tuple(fields[name]) for name in ("channels", "sensors")})
    except FileNotFoundError:
        raise DataError(f"{path} is missing: no finished records (see selfpab-jax records build)") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}); build the records again") from None


def records_folder(path: Path) -> Path:
    """The folder of the shards: `path` itself, or below it if `path` is the `--out` folder of a build.

    Raises:
        DataError: there are no records.
    """
    for folder in (path, path / NAME / VERSION, path / VERSION):
        if (folder / INFO_FILE).is_file():
            return folder
    if (path / STAGING).is_dir():
        raise DataError(f"{path}: the build is not finished; repeat the command of `records build` to continue it")
    raise DataError(
        f"{path}: no records here (expected {NAME}/{VERSION}/{INFO_FILE}); build them with selfpab-jax records build"
    )


# The files beside the shards.


def index_file(split: str) -> str:
    """Name of a split's index: one row per record, with subject, recording and start."""
    return f"index_{split}.parquet"


def statistics_file(kind: str, scale: str = "linear") -> str:
    """Name of the file of statistics of a kind, of magnitudes on a scale."""
    return f"statistics_{kind}.npz" if scale == "linear" else f"statistics_{kind}_{scale}.npz"


def skipped_file(folder: Path) -> Path:
    """The list of files that were skipped, also of records that version 0.1 wrote."""
    old = folder / SKIPPED_FILE_0_1
    return old if old.is_file() else folder / SKIPPED_FILE


def fingerprint(path: Path) -> str:
    """Hash of a shard's size, beginning and end: cheap to check, and different for every shard."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(str(size).encode() + file.read(FINGERPRINT_BYTES))
        file.seek(max(0, size - FINGERPRINT_BYTES))
        digest.update(file.read())
    return digest.hexdigest()[:32]


def first_windows(
    subject: Shaped[np.ndarray, " R"],
    recording: Shaped[np.ndarray, " R"],
    start_ms: Int64[np.ndarray, " R"],
    shift_seconds: float,
) -> Bool[np.ndarray, " R"]:
    """Which windows are the first of a continuous segment, in an index of version 0.1, which does not hold it.

    Segments of one file have different names. Two files of one name (in two folders, or CSV beside Parquet) differ in
    time, where it is known.

    Args:
        subject, recording: names of each window, in the order of the build.
        start_ms: ms since 1970, -1 where unknown.
        shift_seconds: from one window to the next. All are whole windows.
    """
    follows = (subject[1:] == subject[:-1]) & (recording[1:] == recording[:-1])
    late_ms = np.abs(np.diff(start_ms) - 1000 * shift_seconds)
    follows &= ((start_ms[1:] < 0) & (start_ms[:-1] < 0)) | (late_ms <= ROUNDING_MS)
    return np.concatenate([np.ones(min(len(subject), 1), bool), ~follows])
