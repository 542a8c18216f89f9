"""The text of a plan: memory, traffic and times, and what to change if a step does not fit."""

import math
from collections.abc import Sequence

from selfpab_jax.model.attention import attention_kind
from selfpab_jax.planning.collectives import Collective
from selfpab_jax.planning.roofline import ChipPlan, StepPlan
from selfpab_jax.progress import duration


def advice(plan: ChipPlan) -> str:
    """What to change if the step does not fit, depending on whether the state or the activations fill the memory."""
    step, memory = plan.step, plan.step.memory
    settings, available = step.settings, plan.chip.memory
    mesh = settings.mesh
    if memory.state + memory.gradients > available:
        whole = (memory.state + memory.gradients) * mesh.fsdp
        least = next(
            (
                shards
                for shards in range(mesh.fsdp + 1, 4097)
                if settings.model.width % shards == 0 and whole / shards < available / 2
            ),
            None,
        )
        if least is None:
            return "parameters, moments and gradients alone are too large: use a chip with more memory"
        return (
            f"parameters, moments and gradients alone are {(memory.state + memory.gradients) / 1e9:,.3g} GB: "
            f"shard them over more devices, --mesh fsdp={least} (it must divide width {settings.model.width})"
        )
    again, remedies = "", []
    if settings.model.rematerialize != "layers":
        again = "--model.rematerialize layers (a third more computation"
        # XLA's CPU compiler rematerializes too early, so its upper bound does not change.
        again += ", which the upper bound does not show)" if plan.fits is None else ")"
        if plan.fits is False:
            remedies.append(again)
    per_device = settings.optimizer.batch_size // (mesh.data * mesh.fsdp)
    micro = per_device // settings.optimizer.accumulate
    if micro > 1:
        needed = memory.temporaries if plan.fits is None else memory.kept
        spare = available - memory.state - memory.gradients
        parts = next((parts for parts in range(2, micro + 1) if micro % parts == 0 and needed / parts <= spare), micro)
        remedies.append(
            f"--optimizer.accumulate {settings.optimizer.accumulate * parts} "
            f"(micro-batches of {micro // parts} per device)"
        )
        remedies.append(
            f"a batch of {max(1, math.floor(settings.optimizer.batch_size / parts))}, or more devices for this one"
        )
    if again and plan.fits is None:
        remedies.append(again)
    if not remedies:
        remedies.append("a larger mesh.fsdp or mesh.tensor, or a chip with more memory")
    return "; or ".join(remedies)


NOTES = (
    "What this compilation shows about a real chip, and what it does not:",
    "  Shapes, shardings, FLOPs, parameters, optimizer and batch are exact.",
    "  Collectives are those of XLA's partitioner, the same for all chips, in the dtypes of JAX; an all-reduce that",
    "  is sliced afterwards counts as a reduce-scatter. The compiler of a chip merges and overlaps collectives, and",
    "  may gather a parameter again instead of keeping it.",
    "  Temporaries are an upper bound: XLA for CPUs fuses less and computes bf16 products in float32. The lower bound",
    "  includes only what products of the backward pass read.",
    "  Times are at the stated rates of the chip, which no step reaches; fused attention would move less data than the",
    "  memory time counts.",
)


def describe(step: StepPlan, plans: Sequence[ChipPlan]) -> str:
    """The plan of one mesh: memory, traffic, FLOPs, and the times on each chip.

    Args:
        step: that was compiled.
        plans: of the step, one per chip.
    """
    settings = step.settings
    mesh = " x ".join(f"{axis} {getattr(settings.mesh, axis)}" for axis in ("data", "fsdp", "tensor"))
    micro = f" in {settings.optimizer.accumulate} micro-batches" if settings.optimizer.accumulate > 1 else ""
    lines = [
        f"{step.parameters:,} parameters, batch {settings.optimizer.batch_size}{micro}, "
        f"{mesh}: {_devices(step.devices)}",
        "",
        *_memory(step),
        "",
        *_traffic(step.collectives),
        "",
        *_arithmetic(step),
    ]
    for plan in plans:
        lines += ["", *_chip(plan)]
    return "\n".join([*lines, "", *_remarks(step), *NOTES])


def table(plans: Sequence[ChipPlan]) -> str:
    """A Markdown table with one row per plan."""
    head = (
        "| chips | mesh | batch | memory per device, GB | fits | step at the bound | limit | MFU bound | no overlap |"
        " epoch | device-hours | loader per host |"
    )
    rows = [head, "|" + " --- |" * (head.count("|") - 1)]
    for plan in plans:
        step, roof = plan.step, plan.roofline
        mesh = ", ".join(f"{axis} {size}" for axis, size in vars(step.settings.mesh).items() if size > 1)
        cells = [
            f"{step.devices} {plan.chip.name}",
            mesh or "one device",
            str(step.settings.optimizer.batch_size),
            f"{step.memory.least / 1e9:.3g} to {step.memory.most / 1e9:.3g} of {plan.chip.memory / 1e9:.0f}",
            {True: "yes", False: "no", None: "maybe"}[plan.fits],
            _ms(roof.bound),
            roof.limit,
            f"{plan.mfu_bound:.0%}",
            _ms(roof.without_overlap),
            duration(plan.epoch_seconds),
            _amount(plan.device_hours),
            f"{plan.loader_bytes / 1e6:,.0f} MB/s",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _memory(step: StepPlan) -> list[str]:
    memory = step.memory
    return [
        "memory per device                                 MB",
        f"  parameters (float32)                  {memory.parameters / 1e6:12,.1f}",
        f"  optimizer (two moments)               {memory.optimizer / 1e6:12,.1f}",
        f"  batch (float16)                       {memory.batch / 1e6:12,.1f}",
        f"  gradients (float32, temporary)        {memory.gradients / 1e6:12,.1f}",
        f"  kept activations, at least            {memory.kept / 1e6:12,.1f}",
        f"  temporaries, at most                  {memory.temporaries / 1e6:12,.1f}",
        f"  total                                 {memory.least / 1e6:12,.1f} to {memory.most / 1e6:,.1f}",
    ]


def _traffic(collectives: Sequence[Collective]) -> list[str]:
    if not collectives:
        return ["traffic: none"]
    lines = ["traffic per step                                         over           times   MB sent per device"]
    groups: dict[tuple, list[Collective]] = {}
    for each in collectives:
        groups.setdefault((each.kind, each.role, each.dtype, each.axes), []).append(each)
    sent = lambda group: sum(each.sent * each.times for each in group)  # noqa: E731
    for (kind, role, dtype, axes), group in sorted(groups.items(), key=lambda item: -sent(item[1])):
        over = " x ".join(axes)
        times = sum(each.times for each in group)
        lines.append(f"  {kind:<18} of {role:<12} {dtype:<5} {over:>26} {times:>9,} {sent(group) / 1e6:>13,.3f}")
    gathered = [each for each in collectives if each.role == "parameters"]
    if gathered:
        largest = max(gathered, key=lambda each: each.bytes)
        lines.append(
            f"  largest gathered parameter: {largest.tensor}, {largest.bytes / 1e6:,.1f} MB in {largest.dtype}"
        )
    return lines


def _arithmetic(step: StepPlan) -> list[str]:
    by_dtype = ", ".join(f"{count / 1e9:,.1f} in {dtype}" for dtype, count in sorted(step.products.flops.items()))
    model = step.model_flops / step.devices
    return [
        f"GFLOP per device and step: {step.products.total_flops / 1e9:,.1f} in {step.products.count:,} matrix "
        f"products ({by_dtype}); by formula {model / 1e9:,.1f} ({step.products.total_flops / model - 1:+.2%})",
    ]


def _chip(plan: ChipPlan) -> list[str]:
    roof, chip = plan.roofline, plan.chip
    verdict = {
        True: "fits",
        None: "may fit: it is between the bounds",
        False: "does not fit",
    }[plan.fits]
    steps = plan.epoch_seconds / roof.bound
    lines = [
        f"{chip.name} ({chip.peak_flops / 1e12:,.0f} TFLOP/s bf16, {chip.memory / 1e9:,.0f} GB, "
        f"{chip.memory_bandwidth / 1e12:.3g} TB/s, links {chip.link_bandwidth / 1e9:,.0f} GB/s among {chip.domain:,}, "
        f"network {chip.network_bandwidth / 1e9:.3g} GB/s)",
        f"  memory      {verdict}",
        f"  step        compute {_ms(roof.compute)}, memory {_ms(roof.memory)}, interconnect {_ms(roof.interconnect)}: "
        f"at least {_ms(roof.bound)} (the largest), {_ms(roof.without_overlap)} without overlap (the sum)",
        f"  MFU         at most {plan.mfu_bound:.1%}",
        f"  epoch       {plan.hours:,.0f} h of recording in {steps:,.0f} steps: {duration(plan.epoch_seconds)} "
        f"({plan.epoch_seconds / 86400:.3g} days), {_amount(plan.device_hours)} device-hours at the bound",
        f"  loader      {plan.loader_bytes / 1e6:,.0f} MB/s of spectrograms per host "
        f"({_devices(min(chip.a_host, plan.step.devices))}) at the bound",
    ]
    if plan.fits is not True:
        lines.insert(2, f"  change      {advice(plan)}")
    return lines


def _remarks(step: StepPlan) -> list[str]:
    settings, remarks = step.settings, []
    model = settings.model
    if model.compute == "float32":
        remarks.append("Products are float32 here; the times are for bf16, which chips compute many times faster.")
    elif wide := sum(count for dtype, count in step.products.flops.items() if dtype != "bf16"):
        remarks.append(
            f"{wide / step.products.total_flops:.1%} of the FLOPs are not bf16, and slower than the bound assumes."
        )
    if (
        model.attention == "auto"
        and attention_kind(model, step.windows.frames, model.dropout) != "cudnn"
        and not (model.dropout)
    ):
        remarks.append(
            "A GPU may use cuDNN's attention here, which keeps no attention weights and needs less memory than this."
        )
    if model.rematerialize != "nothing":
        remarks.append(
            "The upper bound does not include model.rematerialize: the CPU's compiler rematerializes too early."
        )
    return [*remarks, ""] if remarks else []


def _amount(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _devices(count: int) -> str:
    return f"{count} device{'s' if count > 1 else ''}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
