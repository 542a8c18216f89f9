"""A checkpoint of the original's `TransformerEncoderNetwork`, checked: everything that conversion needs to know."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfpab_jax.convert.family import (
    CALENDAR_ENCODING,
    Family,
    FamilyName,
    arguments_of,
    encodings_of,
    recognize,
    settings_of,
    size,
)
from selfpab_jax.convert.pickle_reader import StoredTensor
from selfpab_jax.convert.table import (
    Arrays,
    Pair,
    deviates,
    is_ignored,
    is_position,
    match,
    ours_of,
    sizes_of,
    table_shapes,
)
from selfpab_jax.convert.torch_file import TorchFile, open_torch_file
from selfpab_jax.errors import ModelError
from selfpab_jax.model.config import ModelSettings

KNOWN_KEYS = {
    "callbacks",
    "epoch",
    "global_step",
    "hparams_name",
    "hyper_parameters",
    "loops",
    "lr_schedulers",
    "optimizer_states",
    "pytorch-lightning_version",
    "state_dict",
}
LONGEST_NAME, MOST_TENSORS = 200, 10_000
LIGHTNING = "1.6."
"""The releases of PyTorch Lightning whose files were compared with; the original pins 1.6.4."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose names and shapes fit; no weight of it has been read.

    Args:
        file: the file.
        family: which of the published ones.
        settings: sizes of the encoder.
        features, outputs: of an input and of a reconstructed frame.
        arguments: the original's own, as stored.
        pairs: every parameter under both names.
    """

    file: TorchFile
    family: Family
    settings: ModelSettings
    features: int
    outputs: int
    arguments: Mapping[str, Any]
    pairs: list[Pair]

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """The `state_dict`."""
        return self.file.content["state_dict"]

    @property
    def version(self) -> str:
        """Of PyTorch Lightning."""
        return version_of(self.file.content)

    def parameters(self) -> Arrays:
        """Our parameters as views of the file; copies nothing."""
        return self.renamed({pair.torch: self.tensors[pair.torch] for pair in self.pairs})

    def renamed(self, tensors: Mapping[str, StoredTensor]) -> Arrays:
        """Tensors of the parameters' shapes (moments, say) under our names, as views of the file."""
        sizes = sizes_of(self.settings, self.features, self.outputs)
        return {pair.ours: ours_of(self.file.array(tensors[pair.torch]), pair.rule, sizes) for pair in self.pairs}

    def check_values(self, tensors: Mapping[str, StoredTensor]) -> None:
        """Read tensors through once, letting go of each.

        Raises:
            ModelError: values that are not finite (all such tensors are named), or damaged bytes.
        """
        wrong = []
        for name, tensor in tensors.items():
            self.file.checksum(tensor)
            if not np.isfinite(self.file.array(tensor)).all():
                wrong.append(name)
            self.file.forget(tensor)
        if wrong:
            raise ModelError(f"{self.file.path} has values that are not finite in {', '.join(wrong)}")

    def check_weights(self) -> dict[str, int]:
        """Read everything that the model needs through once; checksums of the fixed tables by name.

        Raises:
            ModelError: as `check_values` and `check_positions`.
        """
        tables = self.check_positions()
        self.check_values({pair.torch: self.tensors[pair.torch] for pair in self.pairs})
        return tables

    def check_positions(self) -> dict[str, int]:
        """Compare the fixed tables with what we compute instead; their checksums by name.

        Raises:
            ModelError: a table is not the sinusoid that it should be.
        """
        checksums = {}
        for name in filter(is_position, self.tensors):
            tensor = self.tensors[name]
            checksums[name] = self.file.checksum(tensor)
            if deviates(self.file.array(tensor).reshape(-1, self.settings.width)):
                raise ModelError(f"{self.file.path}: {name} is an unknown positional encoding (not the sinusoid)")
            self.file.forget(tensor)
        return checksums


def read_checkpoint(path: Path, family: FamilyName | None = None, *, any_version: bool = False) -> Checkpoint:
    """Open and check a checkpoint without reading its weights.

    Args:
        path: of the `.ckpt` file.
        family: which it is, where its features do not tell.
        any_version: also of another PyTorch Lightning than 1.6.

    Raises:
        ModelError: it is none, of another class or version, or its tensors do not fit its hyper-parameters.
    """
    file = open_torch_file(path)
    try:
        return _checked(file, family, any_version)
    except ModelError as error:
        raise ModelError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def version_of(content: Mapping[Any, Any]) -> str:
    """Of the PyTorch Lightning that wrote a file, or `unknown`."""
    version = content.get("pytorch-lightning_version")
    return version[:40] if isinstance(version, str) else "unknown"


def tensors_of(content: Mapping[Any, Any]) -> dict[str, StoredTensor]:
    """The `state_dict`.

    Raises:
        ModelError: there is none.
    """
    tensors = content.get("state_dict")
    if not isinstance(tensors, dict) or not all(isinstance(tensor, StoredTensor) for tensor in tensors.values()):
        raise ModelError("it is no checkpoint of PyTorch Lightning: it has no state_dict of tensors")
    if not all(isinstance(name, str) and len(name) <= LONGEST_NAME and name.isprintable() for name in tensors):
        raise ModelError("it is no checkpoint of PyTorch Lightning: its tensors have no names")
    if len(tensors) > MOST_TENSORS:
        raise ModelError(f"it has {len(tensors):,} tensors, which no encoder of the original has")
    if any(name.startswith("upstream_models.") for name in tensors):
        raise ModelError(
            "it is a DownstreamMLP, a classifier on top of an encoder: convert the upstream_model.ckpt it was made from"
        )
    return tensors


def unknown_parts(content: Mapping[Any, Any]) -> list[str]:
    """What a file holds beyond what is converted: keys nobody knows, and tensors that the table ignores."""
    tensors = content.get("state_dict")
    ignored = filter(
        is_ignored, filter(lambda name: isinstance(name, str), tensors if isinstance(tensors, dict) else ())
    )
    return [f"key {str(key)[:40].encode('unicode_escape').decode()}" for key in content if key not in KNOWN_KEYS] + [
        f"ignored {name}" for name in ignored
    ]


def _checked(file: TorchFile, said: FamilyName | None, any_version: bool) -> Checkpoint:
    tensors = tensors_of(file.content)
    version = version_of(file.content)
    if not version.startswith(LIGHTNING) and not any_version:
        raise ModelError(
            f"it was written by PyTorch Lightning {version}, not {LIGHTNING}x as the original's; "
            "--any-version converts it all the same, if every name and shape fits"
        )
    arguments = arguments_of(file.content)
    encodings = encodings_of(arguments)
    temporal = CALENDAR_ENCODING in encodings
    settings = settings_of(arguments, temporal)
    features, outputs = (size(arguments, name) for name in ("input_dim", "output_dim"))
    pairs = match(tensors, sizes_of(settings, features, outputs), settings.layers)
    _check_tables(tensors, table_shapes(encodings, settings.width))
    family = recognize(features, temporal, said)
    family.spectrogram(features)  # refuses features that are none of its channels'
    return Checkpoint(file, family, settings, features, outputs, arguments, pairs)


def _check_tables(tensors: Mapping[str, StoredTensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    tables = {name: tensor for name, tensor in tensors.items() if is_position(name)}
    if tables.keys() != wanted.keys():
        raise ModelError(f"unknown positional encoding: its tables are {', '.join(sorted(tables)) or 'missing'}")
    for name, table in tables.items():
        if table.shape != wanted[name] or table.dtype != "float32":
            raise ModelError(f"unknown positional encoding: {name} has shape {table.shape} of {table.dtype}")
