"""Learning rates against the original's, step by step."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from selfpab_jax.train.optimizer import OptimizerSettings, learning_rate

GOLDEN_SCHEDULES = {
    "LinearWUSchedule_total1000": OptimizerSettings(full_first_step=True),
    "ExponentialTFDecay": OptimizerSettings(schedule="exponential", full_first_step=True),
    "WarmupSqrt_total1000_d1500": OptimizerSettings(schedule="inverse_sqrt", warmup_share=0.01, full_first_step=True),
}


@pytest.mark.parametrize("name", GOLDEN_SCHEDULES)
def test_rates_are_the_originals(name: str, golden: Path) -> None:
    expected = np.load(golden / "learning_rates.npz")[name]
    rate = learning_rate(GOLDEN_SCHEDULES[name], total_steps=1000, width=1500)
    np.testing.assert_allclose(jax.vmap(rate)(jnp.arange(1000)), expected, rtol=1e-5)


def test_the_first_step_quirk_is_off_by_default() -> None:
    rate = learning_rate(OptimizerSettings(), total_steps=1000, width=1500)
    assert rate(jnp.asarray(0)) < 3e-6
    quirk = learning_rate(OptimizerSettings(full_first_step=True), total_steps=1000, width=1500)
    assert quirk(jnp.asarray(0)) == pytest.approx(1e-4)


def test_constant_schedule() -> None:
    rate = learning_rate(OptimizerSettings(schedule="constant", learning_rate=3e-3), 10, 8)
    np.testing.assert_allclose(jax.vmap(rate)(jnp.arange(10)), 3e-3, rtol=1e-6)


def test_steps_follow_from_epochs_unless_given() -> None:
    assert OptimizerSettings(batch_size=64, epochs=50).total_steps(1_200_000) == 937_500
    assert OptimizerSettings(steps=7).total_steps(1_200_000) == 7
    assert OptimizerSettings(batch_size=64, epochs=0.001).total_steps(10) == 1
