"""The original's files: `<root>/<subject>/<YYYY-MM-DD_HH>.npz`, one npz a recording."""

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float32

from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError, existing_folders
from selfpab_jax.data.sources.checks import check_signal
from selfpab_jax.errors import DataError

KEY = "arr_0"
NAME = "%Y-%m-%d_%H"
NIGHT = range(0, 7)
"""Hours that `skip_night` leaves out: recordings that start in 00:00-06:59, as the original's 0 to 6, both included."""
CHANNELS = tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz")


@dataclass(frozen=True)
class Hunt4:
    """Folders in the HUNT4 layout: 50 Hz, g, columns back x, y, z and thigh x, y, z.

    Attributes:
        paths: folders that hold the subjects' folders (whose names may end in `.7z`, which is no part of the name).
        seconds: how much of each file is used, from its start; a shorter file is set aside.
        skip_night: leave out recordings that start in the hours 0 to 6.
    """

    paths: tuple[str, ...]
    seconds: float = 300.0
    skip_night: bool = False
    rate_hz: float = 50.0

    @property
    def name(self) -> str:
        """As records carry it."""
        return "hunt4"

    @property
    def channels(self) -> tuple[str, ...]:
        """Back, then thigh."""
        return CHANNELS

    @property
    def samples(self) -> int:
        """Samples used of a file: 15,000 as published."""
        return round(self.seconds * self.rate_hz)

    def files(self) -> Iterator[SourceFile]:
        """Every npz below every subject, by root, subject and name; no file is opened."""
        found = False
        for root in existing_folders(self.paths):
            for folder in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()):
                subject = folder.removesuffix(".7z")
                for name in sorted(entry for entry in os.listdir(root / folder) if entry.endswith(".npz")):
                    found = True
                    start = start_of(name.removesuffix(".npz"))
                    if self.skip_night and start is not None and start.hour in NIGHT:
                        continue
                    yield SourceFile(subject, name.removesuffix(".npz"), str(root / folder / name), self.samples)
        if not found:
            raise DataError(f"{', '.join(self.paths)}: no <subject>/<YYYY-MM-DD_HH>.npz below it")

    def read(self, file: SourceFile) -> list[Recording]:
        """The first `seconds` of a file as one recording.

        Raises:
            UnusableError: wrong name, not an npz, wrong key or columns, too short, or a signal that cannot be believed.
        """
        start = start_of(file.name)
        if start is None:
            raise UnusableError("wrong name: recordings are called <YYYY-MM-DD_HH>.npz")
        signal_NxC = read_rows(Path(file.path), self.samples, len(self.channels))
        check_signal(signal_NxC, self.channels, self.rate_hz)
        return [Recording(file.subject, file.name, start, self.rate_hz, signal_NxC)]


def start_of(name: str) -> datetime | None:
    """The time in a file's name, or None where there is none."""
    try:
        return datetime.strptime(name, NAME)
    except ValueError:
        return None


def read_rows(path: Path, rows: int, columns: int) -> Float32[np.ndarray, "N C"]:
    """The first rows of the array, reading no more of the file than they take.

    Raises:
        UnusableError: what is wrong with the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{KEY}.npy" not in archive.namelist():
                names = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:5]) or "nothing"
                raise UnusableError(f"wrong key: the npz holds {names}, not {KEY}")
            with archive.open(f"{KEY}.npy") as stream:
                return _first_rows(stream, rows, columns)
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UnusableError(f"not a readable npz: {error}") from None


def _first_rows(stream: IO[bytes], rows: int, columns: int) -> Float32[np.ndarray, "N C"]:
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(stream)
    if dtype.kind not in "fiu":
        raise UnusableError(f"wrong type: {KEY} holds {dtype}, not numbers")
    if len(shape) != 2 or shape[1] != columns:
        raise UnusableError(f"wrong number of columns: {KEY} has shape {shape}, not (samples, {columns})")
    if shape[0] < rows:
        raise UnusableError(f"too short: {shape[0]} samples, {rows} are needed")
    wanted = shape[0] if fortran_order else rows
    data = stream.read(wanted * columns * dtype.itemsize)
    if len(data) < wanted * columns * dtype.itemsize:
        raise UnusableError("not a readable npz: it ends too early")
    flat = np.frombuffer(data, dtype)
    array = flat.reshape(columns, wanted).T[:rows] if fortran_order else flat.reshape(wanted, columns)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)
