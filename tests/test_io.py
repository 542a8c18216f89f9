"""Locks between processes, also where the file system has none."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from selfpab_jax.errors import LockedError
from selfpab_jax.io import exclusive_lock


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with (
        exclusive_lock(tmp_path, "busy"),
        pytest.raises(LockedError, match="busy"),
        exclusive_lock(tmp_path, "busy"),
    ):
        pass
    with exclusive_lock(tmp_path, "busy"):
        pass


@pytest.mark.parametrize("code", ["ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL", "EIO", "ESTALE"])
def test_a_file_system_without_locks_is_not_another_process(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(fcntl, "flock", flock)
    done = False
    with exclusive_lock(tmp_path / ".lock", "busy"):
        done = True
    assert done
    assert str(tmp_path / ".lock") in capsys.readouterr().err


@pytest.mark.parametrize("code", ["EAGAIN", "EACCES"])
def test_a_lock_that_is_held_is_busy(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(getattr(errno, code), "held")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(LockedError), exclusive_lock(tmp_path, "busy"):
        pass
