"""Eight CPU devices, strict dtype promotion, checked shapes and types, and warnings as errors for every test."""

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

# Shapes and types of arguments and results are checked at every call of the package, in this process.
sys.path.insert(0, str(Path(__file__).parent))
from jaxtyping import install_import_hook

CHECKED = ("signal", "model", "distributed", "data", "train", "features", "convert", "probe", "scaling", "planning")
install_import_hook([f"selfpab_jax.{package}" for package in CHECKED], "typechecking.checked")

import jax  # noqa: E402
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
