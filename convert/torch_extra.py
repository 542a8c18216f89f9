"""PyTorch, where it is installed: only writing its files and running its modules needs it."""

import importlib
from typing import Any

from selfpab_jax.errors import ModelError


def require_torch() -> Any:
    """The module `torch`.

    Raises:
        ModelError: it is not installed; says how to get the CPU build.
    """
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise ModelError(
            "this needs PyTorch, which is not installed: `pip install torch --index-url "
            "https://download.pytorch.org/whl/cpu` gets the CPU build (the extra selfpab-jax[convert] the default one)"
        ) from None
