"""Axivity's .cwa and GENEActiv's .bin, through the library actfast."""

from pathlib import Path
from typing import Any

import numpy as np

from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.devices.samples import DeviceBlocks
from selfpab_jax.errors import DataError

CWA_HEADER, CWA_SECTOR = 1024, 512
CWA_MAGIC = b"AX"
AXIVITY = {"AX3": "Axivity AX3", "AX6": "Axivity AX6"}
NS = 1_000_000_000
SAME_NS = 1000
"""Samples of a block are evenly spaced to this many nanoseconds."""


def read_cwa(path: Path) -> DeviceBlocks:
    """A recording of an Axivity AX3 or AX6; blocks with a wrong checksum are left out and noted.

    Raises:
        UnusableError: the file cannot be read.
        DataError: actfast is not installed.
    """
    result = _read(path, "Axivity CWA")
    device, configuration = result["metadata"]["device"], result["metadata"]["configuration"]
    sectors = np.memmap(path, np.uint8, "r", offset=CWA_HEADER) if path.stat().st_size > CWA_HEADER else np.empty(0)
    sectors = sectors[: len(sectors) // CWA_SECTOR * CWA_SECTOR].reshape(-1, CWA_SECTOR)
    announced = int((sectors[:, :2] == np.frombuffer(CWA_MAGIC, np.uint8)).all(axis=1).sum())
    return _blocks(
        result,
        float(configuration["sample_rate_hz"]),
        device["device_id"],
        AXIVITY.get(device["hardware_type"], "Axivity"),
        announced,
    )


def read_geneactiv(path: Path) -> DeviceBlocks:
    """A recording of a GENEActiv, with the gains and offsets of its header.

    Raises:
        UnusableError: the file cannot be read.
        DataError: actfast is not installed.
    """
    result = _read(path, "GeneActiv BIN")
    metadata = result["metadata"]
    try:
        rate_hz = float(metadata["Configuration Info"]["Measurement Frequency"].split()[0])
        pages = int(metadata["Memory Status"]["Number of Pages"])
    except (KeyError, ValueError, IndexError):
        raise UnusableError("unreadable: the header has no Measurement Frequency or Number of Pages") from None
    serial = metadata.get("Device Identity", {}).get("Device Unique Serial Code", "")
    return _blocks(result, rate_hz, serial, "GENEActiv", pages)


def _read(path: Path, format: str) -> dict[str, Any]:
    try:
        import actfast
    except ImportError:
        raise DataError(f"{path}: device files need the library actfast: pip install 'selfpab-jax[devices]'") from None
    try:
        result = actfast.read(path, lenient=True)
    except (ValueError, OSError) as reason:
        raise UnusableError(f"unreadable: {reason}") from None
    if result["format"] != format:
        raise UnusableError(f"unreadable: a {result['format']} file with the ending {path.suffix}")
    return dict(result)


def _blocks(result: dict[str, Any], rate_hz: float, serial: str, device: str, announced: int) -> DeviceBlocks:
    """Samples and blocks; a block begins where a sample does not follow at the nominal rate."""
    table = result["timeseries"].pop("high_frequency")
    stored = len(result["timeseries"]["low_frequency"]["datetime"])
    times_N, signal_Nx3 = table["datetime"], table["acceleration"].reshape(-1, 3)
    if not len(times_N):
        return DeviceBlocks(np.empty(0), np.empty(0, np.int64), signal_Nx3, rate_hz, serial, device)
    is_first_N = np.abs(np.diff(times_N, prepend=times_N[0]) - round(NS / rate_hz)) > SAME_NS
    is_first_N[0] = True
    firsts_B = np.flatnonzero(is_first_N)
    warnings = result["warnings"]
    notes = (f"damaged: {len(warnings)} blocks left out, the first because {warnings[0]}",) if warnings else ()
    return DeviceBlocks(
        # Two parts, because float64 holds nanoseconds since 1970 to 256 ns only.
        starts_B=times_N[firsts_B] // NS + times_N[firsts_B] % NS / NS,
        counts_B=np.diff(firsts_B, append=len(times_N)),
        signal_Nx3=signal_Nx3,
        rate_hz=rate_hz,
        serial=serial,
        device=device,
        expected=len(times_N) / max(stored, 1) * announced,
        notes=notes,
    )
