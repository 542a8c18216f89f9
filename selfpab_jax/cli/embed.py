"""`selfpab-jax embed`."""

from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.data.sources.survey import NonWear
from selfpab_jax.data.tables.timestamps import TimestampUnit
from selfpab_jax.errors import ConfigError, ExitCode
from selfpab_jax.signal.resample import Unit

PRINTED_SKIPS = 5
"""How many of the things that were skipped are printed; a file beside the features lists all."""


def embed(
    files: list[Path],
    model: Path,
    out: Path,
    level: Literal["frame", "window"] = "frame",
    sensors: str | None = None,
    columns: str | None = None,
    sensor_roles: str | None = None,
    unit: Unit = "g",
    rate: float = 50.0,
    timestamp_column: str | None = "timestamp",
    timestamp_unit: TimestampUnit = "text",
    day_first: bool | None = None,
    first_date: str | None = None,
    segment_column: str | None = None,
    gap_limit: float = 1.0,
    sensor_files: str | None = None,
    non_wear: NonWear = "keep",
    calibrate: bool = False,
    layers: str = "last",
    merge: Literal["together", "mean", "max", "concatenate"] = "together",
    compute: Literal["float32", "bfloat16"] = "float32",
    dtype: Literal["float16", "float32"] = "float32",
    batch_size: int | None = None,
    calendar: bool = False,
    readers: int | None = None,
    *,
    strict: bool = False,
    overwrite: bool = False,
) -> int:
    """Features of long recordings, one row per frame or per window.

    Args:
        files: recordings (.csv, .tsv, .parquet, .cwa, .gt3x, .bin, .npz of the HUNT4 layout), or folders of them.
        model: model directory, or har-small, which ships with the package.
        out: file of features: .parquet, or .npz for small ones.
        level: one row per frame (half a second as published), or per window (the mean over its frames).
        sensors: sensors of the tables, e.g. back,thigh for the columns back_x to thigh_z; by default the model's.
        columns: columns of the tables instead, channel=column, e.g. hip_x=acc_x,hip_y=acc_y,hip_z=acc_z; with
            sensor_files also x=acc_x,y=acc_y,z=acc_z, the columns of every file.
        sensor_roles: the model's name for a sensor of the data, where the two differ, e.g. hip=thigh.
        unit: unit of the acceleration columns.
        rate: sampling rate in Hz.
        timestamp_column: column with the time of each row; null if there is none.
        timestamp_unit: unit of timestamps that are numbers; text stands for date and time, excel for the days of
            spreadsheets.
        day_first: whether 03/04/2020 is the third of April, where the files leave it open.
        first_date: date of the first row, YYYY-MM-DD, where timestamps are times of day only.
        segment_column: a recording ends where the value of this column changes.
        gap_limit: longest gap, in seconds, that is bridged; a longer one ends a recording.
        sensor_files: where each sensor has a file of its own, a pattern of their names such as
            {subject}_{sensor}.csv, or a CSV table with the columns subject, sensor and file.
        non_wear: keep or cut times in which a sensor lay still for 30 minutes; they are reported either way.
        calibrate: calibrate each sensor by gravity where its recording allows it.
        layers: last, all (the embedding and every layer), or depths, e.g. 0,2,4 (0 is the embedding).
        merge: how to merge the features of a cross-sensor model, which encodes each sensor by itself.
        compute: dtype of matrix products.
        dtype: dtype of the features in the file.
        batch_size: windows per batch; by default as many as keep the device busy.
        calendar: give a model with calendar positions (LTA2V) the time of every frame; otherwise they are left out.
        readers: threads that read files; by default two fewer than CPUs.
        strict: stop at the first file that cannot be used instead of skipping it.
        overwrite: replace `out` if it exists.
    """
    from selfpab_jax.data.tables.format import TableFormat, default_columns, given_columns
    from selfpab_jax.features.extract import ExtractionSettings
    from selfpab_jax.features.streaming import embed as embed_files
    from selfpab_jax.features.streaming import skipped_path
    from selfpab_jax.model_dir import read_config

    roles = parse_roles(sensor_roles)
    pairs = given_columns(
        columns,
        parse_sensors(sensors),
        default_columns(read_config(model)[0].sensors, roles),
        file_per_sensor=sensor_files is not None,
    )
    result = embed_files(
        files,
        model,
        out,
        table_format=TableFormat(
            columns=pairs,
            unit=unit,
            rate_hz=rate,
            timestamp_column=timestamp_column,
            timestamp_unit=timestamp_unit,
            day_first=day_first,
            first_date=first_date,
            segment_column=segment_column,
            gap_limit=gap_limit,
            non_wear=non_wear,
            calibrate=calibrate,
        ),
        sensor_files=sensor_files,
        sensor_roles=roles,
        level=level,
        extraction=ExtractionSettings(
            layers=_layers(layers), merge=merge, compute=compute, dtype=dtype, batch_size=batch_size
        ),
        calendar=calendar,
        readers=readers,
        strict=strict,
        overwrite=overwrite,
        progress=True,
    )
    for entry in result.skipped[:PRINTED_SKIPS]:
        print(f"skipped: {entry.what}: {entry.reason}")
    if len(result.skipped) > PRINTED_SKIPS:
        print(f"... and {len(result.skipped) - PRINTED_SKIPS} more")
    if result.skipped:
        print(f"everything that was skipped: {skipped_path(out)}")
    if result.short_seconds:
        count, seconds = len(result.short_seconds), sum(result.short_seconds)
        print(f"skipped: {count} recordings shorter than a frame, {seconds:.1f} s in total")
    print(
        f"{out}: {result.rows:,} {level}s of {result.features} features, {result.hours:.1f} h of recording in "
        f"{result.seconds:.1f} s"
    )
    print(f"what of each file was used and cut: {result.quality}")
    reading = f'numpy.load("{out}")["features"]' if out.suffix == ".npz" else f'pandas.read_parquet("{out}")'
    print(f"read it with {reading}")
    return ExitCode.OK


def embed_parser() -> Parser:
    """The arguments of `embed`."""
    parser = Parser("embed", (embed.__doc__ or "").splitlines()[0])
    parser.add_argument(
        "files", nargs="+", type=Path, help="recordings (.csv, .parquet, .cwa, .gt3x, .bin, .npz), or folders"
    )
    parser.add_function_arguments(embed, skip={"files", "strict", "overwrite"}, as_positional=False)
    parser.add_argument("--strict", action="store_true", help="stop at the first file that cannot be used")
    parser.add_argument("--overwrite", action="store_true", help="replace the file at --out if it exists")
    return parser


def run_embed(namespace: Namespace) -> int:
    """Run `embed` with parsed arguments and return the exit code."""
    return embed(**namespace.as_dict())


def parse_roles(text: str | None) -> dict[str, str]:
    """Roles of sensors, from `hip=thigh,waist=back`.

    Raises:
        ConfigError: an item is not a pair.
    """
    roles = {}
    for item in text.split(",") if text else []:
        sensor, equals, role = (piece.strip() for piece in item.partition("="))
        if not (sensor and equals and role):
            raise ConfigError(f"sensor_roles: {item!r} is not sensor=role, e.g. hip=thigh")
        roles[sensor] = role
    return roles


def parse_sensors(text: str | None) -> tuple[str, ...]:
    """Names of sensors, from `back,thigh`."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _layers(text: str) -> Literal["last", "all"] | tuple[int, ...]:
    if text in ("last", "all"):
        return text  # pyright: ignore[reportReturnType]
    try:
        return tuple(int(depth) for depth in text.split(","))
    except ValueError:
        raise ConfigError(f"layers is {text!r}; it must be last, all, or depths such as 0,2,4") from None
