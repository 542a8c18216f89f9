"""A small cohort in the HUNT4 layout, records built from it, and ways to run a build."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.data.records.build import Runner, build_spec
from selfpab_jax.data.records.dataset import Records, open_records
from selfpab_jax.data.records.spec import BuildSpec, RecordSettings
from selfpab_jax.data.sources.hunt4 import Hunt4
from selfpab_jax.data.sources.synthetic import write_cohort
from selfpab_jax.data.splits import SplitSettings

BUILD = "import sys; from selfpab_jax.cli.records import *; sys.exit(run_build(build_parser().parse_args()))"


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, subjects=6, hours=4, seed=3)
    return folder


@pytest.fixture(scope="session")
def spec_of() -> Callable[..., BuildSpec]:
    """A specification of 20-second windows from the first minute of every file."""

    def make(folder: Path, **splits: object) -> BuildSpec:
        source = Hunt4((str(folder),), seconds=60.0)
        return BuildSpec(source, RecordSettings(window_samples=1000, shift_samples=1000), SplitSettings(**splits))

    return make


@pytest.fixture(scope="session")
def records(cohort: Path, tmp_path_factory: pytest.TempPathFactory, spec_of: Callable[..., BuildSpec]) -> Records:
    out = tmp_path_factory.mktemp("records")
    build_spec(spec_of(cohort), out, Runner(workers=1))
    return open_records(out)


@pytest.fixture(scope="session")
def build_command() -> list[str]:
    return [sys.executable, "-c", BUILD]


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, str]]:
    """Every file below a folder with a hash of its bytes; hidden files and the picture left out."""

    def read(folder: Path) -> dict[str, str]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.suffix != ".png"
        }

    return read


@pytest.fixture
def moving() -> np.ndarray:
    """A minute of a plausible signal, (3000, 6) in g."""
    rng = np.random.default_rng(5)
    time = np.arange(3000)[:, None] / 50
    gait = 0.4 * np.sin(2 * np.pi * 1.8 * time + np.arange(6))
    return (np.array([-1, 0, 0.1, -0.9, 0, -0.3]) + gait + rng.normal(0, 0.003, (3000, 6))).astype(np.float32)
