"""launch/tpu_vm/tpu.sh, with a stand-in for gcloud."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def tpu(programs: Callable[..., dict[str, str]], launch: Path, tmp_path: Path) -> Callable:
    note = f'printf "%s|" "$@" >>{tmp_path}/machine$MACHINE'
    environment = {
        **programs("gcloud", selfpab_jax=note),
        "STAND_IN_NOTES": str(tmp_path / "notes"),
        "HOME": str(tmp_path),
        "ZONE": "us-east5-b",
    }

    def tpu(*words: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(launch / "tpu_vm" / "tpu.sh"), *words],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=100,
        )

    return tpu


def test_a_slice_is_made_and_deleted(tpu: Callable, tmp_path: Path) -> None:
    assert tpu("create", "mine", "--spot", TYPE="v6e-16", VERSION="v2-alpha-tpuv6e").returncode == 0
    assert tpu("delete", "mine", "--quiet").returncode == 0
    created, deleted = map(json.loads, (tmp_path / "notes").read_text().splitlines())
    gcloud = ["compute", "tpus", "tpu-vm"]
    which = ["--accelerator-type=v6e-16", "--version=v2-alpha-tpuv6e"]
    assert created == [*gcloud, "create", "mine", "--zone=us-east5-b", *which, "--spot"]
    assert deleted == [*gcloud, "delete", "mine", "--zone=us-east5-b", "--quiet"]


def test_every_machine_runs_the_same_command(tpu: Callable, tmp_path: Path) -> None:
    words = ["pretrain", "--run", "/mnt/my run", "--seed", "$HOME", "--resume"]
    result = tpu("run", "mine", "selfpab-jax", *words)
    assert result.returncode == 0, result.stderr
    for machine in range(2):
        assert (tmp_path / f"machine{machine}").read_text() == "|".join(words) + "|"


def test_a_machine_that_fails_is_a_failure(tpu: Callable) -> None:
    assert tpu("run", "mine", "bash", "-c", "exit $((75 * MACHINE))").returncode == 75


def test_installed_programs_come_first(tpu: Callable, tmp_path: Path) -> None:
    installed = tmp_path / "selfpab" / "bin"
    installed.mkdir(parents=True)
    (installed / "selfpab-jax").write_text("#!/bin/sh\necho installed\n")
    (installed / "selfpab-jax").chmod(0o755)
    assert tpu("run", "mine", "selfpab-jax", "--version").stdout == "installed\ninstalled\n"


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        (["run"], {}, "usage: tpu.sh"),
        (["run", "mine"], {}, "usage: tpu.sh"),
        (["fly", "mine"], {}, "fly: no such action"),
        (["create", "mine"], {}, "set the slice"),
        (["run", "mine", "true"], {"ZONE": ""}, "set the zone"),
        (["install", "mine"], {}, "give what to install"),
    ],
)
def test_mistakes_in_the_call(tpu: Callable, words: list[str], variables: dict[str, str], message: str) -> None:
    result = tpu(*words, **variables)
    assert result.returncode != 0
    assert message in result.stderr
