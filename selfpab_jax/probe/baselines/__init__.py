"""Networks and features that are trained from scratch, to compare with."""

from selfpab_jax.probe.baselines.registry import BASELINES
from selfpab_jax.probe.baselines.settings import (
    BaselinePrediction,
    BaselineSettings,
    ForestSettings,
    TrainingSettings,
)

__all__ = ["BASELINES", "BaselinePrediction", "BaselineSettings", "ForestSettings", "TrainingSettings"]
