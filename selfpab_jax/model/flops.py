"""Floating-point operations by hand count: a multiply-add is two, only matrix products count."""

from selfpab_jax.model.config import ModelSettings


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
