"""The results of all shards merged: index, statistics, usage, skipped files, and `records.json`."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from selfpab_jax.data.quality import write_quality
from selfpab_jax.data.records.format import (
    NAME,
    QUALITY_FOLDER,
    SKIPPED_FILE,
    RecordsInfo,
    ShardFile,
    SplitSize,
    first_windows,
    index_file,
    statistics_file,
    write_info,
)
from selfpab_jax.data.records.shards import INDEX, ShardResult, read_result, result_path
from selfpab_jax.data.records.spec import BuildSpec, RecordSettings, Shard
from selfpab_jax.data.records.usage import USAGE, USAGE_FILE, SegmentUsage, total_usage
from selfpab_jax.data.sources.base import sensors_of
from selfpab_jax.data.splits import SPLITS
from selfpab_jax.errors import DataError
from selfpab_jax.io import write_text
from selfpab_jax.signal.normalization import Moments, hour_weighted_statistics, merge, plain_statistics

FILES_NAMED = 3
"""Skipped files that an error names; a file lists all."""
ShardsBySplit = dict[str, list[tuple[Shard, ShardFile]]]
"""The shards that hold records, by split."""


class NothingUsableError(DataError):
    """All files of a split were skipped."""


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
        NothingUsableError: there is no record for training, or for a split that was asked for.
    """
    by_split: ShardsBySplit = {}
    sizes: dict[str, SplitSize] = {}
    skipped, skipped_seconds, usage, is_whole = 0, 0.0, SegmentUsage(), True
    reports: list[dict[str, Any]] = []
    with (
        open(folder / SKIPPED_FILE, "w") as skipped_lines,
        pyarrow.parquet.ParquetWriter(folder / USAGE_FILE, USAGE) as usage_rows,
    ):
        for split in SPLITS:
            of_split = [shard for shard in shards if shard.split == split]
            moments, subjects, files, size = Moments.empty(spec.features), set(), [], SplitSize(0, 0.0, 0)
            with pyarrow.parquet.ParquetWriter(folder / index_file(split), INDEX) as index:
                for shard in of_split:
                    result = _completed(read_result(result_path(staging, shard)), spec.records)
                    moments = merge([moments, result.moments], spec.features)
                    subjects.update(result.index["subject"])
                    skipped_lines.writelines(json.dumps(each) + "\n" for each in result.skipped)
                    skipped += len(result.skipped)
                    reports += result.reports
                    skipped_seconds += result.skipped_seconds
                    usage_rows.write_table(pa.table(result.usage, USAGE))
                    usage = total_usage([usage, _summed(result.usage)])
                    is_whole &= not result.records or len(result.usage["file"]) > 0
                    if result.records:
                        index.write_table(pa.table(result.index, INDEX))
                        size = _grown(size, result, spec.records)
                        files.append((shard, _shard_file(result, split)))
            if files:
                by_split[split] = _numbered(files, split)
                sizes[split] = replace(size, subjects=len(subjects), padding=size.padding / size.records)
                _write_moments(moments, folder / f"moments_{split}.npz")
            else:
                (folder / index_file(split)).unlink()
            if not files and (of_split or split == "train"):
                without = (
                    "" if split == "train" else f"; leave the split out (--{split} 0), or draw other subjects (--seed)"
                )
                raise NothingUsableError(f"no usable recording for {split}: {_reason(staging, of_split)}{without}")
            if split == "train":
                for statistics in (plain_statistics(moments), hour_weighted_statistics(moments)):
                    statistics.save(folder / statistics_file(statistics.kind))
    if reports:
        write_quality(reports, folder / QUALITY_FOLDER, "Recordings in these records")
    info = _info(spec, sizes, by_split, sum(shard.files for shard in shards), skipped)
    hours = usage.scaled(1 / 3600) if is_whole else None  # shards of version 0.1 do not know
    write_info(replace(info, usage=hours, skipped_hours=skipped_seconds / 3600), folder)
    return by_split


def _completed(result: ShardResult, settings: RecordSettings) -> ShardResult:
    """With the columns of the index that an unfinished build of version 0.1 did not write: all windows are whole."""
    index = result.index
    if "begins" in index:
        return result
    subject, recording, start_ms = (np.array(index[name]) for name in ("subject", "recording", "start_ms"))
    begins = first_windows(subject, recording, start_ms, settings.shift_seconds)
    new_samples = np.where(begins, settings.window_samples, min(settings.window_samples, settings.shift_samples))
    more = {"begins": begins, "new_samples": new_samples, "frames": np.full(len(begins), settings.frames)}
    return replace(result, index=index | {name: column.tolist() for name, column in more.items()})


def _grown(size: SplitSize, result: ShardResult, settings: RecordSettings) -> SplitSize:
    """The size with a shard's records; its `padding` counts whole records until all are known."""
    hours_R = np.array(result.index["new_samples"]) / settings.spectrogram.rate_hz / 3600
    frames_R = np.array(result.index["frames"])
    is_padded_R = frames_R < settings.frames
    return SplitSize(
        records=size.records + result.records,
        hours=size.hours + float(hours_R.sum()),
        subjects=0,
        padded=size.padded + int(is_padded_R.sum()),
        padded_hours=size.padded_hours + float(hours_R[is_padded_R].sum()),
        padding=size.padding + float((1 - frames_R / settings.frames).sum()),
    )


def _summed(columns: dict[str, list]) -> SegmentUsage:
    return SegmentUsage(**{field.name: math.fsum(columns[field.name]) for field in fields(SegmentUsage)})


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
    listed = "; ".join(f"{each['file']}: {each['reason']}" for each in skipped[:FILES_NAMED])
    more = f"; and {len(skipped) - FILES_NAMED} more" if len(skipped) > FILES_NAMED else ""
    return f"all {len(skipped)} files drawn for it were skipped: {listed}{more}"


def write_failure(staging: Path, shards: list[Shard], folder: Path) -> list[Path]:
    """Write what became of each file where no records could be made of them.

    Args:
        staging: folder of the finished shards' results.
        shards: all shards.
        folder: to write into.

    Returns:
        The list of skipped files, and the quality report where readers gave reports.

    Raises:
        StorageError: it cannot be written.
    """
    results = [read_result(result_path(staging, shard)) for shard in shards]
    skipped, reports = (
        [each for result in results for each in getattr(result, name)] for name in ("skipped", "reports")
    )
    write_text(folder / SKIPPED_FILE, "".join(json.dumps(each) + "\n" for each in skipped))
    pages = [write_quality(reports, folder, "Recordings of which no records could be built")] if reports else []
    return [folder / SKIPPED_FILE, *pages]


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
