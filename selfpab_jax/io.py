"""Files that are there whole or not at all, and the disk space that they need."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from selfpab_jax.errors import ModelError

SLACK = 2**20
"""Bytes for configuration, statistics and the like."""


def require_folder(target: Path) -> None:
    """See that `target` can be made where it will be.

    Raises:
        ModelError: it cannot.
    """
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise ModelError(f"{target} cannot be made: {folder} is a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ModelError(f"{target} cannot be made: {folder} cannot be written to")


def require_room(target: Path, size: int) -> None:
    """See that there is room for so many bytes where `target` will be.

    Raises:
        ModelError: there is not.
    """
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < size + SLACK:
        raise ModelError(f"{target} needs {(size + SLACK) / 1e6:,.0f} MB, but its disk has {free / 1e6:,.0f} MB left")


@contextmanager
def replaced_when_whole(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that becomes it at the end (in place of a file, never of a folder that
    holds something), or is gone after any failure.

    Raises:
        ModelError: it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise ModelError(f"{target} cannot be made: {error}") from None
    try:
        yield workshop / target.name
        (workshop / target.name).replace(target)
    except OSError as error:
        raise ModelError(f"{target} could not be written: {error}") from None
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
