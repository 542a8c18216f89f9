"""Features of long recordings, from files to a file.

Files are read in blocks, cut into windows, encoded and written at the same time. Memory depends on the size of batches
and the number of readers, not on how long the recordings are.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float32, Int32, Shaped

from selfpab_jax.data.quality import require_quality_folder, write_quality
from selfpab_jax.data.sources.base import Skipped, SkippedLog, milliseconds, sensors_of
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.streaming import (
    estimated_hours,
    find_given,
    read_signal,
    recording_name,
    resample_blocks,
)
from selfpab_jax.data.tables.format import TableFormat, default_columns
from selfpab_jax.data.tables.recordings import RecordingPath
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.features.cutting import FrameWindow, cut_windows
from selfpab_jax.features.encoder import PretrainedEncoder
from selfpab_jax.features.extract import ExtractionSettings, configure_encoders, depths_of, feature_shape, make_forward
from selfpab_jax.features.files import FORMATS, FeatureRows, write_features
from selfpab_jax.features.sensors import SensorEncoder, open_sensor_encoders, sensor_encoders
from selfpab_jax.io import write_text
from selfpab_jax.model_dir import ModelConfig, read_config
from selfpab_jax.prefetch import Prefetcher, prefetch_chain, run_ahead
from selfpab_jax.progress import Progress
from selfpab_jax.signal.calendar import frame_timestamps

Level = Literal["frame", "window"]
EXTRACTION = ExtractionSettings(dtype="float32")
"""The last layer."""
WINDOWS_AHEAD = 32
"""Windows of a file that may wait for the encoder."""


@dataclass(frozen=True)
class EmbedResult:
    """What `embed` wrote, and what it skipped.

    Attributes:
        rows: written.
        features: number of features in each row.
        hours: of recording.
        seconds: that it took.
        skipped: what could not be used, and why.
        quality: page that says what of each file was used and cut.
        short_seconds: duration of each recording that is shorter than a frame, and so has no features.
    """

    rows: int
    features: int
    hours: float
    seconds: float
    skipped: tuple[Skipped, ...]
    quality: Path
    short_seconds: tuple[float, ...]


def embed(
    files: Path | str | Iterable[Path | str],
    model: Path | str | PretrainedEncoder,
    out: Path | str,
    *,
    table_format: TableFormat | None = None,
    sensor_files: str | None = None,
    sensor_roles: Mapping[str, str] | None = None,
    level: Level = "frame",
    extraction: ExtractionSettings = EXTRACTION,
    calendar: bool = False,
    readers: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> EmbedResult:
    """Write the features of every whole frame, or of every window, of recordings.

    Windows have the length of the encoder's training windows and are side by side; the last one of a recording is
    moved back to end with it, and a recording shorter than a window gets shorter ones, so that the encoder sees no
    padding. The features of a window are the mean over its frames.

    Args:
        files: CSV or Parquet tables, npz files of the HUNT4 layout, or folders of them.
        model: model directory, the name of one that ships with the package (`har-small`), or an encoder that is loaded
            already.
        out: `.parquet` or `.npz`; it appears when it is complete. Beside it are `OUT.quality`, a report on each file,
            and `OUT.skipped.jsonl`, what was skipped.
        table_format: how the files are read; by default, columns named after the model's sensors, in g, at 50 Hz.
        sensor_files: where each sensor has a file of its own, see `find_sensor_files`; `files` are folders then.
        sensor_roles: the model's name for a sensor of the data, where the two differ: `{"hip": "thigh"}`.
        level: one row per frame or per window.
        extraction: what to keep of the encoder's outputs; temporal context is not supported.
        calendar: give a model with calendar positions (LTA2V) the time of every frame. Otherwise calendar positions are
            left out, as the original does downstream.
        readers: threads that read and compute frames, each from one file; by default two fewer than CPUs.
        strict: stop at the first file that cannot be used instead of skipping it.
        overwrite: replace `out` if it exists.
        progress: show progress on stderr.

    Raises:
        ConfigError: an argument is wrong, `out` exists, or the encoder does not fit what is asked of it.
        ModelError: the model is missing or damaged.
        DataError: nothing could be used, or with `strict` the first thing that would be skipped.
        StorageError: `out` cannot be written.
    """
    began, out = time.monotonic(), Path(out)
    _check(out, level, extraction, overwrite)
    config = model.config if isinstance(model, PretrainedEncoder) else read_config(model)[0]
    if table_format is None:
        table_format = TableFormat(columns=default_columns(config.sensors, sensor_roles))
    encoders = (
        sensor_encoders(model, table_format.channels, sensor_roles, calendar=calendar)
        if isinstance(model, PretrainedEncoder)
        else open_sensor_encoders(model, table_format.channels, sensor_roles, calendar=calendar)
    )
    encoders = configure_encoders(encoders, extraction)
    given = [Path(path) for path in ([files] if isinstance(files, Path | str) else files)]
    skipped = SkippedLog(strict)
    paths = find_given(given, sensor_files, sensors_of(table_format.channels), skipped.add)
    hours_in_all = sum(estimated_hours(path, table_format.rate_hz) for path in paths) if progress else None
    hop_s = config.spectrogram.fft_hop / config.spectrogram.rate_hz
    frames_done, short_seconds = 0, []
    reports = [FileReport(str(path), recording_name(path), strict) for path in paths]
    with Progress("embed", hours_in_all, "h", enabled=progress) as display:
        names = ", ".join(dict.fromkeys(sensor for each in encoders for sensor in each.sensors))
        display.log(
            f"{len(paths)} files, about {hours_in_all or 0:.1f} h of recording of {names}; {config.family} encoder, "
            f"width {config.model.width}; one row per {level}"
        )
        description = describe_encoders(encoders, extraction, level)
        with write_features(out, feature_names(encoders, extraction), description) as writer:
            sources = (
                partial(_windows_of_file, path, table_format, encoders, skipped, short_seconds, report)
                for path, report in zip(paths, reports, strict=True)
            )
            windows = prefetch_chain(sources, readers or max(1, (os.cpu_count() or 1) - 2), WINDOWS_AHEAD)
            for batch, features in encode_batches(windows, encoders, extraction, pool=level == "window"):
                for window, of_window in zip(batch, features, strict=False):  # the rest of the batch is padding
                    writer.write(_rows(window, of_window, level))
                    frames_done += len(window.x_TxX) - window.skip
                display.update(frames_done * hop_s / 3600)
            if not writer.rows:
                raise DataError(_nothing_to_write(paths, skipped))
    _write_skipped(out, skipped)
    described = [report.as_json() | {"spans": report.spans} for report in reports]
    quality = write_quality(described, quality_path(out), f"Recordings of {out.name}")
    layers, width = feature_shape(encoders, extraction)
    hours, seconds = frames_done * hop_s / 3600, time.monotonic() - began
    return EmbedResult(
        writer.rows, layers * width, hours, seconds, tuple(skipped.entries), quality, tuple(short_seconds)
    )


def _check(out: Path, level: str, extraction: ExtractionSettings, overwrite: bool) -> None:
    if level not in get_args(Level):
        raise ConfigError(f"level is {level!r}; it must be frame or window")
    if extraction.context_seconds:
        raise ConfigError("context_seconds: files of features have no temporal context; leave it out")
    if out.suffix not in FORMATS:
        raise ConfigError(f"{out}: features are written as .parquet or .npz")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists; choose another file, or allow to overwrite it (--overwrite)")
    require_quality_folder(quality_path(out))


def feature_names(encoders: tuple[SensorEncoder, ...], extraction: ExtractionSettings) -> tuple[str, ...]:
    """f0000, f0001, ...; with several layers l0_f0000 (the embedding), ..., l4_f1499."""
    depths = depths_of(encoders[0].encoder, extraction) or (0,)
    _, width = feature_shape(encoders, extraction)
    return tuple(f"{f'l{depth}_' if len(depths) > 1 else ''}f{place:04d}" for depth in depths for place in range(width))


def describe_encoders(
    encoders: tuple[SensorEncoder, ...], extraction: ExtractionSettings, level: Level
) -> dict[str, Any]:
    """The description that a file of features holds.

    Args:
        encoders: as `configure_encoders` returns them.
        extraction: what was kept of their outputs.
        level: of the rows.
    """
    config = encoders[0].encoder.config
    cross_sensor = config.family == "monoselfpab"
    return {
        "model": f"{config.family}, width {config.model.width}, {config.model.layers} layers",
        "digests": [each.encoder.digest for each in encoders],
        "model_sensors": [each.encoder.sensors[0] if cross_sensor else None for each in encoders],
        "sensors": [list(each.sensors) for each in encoders],
        "level": level,
        "calendar": config.model.temporal_positions,
        "depths": list(depths_of(encoders[0].encoder, extraction)),
        "merge": extraction.merge,
        "random_seed": extraction.random_seed,
        "compute": extraction.compute,
        "spectrogram": asdict(config.spectrogram),
        "window_frames": config.frames,
    }


# From files to windows.


def _windows_of_file(
    path: RecordingPath,
    table_format: TableFormat,
    encoders: tuple[SensorEncoder, ...],
    skipped: SkippedLog,
    short_seconds: list[float],
    report: FileReport,
) -> Iterator[FrameWindow]:
    blocks = read_signal(path, table_format, skipped.add, report=report)
    config = encoders[0].encoder.config
    windows = cut_windows(
        str(path), resample_blocks(blocks, config.spectrogram.rate_hz), encoders, short_seconds.append
    )
    unknown = ""
    for window in windows:
        if not config.model.temporal_positions or window.start is not None:
            yield window
        elif window.recording != unknown:
            unknown = window.recording
            skipped.add(
                f"{path}, {unknown}",
                "calendar positions need the time of every frame, and its start is unknown: name the column of "
                "timestamps (timestamp_column), or leave calendar out",
            )


# From windows to rows of the file.


def encode_batches(
    windows: Iterator[FrameWindow], encoders: tuple[SensorEncoder, ...], extraction: ExtractionSettings, *, pool: bool
) -> Iterable[tuple[list[FrameWindow], Shaped[np.ndarray, "B ..."]]]:
    """Batches of windows with their features, in order; features beyond the number of windows are padding.

    Args:
        windows: from `cut_windows`.
        encoders: as `configure_encoders` returns them.
        extraction: what to keep; temporal context is not computed.
        pool: the mean over frames (B, L, D) instead of (B, T, L, D).
    """
    forward = make_forward(encoders, extraction, pool=pool)
    parameters = [each.encoder.parameters for each in encoders]
    config = encoders[0].encoder.config
    results = (
        (batch, forward(parameters, x_BxTxX, None, _timestamps(batch, x_BxTxX, config)))
        for batch, x_BxTxX in _batches(windows, extraction)
    )
    return Prefetcher(run_ahead(results), ahead=1)


def _timestamps(
    batch: list[FrameWindow], x_BxTxX: Float32[np.ndarray, "B T X"], config: ModelConfig
) -> Int32[np.ndarray, "B T 5"] | None:
    """The time of every frame for a model with calendar positions; that of padding has no meaning."""
    if not config.model.temporal_positions:
        return None
    starts = [start for window in batch if (start := window.start_ms) is not None]
    start_B = np.array(starts + starts[-1:] * (len(x_BxTxX) - len(batch)), np.int64)
    return frame_timestamps(start_B, x_BxTxX.shape[1], config.spectrogram)


def _batches(
    windows: Iterator[FrameWindow], extraction: ExtractionSettings
) -> Iterator[tuple[list[FrameWindow], Float32[np.ndarray, "B T X"]]]:
    """Consecutive windows of the same length."""
    batch: list[FrameWindow] = []
    for window in windows:
        length = len(window.x_TxX)
        if batch and (len(batch[0].x_TxX) != length or len(batch) == extraction.windows_per_batch(length)):
            yield batch, _stacked(batch, extraction)
            batch = []
        batch.append(window)
    if batch:
        yield batch, _stacked(batch, extraction)


def _stacked(batch: list[FrameWindow], extraction: ExtractionSettings) -> Float32[np.ndarray, "B T X"]:
    """The frames of a batch; one that is not full is padded with zeros to one of few sizes."""
    full, size = extraction.windows_per_batch(len(batch[0].x_TxX)), 1
    while size < len(batch):
        size *= 4
    x_BxTxX = np.zeros((min(size, full), *batch[0].x_TxX.shape), np.float32)
    x_BxTxX[: len(batch)] = [window.x_TxX for window in batch]
    return x_BxTxX


def _rows(window: FrameWindow, features: Shaped[np.ndarray, "*T L D"], level: Level) -> FeatureRows:
    if level == "window":
        frame_R, count_R = np.array([window.first]), np.array([len(window.x_TxX)])
        features_RxE = features.reshape(1, -1)
    else:
        frame_R = window.first + np.arange(window.skip, len(window.x_TxX))
        count_R = np.ones(len(frame_R), int)
        features_RxE = features[window.skip :].reshape(len(frame_R), -1)
    start_s = frame_R * window.hop_s
    start_ms = None
    if window.start is not None:
        start_ms = milliseconds(window.start) + np.round(1000 * start_s).astype(np.int64)
    return FeatureRows(window.file, window.recording, start_ms, start_s, count_R, features_RxE)


def _nothing_to_write(paths: list[RecordingPath], skipped: SkippedLog) -> str:
    if skipped.entries:
        first = skipped.entries[0]
        return f"none of {len(paths)} files could be used; the first: {first.what}: {first.reason}"
    return f"none of {len(paths)} files has a recording as long as a frame"


def skipped_path(out: Path) -> Path:
    """The file that lists what was skipped; features of the same name but another format have their own."""
    return out.with_name(f"{out.name}.skipped.jsonl")


def quality_path(out: Path) -> Path:
    """The folder of the quality report, see `skipped_path`."""
    return out.with_name(f"{out.name}.quality")


def _write_skipped(out: Path, skipped: SkippedLog) -> None:
    out.with_name(f"{out.stem}.set_aside.jsonl").unlink(missing_ok=True)  # the name of version 0.1
    if skipped.entries:
        write_text(skipped_path(out), "".join(json.dumps(asdict(entry)) + "\n" for entry in skipped.entries))
    else:
        skipped_path(out).unlink(missing_ok=True)
