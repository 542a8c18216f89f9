"""Settings of the baselines, and what they return."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from selfpab_jax.errors import ConfigError
from selfpab_jax.model.config import ModelSettings


@dataclass(frozen=True)
class TrainingSettings:
    """How the networks are trained; the step is compiled once, whatever the values.

    Args:
        batch_size: windows per step.
        steps: at most; training stops earlier if the inner validation stops improving.
        few_label_steps: number of steps if a label budget leaves too little to validate with.
        check_every: steps between two validations.
        patience: validations without improvement before training stops.
        learning_rate: peak; the network's own if not set.
        warmup_steps: linear, from 0.
        weight_decay: decoupled, on every parameter.
        clip_norm: largest global gradient norm; no clipping if not set.
        averaging: decay of the moving average of the parameters that predicts; 0 predicts with the last ones.
        random_starts: shift each training window by up to half its length at random every time it is drawn, in place of
            the original's densely overlapping training windows; only rows that may be trained on ever count.
        refit: once the number of steps is known, train again on all training subjects for that many steps.

    Raises:
        ConfigError: a value is out of range.
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
            raise ConfigError(f"training.averaging is {self.averaging}; it must be in [0, 1)")


@dataclass(frozen=True)
class ForestSettings:
    """The random forest on hand-crafted features.

    Args:
        seconds: lengths of the windows centered on each frame.
        lengths: `all` puts the features of every length side by side; `best` uses the one length with the best inner
            validation, or the first one if there are too few labels to validate with.
        trees: in the forest.
        rows_per_tree: largest bootstrap sample; neighboring frames overlap, so more rows add little but time.
        min_samples_leaf: least number of frames in a leaf.
        jobs: threads; -1 for one per core.

    Raises:
        ConfigError: a value is out of range.
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
        for name in ("trees", "rows_per_tree"):
            if getattr(self, name) < 1:
                raise ConfigError(f"forest.{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class BaselineSettings:
    """Settings of all baselines.

    Args:
        training: of the networks.
        forest: of the random forest.
        transformer: sizes of the encoder that is trained from scratch: those of the encoder it is compared with.
        hidden: width of the transformer's head; a linear one if not set.
        validation_share: fraction of the training subjects that is held out for stopping and for selection.
        class_weight: `balanced` weights classes inversely to their number of training rows.

    Raises:
        ConfigError: a value is out of range.
    """

    training: TrainingSettings = field(default_factory=TrainingSettings)
    forest: ForestSettings = field(default_factory=ForestSettings)
    transformer: ModelSettings = field(default_factory=ModelSettings)
    hidden: int | None = 1028
    validation_share: float = 0.2
    class_weight: Literal["balanced"] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ConfigError(f"validation_share is {self.validation_share}; it must be between 0 and 1")


@dataclass(frozen=True)
class BaselinePrediction:
    """A baseline's result for one fold.

    Attributes:
        probabilities_RxY: of the rows of the fold's test subjects, in the corpus' order.
        description: what was selected and why: steps or seconds, validation score, parameters; fit for JSON.
    """

    probabilities_RxY: Float32[np.ndarray, "R Y"]
    description: dict[str, Any]
