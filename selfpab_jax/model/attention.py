"""Multi-head self-attention: all weights at once, in blocks of queries, or by cuDNN's kernel."""

import math
from typing import cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.parameters import multiply, padded_size, parameter, uniform, zero_padded
from selfpab_jax.model.rng import dropout

LONGEST_FULL = 1024
"""Frames up to which `auto` computes all T x T weights of a layer at once; longer windows go in blocks of queries."""

QUERIES_PER_BLOCK = 256


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
        self,
        h_BxTxD: Float[Array, "B T D"],
        keys_B: Key[Array, " B"] | None,
        frames: int,
        valid_B: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The attention output.

        Args:
            h_BxTxD: input; frames after the first `frames` are padding, which is never attended to.
            keys_B: one key per sample for dropout, or None for evaluation.
            frames: without the layout's padding.
            valid_B: frames of each sample that are attended to; `frames` where not given.
        """
        q, k, v = self._projected(h_BxTxD)
        rate = self.settings.dropout if keys_B is not None else 0.0
        kind = attention_kind(self.settings, h_BxTxD.shape[1], rate)
        if kind == "cudnn":
            mixed_BxTxHxK = _cudnn(q, k, v, frames, valid_B)
        else:
            mix = _by_blocks if kind == "blocks" else mix_values
            if self.settings.rematerialize == "attention":
                mix = jax.checkpoint(mix, static_argnums=(4, 5))
            mixed_BxTxHxK = mix(q, k, v, keys_B, frames, rate, valid_B)
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
        size = padded_size(settings.head_size, "head", settings.layout)
        kernel_DxHxK = zero_padded(kernel[...].astype(compute), h_BxTxD.shape[-1], None, size)
        bias_HxK = zero_padded(bias[...].astype(compute), None, size)
        return multiply("btd,dhk->bthk", h_BxTxD, kernel_DxHxK, compute) + bias_HxK


def attention_kind(settings: ModelSettings, frames: int, rate: float) -> str:
    """How attention is computed: what the settings say, or for `auto` cuDNN's kernel, all weights at once, or blocks.

    cuDNN's kernel needs an NVIDIA GPU, bf16, and a head size that is a multiple of 8 and that the GPU supports. It has
    no dropout on the weights.

    Args:
        settings: of the model.
        frames: of a window.
        rate: of dropout on the weights.
    """
    if settings.attention != "auto":
        return settings.attention
    head = padded_size(settings.head_size, "head", settings.layout)
    if settings.compute == "bfloat16" and head % 8 == 0 and head <= _widest_cudnn_head() and rate == 0:
        return "cudnn"
    return "full" if frames <= LONGEST_FULL else "blocks"


def _widest_cudnn_head() -> int:
    """As JAX checks it: 256 from Hopper on, 128 from Ampere on, 0 on older or other devices."""
    if jax.default_backend() != "gpu":
        return 0
    try:
        capability = float(jax.devices()[0].compute_capability)
    except ValueError:  # ROCm devices have names such as gfx90a
        return 0
    return 256 if capability >= 9.0 else 128 if capability >= 8.0 else 0


def attention_weights(
    q_BxTxHxK: Float[Array, "B T H K"],
    k_BxSxHxK: Float[Array, "B S H K"],
    frames: int,
    valid_B: Int[Array, " B"] | None = None,
) -> Float[Array, "B H T S"]:
    """Softmax over the first `frames` keys, in float32; the queries are already scaled.

    Args:
        q_BxTxHxK: queries.
        k_BxSxHxK: keys.
        frames: keys without padding.
        valid_B: of them, those of each sample that count.
    """
    scores_BxHxTxS = _scores(q_BxTxHxK, k_BxSxHxK)
    if frames < k_BxSxHxK.shape[1] or valid_B is not None:
        counted = frames if valid_B is None else valid_B[:, None, None, None]
        is_frame = jax.lax.broadcasted_iota(jnp.int32, scores_BxHxTxS.shape, 3) < counted
        scores_BxHxTxS = jnp.where(is_frame, scores_BxHxTxS, -jnp.inf)
    return jax.nn.softmax(scores_BxHxTxS, axis=-1)


@jax.custom_vjp
def _scores(q: Float[Array, "B T H K"], k: Float[Array, "B S H K"]) -> Float[Array, "B H T S"]:
    """Products accumulated in float32, with a gradient whose products stay in the compute dtype."""
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
    valid_B: Int[Array, " B"] | None = None,
    first: Int[Array, ""] | int = 0,
) -> Float[Array, "B T H K"]:
    """Values averaged with the attention weights, with dropout on the weights.

    Args:
        q: queries, scaled.
        k: keys.
        v: values.
        keys_B: one key per sample for dropout, or None.
        frames: keys without padding.
        rate: of dropout.
        valid_B: keys of each sample that count.
        first: where these queries begin in the window.
    """
    weights = attention_weights(q, k, frames, valid_B).astype(q.dtype)
    kept = dropout(weights, rate, keys_B, (q.shape[2], frames, frames), first)
    # In this order whole rows of K are copied; otherwise the product comes out with K and T exchanged.
    return jnp.swapaxes(multiply("bhts,bhsk->bhtk", kept, jnp.swapaxes(v, 1, 2), str(q.dtype)), 1, 2)


def _by_blocks(
    q: Array, k: Array, v: Array, keys_B: Array | None, frames: int, rate: float, valid_B: Array | None
) -> Array:
    """As `mix_values`, one block of queries at a time: memory grows with T, not with its square."""
    batch, length, heads, size = q.shape
    blocks = -(-length // QUERIES_PER_BLOCK)
    padded = zero_padded(q, None, blocks * QUERIES_PER_BLOCK, None, None)
    q_blocks = jnp.moveaxis(padded.reshape(batch, blocks, QUERIES_PER_BLOCK, heads, size), 1, 0)

    @jax.checkpoint
    def one(block: Array, number: Array) -> Array:
        return mix_values(block, k, v, keys_B, frames, rate, valid_B, number * QUERIES_PER_BLOCK)

    mixed = jax.lax.map(lambda given: one(*given), (q_blocks, jnp.arange(blocks)))
    return jnp.moveaxis(mixed, 0, 1).reshape(padded.shape)[:, :length]


def _cudnn(q: Array, k: Array, v: Array, frames: int, valid_B: Array | None) -> Array:
    lengths = valid_B
    if valid_B is None and frames < k.shape[1]:
        lengths = jnp.full(q.shape[0], frames, jnp.int32)
    return cast(
        Array,
        jax.nn.dot_product_attention(
            q, k, v, scale=1.0, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation="cudnn"
        ),
    )
