"""Two models, ours or the original's, compared on the same windows: how far each layer's outputs differ.

The original's network is assembled from torch.nn's modules, so that PyTorch computes it and not this package.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float32, Int, Int32

from selfpab_jax.convert.checkpoint import ReadOptions, read_checkpoint
from selfpab_jax.convert.hyper_parameters import encodings_of
from selfpab_jax.convert.positions import build_tables, is_position
from selfpab_jax.convert.table import Arrays
from selfpab_jax.convert.to_torch import require_torch
from selfpab_jax.errors import ModelError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.encoder import CALENDAR
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import CONFIG_FILE, read_model
from selfpab_jax.signal.normalization import Statistics

SIZES = ("width", "heads", "feedforward", "layers", "temporal_positions")
Compute = Literal["float32", "bfloat16"]
Timestamps = Int[np.ndarray, "B T 5"]
"""Month, day, weekday, hour and minute of each frame."""


@runtime_checkable
class Trace(Protocol):
    """From normalized frames (and timestamps) to the outputs of every layer, by name."""

    def __call__(self, x: Float32[np.ndarray, "B T X"], timestamps: Timestamps | None, /) -> Arrays:
        """Compute it in eval mode."""
        ...


@dataclass(frozen=True)
class TracedModel:
    """A model directory or a checkpoint, ready to be compared.

    Args:
        kind: `ours` or `torch`.
        settings: sizes.
        features: of an input frame.
        outputs: features of a reconstructed frame.
        trace: computes the outputs of every layer.
        statistics: of all sensors, where the model has them.
    """

    kind: Literal["ours", "torch"]
    settings: ModelSettings
    features: int
    outputs: int
    trace: Trace
    statistics: Statistics | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """What must be equal in models that are compared."""
        sizes = {"features": self.features, "outputs": self.outputs}
        return sizes | {name: getattr(self.settings, name) for name in SIZES}


@dataclass(frozen=True)
class LayerDifference:
    """How far two outputs of one layer differ.

    Args:
        layer: `embedding`, `layer 0`, `attention 0`, ..., `reconstruction`.
        largest: absolute difference.
        mean: absolute difference.
        relative: the largest, divided by the largest output of the second model.
    """

    layer: str
    largest: float
    mean: float
    relative: float


# Opening models


def open_model(path: Path, compute: Compute, options: ReadOptions | None = None, *, attention: bool) -> TracedModel:
    """Open a model directory or a checkpoint.

    Args:
        path: of either.
        compute: dtype of matrix products in our models; torch.nn computes in float32.
        options: of a checkpoint: what it does not show, or leaves to choose.
        attention: trace the attention weights too.

    Raises:
        ModelError: it is neither, or it is damaged.
    """
    if path.is_dir():
        return _open_directory(path, compute, attention)
    checkpoint = read_checkpoint(path, options)
    checkpoint.check_weights()
    # Tables that were rounded to 16 bits are computed anew: positions are never rounded here.
    rounded = {name for name in checkpoint.tensors if is_position(name) and "16" in checkpoint.tensors[name].dtype}
    tensors = {name: checkpoint.array(tensor) for name, tensor in checkpoint.tensors.items() if name not in rounded}
    encodings = encodings_of(checkpoint.arguments)

    def trace(x: Float32[np.ndarray, "B T X"], timestamps: Timestamps | None) -> Arrays:
        return torch_trace(tensors, encodings, checkpoint.settings, x, timestamps, attention=attention)

    return TracedModel("torch", checkpoint.settings, checkpoint.features, checkpoint.outputs, trace)


def _open_directory(path: Path, compute: Compute, attention: bool) -> TracedModel:
    config, arrays, statistics = read_model(path)
    settings = replace(config.model, compute=compute)
    # Absurdly many layers are refused before their shapes are computed.
    functional = make_functional(settings, config.features, config.outputs) if settings.layers <= len(arrays) else None
    shapes = {name: array.shape for name, array in arrays.items()}
    if functional is None or shapes != {name: leaf.shape for name, leaf in functional.abstract.items()}:
        raise ModelError(f"{path} is damaged: its weights do not fit {CONFIG_FILE}; copy the model directory again")

    def trace(x: Float32[np.ndarray, "B T X"], timestamps: Timestamps | None) -> Arrays:
        model = functional.build({name: jax.numpy.asarray(array) for name, array in arrays.items()})
        given = (jax.numpy.asarray(each) for each in (x, timestamps) if each is not None)
        traced = model.encoder.trace(*given)
        outputs = {"embedding": traced.embedding}
        for depth, (output, weights) in enumerate(zip(traced.layers, traced.attention, strict=True)):
            outputs |= ({f"attention {depth}": weights} if attention else {}) | {f"layer {depth}": output}
        outputs["reconstruction"] = model.head(traced.layers[-1])
        return {name: np.asarray(output, np.float32) for name, output in outputs.items()}

    return TracedModel("ours", settings, config.features, config.outputs, trace, statistics)


def torch_trace(
    tensors: Mapping[str, Any],
    encodings: str | list[str],
    settings: ModelSettings,
    x_BxTxX: Float32[np.ndarray, "B T X"],
    timestamps_BxTx5: Timestamps | None,
    *,
    attention: bool,
) -> Arrays:
    """Embedding, every layer's output, attention weights and the reconstruction, as torch.nn computes them.

    Args:
        tensors: a `state_dict`, as torch tensors or as arrays.
        encodings: positional encodings by name, as `hyper_parameters.encodings_of`.
        settings: sizes.
        x_BxTxX: normalized frames.
        timestamps_BxTx5: for a model with calendar positions.
        attention: compute the attention weights as well.

    Raises:
        ModelError: PyTorch is not installed.
    """
    torch = require_torch()
    weights = {name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}
    tables = build_tables(torch, encodings, settings.width) | {n: weights[n] for n in weights if is_position(n)}
    timestamps = None if timestamps_BxTx5 is None else torch.from_numpy(timestamps_BxTx5)
    outputs: Arrays = {}
    with torch.no_grad():
        x = torch.from_numpy(x_BxTxX)
        h = torch.nn.functional.linear(x, weights["emb.lin_proj_layer.weight"], weights["emb.lin_proj_layer.bias"])
        h = h + _sum_of_positions(tables, x_BxTxX.shape[1], timestamps)
        outputs["embedding"] = h.numpy()
        for depth in range(settings.layers):
            prefix = f"transformer_encoder.layers.{depth}."
            layer = torch.nn.TransformerEncoderLayer(
                settings.width, settings.heads, settings.feedforward, settings.dropout, batch_first=True
            ).eval()
            layer.load_state_dict({n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)})
            if attention:
                weights_BxHxTxT = layer.self_attn(h, h, h, need_weights=True, average_attn_weights=False)[1]
                outputs[f"attention {depth}"] = weights_BxHxTxT.numpy()
            h = layer(h)
            outputs[f"layer {depth}"] = h.numpy()
        head = (weights[f"prediction_head.mlp.out_layer.{kind}"] for kind in ("weight", "bias"))
        outputs["reconstruction"] = torch.nn.functional.linear(h, *head).numpy()
    return outputs


def _sum_of_positions(tables: Mapping[str, Any], frames: int, timestamps: Any) -> Any:
    total = 0
    for name, table in tables.items():
        if name.endswith(".pe"):
            total = total + table[:, :frames]
        elif timestamps is not None:
            column = list(CALENDAR).index(name.split(".")[-3].removesuffix("_embed"))
            total = total + table[timestamps[..., column].long()]
    return total


# Comparing models


def compare(
    first: TracedModel, second: TracedModel, x: Float32[np.ndarray, "B T X"], timestamps: Timestamps | None
) -> list[LayerDifference]:
    """Run both models on the same windows.

    Args:
        first: a model.
        second: another one.
        x: normalized frames.
        timestamps: for models with calendar positions.

    Raises:
        ModelError: they have different sizes.
    """
    sizes = first.sizes, second.sizes
    if sizes[0] != sizes[1]:
        different = [f"{name} {size} and {sizes[1][name]}" for name, size in sizes[0].items() if size != sizes[1][name]]
        raise ModelError(f"the two models have different sizes: {', '.join(different)}")
    traces = first.trace(x, timestamps), second.trace(x, timestamps)
    return [_difference(layer, traces[0][layer], traces[1][layer]) for layer in traces[0]]


def _difference(layer: str, first: Float32[np.ndarray, "..."], second: Float32[np.ndarray, "..."]) -> LayerDifference:
    distance = np.abs(first - second)
    largest = distance.max()
    return LayerDifference(layer, float(largest), float(distance.mean()), float(largest / np.abs(second).max()))


def compare_statistics(first: TracedModel, second: TracedModel) -> tuple[str, bool]:
    """A line about the statistics of two model directories, and whether they are acceptable; a checkpoint has none.

    They are acceptable where they are equal bit for bit, and where one of the two has none, which the line reports.
    """
    if "torch" in (first.kind, second.kind):
        return "", True
    one, other = first.statistics, second.statistics
    if one is None or other is None:
        which = "neither" if one is other else "only the second" if one is None else "only the first"
        return f"{which} has any, so they are not compared", True
    if one.mean.shape != other.mean.shape:
        return f"DIFFERENT: of {len(one.mean)} and of {len(other.mean)} features", False
    pairs = (("mean", one.mean, other.mean), ("std", one.std, other.std))
    different = [
        f"{name} in {np.count_nonzero(a != b)} of {len(a)} features, by at most {np.abs(a - b).max():.1e}"
        for name, a, b in pairs
        if not np.array_equal(a, b)
    ]
    return (f"DIFFERENT: {' and '.join(different)}", False) if different else ("the same", True)


# Windows to compare models on


def random_windows(model: TracedModel, windows: int, frames: int, seed: int) -> Float32[np.ndarray, "B T X"]:
    """Standard normal frames, which have the mean and standard deviation of normalized ones.

    Args:
        model: that takes them.
        windows: B.
        frames: T.
        seed: of the random numbers.
    """
    return np.random.default_rng(seed).standard_normal((windows, frames, model.features), np.float32)


def random_timestamps(model: TracedModel, windows: int, frames: int, seed: int) -> Int32[np.ndarray, "B T 5"] | None:
    """Random timestamps; None for a model that takes none.

    Args:
        model: that takes them.
        windows: B.
        frames: T.
        seed: of the random numbers.
    """
    if not model.settings.temporal_positions:
        return None
    generator = np.random.default_rng(seed)
    columns = [generator.integers(rows, size=(windows, frames), dtype=np.int32) for rows in CALENDAR.values()]
    return np.stack(columns, -1)


def real_windows(
    first: TracedModel, second: TracedModel, path: Path, windows: int, frames: int
) -> Float32[np.ndarray, "B T X"]:
    """Windows of records, evenly spaced over their held-out split (or the training split), normalized.

    The statistics are those of the first model that has any for all features, else those of the records. A model of
    one sensor gets the first sensor's frames.

    Args:
        first: a model.
        second: another one.
        path: of the records.
        windows: B, at most.
        frames: T, at most.

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
        raise ModelError(f"{path} has frames of {records.info.features} features, but the models take {features}")
    chosen = np.linspace(0, len(source), min(windows, len(source)), endpoint=False).astype(int)
    spectrograms = np.stack([source[int(index)]["spectrogram"][:frames] for index in chosen]).astype(np.float32)
    available = [model.statistics for model in (first, second) if model.statistics is not None]
    statistics = next((s for s in available if len(s.mean) == records.info.features), records.statistics())
    return np.ascontiguousarray(((spectrograms - statistics.mean) / statistics.std)[..., :features])
