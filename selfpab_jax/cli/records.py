"""`selfpab-jax records build` and `selfpab-jax records describe`."""

import inspect
import math
import os
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.data.har.registry import DATASETS, open_dataset
from selfpab_jax.data.har.source import ForRecords
from selfpab_jax.data.records.build import Runner, build_records
from selfpab_jax.data.records.format import RecordsInfo, records_folder
from selfpab_jax.data.records.spec import SHARD_BYTES, Plan, RecordSettings
from selfpab_jax.data.sources.base import Source
from selfpab_jax.data.sources.hunt4 import Hunt4
from selfpab_jax.data.sources.tables import HARTH_SENSORS, Tables, TimestampUnit, parse_columns, sensor_columns
from selfpab_jax.data.splits import SplitSettings
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.signal.resample import Unit
from selfpab_jax.signal.stft import SpectrogramSettings

SourceName = Literal[
    "hunt4",
    "recordings",
    "harth",
    "har70plus",
    "pamap2",
    "opportunity",
    "realworld",
    "uschad",
    "mobiact",
    "dualsleep",
    "selfback",
]
FLAGS = {
    "skip_night": "hunt4 only. Leave out recordings that start in the hours 0 to 6.",
    "beam": "Run as an Apache Beam pipeline instead of processes; folders must be seen by all of its workers.",
    "strict": "Stop at the first file that cannot be used instead of setting it aside.",
    "resume": "Go on with an unfinished build, as the same command does anyway; finished already, it is no error.",
    "overwrite": "Delete what is in `out` first.",
}
"""Options of `records build` that take no value."""


def build(
    paths: list[str],
    source: SourceName,
    out: Path,
    window_seconds: float = 300.0,
    shift_seconds: float | None = None,
    record_rate: float = 50.0,
    fft_window: int = 50,
    fft_hop: int = 25,
    sensors: str | None = None,
    dataset_version: str | None = None,
    columns: str | None = None,
    unit: Unit = "g",
    rate: float = 50.0,
    timestamp_column: str | None = "timestamp",
    timestamp_unit: TimestampUnit = "text",
    segment_column: str | None = None,
    label_column: str | None = None,
    gap_limit: float = 1.0,
    first_seconds: float = 300.0,
    split_by: Literal["subject", "recording"] = "subject",
    validation: float = 0.1,
    test: float = 0.1,
    validation_subjects: str | None = None,
    test_subjects: str | None = None,
    seed: int = 0,
    shard_mb: int = SHARD_BYTES // 2**20,
    workers: int | None = None,
    beam_options: list[str] | None = None,
    *,
    skip_night: bool = False,
    beam: bool = False,
    strict: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> int:
    """Build spectrogram records from recordings. Killed, the same command goes on where it was.

    Args:
        paths: folders of recordings.
        source: hunt4 is <folder>/<subject>/<YYYY-MM-DD_HH>.npz; recordings is <folder>/<subject>.csv or .parquet; the
            others are public data sets, one folder as published.
        out: folder to build in.
        window_seconds: length of a record.
        shift_seconds: from the start of one window to the next; the window's length if not given.
        record_rate: Hz of the signal that records are computed from; other rates are resampled to it.
        fft_window: samples of a frame.
        fft_hop: samples from one frame to the next.
        sensors: not for hunt4. Sensors in order, e.g. back,thigh for the columns back_x .. thigh_z.
        dataset_version: public data sets only. Where there are several, e.g. 1.2 or 2.0 of harth.
        columns: recordings only. Columns in order instead, e.g. hip_x=acc_x,hip_y=acc_y,hip_z=acc_z.
        unit: recordings only. Of the acceleration columns.
        rate: recordings only. Sampling rate in Hz.
        timestamp_column: recordings only. Time of every row; null if there is none.
        timestamp_unit: recordings only. Of timestamps that are numbers; text is a date and time.
        segment_column: recordings only. Windows never cross a change of its value.
        label_column: recordings only. Whole numbers carried along as the label of every frame.
        gap_limit: recordings only. Windows never cross a step in the timestamps longer than so many seconds.
        first_seconds: hunt4 only. Seconds used of each file, from its start.
        split_by: subject keeps everyone in one split; recording draws files, as the original did.
        validation: share of the subjects or files for validation.
        test: share for test.
        validation_subjects: these subjects instead of a share, e.g. S001,S002.
        test_subjects: these subjects instead of a share.
        seed: of the draw.
        shard_mb: size of a shard to aim at.
        workers: processes; as many as there are cores if not given. The records do not depend on it.
        beam_options: options for Beam, e.g. [--runner=FlinkRunner, --flink_master=host:8081].
        skip_night, beam, strict, resume, overwrite: see `FLAGS`.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other")
    shift = window_seconds if shift_seconds is None else shift_seconds
    _check_above_0(window_seconds=window_seconds, shift_seconds=shift, record_rate=record_rate)
    _check_above_0(rate=rate, gap_limit=gap_limit, first_seconds=first_seconds, shard_mb=shard_mb)
    if workers is not None:
        _check_above_0(workers=workers)
    try:
        records = RecordSettings(
            spectrogram=SpectrogramSettings(record_rate, fft_window, fft_hop),
            window_samples=round(window_seconds * record_rate),
            shift_samples=round(shift * record_rate),
        )
        splits = SplitSettings(split_by, validation, test, seed, _names(validation_subjects), _names(test_subjects))
    except DataError as error:
        raise ConfigError(str(error)) from None
    plan = Plan(
        source=_source(
            source,
            tuple(paths),
            tables={
                "sensors": sensors,
                "columns": columns,
                "unit": unit,
                "rate": rate,
                "timestamp_column": timestamp_column,
                "timestamp_unit": timestamp_unit,
                "segment_column": segment_column,
                "label_column": label_column,
                "gap_limit": gap_limit,
            },
            hunt4={"first_seconds": first_seconds, "skip_night": skip_night},
            version=dataset_version,
        ),
        records=records,
        splits=splits,
        shard_bytes=shard_mb * 2**20,
    )
    runner = Runner(
        workers=os.cpu_count() or 1 if workers is None else workers,
        beam_options=tuple(beam_options or ()) if beam else None,
        strict=strict,
    )
    info = build_records(plan, out, runner, overwrite, resume)
    print(_summary(info, out))
    return 0


def describe(directory: Path, picture: Path | None = None) -> int:
    """Say what records hold, and draw it.

    Args:
        directory: the `out` folder of `records build`, or the versioned folder in it.
        picture: PNG to draw; `records.png` beside the shards if not given.
    """
    from selfpab_jax.data.records.dataset import open_records
    from selfpab_jax.data.records.describe import describe_text, draw

    records = open_records(directory)
    print(describe_text(records))
    path = picture or records.folder / "records.png"
    draw(records, path)
    print(f"picture: {path}")
    return 0


def build_parser() -> Parser:
    """Arguments of `records build`."""
    parser = Parser("records build", _headline(build))
    parser.add_argument("paths", nargs="+", type=str, help="folders of recordings")
    parser.add_function_arguments(build, skip={"paths", *FLAGS}, as_positional=False)
    for name, text in FLAGS.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def run_build(namespace: Namespace) -> int:
    """Runs `records build` on parsed arguments; the exit code."""
    return build(**namespace.as_dict())


def describe_parser() -> Parser:
    """Arguments of `records describe`."""
    parser = Parser("records describe", _headline(describe))
    parser.add_argument("directory", type=Path, help="folder that `records build` wrote")
    parser.add_function_arguments(describe, skip={"directory"}, as_positional=False)
    return parser


def run_describe(namespace: Namespace) -> int:
    """Runs `records describe` on parsed arguments; the exit code."""
    return describe(**namespace.as_dict())


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _headline(function: object) -> str:
    return (function.__doc__ or "").splitlines()[0]


def _source(
    name: str, paths: tuple[str, ...], tables: dict[str, Any], hunt4: dict[str, Any], version: str | None
) -> Source:
    if name in DATASETS:
        _refuse(hunt4, "hunt4")
        sensors = tables.pop("sensors")
        _refuse(tables, "recordings")
        if len(paths) != 1:
            raise ConfigError(f"{len(paths)} folders: --source {name} takes one")
        return ForRecords(open_dataset(name, paths[0], sensors=_names(sensors), version=version))
    if version is not None:
        raise ConfigError(f"dataset_version: {name} has none")
    if name == "hunt4":
        _refuse(tables, "recordings")
        return Hunt4(paths, seconds=hunt4["first_seconds"], skip_night=hunt4["skip_night"])
    _refuse(hunt4, "hunt4")
    sensors, columns, rate = (tables.pop(option) for option in ("sensors", "columns", "rate"))
    if sensors and columns:
        raise ConfigError("give sensors or columns, not both")
    named = (
        parse_columns(columns) if columns else sensor_columns(tuple(sensors.split(",")) if sensors else HARTH_SENSORS)
    )
    return Tables(paths, columns=named, rate_hz=rate, **tables)


def _refuse(options: dict[str, Any], source: str) -> None:
    """Sees that options of another source were left at their defaults, so that none is silently without effect."""
    defaults = inspect.signature(build).parameters
    if given := [option for option, value in options.items() if value != defaults[option].default]:
        raise ConfigError(f"{', '.join(given)}: only for --source {source}")


def _check_above_0(**options: float) -> None:
    for option, value in options.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{option} is {value}: it must be above 0")


def _summary(info: RecordsInfo, out: Path) -> str:
    lines = [
        f"{split}: {size.records} records, {size.hours:.1f} h, {size.subjects} subjects"
        for split, size in info.splits.items()
    ]
    aside = f"{info.rejected} of {info.files} files set aside"
    if info.rejected:
        aside += f", see {records_folder(out) / 'rejected.jsonl'}"
    return "\n".join([*lines, aside, f"records: {out}"])
