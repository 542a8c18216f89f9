"""Shards of records: each is written by one worker, from its own recordings alone."""

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from selfpab_jax.data.har.base import LabeledRecordsSource
from selfpab_jax.data.records.format import VALID_FRAMES, WRITER_OPTIONS, fingerprint, frame_labels, record_features
from selfpab_jax.data.records.spec import BuildSpec, RecordSettings, Shard, shard_files
from selfpab_jax.data.records.usage import USAGE, SegmentUsage, segment_usage
from selfpab_jax.data.records.windows import Window, from_hour, signal_windows
from selfpab_jax.data.sources.base import SourceFile, UnusableError, milliseconds
from selfpab_jax.data.sources.blocks import SignalBlock
from selfpab_jax.data.sources.pairing import shown_path
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.streaming import resample_blocks
from selfpab_jax.data.tables.recordings import Tables
from selfpab_jax.errors import DataError
from selfpab_jax.io import atomic_path
from selfpab_jax.signal.normalization import UNKNOWN_HOUR, Moments
from selfpab_jax.signal.stft import spectrogram

INDEX = pa.schema(
    {
        "subject": pa.string(),
        "recording": pa.string(),
        "start_ms": pa.int64(),
        "begins": pa.bool_(),
        "new_samples": pa.int64(),
        "frames": pa.int32(),
    }
)
"""Columns of the index: whether a record is the first of its segment, the samples that it adds to those before it, and
its valid frames."""

HELD_BYTES = 2**23
"""Records of a file that wait in memory for its end; more wait on the disk."""

CountWork = Callable[[int, int, int], None]
"""Called with the work done since the last call: files, samples in records, and files skipped."""


@dataclass
class ShardResult:
    """What is stored beside a finished shard.

    Attributes:
        records, bytes, fingerprint: of the shard.
        moments: sums for the statistics.
        index: columns of the index, one row per record.
        skipped: files that could not be used, and why.
        usage: columns of `USAGE`, one row per file that was read.
        skipped_seconds: in the files that could not be read, an estimate.
        reports: of the files, from `FileReport`, with spans.
    """

    records: int
    bytes: int
    fingerprint: str
    moments: Moments
    index: dict[str, list]
    skipped: list[dict[str, str]]
    usage: dict[str, list] = field(default_factory=lambda: {name: [] for name in USAGE.names})
    skipped_seconds: float = 0.0
    reports: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def empty(cls, spec: BuildSpec) -> "ShardResult":
        """Of a shard that is still to be filled."""
        return cls(0, 0, "", Moments.empty(spec.features), {name: [] for name in INDEX.names}, [])


# One shard from its recordings: a pure function of the specification, run by any worker.


def shard_path(folder: Path, shard: Shard) -> Path:
    """Where the records of a shard are staged."""
    return folder / f"{shard.number:05d}.array_record"


def result_path(folder: Path, shard: Shard) -> Path:
    """The file of a shard's result; a shard is finished when it exists."""
    return folder / f"{shard.number:05d}.npz"


def build_shard(
    spec: BuildSpec, folder: Path, shard: Shard, strict: bool = False, count: CountWork | None = None
) -> int:
    """Read the recordings of a shard and write its records, then its result, each by an atomic rename.

    Args:
        spec: of the build, as in the plan of the folder.
        folder: the staging folder, seen by all workers.
        shard: which one.
        strict: stop at the first file that would be skipped.
        count: called after each window and each file.

    Returns:
        The shard's number.

    Raises:
        DataError: strict, and a file cannot be used.
        StorageError: the disk is full, or the folder cannot be written.
    """
    result, encode = ShardResult.empty(spec), _encoder(spec)
    with atomic_path(shard_path(folder, shard)) as temporary:
        with _record_writer(temporary) as write:
            for file in shard_files(folder, shard):
                names = {"file": shown_path(file.path), "subject": file.subject, "split": shard.split}
                report, lengths, before = FileReport(file.path, file.subject, strict), [], []
                samples = counted = 0
                try:
                    with tempfile.SpooledTemporaryFile(HELD_BYTES, dir=str(folder)) as held:
                        sizes, rows, moments = [], [], copy.deepcopy(result.moments)
                        blocks = read_blocks(spec, file, report)
                        if spec.records.start_hour is not None:
                            blocks = from_hour(blocks, spec.records.start_hour, before.append)
                        for window in signal_windows(blocks, spec.records.windowing, lengths.append):
                            record = encode(to_example(spec, file.subject, window, moments))
                            held.write(record)
                            sizes.append(len(record))
                            rows.append(_index_row(spec, file.subject, window))
                            if count is not None:
                                counted += window.new_samples
                                count(0, window.new_samples, 0)
                        used = segment_usage(lengths, spec.records.spectrogram.rate_hz, spec.records.windowing)
                        before_s = sum(before) / spec.records.spectrogram.rate_hz
                        used = replace(used, before=before_s, recorded=used.recorded + before_s)
                        _append(result.usage, names | asdict(used))
                        _check_used(used, lengths, spec.records)
                        # Only now that the whole file has turned out to be usable.
                        held.seek(0)
                        for size, row in zip(sizes, rows, strict=True):
                            write(held.read(size))
                            _append(result.index, row)
                            samples += row["new_samples"]
                        result.moments = moments
                except UnusableError as reason:
                    if strict:
                        raise DataError(f"{shown_path(file.path)}: {reason} (--strict)") from None
                    result.skipped.append(names | {"reason": str(reason)})
                    report.notes.append(f"skipped: {reason}")
                    result.skipped_seconds += 0 if lengths else _estimated_seconds(spec, file)
                if report.in_s or report.notes:
                    result.reports.append(report.as_json() | {"spans": report.spans})
                if count is not None:
                    count(1, samples - counted, int(not samples))
        result.bytes, result.fingerprint = temporary.stat().st_size, fingerprint(temporary)
    result.records = len(result.index["subject"])
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


def read_blocks(spec: BuildSpec, file: SourceFile, report: FileReport) -> Iterator[SignalBlock]:
    """The continuous segments of a file at the records' rate, in blocks.

    Args:
        spec: of the build.
        file: of its source.
        report: gets what is cut, bridged and doubted, as far as the source tells.

    Raises:
        UnusableError: the file cannot be used; possibly after some blocks.
    """
    source = spec.source
    if isinstance(source, Tables):
        blocks = source.blocks(file, report)
    else:
        recordings = source.read(file, report) if isinstance(source, LabeledRecordsSource) else source.read(file)
        blocks = (
            SignalBlock(each.name, each.start, True, each.rate_hz, each.signal_NxC, each.labels_N)
            for each in recordings
        )
    return resample_blocks(blocks, spec.records.spectrogram.rate_hz)


def _encoder(spec: BuildSpec) -> Callable[[dict[str, Any]], bytes]:
    """From an example to the bytes of its record."""
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = record_features(spec.records.frames, spec.features, spec.has_labels, spec.records.may_be_padded)
    serializer = ExampleSerializer(features.get_serialized_info())  # type: ignore[arg-type]
    # Without `deterministic`, the order of a map would depend on the process's hash seed.
    return lambda example: serializer.get_tf_example(features.encode_example(example)).SerializeToString(
        deterministic=True
    )


def _check_used(usage: SegmentUsage, lengths: list[int], settings: RecordSettings) -> None:
    if usage.used:
        return
    rate_hz = settings.spectrogram.rate_hz
    shortest = min(settings.window_samples, settings.shortest_samples or settings.window_samples)
    raise UnusableError(
        f"too short: its longest continuous segment is {max(lengths, default=0) / rate_hz:.4g} s, "
        f"{shortest / rate_hz:g} s are needed"
    )


def _index_row(spec: BuildSpec, subject: str, window: Window) -> dict[str, Any]:
    return {
        "subject": subject,
        "recording": window.recording,
        "start_ms": milliseconds(window.start),
        "begins": window.begins,
        "new_samples": window.new_samples,
        "frames": spec.records.spectrogram.frame_count(len(window.signal_NxC)),
    }


def _append(columns: dict[str, list], row: dict) -> None:
    for name, value in row.items():
        columns[name].append(value)


def _estimated_seconds(spec: BuildSpec, file: SourceFile) -> float:
    """Of a file that cannot be read; 0 where its source does not give a rate."""
    rate_hz = getattr(spec.source, "rate_hz", None)
    return file.samples / rate_hz if rate_hz else 0.0


def to_example(spec: BuildSpec, subject: str, window: Window, moments: Moments) -> dict:
    """The window as a record; frames beyond a short window are 0, and their labels -1.

    Its spectrogram is added to the moments before it is rounded to float16. A window that is moved back counts there as
    the part of a window that its new frames are, a short one as the part that its valid frames are.

    Args:
        spec: of the build.
        subject: whose recording it is.
        window: the window.
        moments: to add to, in place.
    """
    settings = spec.records
    valid_TxX = spectrogram(window.signal_NxC, settings.spectrogram)
    is_moved = window.new_samples < min(settings.shift_samples, len(window.signal_NxC))
    new = settings.spectrogram.frame_count(window.new_samples) if is_moved else len(valid_TxX)
    hour = UNKNOWN_HOUR if window.start is None else window.start.hour
    moments.add(valid_TxX, hour, share=new / settings.frames, new=new)
    padding = settings.frames - len(valid_TxX)
    example = {
        "spectrogram": np.pad(valid_TxX.astype(np.float16), ((0, padding), (0, 0))),
        "subject": subject,
        "recording": window.recording,
        "start": milliseconds(window.start),
        "source": spec.source.name,
    }
    if settings.may_be_padded:
        example[VALID_FRAMES] = len(valid_TxX)
    if window.labels_N is not None:
        labels_T = frame_labels(window.labels_N, settings.spectrogram)
        example["labels"] = np.pad(labels_T, (0, padding), constant_values=-1)
    return example


def _write_result(result: ShardResult, path: Path) -> None:
    about = {name: value for name, value in vars(result).items() if name != "moments"}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **result.moments.to_arrays())  # type: ignore[arg-type]


def read_result(path: Path) -> ShardResult:
    """The result that `build_shard` wrote beside a shard."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(arrays.pop("about").tobytes())
    if "rejected" in about:  # an unfinished build of version 0.1
        about["skipped"] = about.pop("rejected")
    arrays["windows"] = arrays["windows"].astype(np.float64)  # whole numbers in version 0.1
    return ShardResult(moments=Moments(**arrays), **about)
