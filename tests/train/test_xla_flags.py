"""Flags of XLA: only known ones are set, a user's own win, and all can be left out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfpab_jax.train import xla_flags
from selfpab_jax.train.xla_flags import SWITCH, TABLE, Flag, apply_flags, known_flags, libraries, platforms

HIDING = "xla_gpu_enable_latency_hiding_scheduler"


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xla_flags, "platforms", lambda _: ["gpu"])


def test_every_flag_has_a_reason_and_a_place() -> None:
    assert len({flag.name for flag in TABLE}) == len(TABLE)
    for flag in TABLE:
        assert flag.name.startswith("xla_")
        assert len(flag.reason) > 40
        assert flag.reason.endswith(".")


def test_flags_are_added_and_the_users_own_win(gpu_machine: None) -> None:
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    assert [flag.name for flag in apply_flags(environment)] == [HIDING]
    assert environment["XLA_FLAGS"] == f"--{HIDING}=true --xla_force_host_platform_device_count=2"
    assert apply_flags(environment) == [], "a second call adds nothing"
    chosen = {"XLA_FLAGS": f"--{HIDING}=false"}
    assert apply_flags(chosen) == []
    assert chosen == {"XLA_FLAGS": f"--{HIDING}=false"}


def test_all_can_be_left_out(gpu_machine: None) -> None:
    environment = {SWITCH: "none"}
    assert apply_flags(environment) == []
    assert environment == {SWITCH: "none"}


def test_unknown_flags_never_reach_xla(gpu_machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    retired = Flag("gpu", "xla_gpu_enable_async_all_gather", "true", "XLA knew it until 2024.")
    monkeypatch.setattr(xla_flags, "TABLE", (retired, *TABLE))
    environment: dict[str, str] = {}
    assert [flag.name for flag in apply_flags(environment)] == [HIDING]

    def start(flags: str) -> subprocess.CompletedProcess:
        variables = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        command = [sys.executable, "-c", "import jax; jax.devices()"]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)

    assert start(environment["XLA_FLAGS"]).returncode == 0
    refused = start(str(retired))
    assert refused.returncode != 0, "XLA accepts unknown flags now: the check may go"
    assert "Unknown flag" in refused.stderr


def test_every_library_must_know_a_flag(tmp_path: Path) -> None:
    reads = b"\0xla_dump_to\0"
    (tmp_path / "old.so").write_bytes(reads + b"\0xla_one\0")
    (tmp_path / "new.so").write_bytes(reads + b"\0xla_one\0xla_two\0")
    (tmp_path / "other.so").write_bytes(b"knows no flags of XLA")
    (tmp_path / "words.so").write_bytes(reads + b"in a description: xla_one, or as part: my_xla_one\0")
    both, new = [tmp_path / "old.so", tmp_path / "new.so", tmp_path / "other.so"], [tmp_path / "new.so"]
    assert known_flags(["xla_one", "xla_two"], both) == {"xla_one"}
    assert known_flags(["xla_one", "xla_two"], new) == {"xla_one", "xla_two"}
    assert known_flags(["xla_one"], [tmp_path / "words.so"]) == set()
    assert known_flags(["xla_one"], [tmp_path / "other.so"]) == set()


def test_names_across_pieces_of_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xla_flags, "CHUNK", 16)
    (tmp_path / "a.so").write_bytes(b"\0xla_dump_to\0" + b"-" * 13 + b"\0xla_gpu_something_long\0")
    assert known_flags(["xla_gpu_something_long"], [tmp_path / "a.so"]) == {"xla_gpu_something_long"}


def test_platforms(tmp_path: Path) -> None:
    assert platforms({}, tmp_path) == []
    (tmp_path / "nvidia0").touch()
    assert platforms({}, tmp_path) == ["gpu"]
    assert platforms({"JAX_PLATFORMS": "cuda,cpu"}, tmp_path) == ["gpu"]
    assert platforms({"JAX_PLATFORMS": "cpu"}, tmp_path) == []
    assert libraries("gpu"), "jaxlib is there on every machine"
