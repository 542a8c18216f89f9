"""Shards of records: each is written by one worker; then their results are merged."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from selfpab_jax.data.records.format import (
    NAME,
    SKIPPED_FILE,
    WRITER_OPTIONS,
    RecordsInfo,
    ShardFile,
    SplitSize,
    fingerprint,
    first_windows,
    frame_labels,
    index_file,
    record_features,
    statistics_file,
    write_info,
)
from selfpab_jax.data.records.spec import BuildSpec, Shard, shard_files
from selfpab_jax.data.sources.base import (
    Recording,
    SourceFile,
    UnusableError,
    Window,
    milliseconds,
    resample_recording,
    sensors_of,
    windows,
)
from selfpab_jax.data.splits import SPLITS
from selfpab_jax.errors import DataError
from selfpab_jax.io import atomic_path
from selfpab_jax.signal.normalization import UNKNOWN_HOUR, Moments, hour_weighted_statistics, merge, plain_statistics
from selfpab_jax.signal.stft import spectrogram

INDEX = pa.schema({"subject": pa.string(), "recording": pa.string(), "start_ms": pa.int64()})

CountFile = Callable[[int, int], None]
"""Called after each file with the number of windows written and of files skipped (0 or 1)."""
ShardsBySplit = dict[str, list[tuple[Shard, ShardFile]]]
"""The shards that hold records, by split."""


class NothingUsableError(DataError):
    """All training files of a build were skipped."""


@dataclass(frozen=True)
class ShardResult:
    """What is stored beside a finished shard.

    Attributes:
        records, bytes, fingerprint: of the shard.
        moments: sums for the statistics.
        index: columns of the index, one row per record.
        skipped: files that could not be used, and why.
    """

    records: int
    bytes: int
    fingerprint: str
    moments: Moments
    index: dict[str, list]
    skipped: list[dict[str, str]]


# One shard from its recordings: a pure function of the specification, run by any worker.


def shard_path(folder: Path, shard: Shard) -> Path:
    """Where the records of a shard are staged."""
    return folder / f"{shard.number:05d}.array_record"


def result_path(folder: Path, shard: Shard) -> Path:
    """The file of a shard's result; a shard is finished when it exists."""
    return folder / f"{shard.number:05d}.npz"


def build_shard(
    spec: BuildSpec, folder: Path, shard: Shard, strict: bool = False, count: CountFile | None = None
) -> int:
    """Read the recordings of a shard and write its records, then its result, each by an atomic rename.

    Args:
        spec: of the build, as in the plan of the folder.
        folder: the staging folder, seen by all workers.
        shard: which one.
        strict: stop at the first file that would be skipped.
        count: called after each file.

    Returns:
        The shard's number.

    Raises:
        DataError: strict, and a file cannot be used.
        StorageError: the disk is full, or the folder cannot be written.
    """
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = record_features(spec.records.frames, spec.features, spec.has_labels)
    serializer = ExampleSerializer(features.get_serialized_info())  # type: ignore[arg-type]
    moments = Moments.empty(spec.features)
    index: dict[str, list] = {"subject": [], "recording": [], "start_ms": []}
    skipped: list[dict[str, str]] = []
    with atomic_path(shard_path(folder, shard)) as temporary:
        with _record_writer(temporary) as write:
            for file in shard_files(folder, shard):
                written = 0
                try:
                    for recording, window in file_windows(spec, file):
                        example = to_example(spec, recording, window, moments)
                        record = serializer.get_tf_example(features.encode_example(example))
                        # Without `deterministic`, the order of a map would depend on the process's hash seed.
                        write(record.SerializeToString(deterministic=True))
                        index["subject"].append(file.subject)
                        index["recording"].append(recording.name)
                        index["start_ms"].append(example["start"])
                        written += 1
                except UnusableError as reason:
                    if strict:
                        raise DataError(f"{file.path}: {reason} (--strict)") from None
                    about = {"file": file.path, "subject": file.subject, "split": shard.split, "reason": str(reason)}
                    skipped.append(about)
                if count is not None:
                    count(written, int(not written))
        size, digest = temporary.stat().st_size, fingerprint(temporary)
    result = ShardResult(len(index["subject"]), size, digest, moments, index, skipped)
    _write_result(result, result_path(folder, shard))
    return shard.number


@contextmanager
def _record_writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Write records; a full disk is an OSError as with any file (ArrayRecord raises a RuntimeError)."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    try:
        yield writer.write
        writer.close()
    except RuntimeError as error:
        raise OSError(f"writing {path}: {error}") from error


def file_windows(spec: BuildSpec, file: SourceFile) -> Iterator[tuple[Recording, Window]]:
    """The windows of a file at the records' rate; all checks are done before the first.

    Raises:
        UnusableError: the file cannot be used, or no segment of it is as long as a window.
    """
    settings = spec.records
    recordings = [resample_recording(recording, settings.spectrogram.rate_hz) for recording in spec.source.read(file)]
    longest = max(len(recording.signal_NxC) for recording in recordings)
    if longest < settings.window_samples:
        raise UnusableError(
            f"too short: its longest continuous segment is {longest / settings.spectrogram.rate_hz:.4g} s, "
            f"a window {settings.window_seconds:g} s"
        )
    for recording in recordings:
        for window in windows(recording, settings.window_samples, settings.shift_samples):
            yield recording, window


def to_example(spec: BuildSpec, recording: Recording, window: Window, moments: Moments) -> dict:
    """The window as a record; its spectrogram is added to the moments before it is rounded to float16.

    Args:
        spec: of the build.
        recording: that the window is of.
        window: the window.
        moments: to add to, in place.
    """
    settings = spec.records.spectrogram
    spectrogram_TxX = spectrogram(window.signal_NxC, settings)
    moments.add(spectrogram_TxX, UNKNOWN_HOUR if window.start is None else window.start.hour)
    example = {
        "spectrogram": spectrogram_TxX.astype(np.float16),
        "subject": recording.subject,
        "recording": recording.name,
        "start": milliseconds(window.start),
        "source": spec.source.name,
    }
    if window.labels_N is not None:
        example["labels"] = frame_labels(window.labels_N, settings)
    return example


def _write_result(result: ShardResult, path: Path) -> None:
    about = {name: getattr(result, name) for name in ("records", "bytes", "fingerprint", "index", "skipped")}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **result.moments.to_arrays())  # type: ignore[arg-type]


def read_result(path: Path) -> ShardResult:
    """The result that `build_shard` wrote beside a shard."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(arrays.pop("about").tobytes())
    if "rejected" in about:  # an unfinished build of version 0.1
        about["skipped"] = about.pop("rejected")
    return ShardResult(moments=Moments(**arrays), **about)


# The results of all shards merged: index, statistics, skipped files, and `records.json`.


def merge_results(spec: BuildSpec, staging: Path, shards: list[Shard], folder: Path) -> ShardsBySplit:
    """Write everything but the shards into the data set's folder, reading the results one by one, in order.

    Args:
        spec: of the build.
        staging: folder of the finished shards and their results.
        shards: all shards.
        folder: the data set's folder.

    Returns:
        The shards that hold records, by split, with their final names.

    Raises:
        NothingUsableError: there is no training record at all.
    """
    by_split: ShardsBySplit = {}
    sizes: dict[str, SplitSize] = {}
    skipped = 0
    with open(folder / SKIPPED_FILE, "w") as skipped_lines:
        for split in SPLITS:
            of_split = [shard for shard in shards if shard.split == split]
            moments, subjects, files, segments = Moments.empty(spec.features), set(), [], 0
            with pyarrow.parquet.ParquetWriter(folder / index_file(split), INDEX) as index:
                for shard in of_split:
                    result = read_result(result_path(staging, shard))
                    moments = merge([moments, result.moments], spec.features)
                    subjects.update(result.index["subject"])
                    skipped_lines.writelines(json.dumps(each) + "\n" for each in result.skipped)
                    skipped += len(result.skipped)
                    if result.records:
                        index.write_table(pa.table(result.index, INDEX))
                        segments += _segment_count(spec, result)
                        files.append((shard, _shard_file(result, split)))
            if files:
                by_split[split] = _numbered(files, split)
                records = sum(file.records for _, file in files)
                seconds = segments * spec.records.window_seconds + (records - segments) * spec.records.new_seconds
                sizes[split] = SplitSize(records, seconds / 3600, len(subjects))
                _write_moments(moments, folder / f"moments_{split}.npz")
            else:
                (folder / index_file(split)).unlink()
            if split == "train":
                if not files:
                    raise NothingUsableError(f"no usable recording for training: {_reason(staging, of_split)}")
                for statistics in (plain_statistics(moments), hour_weighted_statistics(moments)):
                    statistics.save(folder / statistics_file(statistics.kind))
    write_info(_info(spec, sizes, by_split, sum(shard.files for shard in shards), skipped), folder)
    return by_split


def _segment_count(spec: BuildSpec, result: ShardResult) -> int:
    subject, recording, start_ms = (np.array(result.index[name]) for name in INDEX.names)
    return int(first_windows(subject, recording, start_ms, spec.records.shift_seconds).sum())


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


def _reason(staging: Path, shards: list[Shard]) -> str:
    skipped = [each for shard in shards for each in read_result(result_path(staging, shard)).skipped]
    if not skipped:
        return "there are no files"
    first = skipped[0]
    return f"all {len(skipped)} files drawn for training were skipped, the first ({first['file']}): {first['reason']}"


def _info(
    spec: BuildSpec, sizes: dict[str, SplitSize], by_split: ShardsBySplit, files: int, skipped: int
) -> RecordsInfo:
    return RecordsInfo(
        settings=spec.records.spectrogram,
        window_samples=spec.records.window_samples,
        shift_samples=spec.records.shift_samples,
        channels=spec.source.channels,
        sensors=sensors_of(spec.source.channels),
        frames=spec.records.frames,
        features=spec.features,
        labels=spec.has_labels,
        source=spec.source.name,
        options=spec.options(),
        files=files,
        skipped=skipped,
        splits=sizes,
        shards=tuple(file for split in by_split.values() for _, file in split),
    )
