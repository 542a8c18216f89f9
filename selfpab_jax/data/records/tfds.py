"""Spectrogram records as a TensorFlow Datasets builder: ArrayRecord, no TensorFlow."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from selfpab_jax.data.records.format import record_features
from selfpab_jax.data.records.merge import merge_results
from selfpab_jax.data.records.shards import shard_path
from selfpab_jax.data.records.spec import BuildSpec, Shard, read_shards

BuildShards = Callable[[BuildSpec, Path, list[Shard]], None]
"""Builds the shards that are not finished: worker processes of this machine, or a Beam pipeline."""


class Spectrograms(FileReaderBuilder):
    """One record per window; the caller's function builds the shards, and their results are merged here.

    Attributes:
        spec: what is built.
        staging: folder with the plan's files and the shards that are finished; it outlives a killed build.
        build_shards: builds the missing shards.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, data_dir: str, spec: BuildSpec, staging: Path, build_shards: BuildShards) -> None:
        self.spec, self.staging, self.build_shards = spec, staging, build_shards
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Spectrograms of {', '.join(self.spec.source.channels)}, one window per record.",
            features=record_features(
                self.spec.records.frames, self.spec.features, self.spec.has_labels, self.spec.records.may_be_padded
            ),
            disable_shuffling=True,
        )

    def _download_and_prepare(self, dl_manager: object, download_config: object = None) -> None:
        del dl_manager, download_config
        shards = read_shards(self.staging)
        self.build_shards(self.spec, self.staging, shards)
        folder = Path(self.data_dir)
        splits = []
        for name, files in merge_results(self.spec, self.staging, shards, folder).items():
            for shard, file in files:
                _link(shard_path(self.staging, shard), folder / file.file)
            splits.append(
                tfds.core.SplitInfo(
                    name=name,
                    shard_lengths=[file.records for _, file in files],
                    num_bytes=sum(file.bytes for _, file in files),
                    filename_template=tfds.core.ShardedFileTemplate(
                        data_dir=self.data_path, dataset_name=self.name, split=name, filetype_suffix="array_record"
                    ),
                )
            )
        self.info.set_splits(tfds.core.SplitDict(splits))


def _link(source: Path, target: Path) -> None:
    # Linked rather than moved: a build killed before the folder is complete still finds its shards staged.
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
