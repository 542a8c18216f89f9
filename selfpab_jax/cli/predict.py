"""`selfpab-jax predict`."""

from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from selfpab_jax.cli.embed import PRINTED_SKIPS, parse_roles, parse_sensors
from selfpab_jax.config import Parser
from selfpab_jax.data.sources.survey import NonWear
from selfpab_jax.data.tables.timestamps import TimestampUnit
from selfpab_jax.errors import ExitCode
from selfpab_jax.progress import duration
from selfpab_jax.signal.resample import Unit


def predict(
    files: list[Path],
    model: Path,
    out: Path,
    head: Path | None = None,
    zone: str | None = None,
    clock: Literal["local", "utc"] = "local",
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
    pictures: bool = True,
    batch_size: int | None = None,
    readers: int | None = None,
    *,
    strict: bool = False,
) -> int:
    """Activity of every second of long recordings, and its minutes by day and hour.

    Args:
        files: recordings (.csv, .tsv, .parquet, .cwa, .gt3x, .bin, .npz of the HUNT4 layout), or folders of them.
        model: model directory, or har-small, which ships with the package.
        out: folder of the results; the same command again continues there.
        head: folder of a head that was trained on this model (selfpab-jax probe --save_head); by default the head that
            ships with the model.
        zone: time zone of the times that are written, e.g. Europe/Oslo; by default the recorder's clock as it is.
        clock: whether the recorder was set to the zone's local time or to utc.
        sensors: sensors of the tables, e.g. back,thigh for the columns back_x to thigh_z; by default the head's.
        columns: columns of the tables instead, channel=column, e.g. hip_x=acc_x,hip_y=acc_y,hip_z=acc_z; with
            sensor_files also x=acc_x,y=acc_y,z=acc_z, the columns of every file.
        sensor_roles: the model's name for a sensor of the data, where the two differ, e.g. hip=thigh; by default the
            head's.
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
        pictures: draw each day.
        batch_size: windows per batch; by default as many as keep the device busy.
        readers: threads that read files; by default two fewer than CPUs.
        strict: stop at the first file that cannot be used instead of skipping it.
    """
    from selfpab_jax.data.tables.format import TableFormat, given_columns
    from selfpab_jax.model_dir import read_config
    from selfpab_jax.probe.heads.saved import load_head
    from selfpab_jax.probe.predict.run import columns_for, own_head
    from selfpab_jax.probe.predict.run import predict as predict_files

    roles = parse_roles(sensor_roles)
    saved, config = load_head(head or own_head(model)), read_config(model)[0]
    pairs = given_columns(
        columns,
        parse_sensors(sensors),
        columns_for(saved, config.sensors, roles),
        file_per_sensor=sensor_files is not None,
    )
    result = predict_files(
        files,
        model,
        saved,
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
        zone=zone,
        clock=clock,
        pictures=pictures,
        batch_size=batch_size,
        readers=readers,
        strict=strict,
        progress=True,
    )
    for entry in result.skipped[:PRINTED_SKIPS]:
        print(f"skipped: {entry.what}: {entry.reason}")
    if len(result.skipped) > PRINTED_SKIPS:
        print(f"... and {len(result.skipped) - PRINTED_SKIPS} more in {out / 'summary.json'}")
    for name, minutes in result.minutes.items():
        if minutes:
            print(f"{minutes:10.1f} min  {name}")
    if absent := [name for name, minutes in result.minutes.items() if not minutes]:
        print(f"         0 min  {', '.join(absent)}")
    before = f", {result.finished_before} of them finished by earlier calls" if result.finished_before else ""
    used, given = duration(3600 * result.hours_used), duration(3600 * result.hours_in)
    print(
        f"{out}: {result.files} {'file' if result.files == 1 else 'files'}{before}; {used} of {given} of recording, "
        f"in {result.seconds:.1f} s"
    )
    print(f"what of each file was used and cut: {result.quality}")
    print("minutes_by_day.csv, minutes_by_hour.csv and summary.json hold all files in the folder; a folder per file")
    return ExitCode.OK


def predict_parser() -> Parser:
    """The arguments of `predict`."""
    parser = Parser("predict", (predict.__doc__ or "").splitlines()[0])
    parser.add_argument(
        "files", nargs="+", type=Path, help="recordings (.csv, .parquet, .cwa, .gt3x, .bin, .npz), or folders"
    )
    parser.add_function_arguments(predict, skip={"files", "strict"}, as_positional=False)
    parser.add_argument("--strict", action="store_true", help="stop at the first file that cannot be used")
    return parser


def run_predict(namespace: Namespace) -> int:
    """Run `predict` with parsed arguments and return the exit code."""
    return predict(**namespace.as_dict())
