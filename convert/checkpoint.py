"""A checkpoint of the original's `TransformerEncoderNetwork`, opened and checked.

No checkpoint stores everything about its inputs and its pretext task; the three published families supply the rest.
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from selfpab_jax.convert.hyper_parameters import (
    CALENDAR_ENCODING,
    arguments_of,
    completed,
    encodings_of,
    settings_of,
    size,
)
from selfpab_jax.convert.pickle_objects import StoredTensor
from selfpab_jax.convert.positions import is_position, is_sinusoid, table_shapes
from selfpab_jax.convert.table import Arrays, require_torch_names, to_ours, torch_names
from selfpab_jax.convert.torch_file import TorchFile, open_torch_file
from selfpab_jax.convert.weights import WeightSet, choose_weights
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
        """The settings that give this many features: F bins are from 2 (F - 1) samples, which overlap by half.

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


LIGHTNING = "1.6."
"""The releases of PyTorch Lightning whose files the converter was tested with; the original pins 1.6.4."""
VERSION_KEY = "pytorch-lightning_version"
CASTABLE = ("bfloat16", "float16", "float64")
"""Dtypes that `--cast float32` takes besides float32."""


@dataclass(frozen=True)
class ReadOptions:
    """What a file does not show, or leaves to choose.

    Args:
        family: which it is, where its features are not a published family's.
        any_version: accept files of other releases of PyTorch Lightning than 1.6.
        weights: name of the set of weights, where the file holds several.
        cast: dtype that weights of another one are cast to; float32 is the only one.
        heads: number of attention heads, where the file has no hyper-parameters.
    """

    family: FamilyName | None = None
    any_version: bool = False
    weights: str | None = None
    cast: Literal["float32"] | None = None
    heads: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose names and shapes fit; none of its weights have been read.

    Args:
        file: the file.
        weight_set: the tensors that are converted, under the original's names.
        family: which of the published ones.
        settings: sizes of the encoder.
        features: of an input frame.
        outputs: features of a reconstructed frame.
        arguments: the original's own, as stored, and sizes of the tensors where the file has none.
        has_arguments: whether the file has any.
        notes: lines for the user: where the weights were, what was skipped, cast or assumed.
    """

    file: TorchFile
    weight_set: WeightSet
    family: Family
    settings: ModelSettings
    features: int
    outputs: int
    arguments: Mapping[str, Any]
    has_arguments: bool = True
    notes: tuple[str, ...] = ()

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """The chosen `state_dict`, under the original's names."""
        return self.weight_set.tensors

    @property
    def weights(self) -> dict[str, StoredTensor]:
        """The tensors of the `state_dict` that are parameters, in the original's order."""
        return {name: self.tensors[name] for name in torch_names(self.settings.layers)}

    @property
    def version(self) -> str:
        """The version of PyTorch Lightning that wrote the file."""
        return lightning_version(self.file.content)

    @property
    def source(self) -> str:
        """The file's name and what wrote it."""
        written = f", written by PyTorch Lightning {self.version}" if VERSION_KEY in self.file.content else ""
        return f"{self.file.path.name}{written}"

    @property
    def cast_from(self) -> list[str]:
        """Other dtypes than float32 among the parameters and positional tables."""
        return sorted({tensor.dtype for tensor in self.tensors.values()} - {"float32"})

    def array(self, tensor: StoredTensor) -> Float32[np.ndarray, "..."]:
        """A tensor in float32: a view of the file where it is stored so, else a copy."""
        with np.errstate(over="ignore"):  # values beyond float32 become infinite, and are found by `check_values`
            return self.file.array(tensor).astype(np.float32, copy=False)

    def parameters(self) -> Arrays:
        """Our parameters, as views of the file where they are stored in float32."""
        return self.to_ours(self.weights)

    def to_ours(self, tensors: Mapping[str, StoredTensor]) -> Arrays:
        """Tensors of the weights' shapes (AdamW's moments, for example) under our names."""
        arrays = {name: self.array(tensor) for name, tensor in tensors.items()}
        return to_ours(arrays, self.settings, self.features, self.outputs)

    def largest_rounding(self) -> float:
        """How far casting moves a weight at most, divided by the largest weight of its tensor; 0 if it is exact."""
        largest = 0.0
        for tensor in self.weights.values():
            if tensor.dtype == "float64":  # the narrower ones are exact in float32
                stored = self.file.array(tensor)
                moved = np.abs(stored - self.array(tensor)).max()
                largest = max(largest, float(moved / np.abs(stored).max()) if moved else 0.0)
                self.file.release(tensor)
        return largest

    def check_values(self, tensors: Mapping[str, StoredTensor]) -> None:
        """Read tensors once, one after another.

        Raises:
            ModelError: values that are not finite (all such tensors are named), or damaged bytes.
        """
        wrong = []
        for name, tensor in tensors.items():
            self.file.check(tensor)
            if not np.isfinite(self.array(tensor)).all():
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
        """Compare the positional tables with what the encoder computes; returns the checksums of float32 ones by name.

        Raises:
            ModelError: a table does not hold the sinusoids.
        """
        checksums = {}
        for name in filter(is_position, self.tensors):
            tensor = self.tensors[name]
            self.file.check(tensor)
            table = self.array(tensor)
            rounding = float(jnp.finfo(tensor.dtype).eps) / 2
            if not is_sinusoid(table.reshape(-1, self.settings.width), rounding if rounding > 1e-6 else 0.0):
                raise ModelError(f"{self.file.path}: {name} is an unknown positional encoding (not the sinusoids)")
            if tensor.dtype == "float32":
                checksums[name] = zlib.crc32(table.tobytes())
            self.file.release(tensor)
        return checksums


def read_checkpoint(path: Path, options: ReadOptions | None = None) -> Checkpoint:
    """Open and check a checkpoint without reading its weights.

    Args:
        path: of the file.
        options: what it does not show, or leaves to choose.

    Raises:
        ModelError: it is not a checkpoint, is of another class or version, leaves something to choose, or its tensors
            do not fit its hyper-parameters.
    """
    file = open_torch_file(path)
    try:
        return _checked(file, options or ReadOptions())
    except ModelError as error:
        raise ModelError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def lightning_version(content: Mapping[Any, Any]) -> str:
    """The version of PyTorch Lightning that wrote a file, or `unknown`."""
    version = content.get("pytorch-lightning_version")
    return version[:40] if isinstance(version, str) else "unknown"


def _checked(file: TorchFile, options: ReadOptions) -> Checkpoint:
    chosen = choose_weights(file.content, options.weights)
    tensors, notes = chosen.weights.tensors, list(chosen.notes)
    version = lightning_version(file.content)
    if VERSION_KEY in file.content and not version.startswith(LIGHTNING) and not options.any_version:
        raise ModelError(
            f"it was written by PyTorch Lightning {version}, not by {LIGHTNING}x; --any-version converts it "
            "nevertheless, if every name and shape fits"
        )
    stored = {name: _number(file, value) for name, value in arguments_of(file.content).items()}
    arguments = completed(stored, tensors, options.heads)
    if not stored:
        notes.append(f"no hyper-parameters in the file: sizes are those of the tensors, {options.heads} heads as given")
    encodings = encodings_of(arguments)
    temporal = CALENDAR_ENCODING in encodings
    settings = settings_of(arguments, temporal)
    features, outputs = (size(arguments, name) for name in ("input_dim", "output_dim"))
    notes += _cast_notes(tensors, options.cast)
    castable = {name: _Float32(t.shape) if t.dtype in CASTABLE else t for name, t in tensors.items()}
    require_torch_names(castable, settings, features, outputs)
    _require_tables(tensors, table_shapes(encodings, settings.width))
    family = recognize(features, temporal, options.family)
    family.spectrogram(features)  # refuses a number of features that its channels cannot have
    return Checkpoint(file, chosen.weights, family, settings, features, outputs, arguments, bool(stored), tuple(notes))


class _Float32(NamedTuple):
    """The shape of a tensor that is cast to float32 when it is read."""

    shape: tuple[int, ...]
    dtype: str = "float32"


def _number(file: TorchFile, value: Any) -> Any:
    """A hyper-parameter that is stored as a tensor or array of one number, as that number."""
    is_number = isinstance(value, StoredTensor) and math.prod(value.shape) == 1 and value.dtype != "bfloat16"
    return file.array(value).item() if is_number else value


def _cast_notes(tensors: Mapping[str, StoredTensor], cast: str | None) -> list[str]:
    others = {dtype: sum(t.dtype == dtype for t in tensors.values()) for dtype in CASTABLE}
    counted = " and ".join(
        f"{count} of its {len(tensors)} tensors are {dtype}" for dtype, count in others.items() if count
    )
    if counted and cast is None:
        raise ModelError(f"{counted}, not float32: --cast float32 converts them")
    notes = [f"cast to float32: {counted}"] if counted else []
    if any(is_position(name) and tensor.dtype in ("bfloat16", "float16") for name, tensor in tensors.items()):
        notes.append("positions are computed in float32, not rounded as the file's table is")
    return notes


def _require_tables(tensors: Mapping[str, StoredTensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    tables = {name: tensor for name, tensor in tensors.items() if is_position(name)}
    if tables.keys() != expected.keys():
        raise ModelError(f"unknown positional encoding: its tables are {', '.join(sorted(tables)) or 'missing'}")
    for name, table in tables.items():
        if table.shape != expected[name] or table.dtype not in ("float32", *CASTABLE):
            raise ModelError(f"unknown positional encoding: {name} has shape {table.shape} of {table.dtype}")
