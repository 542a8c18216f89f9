"""One trunk, many lengths: a branch is, bit for bit, the run of its own length that shares the trunk's beginning."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.errors import ConfigError
from selfpab_jax.train.branch import kept_steps
from selfpab_jax.train.export import read_checkpoint
from selfpab_jax.train.optimizer import OptimizerSettings, learning_rate

TINY = [
    "--model.width", "16", "--model.heads", "4", "--model.feedforward", "16", "--model.layers", "1",
    "--model.compute", "float32", "--optimizer.batch_size", "8", "--optimizer.learning_rate", "1e-2",
    "--optimizer.schedule", "wsd", "--optimizer.warmup_steps", "2", "--validation.every_steps", "2",
    "--validation.patience", "0", "--checkpoint.every_steps", "3", "--checkpoint.keep", "1",
]  # fmt: skip


def test_the_rate_is_that_of_the_trunk_until_it_cools_down() -> None:
    def rates(steps: int, cooldown: int) -> np.ndarray:
        settings = OptimizerSettings(
            schedule="wsd", warmup_steps=10, cooldown_steps=cooldown, steps=steps, learning_rate=2.0
        )
        return np.asarray(jax.vmap(learning_rate(settings, steps, 8))(jnp.arange(steps)))

    trunk, branch = rates(100, 0), rates(60, 20)
    np.testing.assert_allclose(trunk[:10], 2 * np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_array_equal(trunk[10:], 2)
    np.testing.assert_array_equal(branch[:40], trunk[:40])
    np.testing.assert_allclose(branch[40:], 2 * (1 - np.sqrt(np.arange(1, 21) / 20)), atol=1e-6)
    for wrong in ({}, {"warmup_steps": 5, "cooldown_steps": -1}, {"warmup_steps": 5, "cooldown_steps": 9, "steps": 8}):
        with pytest.raises(ConfigError, match=r"optimizer\."):
            OptimizerSettings(schedule="wsd", **wrong)
    with pytest.raises(ConfigError, match=r"of optimizer\.schedule wsd"):
        OptimizerSettings(cooldown_steps=3)


@pytest.mark.slow
def test_a_branch_is_the_run_of_its_own_length(
    tiny_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trunk, branch, own = (tmp_path / name for name in ("trunk", "branch", "own"))
    call = ["pretrain", "--data.path", str(tiny_records), *TINY]
    assert main([*call, "--run", str(trunk), "--optimizer.steps", "9", "--checkpoint.keep_steps", "[4,5]"]) == 0
    assert kept_steps(trunk) == [4, 5, 9]
    cool = ["--optimizer.steps", "8", "--optimizer.cooldown_steps", "3"]
    assert main([*call, "--run", str(own), *cool]) == 0
    assert main(["pretrain", "--from", str(trunk), "--at", "5", "--cooldown", "3", "--run", str(branch)]) == 0
    for which in ("latest", "best"):
        _, expected, metadata = read_checkpoint(own, which)
        _, found, of_branch = read_checkpoint(branch, which)
        assert of_branch["step"] == metadata["step"] == 8
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    # Stopped and resumed, it goes on by itself; a second start is refused as ever.
    assert main(["pretrain", "--run", str(branch), "--resume"]) == 0
    assert main(["pretrain", "--from", str(trunk), "--at", "5", "--cooldown", "3", "--run", str(branch)]) == 1
    assert "--resume" in capsys.readouterr().err

    def refused(run: Path, at: str, *more: str) -> str:
        words = ["pretrain", "--from", str(run), "--at", at, "--cooldown", "2", "--run", str(tmp_path / "new"), *more]
        assert main(words) != 0
        assert not (tmp_path / "new").exists()
        return capsys.readouterr().err

    assert "keeps no state of step 7; it keeps 4, 5, 9" in refused(trunk, "7")
    assert "cool-down of a cool-down" in refused(branch, "8")
    assert "not a run" in refused(tmp_path / "nothing", "5")
    assert "model.width was 16, is 32" in refused(trunk, "5", "--model.width", "32")
    assert "numbers of steps" in refused(trunk, "-1")
    assert main(["pretrain", "--from", str(trunk), "--at", "5", "--run", str(tmp_path / "new")]) == 2
    assert "--from needs --cooldown" in capsys.readouterr().err
