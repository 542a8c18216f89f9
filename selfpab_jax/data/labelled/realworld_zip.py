"""RealWorld's archives: a sensor's samples out of zips, and zips within zips."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.csv

from selfpab_jax.data.columns import numbers, seconds
from selfpab_jax.data.labelled.clock import Stream, overlaps, stream_of
from selfpab_jax.data.source import Rejected

ZIP_NAME = re.compile(r"acc_([a-z]+)_csv\.zip")
MEMBER_NAME = re.compile(r"acc_[a-z]+(?:_\d+)?_([a-z]+)\.csv", re.IGNORECASE)
COLUMNS = ["attr_time", "attr_x", "attr_y", "attr_z"]
DAMAGED = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises for a damaged or encrypted archive or member."""


@dataclass(frozen=True)
class Part:
    """One file of a sensor: its name, with the inner zip's before it, and its samples."""

    name: str
    stream: Stream


def read_parts(path: Path, sensors: tuple[str, ...]) -> tuple[dict[str, list[Part]], tuple[str, ...]]:
    """Every readable file of each wanted sensor in a zip, in order of time, and a line on each unreadable one.

    A file that overlaps an earlier one of its sensor in time is left out with a line.

    Raises:
        Rejected: not a zip.
    """
    found: dict[str, list[Part]] = {sensor: [] for sensor in sensors}
    notes = []
    try:
        with zipfile.ZipFile(path) as archive:
            for name, content in _members(archive, sensors, notes):
                try:
                    stream, of_stream = _stream(content)
                except Rejected as error:
                    notes.append(f"{name} left out: {error}")
                    continue
                notes += [f"{name}: {note}" for note in of_stream]
                found[_sensor(name)].append(Part(name, stream))
    except DAMAGED as error:
        raise Rejected(f"not a readable zip: {error}") from None
    for sensor, parts in found.items():
        found[sensor] = _in_order(parts, notes)
    return found, tuple(notes)


def _members(archive: zipfile.ZipFile, sensors: tuple[str, ...], notes: list[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the wanted sensors' files, those of inner zips included."""
    for info in archive.infolist():
        name = PurePosixPath(info.filename).name
        inner = name.lower().endswith(".zip")
        if not inner and _sensor(name) not in sensors:
            continue
        try:
            content = archive.read(info)
            if not inner:
                yield name, content
                continue
            with zipfile.ZipFile(io.BytesIO(content)) as within:
                yield from ((f"{name}/{each}", data) for each, data in _members(within, sensors, notes))
        except DAMAGED as error:
            notes.append(f"{name} left out: {error}")


def _sensor(name: str) -> str:
    match = MEMBER_NAME.fullmatch(PurePosixPath(name).name)
    return match[1].lower() if match else ""


def _stream(content: bytes) -> tuple[Stream, tuple[str, ...]]:
    """The samples of a CSV, and a line on rows that were left out."""
    skipped = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        skipped.append(row.number)
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=skip),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=COLUMNS),
        )
    except pa.ArrowException as error:
        raise Rejected(f"unreadable CSV: {str(error).splitlines()[0]}") from None
    table = table.filter(table.column("attr_time").is_valid())
    if not table.num_rows:
        raise Rejected("no rows with a time")
    signal_Nx3 = np.stack([numbers(table, column) for column in COLUMNS[1:]], axis=1)
    notes = (f"damaged rows left out: {len(skipped)}",) if skipped else ()
    return stream_of(seconds(table, "attr_time", "ms"), signal_Nx3), notes


def _in_order(parts: list[Part], notes: list[str]) -> list[Part]:
    kept: list[Part] = []
    for part in sorted(parts, key=lambda part: part.stream.span):
        if kept and overlaps([kept[-1].stream.span], [part.stream.span]):
            notes.append(f"{part.name} left out: it was recorded at the same time as {kept[-1].name}")
        else:
            kept.append(part)
    return kept
