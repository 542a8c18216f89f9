"""`predict` and `embed` as processes that are killed while they work: the same command again gives the whole result."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from table_writers import NAMES, signal_at

from selfpab_jax.cli.main import main
from selfpab_jax.features.files import read_features
from selfpab_jax.probe.heads.saved import SavedHead, write_head

FILES, MINUTES = 6, 40


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough that the first file is done well before the last."""
    folder = tmp_path_factory.mktemp("long")
    times = np.arange(MINUTES * 60 * 50) / 50
    for number in range(FILES):
        noise = np.random.default_rng(number).normal(0, 0.05, (len(times), 6))
        table = pd.DataFrame((signal_at(times) + noise).astype(np.float32), columns=pd.Index(NAMES))
        table.insert(0, "timestamp", pd.date_range("2026-01-01 22:00", periods=len(times), freq="20ms"))
        table.to_parquet(folder / f"P{number}.parquet")
    return folder


def kill_when(command: list[str], is_time: Callable[[], bool]) -> None:
    """Start a process and kill it as soon as something is there; it must not have finished by then."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not is_time() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -9, "the process ended too soon to be killed"
    assert is_time()


def results(out: Path) -> dict[str, bytes]:
    """Everything but the sources' sizes and dates, which the summaries of files hold."""
    kept = [*out.rglob("*.csv"), *out.rglob("*.parquet"), out / "summary.json", out / "quality" / "quality.jsonl"]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


@pytest.mark.slow
def test_predict(cli: list[str], recordings: Path, model: Path, head: SavedHead, tmp_path: Path) -> None:
    write_head(tmp_path / "head", head)
    call = ["predict", str(recordings), "--model", str(model), "--head", str(tmp_path / "head"), "--pictures", "false"]
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert main([*call, "--out", str(whole)]) == 0
    for moment in ("P0/seconds.parquet", "P1/summary.json"):
        kill_when([*cli, *call, "--out", str(out)], (out / moment).exists)
        assert not (out / "summary.json").exists()
    finished = [path.parent.name for path in out.glob("*/summary.json")]
    assert 1 < len(finished) < FILES
    written = {name: (out / name / "seconds.parquet").stat().st_mtime_ns for name in finished}
    assert main([*call, "--out", str(out)]) == 0
    assert results(out) == results(whole)
    for name, changed in written.items():
        assert (out / name / "seconds.parquet").stat().st_mtime_ns == changed, "what was finished is not done again"


@pytest.mark.slow
def test_embed(cli: list[str], recordings: Path, model: Path, tmp_path: Path) -> None:
    """It has no half results: the file appears when it is whole."""
    call = ["embed", str(recordings), "--model", str(model), "--level", "window", "--out"]
    out, whole = tmp_path / "out" / "features.parquet", tmp_path / "whole" / "features.parquet"
    assert main([*call, str(whole)]) == 0
    kill_when([*cli, *call, str(out)], lambda: any(out.parent.glob(".features.parquet.*")))
    assert not out.exists()
    assert main([*call, str(out)]) == 0
    assert not list(out.parent.glob(".*")), "what the killed process left is gone"
    (found, about), (expected, wanted) = read_features(out), read_features(whole)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert about == wanted
