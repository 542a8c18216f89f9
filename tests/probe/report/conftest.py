"""A small result with everything that is difficult for reports."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from selfpab_jax.probe.budgets import Budget
from selfpab_jax.probe.config import ReferenceScore
from selfpab_jax.probe.report.results import EncoderInfo, MethodResult, ProbeResult

CLASSES = ("walking", "sitting <b>still</b> & $x_1$", "_stairs", "never done")
LEAK = "the encoder was pre-trained on 1 of these 4 subjects: S1"


def confusions(seed: int, right: float, subjects: int = 4) -> dict[str, np.ndarray]:
    """The last class never occurs, the third only with the first two subjects."""
    generator = np.random.default_rng(seed)
    matrices = {}
    for i in range(subjects):
        chances = np.full((4, 4), (1 - right) / 2)
        np.fill_diagonal(chances, right)
        chances[:, 3] = 0
        counts = (500, 300, 100 if i < 2 else 0, 0)
        matrices[f"S{i + 1}"] = np.stack(
            [
                generator.multinomial(n, p / p.sum()) if n else np.zeros(4, int)
                for n, p in zip(counts, chances, strict=True)
            ]
        )
    return matrices


def _method(
    name: str, right: float, *, kind: Any = "probe", seeds: int = 2, budget: Budget | None = None, **more: Any
) -> MethodResult:
    salt = 0 if budget is None else int(budget.amount)
    matrices = tuple(confusions(100 * salt + seed, right) for seed in range(seeds))
    title = f"{name.capitalize()} <i>head</i>"
    return MethodResult(name, title, kind, tuple(range(seeds)), CLASSES, matrices, budget, **more)


def _result(**changes: Any) -> ProbeResult:
    chosen = tuple(
        {f"S{i}": {"learning_rate": 1e-3 if i < 4 else 3e-4, "epochs": i} for i in range(1, 5)} for _ in "ab"
    )
    few = Budget("windows", 5)
    fields: dict[str, Any] = {
        "dataset": "harth", "title": "HARTH & <friends>", "version": "1.2.0", "classes": CLASSES,
        "channels": ("back_x", "back_y", "back_z"),
        "encoder": EncoderInfo("models/one", "SelfPAB", 60, 3, None, True),
        "protocol": {"window": "599 frames", "shift": 12},
        "selection": "inner",
        "methods": (
            _method("forest", 0.7, kind="baseline"), _method("linear", 0.85, chosen=chosen),
            _method("linear", 0.6, budget=few),
            _method("forest", 0.5, kind="baseline", budget=few), _method("mlp", 0.95, seeds=1),
        ),
        "leakage": (LEAK,), "skipped": ("S9.csv: no <labels>",), "notes": ("fold S3: no stairs",),
        "published": (ReferenceScore("SelfPAB", 81.3, "the paper"),), "seconds": 12.5, "device": "cpu",
    }  # fmt: skip
    return ProbeResult(**{**fields, **changes})


@pytest.fixture(scope="session")
def make_method() -> Callable[..., MethodResult]:
    return _method


@pytest.fixture(scope="session")
def make_result() -> Callable[..., ProbeResult]:
    return _result


@pytest.fixture(scope="session")
def found() -> ProbeResult:
    return _result()
