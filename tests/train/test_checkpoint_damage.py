"""Checkpoints with missing, truncated or changed files, and paths below which they could not be read."""

import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from selfpab_jax.errors import RunError
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train import checkpoint
from selfpab_jax.train.checkpoint import Checkpoints, CheckpointSettings, checkpoint_metadata, read_parameters
from selfpab_jax.train.checkpoint_files import checksum
from selfpab_jax.train.state import TrainState

STEPS = (5, 10)


def state_of(step: int) -> TrainState:
    def random(seed: int) -> dict[str, jax.Array]:
        return {"a.kernel": jax.random.normal(jax.random.key(step + seed), (64, 64)), "a.bias": jnp.ones(3)}

    return TrainState(jnp.int32(step), random(0), (random(1), random(2)))


def metadata() -> dict:
    statistics = Statistics(np.zeros(3, np.float32), np.ones(3, np.float32), "plain")
    return checkpoint_metadata({}, statistics, {}, features=3, outputs=3, hours=None, steps=None)


def shapes(tree: object) -> object:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("damage") / "run"
    checkpoints = Checkpoints(run, CheckpointSettings(keep=2))
    for step in STEPS:
        checkpoints.save(state_of(step), metadata(), step)
        checkpoints.save_best(state_of(step).parameters, metadata(), step)
    checkpoints.finish()
    checkpoints.close()
    return run


@pytest.fixture
def run(whole_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "array deleted": lambda step: largest(step / "parameters").unlink(),
    "array truncated": lambda step: halve(largest(step / "parameters")),
    "array emptied": lambda step: largest(step / "parameters").write_bytes(b""),
    "array changed": lambda step: flip(largest(step / "parameters")),
    "moments truncated": lambda step: halve(largest(step / "optimizer")),
    "moments changed": lambda step: flip(largest(step / "optimizer")),
    "manifest deleted": lambda step: (step / "parameters" / "manifest.ocdbt").unlink(),
    "layout truncated": lambda step: halve(step / "parameters" / "_METADATA"),
    "layout deleted": lambda step: (step / "optimizer" / "_METADATA").unlink(),
    "metadata truncated": lambda step: halve(step / "metadata" / "metadata"),
    "metadata deleted": lambda step: (step / "metadata" / "metadata").unlink(),
    "item deleted": lambda step: shutil.rmtree(step / "optimizer"),
    "emptied": lambda step: [shutil.rmtree(step), step.mkdir()],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_state_gives_way_to_the_one_before(name: str, run: Path, capfd: pytest.CaptureFixture) -> None:
    DAMAGE[name](run / "checkpoints" / "latest" / "10")
    checkpoints = Checkpoints(run, CheckpointSettings())
    try:
        restored, stored = checkpoints.restore(shapes(state_of(0)))  # type: ignore[arg-type]
        assert int(restored.step) == stored["step"] == 5
        jax.tree.map(np.testing.assert_array_equal, restored.optimizer, state_of(5).optimizer)
        printed = capfd.readouterr().err
        assert "step 10" in printed
        assert "step 5" in printed
        assert "pybind11" not in printed
        assert (run / "checkpoints" / "damaged" / "10").is_dir(), "kept for who wants to look at it"
        checkpoints.save(state_of(10), metadata(), 10)
        checkpoints.finish()
    finally:
        checkpoints.close()
    parameters, stored = read_parameters(run, "latest", lambda _: shapes(state_of(0).parameters))  # type: ignore
    assert stored["step"] == 10
    np.testing.assert_array_equal(parameters["a.kernel"], state_of(10).parameters["a.kernel"])


def test_with_all_states_damaged_one_line_names_each(run: Path) -> None:
    for step in STEPS:
        DAMAGE["array truncated"](run / "checkpoints" / "latest" / str(step))
    checkpoints = Checkpoints(run, CheckpointSettings())
    try:
        with pytest.raises(RunError, match=r"10.*5.*--overwrite") as raised:
            checkpoints.restore(shapes(state_of(0)))  # type: ignore[arg-type]
    finally:
        checkpoints.close()
    assert "\n" not in str(raised.value)
    assert (run / "checkpoints" / "latest" / "10").is_dir(), "nothing is moved where nothing is gained"


def test_reading_passes_over_a_damaged_latest_and_names_it_where_best_is_damaged(
    run: Path, capsys: pytest.CaptureFixture
) -> None:
    def read(which: str) -> int:
        return read_parameters(run, which, lambda _: shapes(state_of(0).parameters))[1]["step"]  # type: ignore

    assert read("best") == 10
    DAMAGE["array changed"](run / "checkpoints" / "best" / "10")
    with pytest.raises(RunError, match="--checkpoint latest"):
        read("best")
    DAMAGE["array truncated"](run / "checkpoints" / "latest" / "10")
    assert read("latest") == 5
    assert "step 10" in capsys.readouterr().err
    with pytest.raises(RunError, match="step 10"):
        read("10")
    DAMAGE["array deleted"](run / "checkpoints" / "latest" / "5")
    with pytest.raises(RunError, match=r"step 10.*step 5"):
        read("latest")


@pytest.mark.parametrize("name", ["a[1]", "[1]", "runs*", "?", "a\\b", "gs:", "a\udcff"])
def test_paths_that_cannot_be_read_back_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--run"):
        Checkpoints(tmp_path / name / "run", CheckpointSettings())
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["{}", "a b", "50%", "ä日", "(a)", "a'b\"", "~", "#$;&|", "a]"])
def test_other_paths_are_read_back(name: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / name / "run", CheckpointSettings())
    checkpoints.save(state_of(1), metadata(), 1)
    checkpoints.close()


def test_a_first_save_that_cannot_be_read_back_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "require_writable_path", lambda run: None)
    checkpoints = Checkpoints(tmp_path / "a[1]" / "run", CheckpointSettings())
    with pytest.raises(RunError, match="read back"):
        checkpoints.save(state_of(1), metadata(), 1)
    checkpoints.close()


def test_a_checksum_is_that_of_the_bits_for_every_sharding() -> None:
    values = jnp.arange(64.0).reshape(8, 8)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(values, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    assert int(checksum({"a": values})) == int(checksum({"a": sharded}))
    others = [values.at[3, 3].set(27.000002), values[::-1], -values]
    assert len({int(checksum(each)) for each in (values, *others)}) == 4
    assert int(checksum(jnp.array([0.0]))) != int(checksum(jnp.array([-0.0])))
