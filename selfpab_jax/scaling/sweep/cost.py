"""What a run will cost, by formula: nothing is compiled (`selfpab-jax plan` compiles, for one run)."""

from dataclasses import dataclass

from selfpab_jax.distributed.hardware import PEAK_BF16_FLOPS, peak_flops
from selfpab_jax.errors import ConfigError
from selfpab_jax.model.attention import QUERIES_PER_BLOCK, attention_kind
from selfpab_jax.model.config import ModelSettings, training_flops
from selfpab_jax.model.parameters import padded_size
from selfpab_jax.scaling.ladder import parameter_count
from selfpab_jax.scaling.sweep.config import Devices, Rate
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.state import MeshSettings

STATE_BYTES = 16
"""Bytes per parameter: itself, its gradient and the two moments of AdamW in float32."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of the input and output of a model: features and outputs per frame, frames per window."""

    features: int
    outputs: int
    frames: int


def run_flops(settings: PretrainSettings, shape: ModelShape, steps: int) -> float:
    """FLOPs of all training steps, without validation and rematerialization.

    Args:
        settings: of the run.
        shape: of its windows.
        steps: number of training steps.
    """
    each = training_flops(settings.model, shape.features, shape.outputs, shape.frames)
    return float(each) * settings.optimizer.batch_size * steps


def memory_bytes(settings: PretrainSettings, shape: ModelShape, mesh: dict[str, int]) -> int:
    """Bytes of a training step on one device: the state, and what the forward pass keeps for the backward pass.

    `_layer_bytes` lists what each layer keeps. Compilers keep less of some values and more of others, so this is right
    within a factor of about two.

    Args:
        settings: of the run.
        shape: of its windows.
        mesh: size of each axis, as `mesh_sizes` returns them.
    """
    model = settings.model
    shards = mesh["fsdp"] * mesh["tensor"]
    state = parameter_count(model, shape.features, shape.outputs) * STATE_BYTES / shards
    samples = settings.optimizer.batch_size / settings.optimizer.accumulate / (mesh["data"] * mesh["fsdp"])
    frames = padded_size(shape.frames, "frames", model.layout)
    width = padded_size(model.width, "width", model.layout)
    layer, transient = _layer_bytes(model, frames, mesh["tensor"])
    # The input, its normalized and masked forms, the output and the error, all in float32.
    ends = frames * 4 * (4 * shape.features + 3 * shape.outputs + 2 * width)
    return round(state + samples * (model.layers * layer + transient + ends))


def _layer_bytes(model: ModelSettings, frames: int, tensor: int) -> tuple[float, float]:
    """Bytes per sample that each layer keeps, and that one layer at a time needs in addition.

    Each layer keeps the input, both normalized sums and the output of attention (float32); queries, keys, values and
    the weighted values, and the hidden features before and after ReLU (compute dtype); and the attention weights, in
    float32 and in the compute dtype.
    """
    size = 2 if model.compute == "bfloat16" else 4
    width = padded_size(model.width, "width", model.layout)
    hidden = padded_size(model.feedforward, "hidden", model.layout)
    inner = model.heads * padded_size(model.head_size, "head", model.layout)
    plain = frames * (4 * 4 * width + size * (2 * width + (4 * inner + 2 * hidden) / tensor))
    dropped = 1 if model.dropout else 0
    per_query = model.heads / tensor * frames * (4 + size * (1 + dropped))
    kind = attention_kind(model, frames, model.dropout)
    if kind == "cudnn":
        weights, at_once = 0.0, 0.0
    elif kind == "blocks":
        weights, at_once = 0.0, min(QUERIES_PER_BLOCK, frames) * per_query
    else:
        weights, at_once = frames * per_query, frames * per_query
    match model.rematerialize:
        case "layers":
            return frames * width * 4.0, plain + at_once
        case "attention":
            return plain, at_once
        case _:
            return plain + weights, at_once


def mesh_sizes(settings: MeshSettings, devices: int) -> dict[str, int]:
    """Size of each axis of the mesh over this many devices.

    Raises:
        ConfigError: the sizes do not multiply to the number of devices.
    """
    sizes = {"data": settings.data, "fsdp": settings.fsdp, "tensor": settings.tensor}
    known = 1
    for size in sizes.values():
        known *= size if size != -1 else 1
    sizes = {axis: devices // known if size == -1 else size for axis, size in sizes.items()}
    if sizes["data"] * sizes["fsdp"] * sizes["tensor"] != devices:
        asked = " x ".join(f"{axis} {size}" for axis, size in sizes.items())
        raise ConfigError(f"mesh: {asked} does not match the {devices} devices of a run; change mesh or devices.count")
    return sizes


def device_seconds(flops: float, devices: Devices, rate: Rate | None) -> float | None:
    """Device-seconds of one run, from the measured rate or from the peak and the assumed utilization.

    Args:
        flops: of the run.
        devices: of the run.
        rate: measured, if known.

    Returns:
        Seconds times devices; None where neither the rate nor the kind of device is known.

    Raises:
        ConfigError: there are no figures for this kind of device.
    """
    if rate is not None:
        return flops / (rate.gflops * 1e9) + rate.start_seconds * devices.count
    if not devices.kind:
        return None
    peak = peak_flops(devices.kind)
    if peak is None:
        raise ConfigError(f"devices.kind {devices.kind} is unknown; known are {', '.join(PEAK_BF16_FLOPS)}")
    return flops / (peak * devices.utilization)
