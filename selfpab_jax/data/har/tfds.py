"""TFDS builders of the public data sets, in ArrayRecord and without TensorFlow; an example is a recording.

Import this module to register the builders, then use them as any other:

    import tensorflow_datasets as tfds
    import selfpab_jax.data.har.tfds

    tfds.builder("harth", data_dir="data").download_and_prepare()

On the command line: `tfds build harth --imports=selfpab_jax.data.har.tfds`.
"""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.utils import classproperty

from selfpab_jax.data.har.base import PublishedDataset
from selfpab_jax.data.har.card import DatasetCard, Download
from selfpab_jax.data.har.prepared import SPLIT, PreparedMetadata
from selfpab_jax.data.har.registry import dataset_class, public_dataset_names
from selfpab_jax.data.sources.base import UnusableError, milliseconds
from selfpab_jax.errors import DataError
from selfpab_jax.io import atomic_path


class LabeledBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders; `tfds.builder("harth", data_dir=..., sensors=("thigh",))` or `"harth/thigh"`.

    An example holds `signal` (N, C) float32 in g on HUNT4's axes (NaN where a sample is missing), `label` (N,) int32
    class index (-1: none), `subject`, `recording`, `start_ms` (milliseconds since 1970 on the recorder's clock; -1:
    unknown), `rate_hz`, and `notes` on its file. `info.metadata` holds the card, class names and skipped files.
    """

    SOURCE: ClassVar[type[PublishedDataset]]
    FILE_FORMAT: ClassVar[str] = "array_record"

    def __init__(self, *, sensors: tuple[str, ...] = (), config: Any = None, **arguments: Any) -> None:
        if isinstance(config, str):
            sensors = sensors or tuple(config.split("-"))
        self.sensors = tuple(sensors)
        # Raises for unknown sensors; TFDS itself checks the version.
        default = self.SOURCE(path="", sensors=self.sensors).card.default_sensors
        builder_config = None if self.sensors in ((), default) else tfds.core.BuilderConfig(name="-".join(self.sensors))
        super().__init__(config=builder_config, file_format=self.FILE_FORMAT, **arguments)

    @property
    def card(self) -> DatasetCard:
        """Card of the selected version."""
        return self._source("").card

    @classproperty
    @classmethod
    def url_infos(cls) -> dict[str, checksums.UrlInfo]:  # type: ignore[override]
        """The known checksums; other downloads are not verified."""
        return {
            download.url: checksums.UrlInfo(download.size, download.sha256, download.name)  # type: ignore[arg-type]
            for card in cls.SOURCE.CARDS
            for download in card.downloads
            if download.sha256
        }

    def _source(self, path: str) -> PublishedDataset:
        return self.SOURCE(path=path, sensors=self.sensors, version=str(self.version))

    def _info(self) -> tfds.core.DatasetInfo:
        source = self._source("")
        card = source.card
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{card.description}\n\nLicense: {card.license}. Channels: {', '.join(source.channels)}.",
            features=tfds.features.FeaturesDict(
                {
                    "subject": tfds.features.Text(),
                    "recording": tfds.features.Text(),
                    "start_ms": tfds.features.Scalar(np.int64),
                    "rate_hz": tfds.features.Scalar(np.float64),
                    "signal": tfds.features.Tensor(
                        shape=(None, len(source.channels)), dtype=np.float32, encoding=tfds.features.Encoding.BYTES
                    ),
                    "label": tfds.features.Tensor(shape=(None,), dtype=np.int32, encoding=tfds.features.Encoding.BYTES),
                    "notes": tfds.features.Text(),
                }
            ),
            homepage=card.homepage,
            citation=card.citation,
            license=card.license,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(**PreparedMetadata(card, source.channels).to_json()),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {SPLIT: self._generate_examples(dl_manager)}

    def _generate_examples(self, dl_manager: Any) -> Iterator[tuple[int, dict]]:
        with ExitStack() as stack:
            source = self._source(self._published_folder(dl_manager, stack))
            metadata = cast(dict[str, list], self.info.metadata)
            index, skipped = metadata["index"], metadata["skipped"]
            for file in source.files():
                try:
                    recordings = source.read(file)
                except UnusableError as reason:
                    skipped.append([file.subject, file.name, str(reason)])
                    continue
                for recording in recordings:
                    yield (
                        len(index),
                        {
                            "subject": recording.subject,
                            "recording": recording.name,
                            "start_ms": milliseconds(recording.start),
                            "rate_hz": recording.rate_hz,
                            "signal": recording.signal_NxC,
                            "label": recording.labels_N,
                            "notes": "\n".join(recording.notes),
                        },
                    )
                    index.append([recording.subject, recording.name, len(recording.signal_NxC)])
            if not index:
                raise DataError(f"{self.name}: no file can be used; the first: {skipped[0][2]}")

    def _published_folder(self, dl_manager: Any, stack: ExitStack) -> str:
        """The folder of the published files: downloaded, or where the user put them."""
        downloads = self.card.downloads
        if not downloads:
            return str(dl_manager.manual_dir)
        if len(downloads) == 1 and not downloads[0].name:
            return _download_archive(dl_manager, downloads[0])
        # TFDS stores downloads under names of its own; the readers need the published ones.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{self.name}-")))
        paths = dl_manager.download({_file_name(download): download.url for download in downloads})
        for name, path in paths.items():
            (folder / name).symlink_to(Path(path).resolve())
        return str(folder)


def _define_builder(name: str) -> None:
    """Define the builder class of a data set, which registers it."""
    source = dataset_class(name)
    versions = [card.version for card in source.CARDS]
    # TFDS requires instructions for versions without downloads, and requires manual files where it has instructions.
    instructions = next((card.manual for card in source.CARDS if not card.downloads), None)
    type(
        source.__name__,
        (LabeledBuilder,),
        {
            "__module__": __name__,
            "__doc__": source.CARDS[0].title,
            "name": name,
            "SOURCE": source,
            "VERSION": tfds.core.Version(versions[0]),
            "SUPPORTED_VERSIONS": [tfds.core.Version(version) for version in versions[1:]],
            "MANUAL_DOWNLOAD_INSTRUCTIONS": instructions,
        },
    )


def _download_archive(dl_manager: Any, download: Download) -> str:
    """The folder of an archive's files, or of the part that holds the data."""
    folder = _unzip(Path(dl_manager.download(download.url)))
    if download.inner is None:
        return str(folder)
    found = sorted(folder.rglob(download.inner))
    if not found:
        raise DataError(f"{download.url}: there is no {download.inner} in it")
    return str(found[0] if found[0].is_dir() else _unzip(found[0]))


def _unzip(archive: Path) -> Path:
    """The folder with an archive's files, beside it. (TFDS' own extraction needs TensorFlow.)"""
    folder = archive.with_name(f"{archive.name}.unpacked")
    if not folder.is_dir():
        with atomic_path(folder) as partial:
            try:
                with zipfile.ZipFile(archive) as content:
                    content.extractall(partial)
            except zipfile.BadZipFile as error:
                raise DataError(f"{archive}: not a readable zip file ({error}); delete it and try again") from None
    return folder


def _file_name(download: Download) -> str:
    return download.name or download.url.rsplit("/", 1)[-1]


for _name in public_dataset_names():
    _define_builder(_name)
