"""The three published families: what no checkpoint stores about its inputs and its pretext task."""

from dataclasses import dataclass
from typing import Literal

from selfpab_jax.data.sources.base import sensors_of
from selfpab_jax.data.sources.hunt4 import CHANNELS
from selfpab_jax.errors import ModelError
from selfpab_jax.model.masking import MaskingSettings, TaskSettings
from selfpab_jax.signal.stft import SpectrogramSettings

FamilyName = Literal["selfpab", "monoselfpab", "lta2v"]


@dataclass(frozen=True)
class Family:
    """Properties of the published runs (Logacjov et al. 2024; MonoSelfPAB; LTA2V).

    Args:
        name: as in a model directory.
        features: of a published frame, by which a checkpoint is recognized.
        channels_in: channels of an input frame: both sensors' 6, or one sensor's 3.
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
        """The settings that give so many features: F bins are from 2 (F - 1) samples, with an overlap of half of them.

        Raises:
            ModelError: the features are not a multiple of the channels.
        """
        bins, rest = divmod(features, self.channels_in)
        if rest or bins < 2:
            raise ModelError(f"{features} features cannot be those of the {self.channels_in} channels of {self.name}")
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
                masking=MaskingSettings(
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


def recognize(features: int, temporal_positions: bool, given: FamilyName | None) -> Family:
    """The family of a checkpoint.

    Args:
        features: of an input frame; the family is recognized by their number.
        temporal_positions: whether it has calendar positions, which only LTA2V has.
        given: the family, where the user names it.

    Raises:
        ModelError: no family has these features.
    """
    if given:
        return FAMILIES[given]
    if temporal_positions:
        return FAMILIES["lta2v"]
    for family in FAMILIES.values():
        if family.features == features:
            return family
    known = ", ".join(f"{family.name} {family.features:,}" for family in FAMILIES.values())
    raise ModelError(f"no published family has {features} features ({known}): choose one with --family")
