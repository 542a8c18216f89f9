"""What the baselines may be told, and what they give back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from selfpab_jax.errors import ConfigError
from selfpab_jax.model.config import ModelSettings

Progress = Callable[[str], None]
"""Takes a line for people."""


@dataclass(frozen=True)
class TrainingSettings:
    """How the networks are trained; the step is compiled once whatever the values.

    Args:
        batch_size: windows of a step.
        steps: at most; training stops earlier where the inner validation stops improving.
        few_label_steps: how many where a label budget leaves too little to validate with.
        check_every: steps between two validations.
        patience: validations without improvement before training stops.
        learning_rate: peak; None takes the network's own.
        warmup_steps: linear, from 0.
        weight_decay: decoupled, on every parameter.
        clip_norm: largest global gradient norm; off where None.
        averaging: decay of the moving average of the parameters that predicts; 0 predicts with the last ones.
        random_starts: move each training window by up to half its length at random every time it is drawn, as the
            original's densely shifted training windows do; only the rows that may be trained on are ever counted.
        refit: after the stopping step is known, train once more on all training subjects for that many steps.
    """

    batch_size: int = 16
    steps: int = 1500
    few_label_steps: int = 400
    check_every: int = 50
    patience: int = 8
    learning_rate: float | None = None
    warmup_steps: int = 50
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0
    averaging: float = 0.98
    random_starts: bool = True
    refit: bool = True

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "few_label_steps", "check_every", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name} is {getattr(self, name)}; it must be at least 1")
        if self.learning_rate is not None and self.learning_rate <= 0:
            raise ConfigError(f"training.learning_rate is {self.learning_rate}; it must be greater than 0")
        if not 0 <= self.averaging < 1:
            raise ConfigError(f"training.averaging is {self.averaging}; it must lie in [0, 1)")


@dataclass(frozen=True)
class ForestSettings:
    """The random forest on hand-made features.

    Args:
        seconds: lengths of the windows centered on each frame.
        lengths: `all` puts the features of every length side by side; `best` takes the one length with the best
            inner validation, and the first one where labels are too few to validate.
        trees: of the forest.
        rows_per_tree: largest bootstrap sample; neighboring frames overlap, so that more rows add little but time.
        min_samples_leaf: frames in a leaf.
        jobs: threads; -1 takes every core.
    """

    seconds: tuple[float, ...] = (5.0, 20.0)
    lengths: Literal["all", "best"] = "all"
    trees: int = 200
    rows_per_tree: int = 10_000
    min_samples_leaf: int = 1
    jobs: int = 1

    def __post_init__(self) -> None:
        if not self.seconds or min(self.seconds) <= 0:
            raise ConfigError(f"forest.seconds is {self.seconds}; give one or more lengths above 0")
        if self.trees < 1 or self.rows_per_tree < 1:
            raise ConfigError("forest.trees and forest.rows_per_tree must be at least 1")


@dataclass(frozen=True)
class BaselineSettings:
    """Of all baselines.

    Args:
        training: of the networks.
        forest: of the forest.
        transformer: sizes of the encoder that is trained from scratch: those of the encoder it is compared with.
        hidden: width of the transformer's head; None for a linear one.
        validation_share: of the training subjects, held out to stop and to choose.
        class_weight: `balanced` weighs classes inversely to their training rows.
    """

    training: TrainingSettings = field(default_factory=TrainingSettings)
    forest: ForestSettings = field(default_factory=ForestSettings)
    transformer: ModelSettings = field(default_factory=ModelSettings)
    hidden: int | None = 1028
    validation_share: float = 0.2
    class_weight: Literal["balanced"] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ConfigError(f"validation_share is {self.validation_share}; it must lie between 0 and 1")


@dataclass(frozen=True)
class BaselinePrediction:
    """A baseline's answer for one fold.

    Attributes:
        probabilities_RxY: of the rows of the fold's test subjects, in the corpus' order.
        description: what was chosen and why: steps or seconds, validation score, parameters; fit for JSON.
    """

    probabilities_RxY: Float32[np.ndarray, "R Y"]
    description: dict[str, Any]
