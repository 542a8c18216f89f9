"""Locks between processes, also where the file system has none."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from selfpab_jax.errors import LockedError
from selfpab_jax.io import atomic_path, exclusive_lock, remove_leftovers


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


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "f.parquet"
    for name, content in (
        (".f.parquet.abcd1234", "f.parquet"),
        (".f.parquet.wxyz5678", "other"),
        (".g.parquet.abcd1234", "f"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / content).write_text("half")
    with atomic_path(target) as temporary:  # of a process that lives
        remove_leftovers(target)
        assert temporary.parent.is_dir()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".f.parquet.wxyz5678", ".g.parquet.abcd1234"]
