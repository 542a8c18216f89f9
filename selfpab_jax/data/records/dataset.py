"""Finished records, opened for training: checked, indexed, and read at random."""

import hashlib
import json
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import pyarrow.parquet
from jaxtyping import Float32, Int32, Int64, Shaped

from selfpab_jax.data.records.format import (
    RecordsInfo,
    ShardFile,
    fingerprint,
    first_windows,
    index_file,
    read_info,
    records_folder,
    skipped_file,
    statistics_file,
)
from selfpab_jax.errors import DataError
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.signal.stft import SpectrogramSettings


@dataclass(frozen=True)
class RecordIndex:
    """One row per record of a split, in the order of the records.

    Attributes:
        subject, recording: names.
        start_ms: ms since 1970, -1 where unknown.
        segment: number of the continuous segment that the record is a window of; the windows of a segment follow each
            other in order.
        seconds: seconds of recording that the record adds to those before it in its segment: a whole window, then the
            shift, and for a window that is moved back what is left at the end.
        frames: valid frames, which padding follows in records of segments shorter than a window.
    """

    subject: Shaped[np.ndarray, " R"]
    recording: Shaped[np.ndarray, " R"]
    start_ms: Int64[np.ndarray, " R"]
    segment: Int64[np.ndarray, " R"]
    seconds: Float32[np.ndarray, " R"]
    frames: Int32[np.ndarray, " R"]

    def __len__(self) -> int:
        return len(self.start_ms)


@dataclass(frozen=True)
class Records:
    """Finished records of one folder; see `open_records`.

    Attributes:
        folder: with the shards.
        info: content of `records.json`.
    """

    folder: Path
    info: RecordsInfo
    _statistics: dict[str, Statistics] = field(repr=False)

    @property
    def skipped_file(self) -> Path:
        """The list of files that were skipped in the build, as JSON lines."""
        return skipped_file(self.folder)

    @property
    def fingerprint(self) -> str:
        """Identifies what training uses, in whatever folder: the train and validation shards, and the statistics.

        It is computed from files that every version wrote, so records of all versions have one. The shards' own
        fingerprints do not cover their middle; a change there changes the statistics.
        """
        shards = [[s.split, s.records, s.fingerprint] for s in self.info.shards if s.split in ("train", "validation")]
        digest = hashlib.sha256(json.dumps(shards).encode())
        for kind in sorted(self._statistics):
            digest.update(self._statistics[kind].mean.tobytes() + self._statistics[kind].std.tobytes())
        return digest.hexdigest()[:16]

    def statistics(self, kind: str = "hour_weighted") -> Statistics:
        """Mean and standard deviation of the training split: `hour_weighted` (the original's) or `plain`.

        Raises:
            DataError: there is no such kind.
        """
        if kind not in self._statistics:
            raise DataError(f"statistics {kind!r} do not exist; choose from {', '.join(self._statistics)}")
        return self._statistics[kind]

    def index(self, split: str) -> RecordIndex:
        """Subject, recording and time of every record of a split.

        Raises:
            DataError: no such split.
        """
        self._check_split(split)
        path = self.folder / index_file(split)
        try:
            table = pyarrow.parquet.read_table(path, use_threads=False)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path} cannot be read ({error}); build the records again") from None
        if table.num_rows != self.info.splits[split].records:
            raise DataError(f"{path} has {table.num_rows} rows, the split {self.info.splits[split].records} records")
        subject, recording = (np.array(table[name].to_pylist()) for name in ("subject", "recording"))
        start_ms = table["start_ms"].to_numpy()
        if "begins" in table.column_names:
            begins, frames = table["begins"].to_numpy(), table["frames"].to_numpy()
            seconds = table["new_samples"].to_numpy() / self.info.settings.rate_hz
        else:  # version 0.1
            begins = first_windows(subject, recording, start_ms, self.info.shift_samples / self.info.settings.rate_hz)
            frames = np.full(len(start_ms), self.info.frames, np.int32)
            seconds = np.where(begins, self.info.window_seconds, self.info.new_seconds)
        return RecordIndex(
            subject=subject,
            recording=recording,
            start_ms=start_ms,
            segment=np.cumsum(begins, dtype=np.int64) - 1,
            seconds=seconds.astype(np.float32),
            frames=frames,
        )

    def source(self, split: str, *, calendar: bool = False) -> "RecordSource":
        """The records of a split by position.

        Args:
            split: its name.
            calendar: batches carry the time of every frame.

        Raises:
            DataError: no such split.
        """
        self._check_split(split)
        size = self.info.splits[split]
        settings = self.info.settings if calendar else None
        return RecordSource(str(self.folder), split, size.records, padded=size.padded > 0, calendar=settings)

    def _check_split(self, split: str) -> None:
        if split not in self.info.splits:
            raise DataError(f"{self.folder}: no split {split!r}; there are {', '.join(self.info.splits)}")


@dataclass
class RecordSource:
    """Random access to the records of a split; it opens the files on first use, so that it can be pickled.

    Attributes:
        folder: with the shards.
        split: name of the split.
        records: number of its records.
        padded: whether some of them are padded.
        calendar: settings of the frames whose times batches carry, or None.
    """

    folder: str
    split: str
    records: int
    padded: bool = False
    calendar: SpectrogramSettings | None = None

    def __len__(self) -> int:
        return self.records

    def __getitem__(self, position: SupportsIndex) -> dict[str, Any]:
        """A record: `spectrogram` (T, X) float16 (read-only), `subject`, `recording`, `start`, `source`; `labels` where
        there are any, and `frames`, how many are valid, where some may be padding."""
        try:
            return self._opened[position]
        except (RuntimeError, ValueError, OSError) as error:  # what ArrayRecord raises, whatever is wrong
            raise DataError(f"{self.folder}: record {position} of {self.split} cannot be read: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _opened(self) -> Any:
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(self.folder).as_data_source(self.split)  # type: ignore[call-arg]


def open_records(path: str | Path) -> Records:
    """Open the `--out` folder of `records build`, or the versioned folder in it, and check every shard.

    Sizes, both ends of each shard and the shapes of the statistics are compared with `records.json`; no record is
    read.

    Raises:
        DataError: there are no records, a shard is missing, truncated or another one, or statistics do not fit.
    """
    folder = records_folder(Path(path))
    info = read_info(folder)
    for shard in info.shards:
        _check_shard(folder / shard.file, shard)
    statistics = {kind: Statistics.load(folder / statistics_file(kind)) for kind in ("hour_weighted", "plain")}
    for kind, each in statistics.items():
        if len(each.mean) != info.features:
            raise DataError(
                f"{folder / statistics_file(kind)}: statistics of {len(each.mean)} features do not fit "
                f"the records' {info.features}; build the records again"
            )
    return Records(folder, info, statistics)


def _check_shard(path: Path, shard: ShardFile) -> None:
    remedy = "copy it again, or build the records again with --overwrite"
    try:
        size = path.stat().st_size
        if size != shard.bytes:
            raise DataError(f"{path}: truncated or foreign shard ({size} bytes, not {shard.bytes}); {remedy}")
        if fingerprint(path) != shard.fingerprint:
            raise DataError(f"{path}: foreign shard (another data set's, or damaged); {remedy}")
    except FileNotFoundError:
        raise DataError(f"{path}: shard is missing; {remedy}") from None
    except OSError as error:
        raise DataError(f"{path}: shard cannot be read ({error.strerror}); {remedy}") from None
