"""Features of a data set on disk, computed once.

The cache has one folder for each combination of encoder, settings and data, named by a hash of everything that the
features depend on, the source code included. So features are never stale: whatever changes leads to another folder.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from selfpab_jax.errors import DataError, ModelError, StorageError
from selfpab_jax.features.extract import (
    ExtractionSettings,
    configure_encoders,
    depths_of,
    encode_windows,
    feature_shape,
    window_order,
)
from selfpab_jax.features.sensors import SensorEncoder
from selfpab_jax.features.windows import WindowedRecordings
from selfpab_jax.io import exclusive_lock, reason, require_disk_space, write_json
from selfpab_jax.progress import Progress

PACKAGE = Path(__file__).parent.parent
ENCODING = (
    "model",
    "signal",
    "features/encoder.py",
    "features/extract.py",
    "features/sensors.py",
    "features/windows.py",
    "prefetch.py",
)
"""Source files that frozen features depend on."""
TRAINING = (
    *ENCODING,
    "probe/baselines",
    "probe/finetune.py",
    "probe/budgets.py",
    "probe/splits.py",
    "train/optimizer.py",
)
"""Source files that baselines and fine-tuning depend on."""

FEATURES_FILE, PROGRESS_FILE, DESCRIPTION_FILE = "features.npy", "progress.json", "description.json"
SAVE_SECONDS = 10.0
KEY_PARTS = {
    "version": "from another version of the code",
    "encoder": "from another encoder",
    "extraction": "of other layers, sensors or number types",
    "corpus": "of other recordings or windows",
}
"""Entries of a description that features depend on, with the words for features that differ in one."""

logger = logging.getLogger(__name__)


@cache
def code_version(sources: tuple[str, ...]) -> str:
    """A hash of source files.

    Args:
        sources: files, and folders with all Python files below them, relative to the installed package.
    """
    digest = hashlib.sha256()
    for source in sources:
        path = PACKAGE / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(PACKAGE)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class FeatureTable:
    """Frozen features, one row for each row of the corpus that they were computed from.

    Attributes:
        features_RxLxD: float16 or float32; usually a read-only memory map of a file larger than memory. L are the
            layers that were kept, D the features of each.
        key: hash of everything that the features depend on.
        description: of encoder, settings and corpus, with their hashes.
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


def cached_features(
    corpus: WindowedRecordings,
    encoders: tuple[SensorEncoder, ...],
    extraction: ExtractionSettings,
    cache_dir: Path | str,
    *,
    task: str | None = "features",
) -> FeatureTable:
    """The features of every row of a corpus, from the cache or computed into it.

    A computation that was killed continues from where it was saved last. Damaged features are logged and computed
    again.

    Args:
        corpus: recordings and windows.
        encoders: see `open_sensor_encoders`.
        extraction: what to keep of the encoders' outputs.
        cache_dir: folder of the cache, or one folder of features within a cache.
        task: name of the progress display; none is shown where None.

    Raises:
        ModelError: the encoder does not fit the corpus; or `cache_dir` is one folder of features, and these are from
            another encoder or of other windows.
        ConfigError: the encoder does not fit the settings.
        DataError: no windows, or features that are damaged right after they were written.
        LockedError: another process is computing the same features.
        StorageError: the cache cannot be written, or the disk is full.
    """
    description = describe_features(corpus, encoders, extraction)
    cache_dir = Path(cache_dir)
    if (cache_dir / DESCRIPTION_FILE).exists():
        return open_features(cache_dir, corpus, encoders, extraction)
    folder = cache_dir / description["key"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be created: {reason(error)}; choose another cache") from None
    table, _ = _read(folder, description)
    if table is not None:
        return table
    busy = f"{folder}: another process is computing these features; wait for it, or choose another cache"
    with exclusive_lock(folder / ".lock", busy):
        table, damage = _read(folder, description)
        if damage:
            logger.warning("%s: features are damaged (%s); computing them again", folder, damage)
            for name in (DESCRIPTION_FILE, PROGRESS_FILE):
                (folder / name).unlink(missing_ok=True)
        if table is None:
            try:
                _compute(folder, corpus, encoders, extraction, description, task)
            except OSError as error:
                raise StorageError(
                    f"{folder}: features cannot be written: {reason(error)}; free disk space or choose another cache, "
                    "and repeat the command to continue"
                ) from None
            table, damage = _read(folder, description)
    if table is None:
        raise DataError(f"{folder}: features were damaged while they were written ({damage})")
    return table


def open_features(
    folder: Path | str,
    corpus: WindowedRecordings,
    encoders: tuple[SensorEncoder, ...],
    extraction: ExtractionSettings,
) -> FeatureTable:
    """The features in one folder, provided that they are those of this corpus, encoder and settings.

    Args:
        folder: one folder of a cache.
        corpus: recordings and windows.
        encoders: see `open_sensor_encoders`.
        extraction: what was to be kept of the encoders' outputs.

    Raises:
        ModelError: they are not; the message names the differences.
        DataError: the folder has no complete features.
    """
    wanted = describe_features(corpus, encoders, extraction)
    try:
        found = json.loads((Path(folder) / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        differences = [words for name, words in KEY_PARTS.items() if found[name] != wanted[name]]
        model = found["model"]
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        raise DataError(f"{folder}: no complete features in this folder") from None
    if differences:
        raise ModelError(
            f"the features in {folder} (of {model}) are {' and '.join(differences)}; give the folder above it, where "
            "the right ones are found or computed"
        )
    table, damage = _read(Path(folder), wanted)
    if table is None:
        raise DataError(f"{folder}: features are damaged ({damage}); delete this folder, and they are computed again")
    return table


def describe_features(
    corpus: WindowedRecordings, encoders: tuple[SensorEncoder, ...], extraction: ExtractionSettings
) -> dict[str, Any]:
    """Hashes, shape and a readable description of features; `key` is the hash of everything they depend on.

    Labels do not count: features are the same whatever a frame is called.

    Args:
        corpus: recordings and windows.
        encoders: see `open_sensor_encoders`.
        extraction: what is kept of the encoders' outputs.
    """
    encoders = configure_encoders(encoders, extraction)
    config = encoders[0].encoder.config
    layers, width = feature_shape(encoders, extraction)
    depends_on = {
        "version": code_version(ENCODING),
        "encoder": _hash(each.encoder.digest for each in encoders),
        "extraction": {
            "depths": list(depths_of(encoders[0].encoder, extraction)),
            "merge": extraction.merge if len(encoders) > 1 else "together",
            "columns": [list(each.columns) for each in encoders],
            "context_seconds": list(extraction.context_seconds),
            "dtype": extraction.dtype,
        },
        "corpus": corpus_digest(corpus),
    }
    weights = "trained" if extraction.random_seed is None else f"random weights, seed {extraction.random_seed}"
    return {
        "key": _hash([json.dumps(depends_on, sort_keys=True)])[:32],
        **depends_on,
        "model": f"{config.family}, width {config.model.width}, {config.model.layers} layers, {weights}",
        "sensors": [list(each.sensors) for each in encoders],
        "compute": extraction.compute,
        "data": corpus.name,
        "shape": [int(corpus.rows_of_windows.sum()), layers, width],
    }


def corpus_digest(corpus: WindowedRecordings) -> str:
    """A hash of signals, windows and spectrogram."""

    def chunks() -> Iterator[bytes | memoryview]:
        yield json.dumps([asdict(corpus.spectrogram), corpus.channels, corpus.windows.masked]).encode()
        for recording in corpus.recordings:
            yield str(recording.signal_NxC.shape).encode()
            yield np.ascontiguousarray(recording.signal_NxC, "<f4").data
        windows = corpus.windows
        for array in (windows.recording_W, windows.first_W, windows.length_W, corpus.frame_counts):
            yield np.ascontiguousarray(array, "<i4").data

    return _hash(chunks())


def _hash(chunks: Iterable[str | bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk.encode() if isinstance(chunk, str) else chunk)
    return digest.hexdigest()


def _read(folder: Path, description: dict[str, Any]) -> tuple[FeatureTable | None, str]:
    """The features, if they are complete; and what is wrong with them, if they are damaged."""
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
    corpus: WindowedRecordings,
    encoders: tuple[SensorEncoder, ...],
    extraction: ExtractionSettings,
    description: dict[str, Any],
    task: str | None,
) -> None:
    shape, dtype = tuple(description["shape"]), np.dtype(extraction.dtype)
    if not shape[0]:
        raise DataError(f"{corpus.name}: no windows to encode")
    done = _windows_done(folder, shape, dtype)
    if done is None:
        _allocate(folder / FEATURES_FILE, shape, dtype)
        done = 0
    out_RxLxD = np.lib.format.open_memmap(folder / FEATURES_FILE, mode="r+")
    order_W, rows_W = window_order(corpus), corpus.rows_of_windows
    first_row_W = np.cumsum(rows_W) - rows_W
    frame_hours = corpus.spectrogram.fft_hop / corpus.spectrogram.rate_hz / 3600
    hours_W = np.cumsum(corpus.windows.length_W[order_W]) * frame_hours
    saved = time.monotonic()
    with Progress(
        task or "features", float(hours_W[-1]), "h", enabled=task is not None,
        started=float(hours_W[done - 1]) if done else 0.0,
    ) as progress:  # fmt: skip
        for windows_b, features_bxTxLxD in encode_windows(corpus, encoders, extraction, start=done):
            for window, features_TxLxD in zip(windows_b, features_bxTxLxD, strict=True):
                rows = rows_W[window]
                out_RxLxD[first_row_W[window] : first_row_W[window] + rows] = features_TxLxD[:rows]
            done += len(windows_b)
            if time.monotonic() - saved > SAVE_SECONDS:
                _save(folder, out_RxLxD, done)
                saved = time.monotonic()
            progress.update(float(hours_W[done - 1]))
    _save(folder, out_RxLxD, done)
    write_json(folder / DESCRIPTION_FILE, description)
    (folder / PROGRESS_FILE).unlink()


def _windows_done(folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> int | None:
    """How many windows an earlier run has finished; None where there is nothing to continue."""
    try:
        features = np.load(folder / FEATURES_FILE, mmap_mode="r", allow_pickle=False)
        done = json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8"))["windows"]
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    return int(done) if features.shape == shape and features.dtype == dtype else None


def _allocate(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Reserve disk space for all features, so that a full disk is an error now and not later."""
    path.unlink(missing_ok=True)
    (path.parent / PROGRESS_FILE).unlink(missing_ok=True)
    require_disk_space(path, int(np.prod(shape)) * dtype.itemsize)
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _save(folder: Path, out_RxLxD: np.memmap, done: int) -> None:
    """Write the features before the number of finished windows, so that every counted window is on disk."""
    out_RxLxD.flush()
    write_json(folder / PROGRESS_FILE, {"windows": done})
