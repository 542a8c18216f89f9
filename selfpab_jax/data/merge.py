"""The results of all shards put together: index, statistics, files set aside, and what `records.json` says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from selfpab_jax.data.plan import Plan, Shard
from selfpab_jax.data.records_info import (
    NAME,
    REJECTED_FILE,
    RecordsInfo,
    ShardFile,
    SplitSize,
    write_info,
)
from selfpab_jax.data.shards import ShardResult, read_result, result_path
from selfpab_jax.data.source import sensors_of
from selfpab_jax.data.splits import SPLITS
from selfpab_jax.data.stretches import first_windows
from selfpab_jax.errors import DataError
from selfpab_jax.signal.statistics import Moments, hour_weighted_statistics, merge, plain_statistics

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
