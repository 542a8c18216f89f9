"""Known accelerators: what they reach at most. For a run's share of the peak (MFU) and for plans (`planning/`)."""

from dataclasses import dataclass

GiB = 2**30

PEAK_BF16_FLOPS = {
    # jax.Device.device_kind: dense bf16 FLOP/s of one device, from the vendors' data sheets
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


@dataclass(frozen=True)
class Chip:
    """An accelerator as a plan sees it. All rates are of one device, one way, as the vendor states them.

    Args:
        name: as printed.
        kind: its `jax.Device.device_kind`.
        memory: bytes.
        memory_bandwidth: bytes a second.
        link_bandwidth: bytes a second that it sends to its neighbors within a domain: NVLink; for TPUs the two ports
            of one axis of the torus, on which one axis of the mesh is laid.
        domain: devices joined by such links: an NVLink server, a TPU pod.
        network_bandwidth: bytes a second, its share of the host's network between domains.
        a_host: devices of a host, which one loader feeds.
    """

    name: str
    kind: str
    memory: float
    memory_bandwidth: float
    link_bandwidth: float
    domain: int
    network_bandwidth: float
    a_host: int

    @property
    def peak_flops(self) -> float:
        """Dense bf16 FLOP/s."""
        return PEAK_BF16_FLOPS[self.kind]


CHIPS = {
    # NVIDIA's data sheets state NVLink both ways (900 GB/s, 1.8 TB/s); half of it is one way. Servers of eight with a
    # 400 Gb/s network card a GPU, as in NVIDIA's user guides of DGX H100, H200 and B200.
    # H100 data sheet, SXM
    "h100": Chip("H100", "NVIDIA H100", 80e9, 3.35e12, 450e9, 8, 50e9, 8),
    # H200 data sheet, SXM
    "h200": Chip("H200", "NVIDIA H200", 141e9, 4.8e12, 450e9, 8, 50e9, 8),
    # DGX B200 data sheet: 1,440 GB and 64 TB/s for eight
    "b200": Chip("B200", "NVIDIA B200", 180e9, 8e12, 900e9, 8, 50e9, 8),
    # docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e}: ICI bandwidth a chip both ways over all its ports (4, 6, 4), of
    # which a ring along one axis sends through two; the network of a pod or a chip; slices of machines of four chips.
    "v5e": Chip("v5e", "TPU v5 lite", 16e9, 819e9, 400e9 / 4, 256, 6.4e12 / 8 / 256, 4),
    "v5p": Chip("v5p", "TPU v5", 95 * GiB, 2765e9, 1200e9 / 6, 8960, 50e9 / 8, 4),
    "v6e": Chip("v6e", "TPU v6 lite", 32e9, 1638e9, 800e9 / 4, 256, 25.6e12 / 8 / 256, 4),
}
"""By the name that `plan --chip` takes."""


def peak_flops(device_kind: str) -> float | None:
    """Peak of a device kind by its longest known prefix, or None where it is not known (CPUs among them)."""
    known = [kind for kind in PEAK_BF16_FLOPS if device_kind.startswith(kind)]
    return PEAK_BF16_FLOPS[max(known, key=len)] if known else None
