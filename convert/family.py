"""The three published families: what a checkpoint leaves unsaid about its inputs and its pretext task."""

from dataclasses import dataclass
from typing import Literal

from selfpab_jax.data.hunt4 import CHANNELS
from selfpab_jax.data.source import sensors_of
from selfpab_jax.errors import ModelError
from selfpab_jax.model.alteration import AlterationSettings
from selfpab_jax.model.task import TaskSettings
from selfpab_jax.signal.stft import SpectrogramSettings

FamilyName = Literal["selfpab", "monoselfpab", "lta2v"]
FILE_SIZES = {"selfpab": 793_353_563, "monoselfpab": 790_544_539}
"""Bytes of the published files: what a truncated one should have."""


@dataclass(frozen=True)
class Family:
    """Facts of the published runs (Logacjov et al. 2024; MonoSelfPAB; LTA2V) that no checkpoint holds.

    Args:
        name: as in a model directory.
        features: features of a published frame, by which a checkpoint is recognised.
        channels_in: channels of a frame that goes in: both sensors' 6, or one sensor's 3.
        frames: of a training window: 5 minutes, or 30 hours.
        task: the pretext task.
    """

    name: FamilyName
    features: int
    channels_in: int
    frames: int
    task: TaskSettings

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels of the records, in their order."""
        return CHANNELS

    @property
    def sensors(self) -> tuple[str, ...]:
        """Sensors of the records, in their order."""
        return sensors_of(CHANNELS)

    def spectrogram(self, features: int) -> SpectrogramSettings:
        """Window and hop that give so many features: F bins come from 2 (F - 1) samples, half of them overlapping.

        Raises:
            ModelError: the features are no multiple of the channels.
        """
        bins, rest = divmod(features, self.channels_in)
        if rest or bins < 2:
            raise ModelError(f"{features} features are not those of {self.channels_in} channels, as {self.name} has")
        return SpectrogramSettings(rate_hz=50.0, fft_window=2 * (bins - 1), fft_hop=bins - 1)


FAMILIES = {
    family.name: family
    for family in (
        Family("selfpab", 156, 6, 599, TaskSettings()),
        Family("monoselfpab", 78, 3, 599, TaskSettings("cross_sensor", "back")),
        Family(
            "lta2v",
            9_006,
            6,
            3_599,
            TaskSettings(
                alteration=AlterationSettings(
                    time_share=0.10,
                    time_width=5,
                    mask_probability=0.9,
                    swap_probability=0.0,
                    reverse_probability=0.5,
                    frequency_share=0.05,
                    frequency_width=75,
                    frequency_probability=0.9,
                )
            ),
        ),
    )
}


def recognise(features: int, temporal_positions: bool, said: FamilyName | None) -> Family:
    """The family of a checkpoint: the one said, else by calendar positions, else by its features.

    Raises:
        ModelError: none has these.
    """
    if said:
        return FAMILIES[said]
    if temporal_positions:
        return FAMILIES["lta2v"]
    for family in FAMILIES.values():
        if family.features == features:
            return family
    known = ", ".join(f"{family.name} {family.features:,}" for family in FAMILIES.values())
    raise ModelError(f"no published family has {features} features ({known}): say which it is with --family")
