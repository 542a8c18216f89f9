"""Networks and features that are trained from scratch, to compare with."""

from selfpab_jax.probe.baselines.config import BaselinePrediction, BaselineSettings, ForestSettings, TrainingSettings
from selfpab_jax.probe.baselines.registry import BASELINES

__all__ = ["BASELINES", "BaselinePrediction", "BaselineSettings", "ForestSettings", "TrainingSettings"]
