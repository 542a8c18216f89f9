"""Shards of records: written one by one, then put together."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from selfpab_jax.data.records.format import (
    NAME,
    REJECTED_FILE,
    WRITER_OPTIONS,
    RecordsInfo,
    ShardFile,
    SplitSize,
    frame_labels,
    record_features,
    write_info,
)
from selfpab_jax.data.records.spec import Plan, RecordSettings, Shard, shard_files
from selfpab_jax.data.sources.base import (
    Recording,
    SourceFile,
    UnusableError,
    Window,
    at_rate,
    milliseconds,
    sensors_of,
    windows,
)
from selfpab_jax.data.sources.segments import first_windows
from selfpab_jax.data.splits import SPLITS
from selfpab_jax.errors import DataError
from selfpab_jax.signal.normalization import UNKNOWN_HOUR, Moments, hour_weighted_statistics, merge, plain_statistics
from selfpab_jax.signal.stft import spectrogram

# One shard of records from its recordings: a pure function of the plan, run by any worker.

FINGERPRINT_BYTES = 32768

Count = Callable[[int, int], None]
"""Told of every file: windows written, files set aside (0 or 1)."""


@dataclass(frozen=True)
class ShardResult:
    """What lies beside a finished shard: size and fingerprint, moments, an index row a record, the files set aside."""

    records: int
    bytes: int
    fingerprint: str
    moments: Moments
    index: dict[str, list]
    rejected: list[dict[str, str]]


def shard_path(folder: Path, shard: Shard) -> Path:
    """Where the records of a shard are staged."""
    return folder / f"{shard.number:05d}.array_record"


def result_path(folder: Path, shard: Shard) -> Path:
    """Where a shard's result lies; a shard is finished when this file is there."""
    return folder / f"{shard.number:05d}.npz"


def build_shard(plan: Plan, folder: Path, shard: Shard, strict: bool = False, count: Count | None = None) -> int:
    """Reads the recordings of a shard and writes its records, then its result, each by an atomic rename.

    Args:
        plan: of the build, as written to the folder.
        folder: the staging folder, seen by all workers.
        shard: which.
        strict: stop at the first file that would be set aside.
        count: told of every file.

    Returns:
        The shard's number.

    Raises:
        DataError: strict, and a file was to be set aside.
        OSError: the disk is full, or the folder cannot be written.
    """
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = record_features(plan.records.frames, plan.features, plan.has_labels)
    serializer = ExampleSerializer(features.get_serialized_info())  # type: ignore[arg-type]
    moments = Moments.empty(plan.features)
    index: dict[str, list] = {"subject": [], "recording": [], "start_ms": []}
    rejected: list[dict[str, str]] = []
    partial = folder / f"{shard.number:05d}.{os.getpid()}.part"
    with _record_writer(partial) as write:
        for file in shard_files(folder, shard):
            written = 0
            try:
                for recording, window in file_windows(plan, file):
                    example = to_example(plan, recording, window, moments)
                    record = serializer.get_tf_example(features.encode_example(example))
                    # Protocol buffers order maps by a process's hash seed unless told not to.
                    write(record.SerializeToString(deterministic=True))
                    index["subject"].append(file.subject)
                    index["recording"].append(recording.name)
                    index["start_ms"].append(example["start"])
                    written += 1
            except UnusableError as reason:
                if strict:
                    raise DataError(f"{file.path}: {reason} (--strict)") from None
                about = {"file": file.path, "subject": file.subject, "split": shard.split, "reason": str(reason)}
                rejected.append(about)
            if count is not None:
                count(written, int(not written))
    result = ShardResult(len(index["subject"]), partial.stat().st_size, fingerprint(partial), moments, index, rejected)
    partial.rename(shard_path(folder, shard))
    _write_result(result, result_path(folder, shard))
    return shard.number


@contextmanager
def _record_writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Writes records, and tells of a full disk as any file would (ArrayRecord raises a RuntimeError)."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    try:
        yield writer.write
        writer.close()
    except RuntimeError as error:
        raise OSError(f"writing {path}: {error}") from error


def file_windows(plan: Plan, file: SourceFile) -> Iterator[tuple[Recording, Window]]:
    """The windows of a file at the plan's rate; all checks are done before the first.

    Raises:
        UnusableError: by a check, or no stretch of it is as long as a window.
    """
    settings: RecordSettings = plan.records
    recordings = [at_rate(recording, settings.spectrogram.rate_hz) for recording in plan.source.read(file)]
    longest = max(len(recording.signal_NxC) for recording in recordings)
    if longest < settings.window_samples:
        raise UnusableError(
            f"too short: its longest continuous stretch is {longest / settings.spectrogram.rate_hz:.4g} s, "
            f"a window {settings.window_seconds:g} s"
        )
    for recording in recordings:
        for window in windows(recording, settings.window_samples, settings.shift_samples):
            yield recording, window


def to_example(plan: Plan, recording: Recording, window: Window, moments: Moments) -> dict:
    """The window as a record, its spectrogram counted in the moments before it is rounded to float16."""
    settings = plan.records.spectrogram
    spectrogram_TxX = spectrogram(window.signal_NxC, settings)
    moments.add(spectrogram_TxX, UNKNOWN_HOUR if window.start is None else window.start.hour)
    example = {
        "spectrogram": spectrogram_TxX.astype(np.float16),
        "subject": recording.subject,
        "recording": recording.name,
        "start": milliseconds(window.start),
        "source": plan.source.name,
    }
    if window.labels_N is not None:
        example["labels"] = frame_labels(window.labels_N, settings)
    return example


def fingerprint(path: Path) -> str:
    """A hash of a shard's size, beginning and end: cheap to check, and no two shards share it."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(str(size).encode() + file.read(FINGERPRINT_BYTES))
        file.seek(max(0, size - FINGERPRINT_BYTES))
        digest.update(file.read())
    return digest.hexdigest()[:32]


def _write_result(result: ShardResult, path: Path) -> None:
    about = {name: getattr(result, name) for name in ("records", "bytes", "fingerprint", "index", "rejected")}
    partial = path.with_suffix(f".{os.getpid()}.part")
    with open(partial, "wb") as file:
        np.savez(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **result.moments.to_arrays())  # type: ignore[arg-type]
    partial.rename(path)


def read_result(path: Path) -> ShardResult:
    """What `build_shard` wrote beside a shard."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(arrays.pop("about").tobytes())
    return ShardResult(moments=Moments(**arrays), **about)


# The results of all shards put together: index, statistics, files set aside, and what `records.json` says.

INDEX = pa.schema({"subject": pa.string(), "recording": pa.string(), "start_ms": pa.int64()})


class NothingUsable(DataError):
    """All training files of a build were set aside."""


def index_file(split: str) -> str:
    """Name of a split's index."""
    return f"index_{split}.parquet"


def statistics_file(kind: str) -> str:
    """Name of the statistics of a kind."""
    return f"statistics_{kind}.npz"


Kept = dict[str, list[tuple[Shard, ShardFile]]]
"""The shards that hold records, by split."""


def merge_results(plan: Plan, staging: Path, shards: list[Shard], folder: Path) -> Kept:
    """Writes all but the shards into the data set's folder, going through the results one by one, in order.

    Returns:
        The shards that hold records, by split, with their names to be.

    Raises:
        NothingUsable: no training record at all.
    """
    merged = {split: [shard for shard in shards if shard.split == split] for split in SPLITS}
    kept: Kept = {}
    sizes: dict[str, SplitSize] = {}
    rejected = 0
    with open(folder / REJECTED_FILE, "w") as rejections:
        for split, of_split in merged.items():
            moments, subjects, files, stretches = Moments.empty(plan.features), set(), [], 0
            with pyarrow.parquet.ParquetWriter(folder / index_file(split), INDEX) as index:
                for shard in of_split:
                    result = read_result(result_path(staging, shard))
                    moments = merge([moments, result.moments], plan.features)
                    subjects.update(result.index["subject"])
                    rejections.writelines(json.dumps(each) + "\n" for each in result.rejected)
                    rejected += len(result.rejected)
                    if result.records:
                        index.write_table(pa.table(result.index, INDEX))
                        stretches += _stretches(plan, result)
                        files.append((shard, _shard_file(result, split)))
            if files:
                kept[split] = _numbered(files, split)
                records = sum(file.records for _, file in files)
                seconds = stretches * plan.records.window_seconds + (records - stretches) * plan.records.new_seconds
                sizes[split] = SplitSize(records, seconds / 3600, len(subjects))
                _write_moments(moments, folder / f"moments_{split}.npz")
            else:
                (folder / index_file(split)).unlink()
            if split == "train":
                if not files:
                    raise NothingUsable(f"no usable recording for training: {_why(staging, of_split)}")
                for statistics in (plain_statistics(moments), hour_weighted_statistics(moments)):
                    statistics.save(folder / statistics_file(statistics.kind))
    write_info(_info(plan, sizes, kept, sum(shard.files for shard in shards), rejected), folder)
    return kept


def _stretches(plan: Plan, result: ShardResult) -> int:
    subject, recording, start_ms = (np.array(result.index[name]) for name in INDEX.names)
    return int(first_windows(subject, recording, start_ms, plan.records.shift_seconds).sum())


def _shard_file(result: ShardResult, split: str) -> ShardFile:
    return ShardFile("", split, result.records, result.bytes, result.fingerprint)


def _numbered(files: list[tuple[Shard, ShardFile]], split: str) -> list[tuple[Shard, ShardFile]]:
    of = len(files)
    return [
        (shard, replace(file, file=f"{NAME}-{split}.array_record-{number:05d}-of-{of:05d}"))
        for number, (shard, file) in enumerate(files)
    ]


def _write_moments(moments: Moments, path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, **moments.to_arrays())  # type: ignore[arg-type]


def _why(staging: Path, shards: list[Shard]) -> str:
    reasons = [each for shard in shards for each in read_result(result_path(staging, shard)).rejected]
    if not reasons:
        return "there are no files"
    first = reasons[0]
    return (
        f"all {len(reasons)} files drawn for training were set aside, "
        f"the first ({first['file']}) because: {first['reason']}"
    )


def _info(plan: Plan, sizes: dict[str, SplitSize], kept: Kept, files: int, rejected: int) -> RecordsInfo:
    return RecordsInfo(
        settings=plan.records.spectrogram,
        window_samples=plan.records.window_samples,
        shift_samples=plan.records.shift_samples,
        channels=plan.source.channels,
        sensors=sensors_of(plan.source.channels),
        frames=plan.records.frames,
        features=plan.features,
        labels=plan.has_labels,
        source=plan.source.name,
        options=plan.options(),
        files=files,
        rejected=rejected,
        splits=sizes,
        shards=tuple(file for split in kept.values() for _, file in split),
    )
