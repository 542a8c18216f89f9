"""Masked losses against the original's."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from selfpab_jax.model.losses import masked_errors


@pytest.mark.parametrize("loss", ["masked_l1", "masked_l2"])
def test_losses_are_the_originals(loss: str, golden: Path) -> None:
    given = np.load(golden / "masked_loss.npz")
    mask = jnp.asarray(given["mask"].astype(bool))
    found = masked_errors(jnp.asarray(given["output"]), jnp.asarray(given["target"]), mask, loss).mean()
    np.testing.assert_allclose(found, given[loss], rtol=1e-6)


def test_a_sample_without_masked_entries_counts_zero() -> None:
    output, target = jnp.ones((2, 3, 4)), jnp.zeros((2, 3, 4))
    mask = jnp.zeros((2, 3, 4), bool).at[0].set(True)
    np.testing.assert_array_equal(masked_errors(output, target, mask, "masked_l1"), [1.0, 0.0])
