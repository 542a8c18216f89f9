"""Files that are complete or not there at all, locks between processes, and disk space."""

import errno
import fcntl
import glob
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from selfpab_jax.errors import LockedError, StorageError, warn

SLACK = 2**20
"""Bytes for configuration, statistics and other small files."""
BUSY = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}
"""What `flock` answers where another process holds the lock; some NFS and Lustre mounts answer ENOLCK or ENOSYS."""


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that takes its place when the block ends, and is gone after any failure.

    The block creates a file or a folder there. A file at `target` is replaced; a folder that holds something is not.

    Raises:
        StorageError: it cannot be written.
    """
    require_parent(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        handle = os.open(workshop, os.O_RDONLY)
    except OSError as error:
        raise StorageError(f"{target} cannot be created: {reason(error)}") from None
    temporary = workshop / target.name
    try:
        _try_lock(handle)  # see `remove_leftovers`; the folder is nobody else's either way
        yield temporary
        if temporary.is_file():
            _flush_to_disk(temporary)
        temporary.replace(target)
    except OSError as error:
        raise StorageError(f"{target} could not be written: {reason(error)}") from None
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        os.close(handle)


def remove_leftovers(target: Path) -> None:
    """Delete what processes that were killed left of `atomic_path(target)`.

    A folder that holds anything else is kept, and one that may be in use: its process lives and has locked it, or the
    file system has no locks.
    """
    for folder in target.parent.glob(f".{glob.escape(target.name)}.*"):
        is_ours = re.fullmatch(r"[a-z0-9_]{8}", folder.name.removeprefix(f".{target.name}."))
        if not is_ours or not folder.is_dir() or folder.is_symlink():
            continue
        try:
            handle = os.open(folder, os.O_RDONLY)
        except OSError:
            continue
        try:
            if _try_lock(handle) and {path.name for path in folder.iterdir()} <= {target.name}:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


def write_text(target: Path, text: str) -> None:
    """Write a text file completely or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, content: Any) -> None:
    """Write a JSON file completely or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    write_text(target, json.dumps(content, indent=2) + "\n")


@contextmanager
def exclusive_lock(path: Path, busy: str) -> Iterator[None]:
    """Hold a file or folder for this process; a killed process lets go of it by itself.

    On a file system without locks the block runs without one, and a warning is printed: a lock file would outlive a
    killed process, and keep the next one, perhaps on another host, from going on.

    Args:
        path: an existing folder, or a file that is created if it is missing.
        busy: the error message where another process holds it.

    Raises:
        LockedError: another process holds it.
        StorageError: the file cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StorageError(f"{path} cannot be opened: {reason(error)}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in BUSY:
            os.close(handle)
            raise LockedError(busy) from None
        warn(f"{path} cannot be locked ({reason(error)}); make sure that no other process writes here")
    try:
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def require_parent(target: Path) -> None:
    """Check that `target` can be created where it is wanted.

    Raises:
        StorageError: it cannot.
    """
    folder = _existing_parent(target)
    if not folder.is_dir():
        raise StorageError(f"{target} cannot be created: {folder} is a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"{target} cannot be created: no permission to write to {folder}")


def require_disk_space(target: Path, size: int) -> None:
    """Check that the disk of `target` has space for `size` more bytes.

    Raises:
        StorageError: it has not.
    """
    free = shutil.disk_usage(_existing_parent(target)).free
    if free < size + SLACK:
        raise StorageError(
            f"{target} needs {(size + SLACK) / 1e6:,.0f} MB, but its disk has {free / 1e6:,.0f} MB of free space"
        )


def reason(error: OSError) -> str:
    """Why a file operation failed, in a few words."""
    return (error.strerror or str(error)).lower()


def _existing_parent(target: Path) -> Path:
    return next(parent for parent in target.absolute().parents if parent.exists())


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
