"""What a source of recordings is: a list of files, and a reader of one file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selfpab_jax.data.recording import Recording
from selfpab_jax.errors import DataError


class Rejected(Exception):
    """This file cannot be used; the reason says why, for `rejected.jsonl`."""


@dataclass(frozen=True)
class SourceFile:
    """A file of one subject; samples is an estimate that only balances the shards."""

    subject: str
    name: str
    path: str
    samples: int


class Source(Protocol):
    """A frozen, picklable dataclass; a new kind of source is one file with such a class."""

    @property
    def name(self) -> str:
        """As records carry it."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the columns of the signals, in order, `<sensor>_<axis>`."""
        ...

    def files(self) -> Iterator[SourceFile]:
        """All files in a fixed order (by subject, then name), without opening more than headers.

        Raises:
            DataError: no such folder, or nothing in it.
        """
        ...

    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a file, in g.

        Raises:
            Rejected: the file is not what it should be.
        """
        ...


def existing_folders(paths: tuple[str, ...]) -> list[Path]:
    """The paths as folders.

    Raises:
        DataError: one is no folder.
    """
    if not paths:
        raise DataError("no folder of recordings was given")
    for path in paths:
        if not Path(path).is_dir():
            raise DataError(f"{path}: no such folder of recordings")
    return [Path(path) for path in paths]


def sensors_of(channels: tuple[str, ...]) -> tuple[str, ...]:
    """The sensors' names in order: `('back_x', 'back_y', ...)` -> `('back', ...)`."""
    return tuple(dict.fromkeys(channel.rpartition("_")[0] or channel for channel in channels))
