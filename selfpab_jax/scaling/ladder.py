"""The ladder of model sizes: what each width comes with, how many parameters that is, and its learning rate."""

import math
from importlib import resources
from pathlib import Path

from selfpab_jax.errors import ConfigError
from selfpab_jax.model.config import ModelSettings

RUNGS = {"1m": 128, "5m": 256, "14m": 384, "25m": 512, "71m": 768, "126m": 1024, "340m": 1536, "1b": 2560}
"""Name of each file in configs/ladder/ and its width; the published size, `61m`, keeps its own shape."""
PUBLISHED = "61m"
PUBLISHED_WIDTH, PUBLISHED_RATE = 1500, 1e-4


def rung(width: int) -> ModelSettings:
    """The model of a width: heads of 128 features (of 64 at width 128), a feed-forward of four times the width, and
    2 + 2 log2(width / 64) layers, to the nearest even number.

    Layers grow with the logarithm of the width because post-norm layers, which these are, train badly when many.

    Raises:
        ConfigError: the width is no multiple of 128.
    """
    if width < 128 or width % 128:
        raise ConfigError(f"width {width} is no rung of the ladder; rungs are multiples of 128")
    head = 64 if width == 128 else 128
    return ModelSettings(
        width=width, heads=width // head, feedforward=4 * width, layers=2 * round(1 + math.log2(width / 64))
    )


def learning_rate_of(width: int, rate: float = PUBLISHED_RATE, at_width: int = PUBLISHED_WIDTH) -> float:
    """The peak learning rate of a width: inversely proportional to it, from a width whose rate is known.

    The rule of muP for AdamW (Yang et al. 2022) for matrices whose both sides grow, here for all parameters; to three
    digits. `benchmarks/ladder_rule.py` looks at it at small widths.
    """
    return float(f"{rate * at_width / width:.3g}")


def parameter_count(settings: ModelSettings, features: int, outputs: int) -> int:
    """Trainable parameters by formula: 61,107,848 at the published size with 156 features."""
    d, m = settings.width, settings.feedforward
    attention = 4 * d * d + 4 * d
    feedforward = 2 * d * m + m + d
    norms = 4 * d
    return features * d + d + settings.layers * (attention + feedforward + norms) + d * outputs + outputs


def ladder_file(name: str) -> Path:
    """The preset of a rung.

    Raises:
        ConfigError: there is none of this name.
    """
    path = Path(str(resources.files("selfpab_jax.configs"))) / "ladder" / f"{name}.yaml"
    if name not in (*RUNGS, PUBLISHED):
        raise ConfigError(f"{name} is no rung of the ladder; there are {', '.join([*RUNGS, PUBLISHED])}")
    return path
