"""A saved head on long recordings: activity per second, minutes of each day and hour, and pictures.

Files are read, encoded, classified and written at the same time. Memory depends on the size of batches and the number
of readers, and grows with each day of a recording by less than a megabyte.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from selfpab_jax.data.quality import write_quality
from selfpab_jax.data.sources.base import Skipped, SkippedLog, sensors_of
from selfpab_jax.data.sources.streaming import estimated_hours, find_files, find_given, recording_name
from selfpab_jax.data.tables.format import TableFormat, default_columns, sensor_columns
from selfpab_jax.data.tables.recordings import RecordingPath
from selfpab_jax.errors import ConfigError, DataError, StorageError
from selfpab_jax.features.encoder import PretrainedEncoder
from selfpab_jax.features.sensors import SensorEncoder, open_sensor_encoders, sensor_encoders
from selfpab_jax.features.streaming import WINDOWS_AHEAD, encode_batches
from selfpab_jax.io import exclusive_lock, reason, require_parent, write_json
from selfpab_jax.model_dir import HEAD_FOLDER, find_model, read_config
from selfpab_jax.prefetch import prefetch_chain
from selfpab_jax.probe.heads.saved import SavedHead, encoders_for, load_head, package_version
from selfpab_jax.probe.predict.clock import ClockKind, time_zone
from selfpab_jax.probe.predict.files import (
    BY_DAY_FILE,
    BY_HOUR_FILE,
    SUMMARY_FILE,
    clear_unused,
    finished_files,
    finished_summary,
    join_tables,
    names_of,
)
from selfpab_jax.probe.predict.minutes import DECIMALS
from selfpab_jax.probe.predict.reading import FileReading, PredictSetup
from selfpab_jax.progress import Progress, duration

SETTINGS_FILE = "settings.json"
QUALITY_FOLDER = "quality"


@dataclass(frozen=True)
class PredictResult:
    """What is in the folder after a call of `predict`: of this call and of earlier ones.

    Attributes:
        files: number of files whose results are in the folder.
        finished_before: how many of them an earlier call had finished.
        hours_in: of recording that could be read.
        hours_used: of recording with an activity.
        minutes: of each class.
        skipped: what could not be used, and why.
        quality: page that says what of each file was used and cut.
        seconds: that this call took.
    """

    files: int
    finished_before: int
    hours_in: float
    hours_used: float
    minutes: dict[str, float]
    skipped: tuple[Skipped, ...]
    quality: Path
    seconds: float


def predict(
    files: Path | str | Iterable[Path | str],
    model: Path | str | PretrainedEncoder,
    head: Path | str | SavedHead | None,
    out: Path | str,
    *,
    table_format: TableFormat | None = None,
    sensor_files: str | None = None,
    sensor_roles: Mapping[str, str] | None = None,
    zone: str | None = None,
    clock: ClockKind = "local",
    pictures: bool = True,
    batch_size: int | None = None,
    readers: int | None = None,
    strict: bool = False,
    progress: bool = False,
) -> PredictResult:
    """Activity of every second of recordings, its minutes by day and hour, and a picture of each day.

    Windows are side by side as in `embed`; temporal context is computed within each window, as in the probe. Writes a
    folder for each file, and tables and a summary of all. The same call again skips files that are finished and have
    not changed, and does interrupted ones again. Files of several calls with the same `out` are in one set of tables.

    Args:
        files: CSV or Parquet tables, npz files of the HUNT4 layout, or folders of them.
        model: model directory, the name of one that ships with the package (`har-small`), or an encoder that is loaded
            already.
        head: that was trained on this model, as a folder (see `probe_encoder`), or loaded already; None for the head
            that ships with the model.
        out: folder of the results.
        table_format: how the files are read; by default, columns named after the head's sensors, in g, at 50 Hz.
        sensor_files: where each sensor has a file of its own, see `find_sensor_files`; `files` are folders then.
        sensor_roles: the model's name for a sensor of the data, where the two differ; by default the head's.
        zone: IANA name of the time zone that times are written in, e.g. `Europe/Oslo`; by default the recorder's clock
            as it is, without clock changes.
        clock: whether the recorder was set to the zone's `local` time at the file's start, or to `utc`.
        pictures: draw each day.
        batch_size: windows per batch; by default as many as keep the device busy.
        readers: threads that read and compute frames, each from one file; by default two fewer than CPUs.
        strict: stop at the first file that cannot be used instead of skipping it.
        progress: show progress on stderr.

    Raises:
        ConfigError: an argument is wrong, or `out` has results with other settings.
        ModelError: the model or the head is missing or damaged, or they do not belong together.
        DataError: nothing could be used, or with `strict` the first thing that would be skipped.
        LockedError: another process writes to `out`.
        StorageError: `out` cannot be written.
    """
    began, out = time.monotonic(), Path(out)
    found_zone = time_zone(zone)
    if clock not in get_args(ClockKind) or (clock == "utc" and zone is None):
        raise ConfigError(f"clock is {clock!r}; it must be local, or utc with a zone")
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    saved = head if isinstance(head, SavedHead) else load_head(head if head is not None else own_head(model))
    sensors = model.config.sensors if isinstance(model, PretrainedEncoder) else read_config(model)[0].sensors
    table_format = table_format or TableFormat(columns=columns_for(saved, sensors, sensor_roles))
    encoders = _open_encoders(saved, model, table_format, sensor_roles)
    not_read = SkippedLog(strict)
    given = [files] if isinstance(files, Path | str) else list(files)
    named = (
        _named_files(given, not_read)
        if sensor_files is None
        else _named_subjects(given, sensor_files, sensors_of(table_format.channels), not_read)
    )
    settings = {
        "head": saved.digest,
        "encoder": list(saved.encoder_digests),
        "table_format": asdict(table_format),
        "sensors": [list(each.sensors) for each in encoders],
        "zone": zone,
        "clock": clock,
        "pictures": pictures,
    }
    setup = PredictSetup(saved, encoders, table_format, found_zone, clock, out, pictures, strict)
    _open_folder(out)
    with exclusive_lock(out / ".lock", f"{out}: another process is writing here; wait for it, or choose another --out"):
        _check_settings(out, settings)
        summaries = {name: finished_summary(out / name, path) for name, path in named.items()}
        done = [name for name, summary in summaries.items() if summary is not None]
        readings = [FileReading(setup, name, path) for name, path in named.items() if name not in done]
        _work_off(setup, readings, batch_size, readers, len(done), progress)
        summaries |= {reading.name: reading.summary for reading in readings}
        whole = finished_files(out)
        content = _whole_summary(setup, settings, list(whole.values()))
        content["skipped"] = [asdict(entry) for entry in not_read.entries] + content["skipped"]
        of_files = [summary["quality"] for summary in whole.values() if "quality" in summary]
        quality = write_quality(of_files, out / QUALITY_FOLDER, f"Recordings of {out.name}")
        for table in (BY_DAY_FILE, BY_HOUR_FILE):
            join_tables(out / table, [out / name / table for name in whole])
        write_json(out / SUMMARY_FILE, content)
    _require_use([summary for summary in summaries.values() if summary], not_read.entries)
    return PredictResult(
        files=len(whole),
        finished_before=len(whole) - len(readings),
        hours_in=content["hours_in"],
        hours_used=content["hours_used"],
        minutes=content["minutes"],
        skipped=tuple(Skipped(**entry) for entry in content["skipped"]),
        quality=quality,
        seconds=time.monotonic() - began,
    )


def own_head(model: Path | str | PretrainedEncoder) -> Path:
    """The head that ships with a model.

    Raises:
        ConfigError: it has none.
        ModelError: there is no such model.
    """
    if not isinstance(model, PretrainedEncoder):
        read_config(model)  # a wrong name is refused as such
    name = "the model" if isinstance(model, PretrainedEncoder) else model
    folder = None if isinstance(model, PretrainedEncoder) else find_model(model) / HEAD_FOLDER
    if folder is None or not folder.is_dir():
        raise ConfigError(f"{name} has no head of its own: give one that was trained on it (probe --save_head)")
    return folder


def columns_for(
    head: SavedHead, model_sensors: tuple[str, ...], sensor_roles: Mapping[str, str] | None = None
) -> tuple[tuple[str, str], ...]:
    """Pairs of channel and column for tables whose columns are named after the sensors that the head was trained on.

    Args:
        head: see `load_head`.
        model_sensors: names of the model's sensors.
        sensor_roles: the model's name for a sensor of the data, where it is another than in the head's data set.
    """
    if sensor_roles:
        return default_columns(model_sensors, sensor_roles)
    return sensor_columns(tuple(dict.fromkeys(sensor for of_encoder in head.sensors for sensor in of_encoder)))


def _open_encoders(
    head: SavedHead, model: Path | str | PretrainedEncoder, format: TableFormat, roles: Mapping[str, str] | None
) -> tuple[SensorEncoder, ...]:
    given = sensors_of(format.channels)
    roles = roles or {sensor: role for sensor, role in head.roles.items() if sensor in given}
    opened = (
        sensor_encoders(model, format.channels, roles)
        if isinstance(model, PretrainedEncoder)
        else open_sensor_encoders(model, format.channels, roles)
    )
    return tuple(
        SensorEncoder(each.encoder.with_frames(head.window_frames), each.columns, each.sensors)
        for each in encoders_for(head, opened)
    )


def _named_files(files: Iterable[Path | str], skipped: SkippedLog) -> dict[str, RecordingPath]:
    found: dict[Path, Path | None] = {}
    for given in map(Path, files):
        for path in find_files([given], skipped.add):
            found.setdefault(path, given if given.is_dir() else None)
    if not found:
        raise DataError("no file of recordings was given")
    return {**names_of(found)}


def _named_subjects(
    folders: Iterable[Path | str], sensor_files: str, sensors: tuple[str, ...], not_read: SkippedLog
) -> dict[str, RecordingPath]:
    """Subjects by the name of their folder in the output."""
    named: dict[str, RecordingPath] = {}
    for path in find_given([Path(folder) for folder in folders], sensor_files, sensors, not_read.add):
        name = recording_name(path).replace("/", "__").replace("\\", "__")
        if name in named or name.strip(". ") == "":
            raise ConfigError(f"{sensor_files}: subject {recording_name(path)!r} gives no folder of its own; rename it")
        named[name] = path
    return named


def _open_folder(out: Path) -> None:
    """Create the folder, or check that nobody else's files are in it."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out must be a folder")
    if (out / SETTINGS_FILE).exists():
        return
    if out.exists() and any(entry.name != ".lock" for entry in out.iterdir()):
        raise ConfigError(f"{out} is not empty and has no results of predict; choose another --out")
    require_parent(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out} cannot be created: {reason(error)}") from None


def _check_settings(out: Path, settings: dict[str, Any]) -> None:
    """Check that the results in the folder have the same settings; where nothing was used, they are replaced."""
    path, settings = out / SETTINGS_FILE, json.loads(json.dumps(settings, default=str))
    if not path.exists():
        write_json(path, settings)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in settings if before[name] != settings[name]]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} cannot be read; choose another --out") from None
    if not changed:
        return
    if any(summary["hours_used"] for summary in finished_files(out).values()):
        raise ConfigError(f"{out} has results with another {' and '.join(changed)}; choose another --out")
    clear_unused(out)
    write_json(path, settings)


def _require_use(summaries: list[dict[str, Any]], not_read: list[Skipped]) -> None:
    """Check that something of this call's files was used."""
    if any(summary["hours_used"] for summary in summaries):
        return
    skipped = [*not_read, *(Skipped(**entry) for summary in summaries for entry in summary["skipped"])]
    short = "; they are shorter than a frame"
    first = f"; the first: {skipped[0].what}: {skipped[0].reason}" if skipped else short
    raise DataError(f"none of {len(summaries)} files could be used{first}")


# All files.


def _work_off(
    setup: PredictSetup,
    readings: list[FileReading],
    batch_size: int | None,
    readers: int | None,
    finished_before: int,
    progress: bool,
) -> None:
    extraction = replace(setup.head.extraction, batch_size=batch_size)
    hours_in_all = (
        sum(estimated_hours(each.path, setup.table_format.rate_hz) for each in readings) if progress else None
    )
    workers = readers or max(1, (os.cpu_count() or 1) - 2)
    hop_hours = setup.head.spectrogram.fft_hop / setup.head.spectrogram.rate_hz / 3600
    waiting, frames = list(readings), 0
    with Progress("predict", hours_in_all, "h", enabled=progress) as display:
        again = f", {finished_before} finished before" if finished_before else ""
        about = duration(3600 * (hours_in_all or 0))
        display.log(
            f"{len(readings)} {'file' if len(readings) == 1 else 'files'}{again}, about {about} of recording; "
            f"{setup.head.kind} head, {len(setup.head.classes)} classes"
        )
        windows = prefetch_chain((each.windows for each in readings), workers, WINDOWS_AHEAD)
        try:
            for batch, features in encode_batches(windows, setup.encoders, extraction, pool=False):
                probability_BxTxY = setup.head.window_probabilities(features[: len(batch)])
                for window, probability_TxY in zip(batch, probability_BxTxY, strict=True):
                    while waiting[0].name != window.file:  # read to their ends
                        waiting[0].finish()
                        waiting.pop(0)
                    waiting[0].add(window, probability_TxY)
                    frames += len(window.x_TxX) - window.skip
                display.update(frames * hop_hours, batch[-1].file)
            while waiting:
                waiting[0].finish()
                waiting.pop(0)
        finally:
            for reading in waiting:
                reading.close()


def _whole_summary(setup: PredictSetup, settings: dict[str, Any], summaries: list[dict[str, Any]]) -> dict[str, Any]:
    head = setup.head
    minutes = {name: round(sum(summary["minutes"][name] for summary in summaries), DECIMALS) for name in head.classes}
    return {
        "files": [{name: each[name] for name in ("file", "start", "hours_in", "hours_used")} for each in summaries],
        "hours_in": round(sum(each["hours_in"] for each in summaries), 6),
        "hours_used": round(sum(each["hours_used"] for each in summaries), 6),
        "minutes": minutes,
        "skipped": [entry for each in summaries for entry in each["skipped"]],
        "shorter_than_a_frame": {
            name: sum(each["shorter_than_a_frame"][name] for each in summaries) for name in ("recordings", "seconds")
        },
        "settings": json.loads(json.dumps(settings, default=str)),
        "head": {name: value for name, value in head.summary().items() if name in ("kind", "dataset", "scores")},
        "version": package_version(),
    }
