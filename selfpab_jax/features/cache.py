"""A hash of source files: what was computed by other code is not what is wanted."""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from selfpab_jax.errors import DataError, ModelError
from selfpab_jax.features.extract import (
    Extraction,
    encode_windows,
    feature_shape,
    frames_of,
    prepared,
    window_order,
    with_surroundings,
)
from selfpab_jax.features.sensors import Branch
from selfpab_jax.probe.dataset import Corpus

# A hash of source files: what was computed by other code is not what is wanted.

PACKAGE = Path(__file__).parent.parent
ENCODING = (
    "model",
    "signal",
    "features/encoder.py",
    "features/extract.py",
    "features/sensors.py",
    "features/windows.py",
)
"""Code that frozen features depend on."""
TRAINING = (*ENCODING, "probe/baselines", "probe/finetune.py", "probe/splits.py", "train/optimizer.py")
"""Code that baselines and fine-tuning depend on."""


@cache
def code_version(parts: tuple[str, ...]) -> str:
    """The hash of these files, and of the Python files in these folders, of the package as it is installed."""
    digest = hashlib.sha256()
    for part in parts:
        path = PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(PACKAGE)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


# Features of every row of a corpus.


@dataclass(frozen=True)
class FeatureTable:
    """Frozen features, a row for each row of the corpus that they were made from.

    Attributes:
        features_RxLxD: float16 or float32, usually a read-only map of a file larger than memory; L are the layers kept.
        key: hash of everything they depend on.
        description: encoder, extraction and corpus, in words and hashes.
    """

    features_RxLxD: Shaped[np.ndarray, "R L D"]
    key: str
    description: dict[str, Any]

    def __post_init__(self) -> None:
        if self.features_RxLxD.ndim != 3 or self.features_RxLxD.dtype not in (np.float16, np.float32):
            raise ValueError(f"features are {self.features_RxLxD.dtype} {self.features_RxLxD.shape}, not (R, L, D)")

    @property
    def layers(self) -> int:
        """L."""
        return self.features_RxLxD.shape[1]

    @property
    def width(self) -> int:
        """D."""
        return self.features_RxLxD.shape[2]


# Features of a corpus on disk, computed once: a folder named by a hash of everything that they depend on.

FEATURES_FILE, PROGRESS_FILE, DESCRIPTION_FILE = "features.npy", "progress.json", "description.json"
SAVE_SECONDS = 10.0

Progress = Callable[[float, float], None]
"""Told after each batch: hours of windows done, hours in all."""
Tell = Callable[[str], None]


def cached_features(
    corpus: Corpus,
    branches: tuple[Branch, ...],
    extraction: Extraction,
    cache_dir: Path | str,
    progress: Progress | None = None,
    tell: Tell = lambda line: print(line, file=sys.stderr, flush=True),
) -> FeatureTable:
    """The features of every row of the corpus, from the cache or computed into it.

    The folder appears complete or not at all to its readers; a killed computation goes on where it was saved last; a
    damaged one is told and computed again.

    Args:
        corpus: rows.
        branches: encoder or encoders, see `open_branches`.
        extraction: what to keep of their outputs.
        cache_dir: holds a folder for each encoder, extraction and corpus.
        progress: told after each batch.
        tell: takes lines for people.

    Raises:
        ModelError, ConfigError: the encoder does not fit the corpus or the extraction; or `cache_dir` is itself a
            folder of features, made by another encoder or of other windows.
        DataError: another process computes the same features, or the disk is full.
    """
    description = describe_features(corpus, branches, extraction)
    cache = Path(cache_dir)
    if (cache / DESCRIPTION_FILE).exists():
        return open_features(cache, corpus, branches, extraction)
    folder = cache / description["key"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: no folder for features ({error.strerror}); choose another cache") from None
    table, _ = _complete(folder, description)
    if table is not None:
        return table
    with _lock(folder):
        table, damage = _complete(folder, description)
        if damage:
            tell(f"{folder}: features are damaged ({damage}); they are computed again")
            for name in (DESCRIPTION_FILE, PROGRESS_FILE):
                (folder / name).unlink(missing_ok=True)
        if table is None:
            try:
                _compute(folder, corpus, branches, extraction, description, progress)
            except OSError as error:
                raise DataError(
                    f"{folder}: features cannot be written ({error}); make room or choose another cache, and repeat "
                    "the command to go on"
                ) from None
            table, damage = _complete(folder, description)
    if table is None:
        raise DataError(f"{folder}: features were damaged while they were written ({damage})")
    return table


def open_features(
    folder: Path | str, corpus: Corpus, branches: tuple[Branch, ...], extraction: Extraction
) -> FeatureTable:
    """Features of one folder, if they were made from this corpus by this encoder in this way.

    Raises:
        ModelError: they were not; the message says in what they differ.
        DataError: no complete features are there.
    """
    wanted = describe_features(corpus, branches, extraction)
    try:
        found = json.loads((Path(folder) / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        differ = [words for name, words in PARTS.items() if found[name] != wanted[name]]
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        raise DataError(f"{folder}: no complete features in it") from None
    if differ:
        raise ModelError(
            f"{folder} holds features {' and '.join(differ)} than asked for (made by {found['model']}); "
            "give the folder above it, and the right ones are found or made"
        )
    table, damage = _complete(Path(folder), wanted)
    if table is None:
        raise DataError(f"{folder}: features are damaged ({damage}); delete the folder, and they are made again")
    return table


PARTS = {
    # parts of a description that decide, and how they are told
    "version": "of another version",
    "encoder": "from another encoder",
    "extraction": "of other layers, sensors or numbers",
    "corpus": "of other recordings or windows",
}


def describe_features(corpus: Corpus, branches: tuple[Branch, ...], extraction: Extraction) -> dict[str, Any]:
    """What features of this kind are: hashes, shape, words; `key` is the hash of all that decides.

    Labels do not: features are the same whatever a frame is called.
    """
    ready = prepared(branches, extraction)
    config = ready[0].encoder.config
    layers, width = feature_shape(ready, extraction)
    decides = {
        "version": code_version(ENCODING),
        "encoder": _hash(branch.encoder.digest for branch in ready),
        "extraction": {
            "depths": list(ready[0].encoder.depths(extraction.layers)),
            "merge": extraction.merge if len(ready) > 1 else "together",
            "columns": [list(branch.columns) for branch in ready],
            "surroundings_seconds": list(extraction.surroundings_seconds),
            "dtype": extraction.dtype,
        },
        "corpus": corpus_digest(corpus),
    }
    weights = "trained" if extraction.random_seed is None else f"random weights, seed {extraction.random_seed}"
    return {
        "key": _hash([json.dumps(decides, sort_keys=True)])[:32],
        **decides,
        "model": f"{config.family}, width {config.model.width}, {config.model.layers} layers, {weights}",
        "sensors": [list(branch.sensors) for branch in ready],
        "compute": extraction.compute,
        "data": corpus.name,
        "shape": [len(corpus.window_R), layers, width],
    }


def corpus_digest(corpus: Corpus) -> str:
    """A hash of signals, windows and spectrogram."""

    def parts() -> Iterator[bytes | memoryview]:
        yield json.dumps([asdict(corpus.spectrogram), corpus.channels]).encode()
        for recording in corpus.recordings:
            yield str(recording.signal_NxC.shape).encode()
            yield np.ascontiguousarray(recording.signal_NxC, "<f4").data
        windows = corpus.windows
        for array in (windows.recording_W, windows.first_W, windows.length_W, corpus.frame_counts):
            yield np.ascontiguousarray(array, "<i4").data

    return _hash(parts())


def _hash(parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def _complete(folder: Path, description: dict[str, Any]) -> tuple[FeatureTable | None, str]:
    """The features, if they were finished; and what is wrong with them, if they are damaged."""
    if not (folder / DESCRIPTION_FILE).exists():
        return None, ""
    try:
        found = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        features = np.load(folder / FEATURES_FILE, mmap_mode="r", allow_pickle=False)
        whole = list(features.shape) == description["shape"] and features.dtype == description["extraction"]["dtype"]
        if whole and found["key"] == description["key"]:
            return FeatureTable(features, description["key"], found), ""
        return None, f"{features.dtype} {features.shape}, not {description['shape']}"
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        return None, str(error)


def _compute(
    folder: Path,
    corpus: Corpus,
    branches: tuple[Branch, ...],
    extraction: Extraction,
    description: dict[str, Any],
    progress: Progress | None,
) -> None:
    shape, dtype = tuple(description["shape"]), np.dtype(extraction.dtype)
    if not shape[0]:
        raise DataError(f"{corpus.name}: no windows to encode")
    done = _saved(folder, shape, dtype)
    if done is None:
        _allocate(folder / FEATURES_FILE, shape, dtype)
        done = 0
    out_RxLxD = np.lib.format.open_memmap(folder / FEATURES_FILE, mode="r+")
    lengths = tuple(frames_of(seconds, corpus.spectrogram) for seconds in extraction.surroundings_seconds)
    order_W, rows_W = window_order(corpus), corpus.rows_of_windows
    first_row_W = np.cumsum(rows_W) - rows_W
    hours_W = (
        np.cumsum(corpus.windows.length_W[order_W]) * corpus.spectrogram.fft_hop / corpus.spectrogram.rate_hz / 3600
    )
    saved = time.monotonic()
    for windows_b, features_bxTxLxD in encode_windows(corpus, branches, extraction, start=done):
        for window, features_TxLxD in zip(windows_b, features_bxTxLxD, strict=True):
            rows = rows_W[window]
            out_RxLxD[first_row_W[window] : first_row_W[window] + rows] = (
                with_surroundings(features_TxLxD[:rows], lengths) if lengths else features_TxLxD[:rows]
            )
        done += len(windows_b)
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(folder, out_RxLxD, done)
            saved = time.monotonic()
        if progress is not None:
            progress(float(hours_W[done - 1]), float(hours_W[-1]))
    _save(folder, out_RxLxD, done)
    _write(folder / DESCRIPTION_FILE, description)
    (folder / PROGRESS_FILE).unlink()


def _saved(folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> int | None:
    """Windows that an earlier run finished; None where there is nothing to go on with."""
    try:
        features = np.load(folder / FEATURES_FILE, mmap_mode="r", allow_pickle=False)
        done = json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8"))["windows"]
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    return int(done) if features.shape == shape and features.dtype == dtype else None


def _allocate(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Room for all features, so that a full disk is told now and in words."""
    needed, free = int(np.prod(shape)) * dtype.itemsize, shutil.disk_usage(path.parent).free
    path.unlink(missing_ok=True)
    (path.parent / PROGRESS_FILE).unlink(missing_ok=True)
    if needed > free:
        raise OSError(f"{needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _save(folder: Path, out_RxLxD: np.memmap, done: int) -> None:
    """Features first, then how far they go: what progress.json counts is on the disk."""
    out_RxLxD.flush()
    _write(folder / PROGRESS_FILE, {"windows": done})


def _write(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"{folder}: another process is computing these features; wait for it, or choose another cache"
            ) from None
        yield
