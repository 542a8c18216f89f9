"""A checkpoint of the original's `TransformerEncoderNetwork`, opened and checked.

No checkpoint stores everything about its inputs and its pretext task; the three published families supply the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selfpab_jax.convert.hyper_parameters import (
    CALENDAR_ENCODING,
    DOWNSTREAM,
    arguments_of,
    encodings_of,
    settings_of,
    size,
)
from selfpab_jax.convert.pickle_reader import StoredTensor
from selfpab_jax.convert.positions import is_position, is_sinusoid, table_shapes
from selfpab_jax.convert.table import Arrays, require_torch_names, to_ours, torch_names
from selfpab_jax.convert.torch_file import TorchFile, open_torch_file
from selfpab_jax.data.sources.base import sensors_of
from selfpab_jax.data.sources.hunt4 import CHANNELS
from selfpab_jax.errors import ModelError
from selfpab_jax.model.config import ModelSettings
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


LONGEST_NAME, MOST_TENSORS = 200, 10_000
LIGHTNING = "1.6."
"""The releases of PyTorch Lightning whose files the converter was tested with; the original pins 1.6.4."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose names and shapes fit; none of its weights have been read.

    Args:
        file: the file.
        family: which of the published ones.
        settings: sizes of the encoder.
        features: of an input frame.
        outputs: features of a reconstructed frame.
        arguments: the original's own, as stored.
    """

    file: TorchFile
    family: Family
    settings: ModelSettings
    features: int
    outputs: int
    arguments: Mapping[str, Any]

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """The `state_dict`."""
        return self.file.content["state_dict"]

    @property
    def weights(self) -> dict[str, StoredTensor]:
        """The tensors of the `state_dict` that are parameters, in the original's order."""
        return {name: self.tensors[name] for name in torch_names(self.settings.layers)}

    @property
    def version(self) -> str:
        """The version of PyTorch Lightning that wrote the file."""
        return lightning_version(self.file.content)

    def parameters(self) -> Arrays:
        """Our parameters as views of the file; copies nothing."""
        return self.to_ours(self.weights)

    def to_ours(self, tensors: Mapping[str, StoredTensor]) -> Arrays:
        """Tensors of the weights' shapes (AdamW's moments, for example) under our names, as views of the file."""
        arrays = {name: self.file.array(tensor) for name, tensor in tensors.items()}
        return to_ours(arrays, self.settings, self.features, self.outputs)

    def check_values(self, tensors: Mapping[str, StoredTensor]) -> None:
        """Read tensors once, one after another.

        Raises:
            ModelError: values that are not finite (all such tensors are named), or damaged bytes.
        """
        wrong = []
        for name, tensor in tensors.items():
            self.file.checksum(tensor)
            if not np.isfinite(self.file.array(tensor)).all():
                wrong.append(name)
            self.file.release(tensor)
        if wrong:
            raise ModelError(f"{self.file.path} has values that are not finite in {', '.join(wrong)}")

    def check_weights(self) -> dict[str, int]:
        """Read everything that the model needs once; returns the checksums of the positional tables by name.

        Raises:
            ModelError: as `check_values` and `check_positions`.
        """
        tables = self.check_positions()
        self.check_values(self.weights)
        return tables

    def check_positions(self) -> dict[str, int]:
        """Compare the positional tables with what the encoder computes; returns their checksums by name.

        Raises:
            ModelError: a table does not hold the sinusoids.
        """
        checksums = {}
        for name in filter(is_position, self.tensors):
            tensor = self.tensors[name]
            checksums[name] = self.file.checksum(tensor)
            if not is_sinusoid(self.file.array(tensor).reshape(-1, self.settings.width)):
                raise ModelError(f"{self.file.path}: {name} is an unknown positional encoding (not the sinusoids)")
            self.file.release(tensor)
        return checksums


def read_checkpoint(path: Path, family: FamilyName | None = None, *, any_version: bool = False) -> Checkpoint:
    """Open and check a checkpoint without reading its weights.

    Args:
        path: of the `.ckpt` file.
        family: which it is, where its features are not a published family's.
        any_version: accept files of other releases of PyTorch Lightning than 1.6.

    Raises:
        ModelError: it is not a checkpoint, is of another class or version, or its tensors do not fit its
            hyper-parameters.
    """
    file = open_torch_file(path)
    try:
        return _checked(file, family, any_version)
    except ModelError as error:
        raise ModelError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def lightning_version(content: Mapping[Any, Any]) -> str:
    """The version of PyTorch Lightning that wrote a file, or `unknown`."""
    version = content.get("pytorch-lightning_version")
    return version[:40] if isinstance(version, str) else "unknown"


def tensors_of(content: Mapping[Any, Any]) -> dict[str, StoredTensor]:
    """The `state_dict`.

    Raises:
        ModelError: there is none.
    """
    tensors = content.get("state_dict")
    if not isinstance(tensors, dict) or not all(isinstance(tensor, StoredTensor) for tensor in tensors.values()):
        raise ModelError("it is not a checkpoint of PyTorch Lightning: it has no state_dict of tensors")
    if not all(isinstance(name, str) and len(name) <= LONGEST_NAME and name.isprintable() for name in tensors):
        raise ModelError("it is not a checkpoint of PyTorch Lightning: its tensors have no names")
    if len(tensors) > MOST_TENSORS:
        raise ModelError(f"it has {len(tensors):,} tensors, which no encoder of the original has")
    if any(name.startswith("upstream_models.") for name in tensors):
        raise ModelError(f"it {DOWNSTREAM}")
    return tensors


def _checked(file: TorchFile, family_name: FamilyName | None, any_version: bool) -> Checkpoint:
    tensors = tensors_of(file.content)
    version = lightning_version(file.content)
    if not version.startswith(LIGHTNING) and not any_version:
        raise ModelError(
            f"it was written by PyTorch Lightning {version}, not by {LIGHTNING}x; --any-version converts it "
            "nevertheless, if every name and shape fits"
        )
    arguments = arguments_of(file.content)
    encodings = encodings_of(arguments)
    temporal = CALENDAR_ENCODING in encodings
    settings = settings_of(arguments, temporal)
    features, outputs = (size(arguments, name) for name in ("input_dim", "output_dim"))
    require_torch_names(tensors, settings, features, outputs)
    _require_tables(tensors, table_shapes(encodings, settings.width))
    family = recognize(features, temporal, family_name)
    family.spectrogram(features)  # refuses a number of features that its channels cannot have
    return Checkpoint(file, family, settings, features, outputs, arguments)


def _require_tables(tensors: Mapping[str, StoredTensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    tables = {name: tensor for name, tensor in tensors.items() if is_position(name)}
    if tables.keys() != expected.keys():
        raise ModelError(f"unknown positional encoding: its tables are {', '.join(sorted(tables)) or 'missing'}")
    for name, table in tables.items():
        if table.shape != expected[name] or table.dtype != "float32":
            raise ModelError(f"unknown positional encoding: {name} has shape {table.shape} of {table.dtype}")
