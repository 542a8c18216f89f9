"""Peak rates of known accelerators, for the share of them that a run reaches (MFU)."""

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


def peak_flops(device_kind: str) -> float | None:
    """Peak of a device kind by its longest known prefix, or None where it is not known (CPUs among them)."""
    known = [kind for kind in PEAK_BF16_FLOPS if device_kind.startswith(kind)]
    return PEAK_BF16_FLOPS[max(known, key=len)] if known else None
