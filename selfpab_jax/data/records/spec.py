"""What a set of records will hold, worked out before anything is read."""

import hashlib
import json
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Int8

from selfpab_jax.data.sources.base import Source, SourceFile
from selfpab_jax.data.splits import SPLITS, SplitSettings, assign, assign_subjects, draw
from selfpab_jax.errors import DataError
from selfpab_jax.signal.stft import SpectrogramSettings

# What a build is to make: everything that decides the bytes of the records, and nothing else.

FORMAT = 1
"""Changes where the same plan would give other bytes."""
SHARD_BYTES = 256 * 2**20
LARGEST_G = 16
LARGEST_FLOAT16 = 65504


@dataclass(frozen=True)
class RecordSettings:
    """What one record holds: a window of so many samples, each shifted by so many, as a spectrogram.

    Raises:
        DataError: a window without a frame, no shift, or magnitudes that float16 cannot hold.
    """

    spectrogram: SpectrogramSettings = field(default_factory=SpectrogramSettings)
    window_samples: int = 15000
    shift_samples: int = 15000

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise DataError(f"a window of {self.window_samples} samples is shorter than a frame")
        if self.shift_samples < 1:
            raise DataError(f"the shift is {self.shift_samples} samples; it must be at least 1")
        if self.spectrogram.fft_window / 2 * LARGEST_G > LARGEST_FLOAT16:
            raise DataError(
                f"fft_window {self.spectrogram.fft_window}: magnitudes would not fit into float16 (8188 do)"
            )

    @property
    def frames(self) -> int:
        """T of a record."""
        return self.spectrogram.frame_count(self.window_samples)

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return self.window_samples / self.spectrogram.rate_hz

    @property
    def shift_seconds(self) -> float:
        """From the start of one window to the next."""
        return self.shift_samples / self.spectrogram.rate_hz

    @property
    def new_seconds(self) -> float:
        """Recording that a window adds to the one before it in its stretch; the first one adds a whole window."""
        return min(self.window_samples, self.shift_samples) / self.spectrogram.rate_hz


@dataclass(frozen=True)
class Plan:
    """Source and settings of a build."""

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
        """Whether records carry frame labels."""
        return getattr(self.source, "label_column", None) is not None

    def options(self) -> dict:
        """Everything but the list of files, as JSON types."""
        options = {
            "format": FORMAT,
            "source": {"name": self.source.name, **asdict(self.source)},  # type: ignore[call-overload]
            "records": asdict(self.records),
            "splits": asdict(self.splits),
            "shard_bytes": self.shard_bytes,
        }
        return json.loads(json.dumps(options))


@dataclass(frozen=True)
class Shard:
    """One file of records to be: its number, split and how many recordings go into it."""

    number: int
    split: str
    files: int


# The files of every shard, fixed on disk before the first is read.
#
# So any number of workers, in any order, killed and started again, write the same shards.

LEAST_SHARDS = 16
"""A build has at least about so many shards (files permitting), for workers to share and a kill to lose little."""
PLAN_FILE = "plan.json"


def write_plan(plan: Plan, folder: Path) -> None:
    """Lists the source and writes the files of every shard and, last, `plan.json`.

    Two passes over a listing on disk: memory holds a few bytes a file, however many there are.

    Raises:
        DataError: nothing there, or it cannot be split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listing, digest = folder / "listing.jsonl", hashlib.sha256()
    subjects: dict[str, int] = {}
    subject_of, keys, samples = array("i"), array("Q"), array("q")
    with open(listing, "w") as out:
        for file in plan.source.files():
            line = _line(file)
            out.write(line)
            digest.update(line.encode())
            subject_of.append(subjects.setdefault(file.subject, len(subjects)))
            keys.append(draw(plan.splits.seed, f"{file.subject}/{file.name}"))
            samples.append(file.samples)
    samples_N = np.array(samples, np.int64)
    splits_N = _splits(plan, list(subjects), np.array(subject_of, np.int32), np.array(keys, np.uint64))
    shards_N = _shards(plan, splits_N, samples_N)
    shards = _write_lists(listing, folder, splits_N, shards_N)
    text = {"options": plan.options(), "listing": digest.hexdigest(), "shards": [asdict(shard) for shard in shards]}
    partial = folder / f"{PLAN_FILE}.part"
    partial.write_text(json.dumps(text))
    partial.rename(folder / PLAN_FILE)


def read_shards(folder: Path) -> list[Shard]:
    """The shards of the plan in a folder, by number."""
    return [Shard(**shard) for shard in json.loads((folder / PLAN_FILE).read_text())["shards"]]


def shard_files(folder: Path, shard: Shard) -> Iterator[SourceFile]:
    """The recordings of a shard, in order."""
    with open(folder / f"{shard.number:05d}.files") as lines:
        for line in lines:
            yield SourceFile(*json.loads(line))


def check_same(plan: Plan, folder: Path) -> None:
    """Compares the plan with the one in a folder.

    Raises:
        DataError: an option or the list of files differs; names the first.
    """
    written = json.loads((folder / PLAN_FILE).read_text())
    for name, value in _flat(plan.options()).items():
        if (before := _flat(written["options"]).get(name)) != value:
            raise DataError(
                f"{folder.parent}: an unfinished build with other options is in it ({name} was {before}, is {value}); "
                "repeat its command, or add --overwrite"
            )
    digest = hashlib.sha256()
    for file in plan.source.files():
        digest.update(_line(file).encode())
    if digest.hexdigest() != written["listing"]:
        raise DataError(
            f"{folder.parent}: the recordings have changed since its unfinished build began; add --overwrite"
        )


def _line(file: SourceFile) -> str:
    return json.dumps([file.subject, file.name, file.path, file.samples]) + "\n"


def _flat(options: dict, prefix: str = "") -> dict:
    """Nested options by dotted names."""
    flat = {}
    for name, value in options.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _splits(plan: Plan, subjects: list[str], subject_of_N: np.ndarray, keys_N: np.ndarray) -> Int8[np.ndarray, " N"]:
    if not len(keys_N):
        raise DataError("no recording is left to build from")
    if plan.splits.by == "recording":
        return assign(keys_N, plan.splits.validation, plan.splits.test, "recordings", of=len(keys_N))
    split_of = assign_subjects(subjects, plan.splits)
    return np.array([split_of[subject] for subject in subjects], np.int8)[subject_of_N]


def _shards(plan: Plan, splits_N: np.ndarray, samples_N: np.ndarray) -> np.ndarray:
    """The number of the shard of every file: whole files in order, cut where the size aimed at is passed."""
    bytes_N = 1 + samples_N // plan.records.shift_samples * (2 * plan.records.frames * plan.features)
    target = min(plan.shard_bytes, -(-int(bytes_N.sum()) // LEAST_SHARDS))
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


def _write_lists(listing: Path, folder: Path, splits_N: np.ndarray, shards_N: np.ndarray) -> list[Shard]:
    shards = []
    for split, name in enumerate(SPLITS):
        with open(listing) as lines:
            chosen = (pair for pair in zip(lines, splits_N, shards_N, strict=True) if pair[1] == split)
            for number, group in groupby(chosen, key=lambda triple: int(triple[2])):
                with open(folder / f"{number:05d}.files", "w") as out:
                    count = sum(bool(out.write(line)) for line, _, _ in group)
                shards.append(Shard(number, name, count))
    return shards
