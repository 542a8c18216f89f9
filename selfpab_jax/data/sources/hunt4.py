"""The original's files: `<root>/<subject>/<YYYY-MM-DD_HH>.npz`, one npz per recording."""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped

from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError, existing_folders
from selfpab_jax.data.sources.checks import check_signal
from selfpab_jax.errors import DataError

KEY = "arr_0"
NAME = "%Y-%m-%d_%H"
NIGHT = range(0, 7)
"""Hours that `skip_night` leaves out: recordings that start from 00:00 to 06:59, as in the original."""
CHANNELS = tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz")


@dataclass(frozen=True)
class Hunt4:
    """Folders in the HUNT4 layout: 50 Hz, in g, columns back x, y, z and thigh x, y, z.

    Attributes:
        paths: folders that hold the subjects' folders (`.7z` at the end of a folder's name is not part of the
            subject's name).
        seconds: how much of each file is used, from its start; shorter files are skipped.
        skip_night: leave out recordings that start in the hours 0 to 6.
        rate_hz: sampling rate.
    """

    paths: tuple[str, ...]
    seconds: float = 300.0
    skip_night: bool = False
    rate_hz: float = 50.0

    @property
    def name(self) -> str:
        """The source's name in the records."""
        return "hunt4"

    @property
    def channels(self) -> tuple[str, ...]:
        """Back, then thigh."""
        return CHANNELS

    @property
    def samples(self) -> int:
        """Samples used of each file: 15,000 as published."""
        return round(self.seconds * self.rate_hz)

    def files(self) -> Iterator[SourceFile]:
        """Every npz of every subject, by root, subject and name; no file is opened.

        Raises:
            DataError: a folder is missing, or there is no such file.
        """
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
            raise DataError(f"{', '.join(self.paths)}: there is no <subject>/<YYYY-MM-DD_HH>.npz")

    def read(self, file: SourceFile) -> list[Recording]:
        """The first `seconds` of a file as one recording.

        Raises:
            UnusableError: wrong name, not an npz, wrong key or columns, too short, or an implausible signal.
        """
        start = start_of(file.name)
        if start is None:
            raise UnusableError("wrong name: recordings are called <YYYY-MM-DD_HH>.npz")
        signal_NxC = as_float32(first_rows(Path(file.path), self.samples))
        check_signal(signal_NxC, self.channels, self.rate_hz)
        return [Recording(file.subject, file.name, start, self.rate_hz, signal_NxC)]


def start_of(name: str) -> datetime | None:
    """The time in a file's name, or None where there is none."""
    try:
        return datetime.strptime(name, NAME)
    except ValueError:
        return None


def first_rows(path: Path, rows: int) -> Shaped[np.ndarray, "N C"]:
    """The first rows of the array, reading no more of the file than they take.

    Raises:
        UnusableError: the file is not as it should be, or has fewer rows.
    """
    with _open_array(path) as array:
        if array.rows < rows:
            raise UnusableError(f"too short: {array.rows} samples, {rows} are needed")
        return next(array.blocks(rows))[:rows]


def read_blocks(path: Path, rows: int) -> Iterator[Shaped[np.ndarray, "n C"]]:
    """The array in blocks of this many rows (all at once if it is stored column by column).

    Raises:
        UnusableError: the file is not as it should be.
    """
    with _open_array(path) as array:
        yield from array.blocks(rows)


def as_float32(values_NxC: Shaped[np.ndarray, "N C"]) -> Float32[np.ndarray, "N C"]:
    """A C-contiguous float32 copy; numbers beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values_NxC, np.float32)


@dataclass(frozen=True)
class _StoredArray:
    """The array in an open npz: its size and type, and what reads its next bytes."""

    read: Callable[[int], bytes]
    rows: int
    dtype: np.dtype
    fortran_order: bool

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        columns = len(CHANNELS)
        rows = self.rows if self.fortran_order else rows
        for first in range(0, self.rows, max(rows, 1)):
            count = min(rows, self.rows - first)
            data = self.read(count * columns * self.dtype.itemsize)
            if len(data) < count * columns * self.dtype.itemsize:
                raise UnusableError("not a readable npz: it ends too early")
            flat = np.frombuffer(data, self.dtype)
            yield flat.reshape(columns, count).T if self.fortran_order else flat.reshape(count, columns)


@contextmanager
def _open_array(path: Path) -> Iterator[_StoredArray]:
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{KEY}.npy" not in archive.namelist():
                names = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:5]) or "nothing"
                raise UnusableError(f"wrong key: the npz holds {names}, not {KEY}")
            with archive.open(f"{KEY}.npy") as stream:
                version = np.lib.format.read_magic(stream)
                read_header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, fortran_order, dtype = read_header(stream)
                if dtype.kind not in "fiu":  # an object array is never unpickled: that could run code
                    raise UnusableError(f"wrong type: {KEY} holds {dtype}, not numbers")
                if len(shape) != 2 or shape[1] != len(CHANNELS):
                    raise UnusableError(
                        f"wrong number of columns: {KEY} has shape {shape}, not (samples, {len(CHANNELS)})"
                    )
                yield _StoredArray(stream.read, shape[0], dtype, fortran_order)
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UnusableError(f"not a readable npz: {error}") from None
