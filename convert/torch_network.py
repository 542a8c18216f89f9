"""The original's network put together from torch.nn's modules, to hold ours against."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from selfpab_jax.convert.positions import build_tables
from selfpab_jax.convert.table import Arrays
from selfpab_jax.convert.torch_extra import require_torch
from selfpab_jax.model.positions import CALENDAR
from selfpab_jax.model.settings import ModelSettings

LAYER = "transformer_encoder.layers.{n}."


def torch_trace(
    tensors: Mapping[str, Any],
    encodings: str | list[str],
    settings: ModelSettings,
    x_BxTxX: Float32[np.ndarray, "B T X"],
    timestamps_BxTx5: Int[np.ndarray, "B T 5"] | None,
    *,
    attention: bool,
) -> Arrays:
    """Embedding, every layer's output, attention weights and the reconstruction, in eval mode.

    Args:
        tensors: a `state_dict`, as torch tensors or as arrays.
        encodings: positional encodings by name, as `hyper_parameters.encodings_of`.
        settings: sizes.
        x_BxTxX: normalised frames.
        timestamps_BxTx5: month, day, weekday, hour, minute; where the calendar is encoded.
        attention: compute the attention weights as well.

    Raises:
        ModelError: PyTorch is not installed.
    """
    torch = require_torch()
    weights = {name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}
    tables = build_tables(torch, encodings, settings.width) | {n: weights[n] for n in weights if "pos_encoder" in n}
    parts: Arrays = {}
    with torch.no_grad():
        x = torch.from_numpy(x_BxTxX)
        h = torch.nn.functional.linear(x, weights["emb.lin_proj_layer.weight"], weights["emb.lin_proj_layer.bias"])
        h = h + _positions(
            tables, len(x_BxTxX[0]), None if timestamps_BxTx5 is None else torch.from_numpy(timestamps_BxTx5)
        )
        parts["embedding"] = h.numpy()
        for depth in range(settings.layers):
            prefix = LAYER.format(n=depth)
            layer = torch.nn.TransformerEncoderLayer(
                settings.width, settings.heads, settings.feedforward, settings.dropout, batch_first=True
            ).eval()
            layer.load_state_dict({n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)})
            if attention:
                weights_BxHxTxT = layer.self_attn(h, h, h, need_weights=True, average_attn_weights=False)[1]
                parts[f"attention {depth}"] = weights_BxHxTxT.numpy()
            h = layer(h)
            parts[f"layer {depth}"] = h.numpy()
        head = (weights[f"prediction_head.mlp.out_layer.{part}"] for part in ("weight", "bias"))
        parts["reconstruction"] = torch.nn.functional.linear(h, *head).numpy()
    return parts


def _positions(tables: Mapping[str, Any], frames: int, timestamps: Any) -> Any:
    total = 0
    for name, table in tables.items():
        if name.endswith(".pe"):
            total = total + table[:, :frames]
        elif timestamps is not None:
            column = list(CALENDAR).index(name.split(".")[-3].removesuffix("_embed"))
            total = total + table[timestamps[..., column].long()]
    return total
