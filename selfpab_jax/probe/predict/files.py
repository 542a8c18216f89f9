"""What `predict` writes for one file of recordings: a folder with seconds, minutes, pictures and a summary.

A folder is finished when it has its summary, which is written last.
"""

import csv
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Float64, Int

from selfpab_jax.data.sources.files import stem_of
from selfpab_jax.data.sources.pairing import SensorFiles
from selfpab_jax.data.tables.recordings import RecordingPath
from selfpab_jax.errors import ConfigError, StorageError
from selfpab_jax.io import atomic_path, reason, write_json, write_text
from selfpab_jax.probe.predict.clock import SECOND, Clock
from selfpab_jax.probe.predict.figure import draw_day
from selfpab_jax.probe.predict.minutes import DECIMALS, ActivityTotals, MovementByMinute
from selfpab_jax.probe.predict.seconds import ActivitySeconds

SUMMARY_FILE, SECONDS_FILE = "summary.json", "seconds"
BY_DAY_FILE, BY_HOUR_FILE = "minutes_by_day.csv", "minutes_by_hour.csv"
ROW_GROUP = 100_000
"""Rows that are written at a time."""


class SecondsWriter:
    """Writes the seconds of a file as Parquet and CSV, and adds them up.

    Args:
        folder: of the file; what an interrupted call left there is replaced.
        name: of the file in the tables.
        classes: names.
        clock: of the file.

    Raises:
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str, classes: tuple[str, ...], clock: Clock):
        self.folder, self.name, self.clock = folder, name, clock
        self.totals = ActivityTotals(classes, clock)
        self.rows = 0
        self._waiting: list[tuple[ActivitySeconds, np.ndarray, np.ndarray]] = []
        self._waiting_rows = 0
        self._open_files = ExitStack()
        try:
            clear_folder(folder)
            folder.mkdir(parents=True)
            self._parquet = self._open_files.enter_context(
                pyarrow.parquet.ParquetWriter(folder / f"{SECONDS_FILE}.parquet", _schema(clock))
            )
            self._text = self._open_files.enter_context((folder / f"{SECONDS_FILE}.csv").open("w", encoding="utf-8"))
            self._csv = csv.writer(self._text, lineterminator="\n")
            self._csv.writerow(_schema(clock).names)
        except OSError as error:
            raise StorageError(f"{folder} cannot be written: {reason(error)}") from None

    def write(self, rows: ActivitySeconds) -> None:
        """Add seconds; they may be kept in memory for a while."""
        class_S = rows.probability_SxY.argmax(axis=1)
        self.totals.add(rows, class_S)
        self._waiting.append((rows, class_S, rows.probability_SxY.max(axis=1, initial=0)))
        self._waiting_rows += len(rows)
        if self._waiting_rows >= ROW_GROUP:
            self._flush()

    def finish(self, movement: MovementByMinute | None, pictures: bool, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Write the rest: minutes, pictures, and last the summary, which is returned.

        Args:
            movement: for the pictures.
            pictures: whether to draw them.
            summary: what else it holds.
        """
        try:
            self._flush()
            self.close()
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be written: {reason(error)}") from None
        write_rows(self.folder / BY_DAY_FILE, self.totals.by_day(self.name))
        write_rows(self.folder / BY_HOUR_FILE, self.totals.by_hour(self.name))
        days = [self.clock.day_name(day).replace(" ", "_") for day in self.totals.days]
        if pictures:
            for day, text in zip(self.totals.days, days, strict=True):
                draw_day(self.totals, movement, day, self.name, self.folder / f"{text}.png")
        content = {"file": self.name, **summary, "seconds": self.rows, "minutes": self.totals.totals()}
        write_json(self.folder / SUMMARY_FILE, content)
        return content

    def close(self) -> None:
        """Let go of the files."""
        self._open_files.close()

    def _flush(self) -> None:
        rows = [row for row in self._waiting if len(row[0])]
        self._waiting, self._waiting_rows = [], 0
        if not rows:
            return
        instant_S = np.concatenate([each.instant_S for each, _, _ in rows])
        seconds_S = np.concatenate([each.seconds_S for each, _, _ in rows])
        class_S = np.concatenate([classes_S for _, classes_S, _ in rows])
        probability_S = np.concatenate([of_rows_S for _, _, of_rows_S in rows])
        recordings = [each.recording for each, _, _ in rows for _ in range(len(each))]
        self.rows += len(class_S)
        schema = _schema(self.clock)
        names = np.array(self.totals.classes)[class_S]
        instant_S = instant_S // SECOND * SECOND  # a row is a second of the clock, also where it is not whole
        times = pa.array(instant_S // 1000, pa.int64())
        columns = {
            "recording": pa.array(recordings).dictionary_encode(),
            **(
                {"time": times.cast(schema.field("time").type)} if self.clock.known else {"second": instant_S // SECOND}
            ),
            "class": pa.array(names).dictionary_encode(),
            "probability": probability_S.astype(np.float32),
            "length_s": seconds_S.astype(np.float32),
        }
        self._parquet.write_table(pa.table(columns, schema=schema))
        self._csv.writerows(_csv_rows(self.clock, recordings, instant_S, names, probability_S, seconds_S))


def clear_folder(folder: Path) -> None:
    """Delete what an earlier call wrote of a file.

    Raises:
        StorageError: it holds something else.
    """
    if folder.exists():
        _require_ours(folder)
        shutil.rmtree(folder)


def clear_unused(out: Path) -> None:
    """Delete the results of calls that used nothing, so that other settings can be tried.

    Args:
        out: folder of the results.

    Raises:
        StorageError: they cannot be deleted, or hold something else.
    """
    for name in (SUMMARY_FILE, BY_DAY_FILE, BY_HOUR_FILE):
        (out / name).unlink(missing_ok=True)
    for path in [*out.glob(f"*/{SUMMARY_FILE}"), *out.glob(f"*/{SECONDS_FILE}.csv")]:
        clear_folder(path.parent)


def _require_ours(folder: Path) -> None:
    """Nothing is deleted but what an earlier call wrote."""
    ours = {SUMMARY_FILE, BY_DAY_FILE, BY_HOUR_FILE, f"{SECONDS_FILE}.parquet", f"{SECONDS_FILE}.csv"}
    for path in folder.iterdir():
        if path.name not in ours and path.suffix != ".png" and not path.name.startswith("."):
            raise StorageError(f"{path}: not written by predict, which would delete it here; choose another --out")


def _schema(clock: Clock) -> pa.Schema:
    zone = None if clock.zone is None else clock.zone.key
    words = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("recording", words),
            ("time", pa.timestamp("ms", tz=zone)) if clock.known else ("second", pa.int64()),
            ("class", words),
            ("probability", pa.float32()),
            ("length_s", pa.float32()),
        ]
    )


def _csv_rows(
    clock: Clock,
    recordings: list[str],
    instant_S: Int[np.ndarray, " S"],
    names: np.ndarray,
    probability_S: Float64[np.ndarray, " S"],
    seconds_S: Float64[np.ndarray, " S"],
) -> Iterator[tuple[str, ...]]:
    for recording, time, name, probability, seconds in zip(
        recordings, clock.texts(instant_S), names.tolist(), probability_S.tolist(), seconds_S.tolist(), strict=True
    ):
        yield recording, time, name, f"{probability:.4f}", f"{seconds:g}"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV table, completely or not at all; nothing where there is no row.

    Args:
        path: of the table.
        rows: all with the same columns.

    Raises:
        StorageError: it cannot be written.
    """
    listed = list(rows)
    if not listed:
        return
    table = StringIO(newline="")
    writer = csv.DictWriter(table, fieldnames=list(listed[0]), lineterminator="\n")
    writer.writeheader()
    for row in listed:
        writer.writerow({k: f"{v:.{DECIMALS}f}" if isinstance(v, float) else v for k, v in row.items()})
    write_text(path, table.getvalue())


def join_tables(target: Path, tables: Iterable[Path]) -> None:
    """One CSV table of several with the same columns.

    Args:
        target: to write.
        tables: in order; those that are missing are left out.

    Raises:
        StorageError: it cannot be written.
    """
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as out:
        for number, path in enumerate(path for path in tables if path.exists()):
            with path.open(encoding="utf-8") as table:
                header = next(table, "")
                out.write("" if number else header)
                shutil.copyfileobj(table, out)


def finished_files(out: Path) -> dict[str, dict[str, Any]]:
    """The summaries of all files whose results are in a folder, of every call, by name.

    Args:
        out: folder of the results.
    """
    found = {}
    for path in sorted(out.glob(f"*/{SUMMARY_FILE}")):
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # damaged: it is done again where its file is given
        if isinstance(summary, dict) and {"hours_used", "minutes"} <= summary.keys():
            found[path.parent.name] = summary
    return found


def finished_summary(folder: Path, path: RecordingPath) -> dict[str, Any] | None:
    """The summary of a finished file, or None where it must be done (again): missing, cut off, or the file has changed.

    Args:
        folder: of the file.
        path: of the recording.

    Raises:
        ConfigError: the folder has the results of another file of this name, which is still there.
    """
    try:
        summary = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
        before, now = summary["source"], describe_source(path)
        if before == now:
            return summary
        others = set(_paths_of(before)) - set(_paths_of(now))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if present := [other for other in sorted(others) if other.exists()]:
        raise ConfigError(f"{folder} has the results of {present[0]}, a file of the same name; choose another --out")
    return None


def _paths_of(source: Mapping[str, Any]) -> list[Path]:
    """Of a file, or of a file per sensor, see `describe_source`."""
    each = [source] if "path" in source else list(source.values())
    return [Path(one["path"]).resolve() for one in each]


def describe_source(path: RecordingPath) -> dict[str, Any]:
    """Name, size and time of change of a file of recordings, or of a file per sensor.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(path, SensorFiles):
        return {sensor: describe_source(each) for sensor, each in path.paths.items()}
    status = path.stat()
    return {"path": str(path), "bytes": status.st_size, "changed_ns": status.st_mtime_ns}


def names_of(files: Mapping[Path, Path | None]) -> dict[str, Path]:
    """A name for each file, which is that of its folder in the output.

    It is the file's own name without its ending; of a file that was found below a folder, the path from there, with
    `__` between folders. It does not depend on the other files, so that more can be added later.

    Args:
        files: each file, and the folder that it was found below, or None.

    Raises:
        ConfigError: two files have the same name.
    """
    named: dict[str, Path] = {}
    for path, below in files.items():
        parts = (path.name,) if below is None else path.relative_to(below).parts
        name = "__".join((*parts[:-1], stem_of(path)))
        if name in named:
            raise ConfigError(f"{named[name]} and {path} would both be written to {name}; give them different names")
        named[name] = path
    return named
