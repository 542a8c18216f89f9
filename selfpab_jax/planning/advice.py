"""What to change where a step does not fit into a chip's memory."""

import math

from selfpab_jax.planning.estimate import ChipPlan


def advice(plan: ChipPlan) -> str:
    """The first remedy, by what fills the memory: the state, or what the step needs beside it."""
    step, memory = plan.step, plan.step.memory
    settings, room = step.settings, plan.chip.memory
    mesh = settings.mesh
    if memory.state + memory.gradients > room:
        whole = (memory.state + memory.gradients) * mesh.fsdp
        least = next(
            (
                parts
                for parts in range(mesh.fsdp + 1, 4097)
                if settings.model.width % parts == 0 and whole / parts < room / 2
            ),
            None,
        )
        if least is None:
            return "parameters, moments and gradients alone are too large: use a chip with more memory"
        return (
            f"parameters, moments and gradients alone are {(memory.state + memory.gradients) / 1e9:,.3g} GB: cut them "
            f"over more devices, --mesh fsdp={least} (it must divide width {settings.model.width})"
        )
    again, remedies = "", []
    if settings.model.rematerialise != "layers":
        again = "--model.rematerialise layers (a third more arithmetic"
        # XLA's CPU compiler does not wait with what is computed again, so its upper bound stays where it is.
        again += ", and the upper bound will not show it)" if plan.fits is None else ")"
        if plan.fits is False:
            remedies.append(again)
    per_device = settings.optimiser.batch_size // (mesh.data * mesh.fsdp)
    micro = per_device // settings.optimiser.accumulate
    if micro > 1:
        beside = memory.temporaries if plan.fits is None else memory.kept
        spare = room - memory.state - memory.gradients
        parts = next((parts for parts in range(2, micro + 1) if micro % parts == 0 and beside / parts <= spare), micro)
        remedies.append(
            f"--optimiser.accumulate {settings.optimiser.accumulate * parts} "
            f"(micro-batches of {micro // parts} a device)"
        )
        remedies.append(
            f"a batch of {max(1, math.floor(settings.optimiser.batch_size / parts))}, or more devices for this one"
        )
    if again and plan.fits is None:
        remedies.append(again)
    if not remedies:
        remedies.append("a larger mesh.fsdp or mesh.tensor, or a chip with more memory")
    return "; or ".join(remedies)
