"""What an operator watches a run with: where its time goes, a watchdog, profiles."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.errors import ConfigError, ExitCode
from selfpab_jax.train.logging import WatchSettings, read_log, rewind_log, time_shares
from selfpab_jax.train.watch import watch

TINY = [
    "--model.width", "16", "--model.heads", "4", "--model.feedforward", "16", "--model.layers", "1",
    "--model.compute", "float32", "--optimizer.batch_size", "8", "--validation.every_steps", "4",
    "--checkpoint.every_steps", "4",
]  # fmt: skip


def test_times_add_up_over_restarts(tmp_path: Path) -> None:
    events = [
        {"time": 100.0, "event": "start", "step": 0},
        {"time": 130.0, "event": "time", "step": 10, "compiling": 10.0, "steps": 20.0},
        {"time": 150.0, "event": "time", "step": 20, "compiling": 10.0, "steps": 38.0, "checkpoint": 2.0},
        {"time": 160.0, "event": "train", "step": 25, "loss": 1.0},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert time_shares(read_log(tmp_path)) == {"steps": 0.76, "checkpoint": 0.04, "compiling": 0.2}
    rewind_log(tmp_path, 20)
    assert list(read_log(tmp_path))[-1] == {"time": 160.0, "event": "lost", "step": 20, "seconds": 10.0}
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write(json.dumps({"time": 500.0, "event": "start", "step": 20}) + "\n")
        log.write(json.dumps({"time": 540.0, "event": "time", "step": 40, "compiling": 10.0, "steps": 30.0}) + "\n")
    shares = time_shares(read_log(tmp_path))
    assert {name: round(100 * share) for name, share in shares.items()} == {
        "steps": 68,
        "checkpoint": 2,
        "compiling": 20,
        "lost": 10,
    }
    rewind_log(tmp_path, 40)  # nothing is lost where nothing has to be repeated
    assert time_shares(read_log(tmp_path)) == shares


@pytest.mark.slow
def test_a_run_says_where_its_time_went_and_is_profiled(
    tiny_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    call = ["pretrain", "--data.path", str(tiny_records), *TINY, "--run", str(run), "--optimizer.steps", "8"]
    assert main([*call, "--watch.profile_steps", "3:4", "--watch.stuck_minutes", "30"]) == 0
    printed = capsys.readouterr().err
    assert f"profile of steps 3 to 4 in {run / 'profile'}" in printed
    assert "others" in printed
    assert list((run / "profile").rglob("*.xplane.pb"))
    assert "watch" not in json.loads((run / "settings.json").read_text())
    assert main(["status", str(run)]) == 0
    assert "% compiling" in capsys.readouterr().out
    assert sum(time_shares(read_log(run)).values()) == pytest.approx(1)


def test_a_watchdog_ends_a_process_that_hangs_and_says_where(tmp_path: Path) -> None:
    code = """
import time
from pathlib import Path
from selfpab_jax.train.logging import WatchSettings
from selfpab_jax.train.watch import watch

def hang():
    time.sleep(120)

with watch(WatchSettings(stuck_minutes=0.02), Path(".")) as on_step:
    for step in range(1, 4):
        on_step(step)
    hang()
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert found.returncode == ExitCode.STUCK == 76
    assert "has done no step for" in found.stderr
    assert "(the last was 2)" in found.stderr
    assert "in hang" in found.stderr


def test_what_cannot_be_watched_is_refused_or_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("5", "5:4", "0:3", "a:b"):
        with pytest.raises(ConfigError, match=r"watch\.profile_steps"):
            WatchSettings(profile_steps=wrong)
    with pytest.raises(ConfigError, match="stuck_minutes"):
        WatchSettings(stuck_minutes=0)
    with watch(WatchSettings(profile_steps="5:6"), tmp_path) as on_step:
        on_step(7)
    assert "the run begins at step 7" in capsys.readouterr().err
    with watch(WatchSettings(profile_steps="5:6"), tmp_path) as on_step:
        on_step(1)
    assert "the run ended before" in capsys.readouterr().err
