"""What a run is trained on, as far as a step's shapes go."""

from dataclasses import dataclass
from pathlib import Path

from selfpab_jax.data.records_info import read_info, records_folder


@dataclass(frozen=True)
class Windows:
    """Windows of spectrograms; the defaults are HUNT4's.

    Args:
        frames: T of a window.
        features: X of a frame.
        seconds: of recording that a window adds.
        sensors: their names.
        channels: their names.
    """

    frames: int = 599
    features: int = 156
    seconds: float = 300.0
    sensors: tuple[str, ...] = ("back", "thigh")
    channels: tuple[str, ...] = ("back_x", "back_y", "back_z", "thigh_x", "thigh_y", "thigh_z")


def windows_of(records: Path | None) -> Windows:
    """The windows of records, or HUNT4's where there are none yet.

    Raises:
        DataError: there are none at that place.
    """
    if records is None:
        return Windows()
    info = read_info(records_folder(records))
    return Windows(info.frames, info.features, info.new_seconds, info.sensors, info.channels)
