"""How long a step takes at least on a chip: its arithmetic, its memory and its links, each at the chip's best."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from selfpab_jax.planning.collectives import Collective
from selfpab_jax.planning.memory import Memory
from selfpab_jax.planning.products import Products
from selfpab_jax.train.chips import Chip

OPTIMISER_PASSES = 7  # AdamW reads gradient, parameter and two moments, and writes the last three: float32 each


@dataclass(frozen=True)
class Roofline:
    """Seconds of a step at the chip's stated rates.

    Args:
        compute: matrix products at the bf16 peak.
        memory: operands and results of matrix products, each read or written once, and the optimiser's passes; what
            lies between products counts as fused into them.
        interconnect: collectives by rings, one after the other, each over the slowest link on its way.
    """

    compute: float
    memory: float
    interconnect: float

    @property
    def bound(self) -> float:
        """The largest of the three: all else hidden behind it."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def unhidden(self) -> float:
        """Their sum: nothing hidden."""
        return self.compute + self.memory + self.interconnect

    @property
    def limit(self) -> str:
        """Which of the three is the largest."""
        return max(("compute", "memory", "interconnect"), key=lambda name: getattr(self, name))


def roofline_of(products: Products, memory: Memory, collectives: Iterable[Collective], chip: Chip) -> Roofline:
    """The bounds of a step on a chip."""
    return Roofline(
        compute=products.total_flops / chip.peak_flops,
        memory=(products.bytes + OPTIMISER_PASSES * memory.parameters) / chip.memory_bandwidth,
        interconnect=sum(each.times * each.sent / bandwidth(chip, each.groups) for each in collectives),
    )


def bandwidth(chip: Chip, groups: Int[np.ndarray, "groups members"]) -> float:
    """Bytes a second that a device of a ring sends: by links within a domain, else by its group's share of the network.

    Of a group that leaves its domain, the members within one share the network cards there; other groups use the rest.
    Devices fill domains in the order of the mesh, whose last axis lies closest together.
    """
    together = min(int((row // chip.domain == row[0] // chip.domain).sum()) for row in groups)
    if together == groups.shape[1]:
        return chip.link_bandwidth
    return min(chip.link_bandwidth, together * chip.network_bandwidth)
