"""The three published families: what a checkpoint leaves unsaid about its inputs and its pretext task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from selfpab_jax.convert.pickle_reader import require_small
from selfpab_jax.data.sources.base import sensors_of
from selfpab_jax.data.sources.hunt4 import CHANNELS
from selfpab_jax.errors import ModelError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.masking import MaskingSettings, TaskSettings
from selfpab_jax.model_dir import ModelConfig
from selfpab_jax.signal.stft import SpectrogramSettings

# The three published families: what a checkpoint leaves unsaid about its inputs and its pretext task.

FamilyName = Literal["selfpab", "monoselfpab", "lta2v"]
FILE_SIZES = {"selfpab": 793_353_563, "monoselfpab": 790_544_539}
"""Bytes of the published files: what a truncated one should have."""


@dataclass(frozen=True)
class Family:
    """Facts of the published runs (Logacjov et al. 2024; MonoSelfPAB; LTA2V) that no checkpoint holds.

    Args:
        name: as in a model directory.
        features: features of a published frame, by which a checkpoint is recognized.
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


def recognize(features: int, temporal_positions: bool, said: FamilyName | None) -> Family:
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


# The original's `hyper_parameters` as our settings, and back; numbers may be texts such as '1e-4'.

Number = TypeVar("Number", int, float)
FRAME_ENCODING, CALENDAR_ENCODING = "AbsolutePositionalEncoding", "TemporalPositionalEncoding"
UNSUPPORTED = {"seq_operation": (None,), "output_activation": (None,), "n_prediction_head_layers": (1, "1")}
"""Options that change the function; every published run has these values."""
LARGEST_ARGUMENTS = 2**16
"""Values and characters; the published ones come to 600."""


def arguments_of(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The arguments that the original's class was made with.

    Raises:
        ModelError: there are none, they are a DownstreamMLP's, or far too large.
    """
    stored = content.get("hyper_parameters")
    arguments = stored.get("args", stored) if isinstance(stored, dict) else None
    if not isinstance(arguments, dict) or not arguments:
        raise ModelError("it has no hyper_parameters, so the number of heads is unknown")
    if "upstream_algorithm" in arguments or "upstream_model_path" in arguments:
        raise ModelError(
            "it is a DownstreamMLP, a classifier on top of an encoder: convert the upstream_model.ckpt it was made from"
        )
    require_small(arguments, "hyper_parameters", LARGEST_ARGUMENTS)
    return arguments


def settings_of(arguments: Mapping[str, Any], temporal_positions: bool) -> ModelSettings:
    """Sizes of the encoder, in float32 as the original computes.

    Raises:
        ModelError: an argument is missing, no number, or asks for something that our encoder does not do.
    """
    for name, values in UNSUPPORTED.items():
        if name in arguments and arguments[name] not in values:
            raise ModelError(f"hyper-parameter {name} is {short(arguments[name])}; only {values[0]} is known here")
    try:
        return ModelSettings(
            width=size(arguments, "d_model"),
            heads=size(arguments, "nhead"),
            feedforward=size(arguments, "dim_feedforward"),
            layers=size(arguments, "n_encoder_layers"),
            dropout=number(arguments, "dropout", float),
            compute="float32",
            temporal_positions=temporal_positions,
        )
    except ValueError as error:
        raise ModelError(f"its hyper-parameters make no model: {error}") from None


def number(arguments: Mapping[str, Any], name: str, kind: type[Number]) -> Number:
    """An argument as a number, also where it is stored as a text.

    Raises:
        ModelError: missing, or no such number.
    """
    value = arguments.get(name)
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            found = float(value)
            if found == kind(found):
                return kind(found)
        except (ValueError, OverflowError):
            pass
    raise ModelError(f"hyper-parameter {name} is {short(value)}; a number is needed")


def size(arguments: Mapping[str, Any], name: str) -> int:
    """An argument as a size.

    Raises:
        ModelError: missing, no whole number, or below 1.
    """
    found = number(arguments, name, int)
    if found < 1:
        raise ModelError(f"hyper-parameter {name} is {found}; it must be at least 1")
    return found


def encodings_of(arguments: Mapping[str, Any]) -> str | list[str]:
    """The positional encodings by name: one alone, or a list of which each has a number in the `state_dict`.

    Raises:
        ModelError: others than the published ones.
    """
    said = arguments.get("positional_encoding", FRAME_ENCODING)
    names = list(said) if isinstance(said, (list, tuple)) else said
    known = (FRAME_ENCODING, [FRAME_ENCODING], [CALENDAR_ENCODING, FRAME_ENCODING], [FRAME_ENCODING, CALENDAR_ENCODING])
    if names not in known:
        raise ModelError(
            f"positional encoding {short(said)} is unknown; {FRAME_ENCODING}, alone or with {CALENDAR_ENCODING}, "
            "is known"
        )
    return names


def arguments_for(config: ModelConfig, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with which the original makes a model: those it was converted from, else the published ones.

    Args:
        config: of the model directory.
        kept: arguments that a converted model came with; they are given back as they were.
    """
    model, steps = config.model, config.provenance.get("steps") or 1
    own = {
        "batch_size": config.provenance.get("batch_size") or 64,
        "d_model": model.width,
        "dim_feedforward": model.feedforward,
        "dim_prediction_head": None,
        "dropout": model.dropout,
        "epochs": 1,
        "loss": "maskedL1",
        "lr": 1e-4,
        "lr_scheduler": "LinearWUSchedule",
        "metrics": None,
        "n_encoder_layers": model.layers,
        "n_prediction_head_layers": 1,
        "nhead": model.heads,
        "optimizer": "AdamW",
        "output_activation": None,
        "positional_encoding": [CALENDAR_ENCODING, FRAME_ENCODING] if model.temporal_positions else FRAME_ENCODING,
        "seq_operation": None,
        "weight_decay": 1e-5,
        "input_dim": config.features,
        "output_dim": config.outputs,
        "total_step_count": steps,
        "_epochs": 1,
    }
    return dict(kept) or own


def plain(value: Any) -> Any:
    """A value with everything that JSON cannot hold left out (tensors, mostly)."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return [plain(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else None


def short(value: Any) -> str:
    """A foreign value in a message."""
    return repr(value)[:80] if isinstance(value, (type(None), bool, int, float, str)) else str(plain(value))[:80]
