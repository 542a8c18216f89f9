"""The original's network put together from torch.nn's modules, to hold ours against."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float32, Int, Int32

from selfpab_jax.convert.checkpoint import read_checkpoint
from selfpab_jax.convert.family import FamilyName, encodings_of
from selfpab_jax.convert.table import Arrays, build_tables
from selfpab_jax.convert.to_torch import require_torch
from selfpab_jax.errors import ModelError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.encoder import CALENDAR
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import CONFIG_FILE, read_model
from selfpab_jax.signal.normalization import Statistics

# The original's network put together from torch.nn's modules, to hold ours against.

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
        x_BxTxX: normalized frames.
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


# Two models, ours or the original's, on the same windows: how far each layer's outputs are apart.

SIZES = ("width", "heads", "feedforward", "layers", "temporal_positions")
Trace = Callable[[Float32[np.ndarray, "B T X"], Int[np.ndarray, "B T 5"] | None], Arrays]


@dataclass(frozen=True)
class Network:
    """Either kind of model.

    Args:
        kind: `ours` or `torch`.
        settings: sizes.
        features, outputs: of an input and of a reconstructed frame.
        trace: from normalized frames (and timestamps) to the outputs of every part, by name.
        statistics: of all sensors, where the model brings them.
    """

    kind: Literal["ours", "torch"]
    settings: ModelSettings
    features: int
    outputs: int
    trace: Trace
    statistics: Statistics | None = None


@dataclass(frozen=True)
class Difference:
    """How far two outputs of one part are apart.

    Args:
        part: embedding, a layer, its attention, or the reconstruction.
        largest, mean: of the absolute differences.
        relative: the largest, in units of the largest output of the second model.
    """

    part: str
    largest: float
    mean: float
    relative: float


def open_network(
    path: Path,
    compute: Literal["float32", "bfloat16"],
    family: FamilyName | None,
    *,
    attention: bool,
    any_version: bool = False,
) -> Network:
    """Open a model directory or a checkpoint.

    Args:
        path: of either.
        compute: dtype of matrix products on our side; torch.nn computes in float32.
        family: of a checkpoint whose features do not tell.
        attention: trace the attention weights too.
        any_version: also of another PyTorch Lightning than 1.6.

    Raises:
        ModelError: it is neither, or it is damaged.
    """
    if path.is_dir():
        config, arrays, statistics = read_model(path)
        settings = replace(config.model, compute=compute)
        if settings.layers > len(arrays):
            raise ModelError(f"{path}: weights do not fit {CONFIG_FILE}; copy the model directory again")
        functional = make_functional(settings, config.features, config.outputs)
        if {name: array.shape for name, array in arrays.items()} != {
            n: s.shape for n, s in functional.abstract.items()
        }:
            raise ModelError(f"{path}: weights do not fit {CONFIG_FILE}; copy the model directory again")

        def ours(x: np.ndarray, timestamps: np.ndarray | None) -> Arrays:
            model = functional.build({name: jax.numpy.asarray(array) for name, array in arrays.items()})
            given = (jax.numpy.asarray(each) for each in (x, timestamps) if each is not None)
            traced = model.encoder.trace(*given)
            parts = {"embedding": traced.embedding}
            for depth, (output, weights) in enumerate(zip(traced.layers, traced.attention, strict=True)):
                parts |= ({f"attention {depth}": weights} if attention else {}) | {f"layer {depth}": output}
            parts["reconstruction"] = model.head(traced.layers[-1])
            return {name: np.asarray(part, np.float32) for name, part in parts.items()}

        return Network("ours", settings, config.features, config.outputs, ours, statistics)

    checkpoint = read_checkpoint(path, family, any_version=any_version)
    checkpoint.check_weights()
    tensors = {name: checkpoint.file.array(tensor) for name, tensor in checkpoint.tensors.items()}
    encodings = encodings_of(checkpoint.arguments)

    def theirs(x: np.ndarray, timestamps: np.ndarray | None) -> Arrays:
        return torch_trace(tensors, encodings, checkpoint.settings, x, timestamps, attention=attention)

    return Network("torch", checkpoint.settings, checkpoint.features, checkpoint.outputs, theirs)


def compare(first: Network, second: Network, x: np.ndarray, timestamps: np.ndarray | None) -> list[Difference]:
    """Run both models on the same windows.

    Raises:
        ModelError: they have different sizes.
    """
    shapes = [(n.features, n.outputs, *(getattr(n.settings, size) for size in SIZES)) for n in (first, second)]
    if shapes[0] != shapes[1]:
        names = ("features", "outputs", *SIZES)
        apart = [f"{name} {a} and {b}" for name, a, b in zip(names, *shapes, strict=True) if a != b]
        raise ModelError(f"the two models are of different shape: {', '.join(apart)}")
    traces = first.trace(x, timestamps), second.trace(x, timestamps)
    return [_difference(part, traces[0][part], traces[1][part]) for part in traces[0]]


def compare_statistics(first: Network, second: Network) -> tuple[str, bool]:
    """What there is to say of the statistics of two model directories, and whether they pass; a checkpoint has none.

    They pass where they are equal to the bit, and where one of the two has none, which is said.
    """
    if "torch" in (first.kind, second.kind):
        return "", True
    one, other = first.statistics, second.statistics
    if one is None or other is None:
        without = "neither" if one is other else "only the second" if one is None else "only the first"
        return f"{without} has any, so they are not compared", True
    if one.mean.shape != other.mean.shape:
        return f"DIFFERENT: of {len(one.mean)} and of {len(other.mean)} features", False
    pairs = (("mean", one.mean, other.mean), ("std", one.std, other.std))
    apart = [
        f"{name} in {np.count_nonzero(a != b)} of {len(a)} features, by at most {np.abs(a - b).max():.1e}"
        for name, a, b in pairs
        if not np.array_equal(a, b)
    ]
    return (f"DIFFERENT: {' and '.join(apart)}", False) if apart else ("the same", True)


def _difference(part: str, first: np.ndarray, second: np.ndarray) -> Difference:
    apart = np.abs(first - second)
    return Difference(part, float(apart.max()), float(apart.mean()), float(apart.max() / np.abs(second).max()))


# Windows to compare two models on: random ones, and real ones from records.


def random_windows(network: Network, windows: int, frames: int, seed: int) -> Float32[np.ndarray, "B T X"]:
    """Standard normal frames, which is what normalized ones are in mean and deviation."""
    return np.random.default_rng(seed).standard_normal((windows, frames, network.features), np.float32)


def random_timestamps(network: Network, windows: int, frames: int, seed: int) -> Int32[np.ndarray, "B T 5"] | None:
    """Month, day, weekday, hour and minute at random; None for a model that takes none."""
    if not network.settings.temporal_positions:
        return None
    generator = np.random.default_rng(seed)
    columns = [generator.integers(rows, size=(windows, frames), dtype=np.int32) for rows in CALENDAR.values()]
    return np.stack(columns, -1)


def real_windows(
    first: Network, second: Network, path: Path, windows: int, frames: int
) -> Float32[np.ndarray, "B T X"]:
    """Windows of records, evenly spaced over their held-out split (or the training one), normalized.

    With the statistics of whichever model brings them, else of the records. A model of one sensor gets the first's.

    Raises:
        ModelError: the records have other features than the models.
        DataError: they cannot be read.
    """
    from selfpab_jax.data.records.dataset import open_records

    records = open_records(path)
    split = "validation" if "validation" in records.info.splits else "train"
    source = records.source(split)
    features = first.features
    if records.info.features < features or records.info.features % features:
        raise ModelError(f"{path} has frames of {records.info.features} features, the models take {features}")
    rows = np.linspace(0, len(source), min(windows, len(source)), endpoint=False).astype(int)
    spectrograms = np.stack([source[int(row)]["spectrogram"][:frames] for row in rows]).astype(np.float32)
    brought = [each.statistics for each in (first, second) if each.statistics is not None]
    statistics = next((s for s in brought if len(s.mean) == records.info.features), records.statistics())
    return np.ascontiguousarray(((spectrograms - statistics.mean) / statistics.std)[..., :features])
