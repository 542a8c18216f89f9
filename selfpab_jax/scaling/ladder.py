"""The ladder of model sizes: the shape, the number of parameters and the learning rate of each width."""

import math
from pathlib import Path

from selfpab_jax.config import find_preset
from selfpab_jax.errors import ConfigError
from selfpab_jax.model.config import ModelSettings

RUNGS = {"1m": 128, "5m": 256, "14m": 384, "25m": 512, "71m": 768, "126m": 1024, "340m": 1536, "1b": 2560}
"""The width of each file in configs/ladder/; the published size, `61m`, keeps its own shape."""
PUBLISHED = "61m"
PUBLISHED_WIDTH, PUBLISHED_RATE = 1500, 1e-4


def rung(width: int) -> ModelSettings:
    """The model of a width.

    It has heads of 128 features (of 64 at width 128), a feed-forward of four times the width, and
    2 + 2 log2(width / 64) layers, to the nearest even number. The depth grows with the logarithm of the width because
    many post-norm layers, which these are, train badly.

    Raises:
        ConfigError: the width is not a multiple of 128.
    """
    if width < 128 or width % 128:
        raise ConfigError(f"width {width} is not on the ladder; widths are multiples of 128")
    head = 64 if width == 128 else 128
    return ModelSettings(
        width=width, heads=width // head, feedforward=4 * width, layers=2 * round(1 + math.log2(width / 64))
    )


def learning_rate_of(width: int, rate: float = PUBLISHED_RATE, at_width: int = PUBLISHED_WIDTH) -> float:
    """The peak learning rate of a width, to three digits: inversely proportional to the width.

    This is the rule of muP for AdamW (Yang et al. 2022) for matrices that grow on both sides, here for all parameters.
    `benchmarks/ladder_rule.py` checks it at small widths.

    Args:
        width: of the model.
        rate: a known learning rate.
        at_width: the width that it is for.
    """
    return float(f"{rate * at_width / width:.3g}")


def parameter_count(settings: ModelSettings, features: int, outputs: int) -> int:
    """Number of trainable parameters by formula.

    Args:
        settings: of the model.
        features: features of an input frame.
        outputs: features of an output frame.
    """
    d, m = settings.width, settings.feedforward
    attention = 4 * d * d + 4 * d
    feedforward = 2 * d * m + m + d
    norms = 4 * d
    return features * d + d + settings.layers * (attention + feedforward + norms) + d * outputs + outputs


def ladder_file(name: str) -> Path:
    """The preset of a model size.

    Raises:
        ConfigError: there is no size of this name.
    """
    if name not in (*RUNGS, PUBLISHED):
        raise ConfigError(f"{name} is not a size of the ladder; choose from {', '.join([*RUNGS, PUBLISHED])}")
    return find_preset(f"configs/ladder/{name}")
