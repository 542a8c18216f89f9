"""What a build makes, fixed before the first recording is read: its specification, and the files of every shard.

The files of every shard are on disk before the first is read, so that any number of workers, in any order, stopped
and started again, write the same shards.
"""

import hashlib
import json
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int8, Int32, Int64, UInt64

from selfpab_jax.data.records.usage import Windowing
from selfpab_jax.data.sources.base import Source, SourceFile
from selfpab_jax.data.splits import SPLITS, SplitSettings, assign, assign_subjects, draw
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.io import write_text
from selfpab_jax.signal.stft import SpectrogramSettings

FORMAT = 1
"""Changes where the same specification would give other bytes."""
SHARD_BYTES = 256 * 2**20
MIN_SHARDS = 16
"""A build has at least about this many shards (files permitting), for workers to share and little to lose."""
LARGEST_G = 16
LARGEST_FLOAT16 = 65504
PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class RecordSettings:
    """What one record holds: the spectrogram of a window.

    Attributes:
        spectrogram: sampling rate, and window and hop of the Fourier transform.
        window_samples: length of a window.
        shift_samples: from the start of one window to the start of the next.
        shortest_samples: a continuous segment shorter than a window becomes a padded record if it has this many
            samples, and the end of a longer one is in a window that is moved back. None, as in version 0.1: both are
            left out.
        start_hour: windows start when the recorder's clock shows this full hour; None: at any time. No window is moved
            back then.

    Raises:
        ConfigError: a window without a frame, no shift, one that does not keep the hour, or magnitudes that float16
            cannot hold.
    """

    spectrogram: SpectrogramSettings = field(default_factory=SpectrogramSettings)
    window_samples: int = 15000
    shift_samples: int = 15000
    shortest_samples: int | None = None
    start_hour: int | None = None

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"a window of {self.window_samples} samples is shorter than a frame")
        if self.shift_samples < 1:
            raise ConfigError(f"the shift is {self.shift_samples} samples; it must be at least 1")
        if self.start_hour is not None and not 0 <= self.start_hour <= 23:
            raise ConfigError(f"start_hour is {self.start_hour}; it must be 0 to 23")
        if self.start_hour is not None and self.shift_seconds % 86_400:
            raise ConfigError(
                f"start_hour: windows every {self.shift_seconds:g} s do not start at the same hour; set shift_seconds "
                "to whole days (86400)"
            )
        if self.spectrogram.fft_window / 2 * LARGEST_G > LARGEST_FLOAT16:
            raise ConfigError(
                f"fft_window is {self.spectrogram.fft_window}: magnitudes would not fit into float16 (8188 is the most)"
            )

    @property
    def frames(self) -> int:
        """T of a record."""
        return self.spectrogram.frame_count(self.window_samples)

    @property
    def windowing(self) -> Windowing:
        """How segments are cut; every window has a frame of its own."""
        return Windowing(
            self.window_samples,
            self.shift_samples,
            self.shortest_samples,
            self.spectrogram.fft_window,
            move_back=self.start_hour is None,
        )

    @property
    def may_be_padded(self) -> bool:
        """Whether records carry their number of valid frames."""
        return self.shortest_samples is not None

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return self.window_samples / self.spectrogram.rate_hz

    @property
    def shift_seconds(self) -> float:
        """From the start of one window to the start of the next."""
        return self.shift_samples / self.spectrogram.rate_hz


@dataclass(frozen=True)
class BuildSpec:
    """Everything that determines the bytes of the records, and nothing else.

    Attributes:
        source: where the recordings come from.
        records: what a record holds.
        splits: how recordings are divided.
        shard_bytes: size of a shard to aim at.
    """

    source: Source
    records: RecordSettings = field(default_factory=RecordSettings)
    splits: SplitSettings = field(default_factory=SplitSettings)
    shard_bytes: int = SHARD_BYTES

    @property
    def features(self) -> int:
        """X of a record."""
        return self.records.spectrogram.features(len(self.source.channels))

    @property
    def has_labels(self) -> bool:
        """Whether records have frame labels."""
        return getattr(self.source, "label_column", None) is not None

    def options(self) -> dict[str, Any]:
        """Everything but the list of files, as JSON types; without newer settings that are not set."""
        records = asdict(self.records)
        for name in ("shortest_samples", "start_hour"):
            if records[name] is None:
                del records[name]
        options = {
            "format": FORMAT,
            "source": {"name": self.source.name, **asdict(self.source)},  # type: ignore[call-overload]
            "records": records,
            "splits": asdict(self.splits),
            "shard_bytes": self.shard_bytes,
        }
        return json.loads(json.dumps(options))


@dataclass(frozen=True)
class Shard:
    """One file of records: its number, its split, and how many recordings go into it."""

    number: int
    split: str
    files: int


def write_plan(spec: BuildSpec, folder: Path) -> None:
    """List the source, and write the files of every shard and, last, `plan.json`.

    Two passes over a list on disk: memory holds a few bytes per file, however many there are.

    Raises:
        DataError: there are no recordings, or they cannot be split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listing, digest = folder / "listing.jsonl", hashlib.sha256()
    subjects: dict[str, int] = {}
    subject_of, keys, samples = array("i"), array("Q"), array("q")
    with open(listing, "w") as out:
        for file in spec.source.files():
            line = _line(file)
            out.write(line)
            digest.update(line.encode())
            subject_of.append(subjects.setdefault(file.subject, len(subjects)))
            keys.append(draw(spec.splits.seed, f"{file.subject}/{file.name}"))
            samples.append(file.samples)
    splits_N = _splits(spec, list(subjects), np.array(subject_of, np.int32), np.array(keys, np.uint64))
    shards_N = _shards(spec, splits_N, np.array(samples, np.int64))
    shards = _write_file_lists(listing, folder, splits_N, shards_N)
    plan = {"options": spec.options(), "listing": digest.hexdigest(), "shards": [asdict(shard) for shard in shards]}
    write_text(folder / PLAN_FILE, json.dumps(plan))


def read_shards(folder: Path) -> list[Shard]:
    """The shards of the plan in a folder, by number."""
    return [Shard(**shard) for shard in json.loads((folder / PLAN_FILE).read_text())["shards"]]


def shard_files(folder: Path, shard: Shard) -> Iterator[SourceFile]:
    """The recordings of a shard, in order."""
    with open(folder / f"{shard.number:05d}.files") as lines:
        for line in lines:
            yield SourceFile(*json.loads(line))


def check_same(spec: BuildSpec, folder: Path) -> None:
    """Compare a specification with the one of the unfinished build in a folder.

    Raises:
        DataError: an option or the list of files differs; names the first.
    """
    written = json.loads((folder / PLAN_FILE).read_text())
    for name, value in _flatten(spec.options()).items():
        if (before := _flatten(written["options"]).get(name)) != value:
            raise DataError(
                f"{folder.parent}: it holds an unfinished build with other options ({name} was {before}, is {value}); "
                "repeat its command, or add --overwrite"
            )
    digest = hashlib.sha256()
    for file in spec.source.files():
        digest.update(_line(file).encode())
    if digest.hexdigest() != written["listing"]:
        raise DataError(
            f"{folder.parent}: the recordings have changed since its unfinished build began; add --overwrite"
        )


def _line(file: SourceFile) -> str:
    return json.dumps([file.subject, file.name, file.path, file.samples]) + "\n"


def _flatten(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by dotted names."""
    flat = {}
    for name, value in options.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _splits(
    spec: BuildSpec, subjects: list[str], subject_of_N: Int32[np.ndarray, " N"], keys_N: UInt64[np.ndarray, " N"]
) -> Int8[np.ndarray, " N"]:
    if not len(keys_N):
        raise DataError("there is no recording to build from")
    if spec.splits.by == "recording":
        return assign(keys_N, spec.splits.validation, spec.splits.test, "recordings", of=len(keys_N))
    split_of = assign_subjects(subjects, spec.splits)
    return np.array([split_of[subject] for subject in subjects], np.int8)[subject_of_N]


def _shards(
    spec: BuildSpec, splits_N: Int8[np.ndarray, " N"], samples_N: Int64[np.ndarray, " N"]
) -> Int32[np.ndarray, " N"]:
    """The number of the shard of every file: whole files in order, cut where the target size is passed."""
    bytes_N = 1 + samples_N // spec.records.shift_samples * (2 * spec.records.frames * spec.features)
    target = min(spec.shard_bytes, -(-int(bytes_N.sum()) // MIN_SHARDS))
    shards_N = np.zeros(len(splits_N), np.int32)
    first = 0
    for split in range(len(SPLITS)):
        chosen = splits_N == split
        if chosen.any():
            bytes_before = np.cumsum(bytes_N[chosen]) - bytes_N[chosen]
            numbers = np.unique(bytes_before // target, return_inverse=True)[1]
            shards_N[chosen] = first + numbers
            first += int(numbers.max()) + 1
    return shards_N


def _write_file_lists(
    listing: Path, folder: Path, splits_N: Int8[np.ndarray, " N"], shards_N: Int32[np.ndarray, " N"]
) -> list[Shard]:
    shards = []
    for split, name in enumerate(SPLITS):
        with open(listing) as lines:
            chosen = (each for each in zip(lines, splits_N, shards_N, strict=True) if each[1] == split)
            for number, group in groupby(chosen, key=lambda each: int(each[2])):
                with open(folder / f"{number:05d}.files", "w") as out:
                    count = sum(bool(out.write(line)) for line, _, _ in group)
                shards.append(Shard(number, name, count))
    return shards
