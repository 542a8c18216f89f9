"""Linear and MLP heads on frozen features: pure functions of one head; `jobs` maps them over many."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int, Key

from selfpab_jax.errors import ConfigError
from selfpab_jax.probe.heads.batch import Rows, read_ahead

# Linear and MLP heads on frozen features: pure functions of one head; `jobs` maps them over many.

Head = dict[str, Float[Array, "..."]]
"""`mix_L`: logits of the layers' shares; `weight_DxH`, `bias_H`; an MLP has `out_HxY`, `out_bias_Y` besides."""


@dataclass(frozen=True)
class HeadSettings:
    """What a head is, and how it is trained. Learning rate and weight decay belong to the single job.

    Args:
        kind: `linear`, D -> Y, or `mlp`, D -> hidden -> Y with a ReLU, as the original's downstream head.
        hidden: width of the MLP's hidden layer.
        standardize: features are standardized by the job's own training rows. The original does not.
        class_weights: every class counts the same, by the job's own training rows; else every row does.
        optimizer: `adam`, whose weight decay is a gradient (an L2 penalty), or `adamw`, whose is decoupled. Biases and
            layer shares do not decay.
        beta1: decay of the first moment.
        beta2: decay of the second moment; both as in the original.
        decay: the learning rate is multiplied by it ...
        decay_steps: ... in so many steps, continuously (the original's 0.8^(n / 200)).
        batch_size: rows of a batch, which all jobs share.
        epochs: passes over the training rows, and the number of points where stopping is possible.
        min_steps: the least number of steps, however few the rows are.
        seed: of the order of the rows.
        memory_gib: jobs are trained in groups whose parameters and optimizer fit into so much.
    """

    kind: Literal["linear", "mlp"] = "linear"
    hidden: int = 1028
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
        for name, allowed in (("kind", ("linear", "mlp")), ("optimizer", ("adam", "adamw"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"head.{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        for name in ("hidden", "batch_size", "epochs", "min_steps", "decay_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"head.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"head.{name} is {getattr(self, name)}; it must lie in [0, 1)")
        if not 0 < self.decay <= 1 or self.memory_gib <= 0:
            raise ConfigError("head.decay must lie in (0, 1], head.memory_gib must be greater than 0")

    def parameters(self, layers: int, width: int, classes: int) -> int:
        """Numbers that one head holds."""
        if self.kind == "linear":
            return layers + (width + 1) * classes
        return layers + (width + 1) * self.hidden + (self.hidden + 1) * classes

    def bytes_of_job(self, layers: int, width: int, classes: int) -> int:
        """Memory that one job takes in training.

        Parameters, two moments and the gradient; the folded first matrix and its gradient; outputs of a batch.
        """
        outputs = classes if self.kind == "linear" else self.hidden
        folded = 2 * layers * width * outputs
        return 4 * (4 * self.parameters(layers, width, classes) + folded + 3 * self.batch_size * outputs)


def init_head(key: Key[Array, ""], settings: HeadSettings, layers: int, width: int, classes: int) -> Head:
    """Parameters drawn as torch.nn.Linear does, uniform within 1 / sqrt(inputs); layers start with equal shares."""
    keys = jax.random.split(key, 4)

    def uniform(key: Key[Array, ""], shape: tuple[int, ...], inputs: int) -> Float[Array, "..."]:
        return jax.random.uniform(key, shape, jnp.float32, -(inputs**-0.5), inputs**-0.5)

    outputs = classes if settings.kind == "linear" else settings.hidden
    head = {
        "mix_L": jnp.zeros(layers, jnp.float32),
        "weight_DxH": uniform(keys[0], (width, outputs), width),
        "bias_H": uniform(keys[1], (outputs,), width),
    }
    if settings.kind == "mlp":
        head["out_HxY"] = uniform(keys[2], (outputs, classes), outputs)
        head["out_bias_Y"] = uniform(keys[3], (classes,), outputs)
    return head


def head_logits(
    head: Head, mean_E: Float[Array, " E"], deviation_E: Float[Array, " E"], x_BxE: Float[Array, "B E"]
) -> Float[Array, "B Y"]:
    """Logits of rows whose L layers of width D lie side by side, E = L * D.

    The layers' shares and the standardization are folded into the first matrix: mapped over jobs, the product with
    the rows is one of (B, E) with (E, J * H), and no job has standardized rows of its own.
    """
    weight_DxH = head["weight_DxH"]
    share_L = jax.nn.softmax(head["mix_L"])
    weight_ExH = (share_L[:, None, None] * weight_DxH).reshape(-1, weight_DxH.shape[1]) / deviation_E[:, None]
    exact = jax.lax.Precision.HIGHEST  # float32 where accelerators would round their inputs
    bias_H = head["bias_H"] - jnp.matmul(mean_E, weight_ExH, precision=exact)
    z_BxH = jnp.matmul(x_BxE, weight_ExH, precision=exact) + bias_H
    if "out_HxY" not in head:
        return z_BxH
    return jnp.matmul(jax.nn.relu(z_BxH), head["out_HxY"], precision=exact) + head["out_bias_Y"]


def cross_entropy(
    logits_BxY: Float[Array, "B Y"], label_B: Int[Array, " B"], weight_B: Float[Array, " B"]
) -> Float[Array, ""]:
    """Weighted mean over the rows, 0 where no row counts."""
    # A one-hot product, not a gather: on CPUs the gather and its gradient cost more than the classes do.
    classes = jnp.arange(logits_BxY.shape[1], dtype=label_B.dtype)
    truth_BxY = (label_B[:, None] == classes).astype(jnp.float32)
    loss_B = jax.nn.logsumexp(logits_BxY, axis=-1) - (logits_BxY * truth_BxY).sum(-1)
    return (weight_B * loss_B).sum() / jnp.maximum(weight_B.sum(), jnp.finfo(jnp.float32).tiny)


# Heads as they are after training, and what they predict.

CHUNK = 2048
"""Rows that are predicted at a time."""


@dataclass(frozen=True)
class TrainedHeads:
    """Heads with what they need to predict.

    Attributes:
        head: parameters, each with a leading axis of jobs; empty where only the validation was wanted.
        center_E: subtracted from every row.
        mean_JxE: the job's own, relative to the center; zero where features are not standardized.
        deviation_JxE: likewise, one where they are not.
        validation_JxPxYxY: confusion (truth, prediction) of the validation rows at each stopping point; all zero where
            a head had diverged.
        steps_P: steps taken at each stopping point.
    """

    head: dict[str, Float32[np.ndarray, "J ..."]]
    center_E: Float32[np.ndarray, " E"]
    mean_JxE: Float32[np.ndarray, "J E"]
    deviation_JxE: Float32[np.ndarray, "J E"]
    validation_JxPxYxY: Float64[np.ndarray, "J P Y Y"]
    steps_P: Int[np.ndarray, " P"]


def predict_rows(
    rows: Rows, trained: TrainedHeads, jobs_K: Int[np.ndarray, " K"], chosen: Int[np.ndarray, " N"]
) -> Float32[np.ndarray, "K N Y"]:
    """Probabilities that some of the trained heads give some of the rows, in bounded memory."""
    head, mean, deviation = jax.tree.map(
        lambda a: jnp.asarray(a[jobs_K]), (trained.head, trained.mean_JxE, trained.deviation_JxE)
    )
    features_RxE, center_E = rows.features_RxE, jnp.asarray(trained.center_E)

    def read(chunk: int) -> np.ndarray:
        part = chosen[chunk * CHUNK : (chunk + 1) * CHUNK]
        x_NxE = features_RxE[part]
        return np.pad(x_NxE, ((0, CHUNK - len(part)), (0, 0)))  # one shape, one compilation

    outputs = [
        np.asarray(_probabilities(head, mean, deviation, center_E, x_NxE))
        for x_NxE in read_ahead(read, -(-len(chosen) // CHUNK))
    ]
    classes = trained.validation_JxPxYxY.shape[-1]
    return np.concatenate(outputs, 1)[:, : len(chosen)] if outputs else np.zeros((len(jobs_K), 0, classes), np.float32)


@jax.jit
def _probabilities(head: Head, mean: Array, deviation: Array, center_E: Array, x_NxE: Array) -> Float[Array, "K N Y"]:
    x_NxE = x_NxE.astype(jnp.float32) - center_E
    return jax.nn.softmax(jax.vmap(head_logits, (0, 0, 0, None))(head, mean, deviation, x_NxE), axis=-1)
