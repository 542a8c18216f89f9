"""The parts of an encoder layer, each with the logical axes of its parameters (see `train/sharding.py`)."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from selfpab_jax.model.random import dropout, fold_each
from selfpab_jax.model.settings import ModelSettings

LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's default, which the original uses


def parameter(value: Array, *axes: str | None) -> nnx.Param:
    """A float32 parameter that carries the names of its axes."""
    return nnx.Param(value, axes=axes)


def uniform(rngs: nnx.Rngs, shape: tuple[int, ...], bound: float) -> Array:
    """Uniform in [-bound, bound), as torch.nn initialises."""
    return jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)


def multiply(equation: str, x: Array, kernel: Array, compute: str, result: str | None = None) -> Array:
    """A matrix product with operands in the compute dtype; the result is in it too unless `result` says otherwise."""
    precision = jax.lax.Precision.HIGHEST if compute == "float32" else None
    return jnp.einsum(
        equation, x.astype(compute), kernel.astype(compute), precision=precision, preferred_element_type=result
    )


class Dense(nnx.Module):
    """x W + b over the last axis, initialised as torch.nn.Linear."""

    def __init__(self, inputs: int, outputs: int, axes: tuple[str | None, str | None], compute: str, rngs: nnx.Rngs):
        bound = 1 / math.sqrt(inputs)
        self.kernel = parameter(uniform(rngs, (inputs, outputs), bound), *axes)
        self.bias = parameter(uniform(rngs, (outputs,), bound), axes[1])
        self.compute = compute

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B T O"]:
        """Product in the compute dtype."""
        return multiply("bti,io->bto", x, self.kernel[...], self.compute) + self.bias[...].astype(self.compute)


class LayerNorm(nnx.Module):
    """LayerNorm over the last axis in float32."""

    def __init__(self, width: int):
        self.scale = parameter(jnp.ones(width), None)
        self.bias = parameter(jnp.zeros(width), None)

    def __call__(self, h_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalise each frame; the variance is the biased one."""
        h = h_BxTxD.astype(jnp.float32)
        centred = h - h.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
        return normal * self.scale[...] + self.bias[...]


class SelfAttention(nnx.Module):
    """Multi-head self-attention with biases, as torch.nn.MultiheadAttention."""

    def __init__(self, settings: ModelSettings, rngs: nnx.Rngs):
        d, h, k = settings.width, settings.heads, settings.head_size
        self.qkv_kernel = parameter(
            uniform(rngs, (d, 3, h, k), math.sqrt(6 / (d + 3 * d))), "width", None, "heads", None
        )
        self.qkv_bias = parameter(jnp.zeros((3, h, k)), None, "heads", None)
        self.out_kernel = parameter(uniform(rngs, (h, k, d), 1 / math.sqrt(d)), "heads", None, "width")
        self.out_bias = parameter(jnp.zeros(d), None)
        self.settings = settings

    def __call__(
        self, h_BxTxD: Float[Array, "B T D"], keys_B: Key[Array, "B"] | None
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B H T T"]]:
        """Attended frames and the attention weights (before dropout, float32)."""
        compute = self.settings.compute
        qkv = multiply("btd,dshk->sbthk", h_BxTxD, self.qkv_kernel[...], compute)
        q, k, v = qkv + self.qkv_bias[...].astype(compute)[:, None, None]
        scores_BxHxTxT = multiply(
            "bthk,bshk->bhts", q * (1 / math.sqrt(self.settings.head_size)), k, compute, "float32"
        )
        weights_BxHxTxT = jax.nn.softmax(scores_BxHxTxT, axis=-1)
        kept = dropout(weights_BxHxTxT.astype(compute), self.settings.dropout, keys_B)
        mixed_BxTxHxK = multiply("bhts,bshk->bthk", kept, v, compute)
        out = multiply("bthk,hkd->btd", mixed_BxTxHxK, self.out_kernel[...], compute)
        return out + self.out_bias[...].astype(compute), weights_BxHxTxT


class EncoderLayer(nnx.Module):
    """Post-norm transformer layer with a ReLU feed-forward, as torch.nn.TransformerEncoderLayer."""

    def __init__(self, settings: ModelSettings, rngs: nnx.Rngs):
        d, m, compute = settings.width, settings.feedforward, settings.compute
        self.attention = SelfAttention(settings, rngs)
        self.norm1 = LayerNorm(d)
        self.expand = Dense(d, m, ("width", "hidden"), compute, rngs)
        self.contract = Dense(m, d, ("hidden", "width"), compute, rngs)
        self.norm2 = LayerNorm(d)
        self.dropout = settings.dropout

    def __call__(
        self, h_BxTxD: Float[Array, "B T D"], keys_B: Key[Array, "B"] | None
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B H T T"]]:
        """The layer's output (float32) and its attention weights."""
        keys = [None] * 4 if keys_B is None else [fold_each(keys_B, site) for site in range(4)]
        attended, weights = self.attention(h_BxTxD, keys[0])
        h = self.norm1(h_BxTxD + dropout(attended, self.dropout, keys[1]).astype(jnp.float32))
        hidden = dropout(jax.nn.relu(self.expand(h)), self.dropout, keys[2])
        return self.norm2(h + dropout(self.contract(hidden), self.dropout, keys[3]).astype(jnp.float32)), weights
