"""What a run will cost, by hand counts: nothing is compiled (`selfpab-jax plan` compiles, for one run)."""

from dataclasses import dataclass

from selfpab_jax.distributed.hardware import PEAK_BF16_FLOPS, peak_flops
from selfpab_jax.errors import ConfigError
from selfpab_jax.model.attention import QUERIES_A_BLOCK, way_of_attention
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.flops import training_flops
from selfpab_jax.model.parameters import laid_out
from selfpab_jax.scaling.ladder import parameter_count
from selfpab_jax.scaling.sweep.config import Devices, Rate
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.state import MeshSettings

STATE_BYTES = 16
"""Float32 of a parameter, its gradient and AdamW's two moments."""


@dataclass(frozen=True)
class Shape:
    """Of the model's input and output: X features, O outputs, T frames of a window."""

    features: int
    outputs: int
    frames: int


def run_flops(settings: PretrainSettings, shape: Shape, steps: int) -> float:
    """Of all training steps; validation and what is rematerialized are not counted."""
    each = training_flops(settings.model, shape.features, shape.outputs, shape.frames)
    return float(each) * settings.optimizer.batch_size * steps


def memory_bytes(settings: PretrainSettings, shape: Shape, mesh: dict[str, int]) -> int:
    """Bytes that a training step takes on one device: the state, and what the forward pass keeps for the backward.

    By what each layer keeps, as the docstrings of `_kept_a_layer` say; compilers keep less of some and more of other
    things, so that this is right within a factor of about two.

    Args:
        settings: of the run.
        shape: of its windows.
        mesh: size of each axis, as `mesh_sizes` finds them.
    """
    model = settings.model
    cut = mesh["fsdp"] * mesh["tensor"]
    state = parameter_count(model, shape.features, shape.outputs) * STATE_BYTES / cut
    samples = settings.optimizer.batch_size / settings.optimizer.accumulate / (mesh["data"] * mesh["fsdp"])
    frames = laid_out(shape.frames, "frames", model.layout)
    width = laid_out(model.width, "width", model.layout)
    layer, transient = _kept_a_layer(model, frames, mesh["tensor"])
    # Input, its normalized, altered and masked forms, output and error: float32 a feature.
    ends = frames * 4 * (4 * shape.features + 3 * shape.outputs + 2 * width)
    return round(state + samples * (model.layers * layer + transient + ends))


def _kept_a_layer(model: ModelSettings, frames: int, tensor: int) -> tuple[float, float]:
    """Bytes a sample that each layer keeps, and that one layer at a time takes besides.

    Kept: the input, both normalized sums and the attended frames (float32), queries, keys, values and the mix of
    values, the hidden features before and after ReLU (compute dtype), and the attention weights in float32 and in the
    compute dtype.
    """
    size = 2 if model.compute == "bfloat16" else 4
    width = laid_out(model.width, "width", model.layout)
    hidden = laid_out(model.feedforward, "hidden", model.layout)
    inner = model.heads * laid_out(model.head_size, "head", model.layout)
    plain = frames * (4 * 4 * width + size * (2 * width + (4 * inner + 2 * hidden) / tensor))
    dropped = 1 if model.dropout else 0
    a_row = model.heads / tensor * frames * (4 + size * (1 + dropped))
    way = way_of_attention(model, frames, model.dropout)
    if way == "cudnn":
        weights, at_once = 0.0, 0.0
    elif way == "blocks":
        weights, at_once = 0.0, min(QUERIES_A_BLOCK, frames) * a_row
    else:
        weights, at_once = frames * a_row, frames * a_row
    match model.rematerialize:
        case "layers":
            return frames * width * 4, plain + at_once
        case "attention":
            return plain, at_once
        case _:
            return plain + weights, at_once


def mesh_sizes(settings: MeshSettings, devices: int) -> dict[str, int]:
    """Size of each axis of the mesh over so many devices.

    Raises:
        ConfigError: they do not multiply to it.
    """
    sizes = {"data": settings.data, "fsdp": settings.fsdp, "tensor": settings.tensor}
    known = 1
    for size in sizes.values():
        known *= size if size != -1 else 1
    sizes = {axis: devices // known if size == -1 else size for axis, size in sizes.items()}
    if sizes["data"] * sizes["fsdp"] * sizes["tensor"] != devices:
        asked = " x ".join(f"{axis} {size}" for axis, size in sizes.items())
        raise ConfigError(f"mesh: {asked} is not the {devices} devices of a run; change mesh or devices.count")
    return sizes


def device_seconds(flops: float, devices: Devices, rate: Rate | None) -> float | None:
    """Of one run: from the measured rate, or from the kind's peak and the assumed utilization; None without either.

    Raises:
        ConfigError: the kind of device is not known.
    """
    if rate is not None:
        return flops / (rate.gflops * 1e9) + rate.start_seconds * devices.count
    if not devices.kind:
        return None
    peak = peak_flops(devices.kind)
    if peak is None:
        raise ConfigError(f"devices.kind {devices.kind} is not known; there are {', '.join(PEAK_BF16_FLOPS)}")
    return flops / (peak * devices.utilization)
