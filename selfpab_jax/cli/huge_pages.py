"""Huge pages for commands that compute for long."""

import os
import platform
import sys
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb"
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages(switch: Path = SWITCH) -> None:
    """Begin this process again, under its number, with an allocator that asks for huge pages.

    A training step takes gigabytes from the system and gives them back: in pages of 4 KiB, a tenth of the step at the
    published size went by in page faults on 2 cores. glibc reads its tunables only when a process begins. Nothing
    happens where the answer is given already (`GLIBC_TUNABLES=glibc.malloc.hugetlb=0` keeps small pages), where the
    kernel gives huge pages to everyone or to nobody, and without glibc 2.35.

    Args:
        switch: the kernel's file that says who gets huge pages.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    if not sys.executable or TUNABLE in given or not _on_request(switch) or not _has_tunable():
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (given, f"{TUNABLE}=1")))
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:  # the interpreter is not there any more: small pages do, too
        os.environ["GLIBC_TUNABLES"] = given


def _on_request(switch: Path) -> bool:
    try:
        return "[madvise]" in switch.read_text()
    except OSError:
        return False


def _has_tunable() -> bool:
    name, version = platform.libc_ver()
    return name == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= (2, 35)
