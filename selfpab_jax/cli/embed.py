"""`selfpab-jax embed`."""

import os
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.data.sources.tables import TimestampUnit
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.signal.resample import Unit

SHOWN = 5
"""Lines of what was set aside that are printed; all are in the file beside the features."""


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
    segment_column: str | None = None,
    gap_limit: float = 1.0,
    layers: str = "last",
    merge: Literal["together", "mean", "max", "concatenate"] = "together",
    compute: Literal["float32", "bfloat16"] = "float32",
    dtype: Literal["float16", "float32"] = "float32",
    batch_size: int | None = None,
    readers: int | None = None,
    *,
    strict: bool = False,
    overwrite: bool = False,
) -> int:
    """Features of long recordings, a row a frame or a window.

    Args:
        files: recordings (.csv, .parquet, .npz of the HUNT4 layout), or folders of them.
        model: model directory.
        out: .parquet, or .npz for small ones.
        level: a row for each frame (half a second as published), or for each window (the mean over its frames).
        sensors: sensors of the tables, e.g. back,thigh for the columns back_x .. thigh_z; the model's if not given.
        columns: columns of the tables instead, channel=column, e.g. hip_x=acc_x,hip_y=acc_y,hip_z=acc_z.
        sensor_roles: as which of the model's sensors the data's go in, e.g. hip=thigh.
        unit: of the acceleration columns.
        rate: sampling rate in Hz.
        timestamp_column: time of every row; null if there is none.
        timestamp_unit: of timestamps that are numbers; text is a date and time.
        segment_column: a recording ends where its value changes.
        gap_limit: a recording ends at a step in the timestamps longer than so many seconds.
        layers: last, all (the embedding and every layer), or depths, e.g. 0,2,4 (0 is the embedding).
        merge: of a cross-sensor model's sensors, each of which goes through the encoder by itself.
        compute: dtype of matrix products.
        dtype: of the features in the file.
        batch_size: windows at a time; as many as fill the device if not given.
        readers: threads that read; two fewer than there are cores if not given.
        strict: stop at the first file that cannot be used instead of setting it aside.
        overwrite: replace `out`.
    """
    from selfpab_jax.data.sources.streaming import find_files
    from selfpab_jax.data.sources.tables import Tables, parse_columns, sensor_columns
    from selfpab_jax.features.extract import Extraction
    from selfpab_jax.features.files import ENDINGS
    from selfpab_jax.features.sensors import open_branches
    from selfpab_jax.features.streaming import Ledger, ProgressLine, set_aside_path
    from selfpab_jax.features.streaming import embed as embed_files
    from selfpab_jax.model_dir import read_config

    if sensors and columns:
        raise ConfigError("give sensors or columns, not both")
    if not rate > 0 or not gap_limit > 0:
        raise ConfigError("rate and gap_limit must be above 0")
    if out.suffix not in ENDINGS:
        raise ConfigError(f"{out}: features are written as .parquet or .npz")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists; choose another --out, or add --overwrite")
    roles = _roles(sensor_roles)
    config, _ = read_config(model)
    try:
        given = sensors.split(",") if sensors else _data_sensors(config.sensors, roles)
        pairs = parse_columns(columns) if columns else sensor_columns(tuple(name.strip() for name in given))
    except DataError as error:
        raise ConfigError(str(error)) from None
    how = Tables(
        (), pairs, unit, rate, timestamp_column, timestamp_unit, segment_column=segment_column, gap_limit=gap_limit
    )
    branches = open_branches(model, how.channels, roles)
    extraction = Extraction(layers=_layers(layers), merge=merge, compute=compute, dtype=dtype, batch_size=batch_size)
    found = find_files(files)
    progress, ledger = ProgressLine(found, rate), Ledger(strict)
    print(
        f"{len(found)} files, about {progress.hours:.1f} h of recording of "
        f"{', '.join(dict.fromkeys(sensor for branch in branches for sensor in branch.sensors))}, through {model} "
        f"({config.family}, width {config.model.width}); a row a {level}",
        flush=True,
    )
    try:
        done = embed_files(
            found, how, branches, extraction, out, level=level,
            readers=readers or max(1, (os.cpu_count() or 1) - 2), ledger=ledger, progress=progress,
        )  # fmt: skip
    finally:
        progress.close()
    for entry in ledger.entries[:SHOWN]:
        print(f"set aside: {entry.what}: {entry.reason}")
    if len(ledger.entries) > SHOWN:
        print(f"... and {len(ledger.entries) - SHOWN} more")
    if ledger.entries:
        print(f"all that was set aside: {set_aside_path(out)}")
    if ledger.short_seconds:
        count, seconds = len(ledger.short_seconds), sum(ledger.short_seconds)
        print(f"left out: {count} recordings shorter than a frame, {seconds:.1f} s in all")
    print(
        f"{out}: {done.rows:,} {level}s of {done.features} features, {done.hours:.1f} h of recording in "
        f"{done.seconds:.1f} s"
    )
    reading = f'numpy.load("{out}")["features"]' if out.suffix == ".npz" else f'pandas.read_parquet("{out}")'
    print(f"read it: {reading}")
    return 0


def embed_parser() -> Parser:
    """Arguments of `embed`."""
    parser = Parser("embed", (embed.__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="recordings (.csv, .parquet, .npz), or folders of them")
    parser.add_function_arguments(embed, skip={"files", "strict", "overwrite"}, as_positional=False)
    parser.add_argument("--strict", action="store_true", help="stop at the first file that cannot be used")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")
    return parser


def run_embed(namespace: Namespace) -> int:
    """Runs `embed` on parsed arguments; the exit code."""
    return embed(**namespace.as_dict())


def _roles(text: str | None) -> dict[str, str]:
    roles = {}
    for item in (text or "").split(",") if text else []:
        sensor, equals, role = (part.strip() for part in item.partition("="))
        if not (sensor and equals and role):
            raise ConfigError(f"sensor_roles: {item!r} is no sensor=role, e.g. hip=thigh")
        roles[sensor] = role
    return roles


def _data_sensors(of_model: tuple[str, ...], roles: dict[str, str]) -> tuple[str, ...]:
    """The model's sensors under the data's names."""
    return tuple(dict.fromkeys([*roles, *(sensor for sensor in of_model if sensor not in roles.values())]))


def _layers(text: str) -> Literal["last", "all"] | tuple[int, ...]:
    if text in ("last", "all"):
        return text  # pyright: ignore[reportReturnType]
    try:
        return tuple(int(depth) for depth in text.split(","))
    except ValueError:
        raise ConfigError(f"layers is {text!r}; it must be last, all, or depths such as 0,2,4") from None
