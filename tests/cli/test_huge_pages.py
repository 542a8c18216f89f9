"""Commands that compute begin again with huge pages, once, and only where that helps."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from selfpab_jax.cli import huge_pages

PROGRAM = """
import os, sys
from pathlib import Path
from selfpab_jax.cli.huge_pages import restart_with_huge_pages
print("begins", os.getpid(), os.environ.get("GLIBC_TUNABLES", ""), *sys.argv[1:], flush=True)
restart_with_huge_pages(Path(sys.argv[1]))
print("goes on", flush=True)
"""


def begun(switch: Path, tunables: str = "") -> list[str]:
    environment = {**os.environ, "GLIBC_TUNABLES": tunables}
    command = [sys.executable, "-c", PROGRAM, str(switch), "an argument"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


@pytest.fixture
def on_request(tmp_path: Path) -> Path:
    switch = tmp_path / "enabled"
    switch.write_text("always [madvise] never\n")
    return switch


@pytest.mark.skipif(not huge_pages._has_tunable(), reason="no glibc 2.35 or newer here: nothing to begin again for")
def test_begins_again_once_with_the_same_number_and_arguments(on_request: Path) -> None:
    first, second, last = begun(on_request, "glibc.malloc.check=0")
    number = first.split()[1]
    assert second == f"begins {number} glibc.malloc.check=0:glibc.malloc.hugetlb=1 {on_request} an argument"
    assert last == "goes on"


def test_small_pages_that_someone_asked_for_stay(on_request: Path) -> None:
    assert len(begun(on_request, "glibc.malloc.hugetlb=0")) == 2


@pytest.mark.parametrize("word", ["[always] madvise never", "always madvise [never]", None])
def test_nothing_happens_where_the_kernel_has_decided(tmp_path: Path, word: str | None) -> None:
    switch = tmp_path / "enabled"
    if word:
        switch.write_text(word)
    assert len(begun(switch)) == 2


def test_the_command_line_does_it_for_commands_that_compute_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from selfpab_jax.cli import main as command

    asked: list[list[str]] = []
    monkeypatch.setattr(command, "restart_with_huge_pages", lambda: asked.append(sys.argv[1:]))
    for words in (["status", "nowhere"], ["pretrain", "--help"], ["evaluate", "nowhere"], ["sweep", "run", "nowhere"]):
        monkeypatch.setattr(sys, "argv", ["selfpab-jax", *words])
        with suppress(SystemExit):  # help
            command.main()
    assert asked == [["evaluate", "nowhere"], ["sweep", "run", "nowhere"]]


def test_an_interpreter_that_went_away_does_no_harm(monkeypatch: pytest.MonkeyPatch, on_request: Path) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    for executable in ("", str(on_request.parent / "gone")):
        monkeypatch.setattr(sys, "executable", executable)
        huge_pages.restart_with_huge_pages(on_request)
    assert os.environ["GLIBC_TUNABLES"] == ""
