"""Multi-head self-attention, and the ways to compute it."""

import math
from typing import cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.parameters import laid_out, multiply, parameter, uniform, zero_padded
from selfpab_jax.model.rng import dropout

LONGEST_FULL = 1024
"""Frames up to which `auto` keeps all T x T weights of a layer; longer windows go by blocks of queries."""

QUERIES_A_BLOCK = 256


class SelfAttention(nnx.Module):
    """Multi-head self-attention with biases, as torch.nn.MultiheadAttention."""

    def __init__(self, settings: ModelSettings, rngs: nnx.Rngs):
        d, h, k = settings.width, settings.heads, settings.head_size
        # Drawn in one piece, as torch draws its packed weight, so that its bound and an older version's draws hold.
        packed = uniform(rngs, (d, 3, h, k), math.sqrt(6 / (d + 3 * d)))
        self.query_kernel = parameter(packed[:, 0], "width", "heads", None)
        self.query_bias = parameter(jnp.zeros((h, k)), "heads", None)
        self.key_kernel = parameter(packed[:, 1], "width", "heads", None)
        self.key_bias = parameter(jnp.zeros((h, k)), "heads", None)
        self.value_kernel = parameter(packed[:, 2], "width", "heads", None)
        self.value_bias = parameter(jnp.zeros((h, k)), "heads", None)
        self.out_kernel = parameter(uniform(rngs, (h, k, d), 1 / math.sqrt(d)), "heads", None, "width")
        self.out_bias = parameter(jnp.zeros(d), None)
        self.settings = settings

    def __call__(
        self, h_BxTxD: Float[Array, "B T D"], keys_B: Key[Array, " B"] | None, frames: int
    ) -> Float[Array, "B T D"]:
        """Attended frames; those beyond the first `frames` are padding, and nobody looks at them."""
        q, k, v = self._projected(h_BxTxD)
        rate = self.settings.dropout if keys_B is not None else 0.0
        way = way_of_attention(self.settings, h_BxTxD.shape[1], rate)
        if way == "cudnn":
            mixed_BxTxHxK = _cudnn(q, k, v, frames)
        else:
            mix = _by_blocks if way == "blocks" else mix_values
            if self.settings.rematerialize == "attention":
                mix = jax.checkpoint(mix, static_argnums=(4, 5))
            mixed_BxTxHxK = mix(q, k, v, keys_B, frames, rate)
        compute = self.settings.compute
        kernel = zero_padded(self.out_kernel[...].astype(compute), None, q.shape[-1], h_BxTxD.shape[-1])
        bias = zero_padded(self.out_bias[...].astype(compute), h_BxTxD.shape[-1])
        return multiply("bthk,hkd->btd", mixed_BxTxHxK, kernel, compute) + bias

    def weights(self, h_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B H T T"]:
        """The attention weights of frames without padding, without dropout."""
        q, k, _ = self._projected(h_BxTxD)
        return attention_weights(q, k, h_BxTxD.shape[1])

    def _projected(self, h_BxTxD: Array) -> tuple[Array, Array, Array]:
        """Queries, keys and values; the queries are scaled."""
        settings = self.settings
        q = self._project(h_BxTxD, self.query_kernel, self.query_bias)
        k = self._project(h_BxTxD, self.key_kernel, self.key_bias)
        v = self._project(h_BxTxD, self.value_kernel, self.value_bias)
        return q * (1 / math.sqrt(settings.head_size)), k, v

    def _project(self, h_BxTxD: Array, kernel: nnx.Param, bias: nnx.Param) -> Array:
        settings, compute = self.settings, self.settings.compute
        size = laid_out(settings.head_size, "head", settings.layout)
        kernel_DxHxK = zero_padded(kernel[...].astype(compute), h_BxTxD.shape[-1], None, size)
        bias_HxK = zero_padded(bias[...].astype(compute), None, size)
        return multiply("btd,dhk->bthk", h_BxTxD, kernel_DxHxK, compute) + bias_HxK


def way_of_attention(settings: ModelSettings, frames: int, rate: float) -> str:
    """`auto` made plain: cuDNN's kernel where it can be had, all weights at once for short windows, else blocks.

    cuDNN's kernel wants an NVIDIA GPU, bf16, a head size that is a multiple of 8 and that the card takes, and knows no
    dropout on the weights.
    """
    if settings.attention != "auto":
        return settings.attention
    head = laid_out(settings.head_size, "head", settings.layout)
    if settings.compute == "bfloat16" and head % 8 == 0 and head <= _widest_cudnn_head() and rate == 0:
        return "cudnn"
    return "full" if frames <= LONGEST_FULL else "blocks"


def _widest_cudnn_head() -> int:
    """As JAX checks it: 256 from Hopper on, 128 from Ampere on, none on older cards, other makers' or other devices."""
    if jax.default_backend() != "gpu":
        return 0
    try:
        capability = float(jax.devices()[0].compute_capability)
    except ValueError:  # ROCm's are called gfx90a
        return 0
    return 256 if capability >= 9.0 else 128 if capability >= 8.0 else 0


def attention_weights(
    q_BxTxHxK: Float[Array, "B T H K"], k_BxSxHxK: Float[Array, "B S H K"], frames: int
) -> Float[Array, "B H T S"]:
    """Softmax over the first `frames` keys, in float32; the queries are scaled already."""
    scores_BxHxTxS = _scores(q_BxTxHxK, k_BxSxHxK)
    if frames < k_BxSxHxK.shape[1]:
        is_frame = jax.lax.broadcasted_iota(jnp.int32, scores_BxHxTxS.shape, 3) < frames
        scores_BxHxTxS = jnp.where(is_frame, scores_BxHxTxS, -jnp.inf)
    return jax.nn.softmax(scores_BxHxTxS, axis=-1)


@jax.custom_vjp
def _scores(q: Float[Array, "B T H K"], k: Float[Array, "B S H K"]) -> Float[Array, "B H T S"]:
    """Products summed in float32. Their gradient comes in float32, which would make its products float32 ones too."""
    return multiply("bthk,bshk->bhts", q, k, str(q.dtype), "float32")


def _scores_forward(q: Array, k: Array) -> tuple[Array, tuple[Array, Array]]:
    return _scores(q, k), (q, k)


def _scores_backward(operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    (q, k), compute = operands, str(operands[0].dtype)
    return multiply("bhts,bshk->bthk", gradient, k, compute), multiply("bhts,bthk->bshk", gradient, q, compute)


_scores.defvjp(_scores_forward, _scores_backward)


def mix_values(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S H K"],
    v: Float[Array, "B S H K"],
    keys_B: Key[Array, " B"] | None,
    frames: int,
    rate: float,
    first: Int[Array, ""] | int = 0,
) -> Float[Array, "B T H K"]:
    """Values mixed by the weights, with dropout on them; `first` is where these queries begin in the window."""
    weights = attention_weights(q, k, frames).astype(q.dtype)
    kept = dropout(weights, rate, keys_B, (q.shape[2], frames, frames), first)
    # Said in this order, whole rows of K are moved; otherwise the product comes out with K and T exchanged.
    return jnp.swapaxes(multiply("bhts,bhsk->bhtk", kept, jnp.swapaxes(v, 1, 2), str(q.dtype)), 1, 2)


def _by_blocks(q: Array, k: Array, v: Array, keys_B: Array | None, frames: int, rate: float) -> Array:
    """As `mix_values`, a block of queries at a time: memory grows with T, not with its square."""
    batch, length, heads, size = q.shape
    blocks = -(-length // QUERIES_A_BLOCK)
    padded = zero_padded(q, None, blocks * QUERIES_A_BLOCK, None, None)
    q_blocks = jnp.moveaxis(padded.reshape(batch, blocks, QUERIES_A_BLOCK, heads, size), 1, 0)

    @jax.checkpoint
    def one(block: Array, number: Array) -> Array:
        return mix_values(block, k, v, keys_B, frames, rate, number * QUERIES_A_BLOCK)

    mixed = jax.lax.map(lambda given: one(*given), (q_blocks, jnp.arange(blocks)))
    return jnp.moveaxis(mixed, 0, 1).reshape(padded.shape)[:, :length]


def _cudnn(q: Array, k: Array, v: Array, frames: int) -> Array:
    lengths = None if frames == k.shape[1] else jnp.full(q.shape[0], frames, jnp.int32)
    return cast(
        Array,
        jax.nn.dot_product_attention(
            q, k, v, scale=1.0, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation="cudnn"
        ),
    )
