"""Two models, ours or the original's, on the same windows: how far each layer's outputs are apart."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float32, Int

from selfpab_jax.convert.checkpoint import read_checkpoint
from selfpab_jax.convert.family import FamilyName
from selfpab_jax.convert.hyper_parameters import encodings_of
from selfpab_jax.convert.table import Arrays
from selfpab_jax.convert.torch_network import torch_trace
from selfpab_jax.errors import ModelError
from selfpab_jax.model.blueprint import draw_blueprint
from selfpab_jax.model.settings import ModelSettings
from selfpab_jax.model_directory import CONFIG_FILE, read_model
from selfpab_jax.signal.statistics import Statistics

SIZES = ("width", "heads", "feedforward", "layers", "temporal_positions")
Trace = Callable[[Float32[np.ndarray, "B T X"], Int[np.ndarray, "B T 5"] | None], Arrays]


@dataclass(frozen=True)
class Network:
    """Either kind of model.

    Args:
        kind: `ours` or `torch`.
        settings: sizes.
        features, outputs: of an input and of a reconstructed frame.
        trace: from normalised frames (and timestamps) to the outputs of every part, by name.
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
        blueprint = draw_blueprint(settings, config.features, config.outputs)
        if {name: array.shape for name, array in arrays.items()} != {n: s.shape for n, s in blueprint.abstract.items()}:
            raise ModelError(f"{path}: weights do not fit {CONFIG_FILE}; copy the model directory again")

        def ours(x: np.ndarray, timestamps: np.ndarray | None) -> Arrays:
            model = blueprint.build({name: jax.numpy.asarray(array) for name, array in arrays.items()})
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
