"""Eight CPU devices, strict dtype promotion, checked shapes and types, and warnings as errors for every test."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Workers, and the commands that tests start, compile the same small programs: a third of the suite's time.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="selfpab-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# Shapes and types of arguments and results are checked at every call of the package, in this process.
sys.path.insert(0, str(Path(__file__).parent))
from jaxtyping import install_import_hook

CHECKED = ("signal", "model", "distributed", "data", "train", "features", "convert", "probe", "scaling", "planning")
install_import_hook([f"selfpab_jax.{package}" for package in CHECKED], "typechecking.checked")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import pytest  # noqa: E402

from selfpab_jax.cli.main import main  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the project's shared recordings and checkpoints are not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def cli() -> list[str]:
    """The command line as a user's shell would start it, from this interpreter."""
    return [sys.executable, "-m", "selfpab_jax.cli.main"]


@pytest.fixture(scope="session")
def tiny_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of 20-second windows of a small cohort."""
    folder = tmp_path_factory.mktemp("tiny")
    assert main(["cohort", str(folder / "cohort"), "--subjects", "6", "--hours", "2"]) == 0
    build = ["records", "build", "--source", "hunt4", str(folder / "cohort"), "--out", str(folder / "records")]
    assert main([*build, "--window_seconds", "20", "--workers", "1", "--validation", "0.2", "--test", "0.2"]) == 0
    return folder / "records"


CHANNELS = [(sensor, axis) for sensor in ("back", "thigh") for axis in "xyz"]
BUILD_TABLES = ["--source", "recordings", "--timestamp_unit", "ms", "--label_column", "label", "--window_seconds", "20"]
SEGMENT_SECONDS = (50, 13, 20, 7, 4)
"""Continuous segments of every subject of `tables_with_gaps`."""
BEGIN_SECONDS = 1_700_000_000


@pytest.fixture(scope="session")
def tables_with_gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six subjects' tables at 50 Hz whose timestamps (ms) have gaps of 10 s."""
    folder = tmp_path_factory.mktemp("gaps")
    rng = np.random.default_rng(5)
    starts = np.cumsum([0, *(seconds + 10 for seconds in SEGMENT_SECONDS[:-1])])
    time = np.concatenate(
        [start + np.arange(50 * seconds) / 50 for start, seconds in zip(starts, SEGMENT_SECONDS, strict=True)]
    )
    for subject in range(6):
        gait = 0.4 * np.sin(2 * np.pi * (1.5 + subject / 10) * time[:, None] + np.arange(6))
        signal = np.array([-1, 0, 0.1, -0.9, 0, -0.3]) + gait + rng.normal(0, 0.003, (len(time), 6))
        columns = {f"{sensor}_{axis}": signal[:, i] for i, (sensor, axis) in enumerate(CHANNELS)}
        columns["timestamp"] = np.round(1000 * (BEGIN_SECONDS + time)).astype(np.int64)
        columns["label"] = (time // 7 % 3).astype(np.int64)
        pq.write_table(pa.table(columns), folder / f"S{subject}.parquet")
    return folder


@pytest.fixture(scope="session")
def padded_records(tables_with_gaps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of them: 20-second windows, one of which is moved back, and segments of 7 and 13 s that are padded."""
    out = tmp_path_factory.mktemp("padded")
    build = ["records", "build", str(tables_with_gaps), "--out", str(out), *BUILD_TABLES, "--shortest_seconds", "5"]
    assert main([*build, "--workers", "1", "--validation", "0.2", "--test", "0.2"]) == 0
    return out
