"""Starts JAX with the eight devices of every test before a plan can ask for others."""

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def started() -> None:
    assert len(jax.devices()) == 8
