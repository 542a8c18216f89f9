"""What `gpu.py` measures: the list of jobs, and how a process does one of them."""

import os
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Part = Literal["product", "step", "large", "torch", "embed", "curve"]
PARTS: tuple[Part, ...] = ("product", "step", "large", "torch", "embed", "curve")

WINDOW_HOURS = 300 / 3600
PADDED: dict[str, Any] = {"layout": "padded"}
KEEPING_LESS: dict[str, Any] = {"rematerialize": "attention"}
LARGE: dict[str, Any] = {"width": 2048, "heads": 16, "feedforward": 8192, "layers": 20}
"""1.01 billion parameters with heads of 128: 16 GB with AdamW's moments and the gradient in float32."""
TINY: dict[str, Any] = {"width": 30, "heads": 2, "feedforward": 24, "layers": 1}
WITHOUT_DROPOUT: dict[str, Any] = {"dropout": 0.0}


@dataclass(frozen=True)
class Job:
    """One line of the table.

    Args:
        part: which part of the benchmark it belongs to.
        side: `jax` or `torch`.
        does: the function of `jax_side` or `torch_side`.
        label: as printed in the table.
        settings: changes to the published size.
        batch: windows.
        options: further arguments of the function.
    """

    part: Part
    side: Literal["jax", "torch"]
    does: str
    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    batch: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """How much is done: the benchmark itself, or `--tiny`, which sees that everything runs.

    Args:
        model, large: sizes.
        batches: of the published size, the third of them the one that everything is compared at.
        large_batches: with everything kept, without attention weights, and with whole layers made again.
        products: sizes of square products.
        embed_batch: windows.
        curve: batch, steps and windows of the loss curves.
        block_s: seconds of a block of turns.
        compiled: torch.compile for torch's best.
    """

    model: dict[str, Any] = field(default_factory=dict)
    large: dict[str, Any] = field(default_factory=lambda: LARGE)
    batches: tuple[int, ...] = (16, 32, 64, 128)
    large_batches: tuple[int, int, int] = (8, 16, 32)
    products: tuple[int, ...] = (4096, 8192, 12288, 16384)
    embed_batch: int = 128
    curve: tuple[int, int, int] = (64, 200, 256)
    block_s: float = 1.0
    compiled: bool = True


TINY_SCALE = Scale(
    model=TINY,
    large=TINY,
    batches=(2, 2, 2, 2),
    large_batches=(2, 2, 2),
    products=(64,),
    embed_batch=2,
    curve=(2, 4, 4),
    block_s=0.001,
    compiled=False,
)


def all_jobs(scale: Scale) -> list[Job]:
    """In the order in which they are done: what matters most first, and few changes of sides."""
    ours, theirs = _products(scale, "jax"), _products(scale, "torch")
    large = {side: [job for job in _large(scale) if job.side == side] for side in ("jax", "torch")}
    return [
        *ours, *_steps(scale), *_embedding(scale), *large["jax"], *theirs, *_torch(scale), *large["torch"],
        *_curves(scale),
    ]  # fmt: skip


def few_jobs(scale: Scale) -> list[Job]:
    """The first of each part on each side, and both curves: every function is called."""
    chosen: dict[tuple[str, str], list[Job]] = {}
    for job in all_jobs(scale):
        chosen.setdefault((job.part, job.side), []).append(job)
    return [job for jobs in chosen.values() for job in jobs if job is jobs[0] or job.part == "curve"]


def _products(scale: Scale, side: Literal["jax", "torch"]) -> list[Job]:
    return [
        Job("product", side, "product", f"{size} x {size} in bf16", options={"size": size, "compute": "bfloat16"})
        for size in scale.products
    ]


def _steps(scale: Scale) -> list[Job]:
    base, usual = scale.batches[2], scale.model

    def step(label: str, batch: int = base, **changes: Any) -> Job:
        return Job("step", "jax", "step", label, usual | changes, batch)

    return [
        step("padded", **PADDED),
        step("exact"),
        step("padded, attention weights made again", **PADDED, **KEEPING_LESS),
        step("padded, attention by blocks", **PADDED, attention="blocks"),
        step("padded, no dropout, attention full", **PADDED, **WITHOUT_DROPOUT, attention="full"),
        step("padded, no dropout, attention by cuDNN where it can", **PADDED, **WITHOUT_DROPOUT),
        *(step("padded", batch, **PADDED) for batch in scale.batches if batch != base),
        step("float32, exact", compute="float32"),
    ]


def _large(scale: Scale) -> list[Job]:
    kept, less, least = scale.large_batches
    large = scale.large | PADDED

    def step(label: str, batch: int, **changes: Any) -> Job:
        return Job("large", "jax", "step", label, large | changes, batch)

    best = {"best": True, "compiled": scale.compiled}
    return [
        step("1 B parameters, all kept", kept),
        step("1 B parameters, attention weights made again", less, **KEEPING_LESS),
        step("1 B parameters, layers made again", least, rematerialize="layers"),
        step("1 B parameters, no dropout, attention by cuDNN where it can", less, **WITHOUT_DROPOUT),
        Job("large", "torch", "step", "1 B parameters, bf16 autocast, compiled", scale.large, kept, best),
    ]


def _torch(scale: Scale) -> list[Job]:
    base, best = scale.batches[2], {"best": True, "compiled": scale.compiled}
    wide = {"width": 1536} if not scale.model else {}
    return [
        Job("torch", "torch", "step", "as released, float32", scale.model, base, {"best": False}),
        Job("torch", "torch", "step", "bf16 autocast, SDPA, compiled, fused AdamW", scale.model, base, best),
        Job("torch", "torch", "step", "the same at width 1536, which computes more", scale.model | wide, base, best),
    ]


def _embedding(scale: Scale) -> list[Job]:
    ways = {
        "bare": "forward alone",
        "windows": "frames in, a window's mean out",
        "frames": "frames in, every frame's features out",
    }
    return [
        Job(
            "embed",
            "jax",
            "embed",
            f"{text}, {layout}",
            scale.model | {"layout": layout},
            scale.embed_batch,
            {"way": way},
        )
        for layout in ("padded", "exact")
        for way, text in ways.items()
    ]


def _curves(scale: Scale) -> list[Job]:
    batch, steps, windows = scale.curve
    options = {"steps": steps, "windows": windows}
    return [
        Job("curve", "jax", "curve", f"{steps} steps, {name}", scale.model | changes, batch, options)
        for name, changes in (
            ("float32, exact", {"compute": "float32"}),
            ("bf16, padded", PADDED),
        )
    ]


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """What a process of one library answers to a job, repeats and seconds a block: figures without any judgement."""
    from timing import seconds_a_turn

    if request["side"] == "jax":
        import jax_side as side
    else:
        import torch_side as side
    if request["does"] == "about":
        return _about(request["side"])
    from selfpab_jax.model.config import ModelSettings, forward_flops, training_flops

    given = dict(request["options"])
    does = getattr(side, request["does"])
    settings = ModelSettings(**request["settings"])
    if request["does"] == "curve":
        return {"losses": does(settings, request["batch"], **given)}
    if request["does"] != "product":
        given |= {"settings": settings, "batch": request["batch"]}
    seconds = seconds_a_turn(does(**given), request["repeats"], request["block_s"])
    # The work asked for: by hand count, at the published width also where torch computes more.
    counted = ModelSettings(**(request["settings"] | ({"width": 1500} if settings.width == 1536 else {})))
    sizes = (counted, side.FEATURES, side.FEATURES, side.FRAMES)
    match request["does"]:
        case "product":
            flops = 2 * given["size"] ** 3
        case "step":
            flops = request["batch"] * training_flops(*sizes)
        case _:
            flops = request["batch"] * forward_flops(*sizes)
    return {"seconds": seconds, "flops": flops, "hours": request["batch"] * WINDOW_HOURS}


def request_of(job: Job, repeats: int, block_s: float) -> dict[str, Any]:
    """What `serve` is asked."""
    return asdict(job) | {"repeats": repeats, "block_s": block_s}


def _about(side: str) -> dict[str, Any]:
    if side == "jax":
        import jax

        device = jax.devices()[0]
        return {"version": jax.__version__, "device": device.device_kind, "gpu": device.platform == "gpu"}
    import torch

    gpu = torch.cuda.is_available()
    return {
        "version": torch.__version__,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "gpu": gpu,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


SETUP = {
    # One process has the card at a time, so each may have nearly all of it.
    "jax": {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"},
    "torch": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
}


def setup_of(side: str) -> dict[str, str]:
    """Environment variables of a side's process; what the user has set stays."""
    return {name: os.environ.get(name, value) for name, value in SETUP[side].items()}
