"""Features of long recordings, from files to a file: read, encoded and written at the same time, in bounded memory."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Shaped

from selfpab_jax.data.sources.base import milliseconds
from selfpab_jax.data.sources.streaming import at_rate, estimated_hours, read_parts
from selfpab_jax.data.sources.tables import Tables
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.features.extract import Extraction, feature_shape, make_forward, prepared, run_ahead
from selfpab_jax.features.files import Rows, open_feature_file
from selfpab_jax.features.sensors import Branch
from selfpab_jax.features.windows import FrameWindow, cut_windows
from selfpab_jax.prefetch import InBackground, several_at_once
from selfpab_jax.probe.dataset import SetAside

Level = Literal["frame", "window"]
WINDOWS_AHEAD = 32
"""Windows of a file that wait for the encoder."""

Progress = Callable[[float], None]
"""Told after each batch: hours of recording done."""


@dataclass
class Ledger:
    """What was done and what was set aside; readers in several threads add to it."""

    strict: bool = False
    entries: list[SetAside] = field(default_factory=list)
    short_seconds: list[float] = field(default_factory=list)

    def set_aside(self, what: str, reason: str) -> None:
        """Notes it.

        Raises:
            DataError: strict.
        """
        if self.strict:
            raise DataError(f"{what}: {reason}")
        self.entries.append(SetAside(what, reason))


@dataclass(frozen=True)
class Embedded:
    """What `embed` did: rows written, features a row, hours of recording, seconds it took."""

    rows: int
    features: int
    hours: float
    seconds: float


def embed(
    files: list[Path],
    how: Tables,
    branches: tuple[Branch, ...],
    extraction: Extraction,
    out: Path,
    *,
    level: Level = "frame",
    readers: int = 1,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> Embedded:
    """Write the features of every whole frame, or of every window, of the recordings.

    Windows are the encoder's training windows, one after another; the last one of a recording is moved back to end
    with it, and a recording shorter than a window gives shorter ones, so that the encoder sees no padding. A window's
    features are the mean over its frames. Memory depends on batch and readers, not on how long recordings are.

    Args:
        files: tables or HUNT4 npz files.
        how: how they are read.
        branches: encoder or encoders for the channels of `how`.
        extraction: what to keep.
        out: `.parquet` or `.npz`; it appears when it is whole.
        level: a row a frame or a row a window.
        readers: threads that read and make frames, a file each.
        ledger: takes what is set aside.
        progress: told after each batch.

    Raises:
        DataError: nothing could be used, the disk is full, or the ledger is strict.
        ConfigError, ModelError: the encoder does not fit what is asked of it.
    """
    if level not in ("frame", "window"):
        raise ConfigError(f"level is {level!r}; it must be frame or window")
    began, ledger = time.monotonic(), ledger or Ledger()
    ready = prepared(branches, extraction)
    settings = ready[0].encoder.config.spectrogram
    hop_s = settings.fft_hop / settings.rate_hz
    forward = make_forward(ready, extraction, pool=level == "window")
    file = open_feature_file(out, feature_names(ready, extraction), describe(ready, extraction, level))
    frames_done = 0
    try:
        sources = (partial(_windows_of_file, path, how, ready, ledger) for path in files)
        windows = several_at_once(sources, readers, WINDOWS_AHEAD)
        parameters = [branch.encoder.parameters for branch in ready]
        results = InBackground(run_ahead(_batches(windows, extraction), forward, parameters), ahead=1)
        for batch, features in results:
            for window, of_window in zip(batch, features, strict=False):  # the rest of the batch is filling
                file.write(_rows(window, of_window, hop_s, level))
                frames_done += len(window.x_TxX) - window.skip
            if progress is not None:
                progress(frames_done * hop_s / 3600)
        if not file.rows:
            raise DataError(_nothing(files, ledger))
        file.close()
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error}") from None
    finally:
        file.abandon()
    _write_set_aside(out, ledger)
    layers, width = feature_shape(ready, extraction)
    return Embedded(file.rows, layers * width, frames_done * hop_s / 3600, time.monotonic() - began)


def feature_names(branches: tuple[Branch, ...], extraction: Extraction) -> tuple[str, ...]:
    """f0000, f0001, ...; with several layers l0_f0000 (the embedding), ..., l4_f1499."""
    depths = branches[0].encoder.depths(extraction.layers)
    _, width = feature_shape(branches, extraction)
    return tuple(f"{f'l{depth}_' if len(depths) > 1 else ''}f{place:04d}" for depth in depths for place in range(width))


def describe(branches: tuple[Branch, ...], extraction: Extraction, level: Level) -> dict[str, Any]:
    """What the file says of its features."""
    config = branches[0].encoder.config
    mono = config.family == "monoselfpab"
    return {
        "model": f"{config.family}, width {config.model.width}, {config.model.layers} layers",
        "digests": [branch.encoder.digest for branch in branches],
        "model_sensors": [branch.encoder.sensors[0] if mono else None for branch in branches],
        "sensors": [list(branch.sensors) for branch in branches],
        "level": level,
        "depths": list(branches[0].encoder.depths(extraction.layers)),
        "merge": extraction.merge,
        "random_seed": extraction.random_seed,
        "compute": extraction.compute,
        "spectrogram": asdict(config.spectrogram),
        "window_frames": config.frames,
    }


def _windows_of_file(path: Path, how: Tables, branches: tuple[Branch, ...], ledger: Ledger) -> Iterator[FrameWindow]:
    parts = at_rate(read_parts(path, how, ledger.set_aside), branches[0].encoder.config.spectrogram.rate_hz)
    return cut_windows(str(path), parts, branches, ledger.short_seconds.append)


def _batches(
    windows: Iterator[FrameWindow], extraction: Extraction
) -> Iterator[tuple[list[FrameWindow], Float32[np.ndarray, "B T X"]]]:
    """Windows of one length in a row, in order; a batch that is not full is filled with zeros to one of few sizes."""
    batch: list[FrameWindow] = []
    for window in windows:
        length = len(window.x_TxX)
        if batch and (len(batch[0].x_TxX) != length or len(batch) == extraction.windows_a_batch(length)):
            yield batch, _stacked(batch, extraction)
            batch = []
        batch.append(window)
    if batch:
        yield batch, _stacked(batch, extraction)


def _stacked(batch: list[FrameWindow], extraction: Extraction) -> Float32[np.ndarray, "B T X"]:
    full, size = extraction.windows_a_batch(len(batch[0].x_TxX)), 1
    while size < len(batch):
        size *= 4
    x_BxTxX = np.zeros((min(size, full), *batch[0].x_TxX.shape), np.float32)
    x_BxTxX[: len(batch)] = [window.x_TxX for window in batch]
    return x_BxTxX


def _rows(window: FrameWindow, features: Shaped[np.ndarray, "*T L D"], hop_s: float, level: Level) -> Rows:
    if level == "window":
        numbers, frames = np.array([window.first]), np.array([len(window.x_TxX)])
        features_RxE = features.reshape(1, -1)
    else:
        numbers = window.first + np.arange(window.skip, len(window.x_TxX))
        frames = np.ones(len(numbers), int)
        features_RxE = features[window.skip :].reshape(len(numbers), -1)
    start_s, began = numbers * hop_s, milliseconds(window.start)
    start_ms = None if window.start is None else began + np.round(1000 * start_s).astype(np.int64)
    return Rows(window.file, window.recording, start_ms, start_s, frames, features_RxE)


def _nothing(files: list[Path], ledger: Ledger) -> str:
    if ledger.entries:
        first = ledger.entries[0]
        return f"none of {len(files)} files could be used; the first: {first.what}: {first.reason}"
    return f"none of {len(files)} files has a recording as long as a frame"


def _write_set_aside(out: Path, ledger: Ledger) -> None:
    path = set_aside_path(out)
    if ledger.entries:
        path.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in ledger.entries), encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


def set_aside_path(out: Path) -> Path:
    """Where the list of what was set aside lies."""
    return out.with_name(f"{out.stem}.set_aside.jsonl")


class ProgressLine:
    """A line for people on stderr: hours of recording done, hours a second, time left.

    Args:
        files: whose hours are estimated.
        rate_hz: of their rows.
        every: seconds between lines where stderr is no terminal.
    """

    def __init__(self, files: list[Path], rate_hz: float, every: float = 10.0):
        self.hours = sum(estimated_hours(path, rate_hz) for path in files)
        self.start, self.last, self.every = time.monotonic(), 0.0, every
        self.terminal = sys.stderr.isatty()

    def __call__(self, hours: float) -> None:
        """Prints when it is time."""
        now = time.monotonic()
        if now - self.last < (0.5 if self.terminal else self.every):
            return
        self.last, seconds = now, max(now - self.start, 1e-9)
        left = max(0.0, self.hours - hours) / max(hours / seconds, 1e-9)
        line = (
            f"embed: {hours:.1f} of about {self.hours:.1f} h of recording, {hours / seconds:.2f} h a second, "
            f"about {left:.0f} s left"
        )
        print(
            f"\r{line:<78}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True
        )

    def close(self) -> None:
        """Ends the line."""
        if self.terminal and self.last:
            print(file=sys.stderr, flush=True)
