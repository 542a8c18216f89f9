"""A file of an accelerometer, read by its ending."""

from collections.abc import Callable
from pathlib import Path

from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.devices.actigraph import read_gt3x
from selfpab_jax.data.sources.devices.axivity_geneactiv import read_cwa, read_geneactiv
from selfpab_jax.data.sources.devices.samples import DeviceBlocks, DeviceSamples, to_samples

READERS: dict[str, Callable[[Path], DeviceBlocks]] = {".cwa": read_cwa, ".gt3x": read_gt3x, ".bin": read_geneactiv}


def read_device(path: Path) -> DeviceSamples:
    """All samples of an Axivity .cwa, an ActiGraph .gt3x or a GENEActiv .bin, with their times.

    The whole file is in memory: at 100 Hz up to 18 MB an hour while it is read, 7 MB afterwards.

    Args:
        path: a device file.

    Raises:
        UnusableError: it cannot be read, or holds no samples; what is damaged or missing in part is in the notes.
        DataError: the library that reads it is not installed.
    """
    if (reader := READERS.get(path.suffix.lower())) is None:
        raise UnusableError(f"unknown kind of file: give {', '.join(READERS)}")
    return to_samples(reader(path))
