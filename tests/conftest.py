"""Eight CPU devices, strict dtype promotion and warnings as errors for every test."""

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest

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
