"""Sizes and numerics of the encoder, and its floating-point operations."""

from dataclasses import dataclass
from typing import Literal

from selfpab_jax.errors import ConfigError
from selfpab_jax.model.parameters import LayoutName


@dataclass(frozen=True)
class ModelSettings:
    """The encoder's shape; the defaults are the published SelfPAB size (61,107,848 parameters with 156 features).

    Args:
        width: model width D; must be a multiple of `heads`.
        heads: attention heads H; the head size K is `width // heads`.
        feedforward: hidden width M of the feed-forward block.
        layers: number of encoder layers L.
        dropout: rate on attention weights, after attention, inside and after the feed-forward; 0 turns it off.
        compute: dtype of matrix products; parameters, softmax, LayerNorm and loss stay in float32.
        rematerialize: what the backward pass recomputes instead of keeping it: `nothing`, the `attention` weights (the
            largest of what is kept, and the cheapest to recompute), or whole `layers`.
        layout: `exact`, or `padded`: the same function with sizes rounded up for matrix units (`model/parameters.py`).
        attention: how attention is computed (`model/attention.py`); `auto` picks the best for the device.
        temporal_positions: add the five calendar tables of LTA2V; the encoder then takes timestamps.
    """

    width: int = 1500
    heads: int = 6
    feedforward: int = 2048
    layers: int = 4
    dropout: float = 0.1
    compute: Literal["bfloat16", "float32"] = "bfloat16"
    rematerialize: Literal["nothing", "attention", "layers"] = "nothing"
    layout: LayoutName = "exact"
    attention: Literal["auto", "full", "blocks", "cudnn"] = "auto"
    temporal_positions: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "heads", "feedforward", "layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}; it must be at least 1")
        if self.width % self.heads:
            raise ConfigError(f"model.width {self.width} is not a multiple of model.heads {self.heads}")
        if self.width % 2:
            raise ConfigError(f"model.width {self.width} is odd; sinusoidal positions need pairs of features")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}; it must be in [0, 1)")
        if self.attention == "cudnn" and (self.dropout or self.compute != "bfloat16"):
            raise ConfigError(
                "model.attention cudnn needs model.compute bfloat16 and has no dropout on the weights: "
                "set model.dropout 0, or model.attention auto"
            )

    @property
    def head_size(self) -> int:
        """Features K of one attention head."""
        return self.width // self.heads


# Floating-point operations by hand count: a multiply-add is two, only matrix products count.


def forward_flops(settings: ModelSettings, features: int, outputs: int, frames: int) -> int:
    """Matrix-product operations of one sample's forward pass (81.8 GFLOP at the published size and 599 frames).

    Args:
        settings: of the model.
        features: of an input frame.
        outputs: features of a reconstructed frame.
        frames: of a window.
    """
    d, m = settings.width, settings.feedforward
    weights = features * d + settings.layers * (4 * d * d + 2 * d * m) + d * outputs
    attention = settings.layers * 2 * frames * frames * d
    return 2 * (frames * weights + attention)


def training_flops(settings: ModelSettings, features: int, outputs: int, frames: int) -> int:
    """One sample's forward and backward pass: three forward passes, rematerialization not counted.

    Args:
        settings: of the model.
        features: of an input frame.
        outputs: features of a reconstructed frame.
        frames: of a window.
    """
    return 3 * forward_flops(settings, features, outputs, frames)
