"""Linear, MLP and temporal heads on frozen features: pure functions of one head, and heads as they are after training.

J counts heads that were trained together, L the encoder's layers, D their width, E = L * D the features of a row (W * L
* D with the W rows around it that a temporal head sees), H the width of a head's first product, Y the classes.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int, Key

from selfpab_jax.errors import ConfigError
from selfpab_jax.prefetch import Prefetcher
from selfpab_jax.probe.heads.batch import CHUNK_ROWS, LabeledFeatures

Head = dict[str, Float[Array, "..."]]
"""`mix_L`: logits of the layers' weights; `weight_DxH`, `bias_H`; an MLP also has `out_HxY` and `out_bias_Y`, and a
temporal head besides these `tap_WxH`."""


@dataclass(frozen=True)
class HeadSettings:
    """What a head is, and how it is trained. Learning rate and weight decay are selected for each head.

    Args:
        kind: `linear`, D -> Y; `mlp`, D -> hidden -> Y with a ReLU, as the original's downstream head; or `temporal`,
            an MLP whose hidden layer is a separable convolution over the frames around, which each hidden unit weighs
            in its own way.
        hidden: width of the hidden layer.
        taps: frames that a temporal head sees, an odd number, evenly spaced with the frame itself in the middle.
        reach_seconds: from the frame to the first and to the last of them; they stay within the encoder's window.
        standardize: standardize features with mean and standard deviation of the head's training rows. The original
            does not.
        class_weights: weight every class the same, by the head's training rows; otherwise every row counts the same.
        optimizer: `adam`, whose weight decay is a gradient (an L2 penalty), or `adamw`, whose is decoupled. Biases and
            layer weights do not decay.
        beta1: decay of the first moment.
        beta2: decay of the second moment; both as in the original.
        decay: the learning rate is multiplied by it ...
        decay_steps: ... in so many steps, continuously (the original's 0.8^(n / 200)).
        batch_size: rows of a batch, which all heads share.
        epochs: passes over the training rows, and the number of points where stopping is possible.
        min_steps: least number of steps, however few the rows are.
        seed: of the order of the rows.
        memory_gib: heads are trained in groups whose parameters and optimizer fit into so much memory.

    Raises:
        ConfigError: a value is out of range.
    """

    kind: Literal["linear", "mlp", "temporal"] = "linear"
    hidden: int = 1028
    taps: int = 9
    reach_seconds: float = 5.0
    standardize: bool = True
    class_weights: bool = False
    optimizer: Literal["adam", "adamw"] = "adam"
    beta1: float = 0.9
    beta2: float = 0.98
    decay: float = 0.8
    decay_steps: int = 200
    batch_size: int = 2048
    epochs: int = 15
    min_steps: int = 1000
    seed: int = 0
    memory_gib: float = 4.0

    def __post_init__(self) -> None:
        for name, allowed in (("kind", ("linear", "mlp", "temporal")), ("optimizer", ("adam", "adamw"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"head.{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        for name in ("hidden", "batch_size", "epochs", "min_steps", "decay_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"head.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"head.{name} is {getattr(self, name)}; it must be in [0, 1)")
        if not 0 < self.decay <= 1:
            raise ConfigError(f"head.decay is {self.decay}; it must be in (0, 1]")
        if self.memory_gib <= 0:
            raise ConfigError(f"head.memory_gib is {self.memory_gib}; it must be greater than 0")
        if self.taps < 3 or self.taps % 2 == 0:
            raise ConfigError(f"head.taps is {self.taps}; it must be an odd number, 3 or more")

    def offsets(self, frames_per_second: float) -> tuple[int, ...]:
        """Where the frames that the head sees are, relative to its own; none but for a temporal head.

        Args:
            frames_per_second: of the features.

        Raises:
            ConfigError: `reach_seconds` is too short for so many taps.
        """
        if self.kind != "temporal":
            return ()
        reach, side = round(self.reach_seconds * frames_per_second), self.taps // 2
        if reach < side:
            least = side / frames_per_second
            raise ConfigError(
                f"head.reach_seconds is {self.reach_seconds:g}; {self.taps} taps need {least:g} s or more"
            )
        return tuple(round(reach * tap / side) for tap in range(-side, side + 1))

    def parameter_count(self, layers: int, width: int, classes: int) -> int:
        """Parameters of one head.

        Args:
            layers: L.
            width: D.
            classes: Y.
        """
        if self.kind == "linear":
            return layers + (width + 1) * classes
        taps = self.taps * self.hidden if self.kind == "temporal" else 0
        return layers + (width + 1) * self.hidden + (self.hidden + 1) * classes + taps

    def training_bytes(self, layers: int, width: int, classes: int) -> int:
        """Memory that training one head takes.

        Parameters, Adam's two moments and the gradient; the folded first matrix and its gradient; outputs of a batch.

        Args:
            layers: L.
            width: D.
            classes: Y.
        """
        outputs = classes if self.kind == "linear" else self.hidden
        folded = 2 * layers * width * outputs * (self.taps if self.kind == "temporal" else 1)
        return 4 * (4 * self.parameter_count(layers, width, classes) + folded + 3 * self.batch_size * outputs)


def init_head(key: Key[Array, ""], settings: HeadSettings, layers: int, width: int, classes: int) -> Head:
    """New parameters, as torch.nn.Linear draws them: uniform within 1 / sqrt(inputs). Layers start with equal weights.

    Taps are uniform within 0 and 2 / W: each hidden unit starts with a weighted mean over the frames.

    Args:
        key: of the random draw.
        settings: kind and hidden width.
        layers: L.
        width: D.
        classes: Y.
    """
    keys = jax.random.split(key, 4)

    def uniform(key: Key[Array, ""], shape: tuple[int, ...], inputs: int) -> Float[Array, "..."]:
        return jax.random.uniform(key, shape, jnp.float32, -(inputs**-0.5), inputs**-0.5)

    outputs = classes if settings.kind == "linear" else settings.hidden
    head = {
        "mix_L": jnp.zeros(layers, jnp.float32),
        "weight_DxH": uniform(keys[0], (width, outputs), width),
        "bias_H": uniform(keys[1], (outputs,), width),
    }
    if settings.kind != "linear":
        head["out_HxY"] = uniform(keys[2], (outputs, classes), outputs)
        head["out_bias_Y"] = uniform(keys[3], (classes,), outputs)
    if settings.kind == "temporal":
        taps = (settings.taps, outputs)
        head["tap_WxH"] = jax.random.uniform(jax.random.fold_in(key, 4), taps, jnp.float32, 0, 2 / settings.taps)
    return head


def head_logits(
    head: Head, mean_E: Float[Array, " E"], std_E: Float[Array, " E"], x_BxE: Float[Array, "B E"]
) -> Float[Array, "B Y"]:
    """Logits of rows whose L layers of width D, and the W rows around, are side by side.

    Layer weights and standardization are folded into the first matrix: mapped over heads, the product with the rows is
    one of (B, E) with (E, J * H), and no head needs standardized rows of its own.

    Args:
        head: parameters.
        mean_E: of the features.
        std_E: standard deviation of the features.
        x_BxE: features, not standardized.
    """
    weight_DxH = head["weight_DxH"]
    mix_L = jax.nn.softmax(head["mix_L"])
    weight_ExH = (mix_L[:, None, None] * weight_DxH).reshape(-1, weight_DxH.shape[1])
    if "tap_WxH" in head:
        weight_ExH = (head["tap_WxH"][:, None] * weight_ExH).reshape(-1, weight_DxH.shape[1])
    weight_ExH /= std_E[:, None]
    exact = jax.lax.Precision.HIGHEST  # float32 where accelerators would round their inputs
    bias_H = head["bias_H"] - jnp.matmul(mean_E, weight_ExH, precision=exact)
    z_BxH = jnp.matmul(x_BxE, weight_ExH, precision=exact) + bias_H
    if "out_HxY" not in head:
        return z_BxH
    return jnp.matmul(jax.nn.relu(z_BxH), head["out_HxY"], precision=exact) + head["out_bias_Y"]


def one_hot(label_B: Int[Array, " B"], classes: int) -> Float[Array, "B Y"]:
    """1 for the label of each row, otherwise 0; all 0 for a label that is not a class."""
    return (label_B[:, None] == jnp.arange(classes, dtype=label_B.dtype)).astype(jnp.float32)


def cross_entropy(
    logits_BxY: Float[Array, "B Y"], target_BxY: Float[Array, "B Y"], weight_B: Float[Array, " B"]
) -> Float[Array, ""]:
    """Weighted mean over the rows; 0 if all weights are 0.

    Args:
        logits_BxY: of the classes.
        target_BxY: share of each class, 1 in all; rows of weight 0 may have any.
        weight_B: of the rows.
    """
    # A product with one-hot labels, not a gather: on CPUs it and its gradient cost more than the classes do.
    loss_B = jax.nn.logsumexp(logits_BxY, axis=-1) - (logits_BxY * target_BxY).sum(-1)
    return (weight_B * loss_B).sum() / jnp.maximum(weight_B.sum(), jnp.finfo(jnp.float32).tiny)


@dataclass(frozen=True)
class TrainedHeads:
    """J heads with what they need to predict.

    Attributes:
        head: parameters, each with a leading axis J; empty where only the validation was asked for.
        center_E: subtracted from every row.
        mean_JxE: of each head's training rows, relative to the center; the negative center if not standardized.
        std_JxE: their standard deviation; 1 if not standardized.
        validation_JxPxYxY: confusion matrix (truth, prediction) of the validation rows at each stopping point; all 0
            where a head had diverged.
        steps_P: steps taken at each stopping point.
    """

    head: dict[str, Float32[np.ndarray, "J ..."]]
    center_E: Float32[np.ndarray, " E"]
    mean_JxE: Float32[np.ndarray, "J E"]
    std_JxE: Float32[np.ndarray, "J E"]
    validation_JxPxYxY: Float64[np.ndarray, "J P Y Y"]
    steps_P: Int[np.ndarray, " P"]


def predict_rows(
    data: LabeledFeatures, trained: TrainedHeads, heads_K: Int[np.ndarray, " K"], rows_N: Int[np.ndarray, " N"]
) -> Float32[np.ndarray, "K N Y"]:
    """Probabilities that some of the heads predict for some of the rows, in bounded memory.

    Args:
        data: features.
        trained: all heads.
        heads_K: indices of the heads that predict.
        rows_N: indices of the rows.
    """
    head, mean, std = jax.tree.map(lambda a: jnp.asarray(a[heads_K]), (trained.head, trained.mean_JxE, trained.std_JxE))
    features_RxE, center_E = data.features_RxE, jnp.asarray(trained.center_E)

    def read(first: int) -> np.ndarray:
        x_NxE = features_RxE[rows_N[first : first + CHUNK_ROWS]]
        return np.pad(x_NxE, ((0, CHUNK_ROWS - len(x_NxE)), (0, 0)))  # one shape, one compilation

    chunks = Prefetcher(map(read, range(0, len(rows_N), CHUNK_ROWS)))
    outputs = [np.asarray(_probabilities(head, mean, std, center_E, x_NxE)) for x_NxE in chunks]
    classes = trained.validation_JxPxYxY.shape[-1]
    if not outputs:
        return np.zeros((len(heads_K), 0, classes), np.float32)
    return np.concatenate(outputs, 1)[:, : len(rows_N)]


@jax.jit
def _probabilities(head: Head, mean: Array, std: Array, center_E: Array, x_NxE: Array) -> Float[Array, "K N Y"]:
    x_NxE = x_NxE.astype(jnp.float32) - center_E
    return jax.nn.softmax(jax.vmap(head_logits, (0, 0, 0, None))(head, mean, std, x_NxE), axis=-1)
