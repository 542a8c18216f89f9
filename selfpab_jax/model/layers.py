"""The parts of an encoder layer, each with the logical axes of its parameters (see `train/sharding.py`)."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from selfpab_jax.model.attention import SelfAttention
from selfpab_jax.model.layout import laid_out, zero_padded
from selfpab_jax.model.parameters import multiply, parameter, uniform
from selfpab_jax.model.random import dropout, fold_each
from selfpab_jax.model.settings import ModelSettings

LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's default, which the original uses


class Dense(nnx.Module):
    """x W + b over the last axis, initialised as torch.nn.Linear; `columns` of the result, those beyond outputs 0."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        axes: tuple[str | None, str | None],
        compute: str,
        rngs: nnx.Rngs,
        columns: int | None = None,
    ):
        bound = 1 / math.sqrt(inputs)
        self.kernel = parameter(uniform(rngs, (inputs, outputs), bound), *axes)
        self.bias = parameter(uniform(rngs, (outputs,), bound), axes[1])
        self.compute = compute
        self.columns = columns or outputs

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B T O"]:
        """Product in the compute dtype."""
        kernel = zero_padded(self.kernel[...].astype(self.compute), x.shape[-1], self.columns)
        bias = zero_padded(self.bias[...].astype(self.compute), self.columns)
        return multiply("bti,io->bto", x, kernel, self.compute) + bias


class LayerNorm(nnx.Module):
    """LayerNorm over the last axis in float32; zeros behind the first `width` entries stay zeros and do not count."""

    def __init__(self, width: int):
        self.scale = parameter(jnp.ones(width), None)
        self.bias = parameter(jnp.zeros(width), None)
        self.width = width

    def __call__(self, h_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalise each frame; the variance is the biased one."""
        h = h_BxTxD.astype(jnp.float32)
        columns = h.shape[-1]
        centred = h - h.sum(-1, keepdims=True) / self.width
        if columns > self.width:
            centred = jnp.where(jax.lax.broadcasted_iota(jnp.int32, h.shape, h.ndim - 1) < self.width, centred, 0)
        variance = jnp.square(centred).sum(-1, keepdims=True) / self.width
        normal = centred * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
        return normal * zero_padded(self.scale[...], columns) + zero_padded(self.bias[...], columns)


class EncoderLayer(nnx.Module):
    """Post-norm transformer layer with a ReLU feed-forward, as torch.nn.TransformerEncoderLayer."""

    def __init__(self, settings: ModelSettings, rngs: nnx.Rngs):
        d, m, compute, layout = settings.width, settings.feedforward, settings.compute, settings.layout
        self.attention = SelfAttention(settings, rngs)
        self.norm1 = LayerNorm(d)
        self.expand = Dense(d, m, ("width", "hidden"), compute, rngs, laid_out(m, "hidden", layout))
        self.contract = Dense(m, d, ("hidden", "width"), compute, rngs, laid_out(d, "width", layout))
        self.norm2 = LayerNorm(d)
        self.settings = settings

    def __call__(
        self, h_BxTxD: Float[Array, "B T D"], keys_B: Key[Array, "B"] | None, frames: int
    ) -> Float[Array, "B T D"]:
        """The layer's output (float32); only the first `frames` count, the others are padding."""
        rate, d, m = self.settings.dropout, self.settings.width, self.settings.feedforward
        keys = [None] * 4 if keys_B is None else [fold_each(keys_B, site) for site in range(4)]
        attended = dropout(self.attention(h_BxTxD, keys[0], frames), rate, keys[1], (frames, d))
        h = self.norm1(h_BxTxD + attended.astype(jnp.float32))
        hidden = dropout(jax.nn.relu(self.expand(h)), rate, keys[2], (frames, m))
        return self.norm2(h + dropout(self.contract(hidden), rate, keys[3], (frames, d)).astype(jnp.float32))
