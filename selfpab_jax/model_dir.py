"""Safetensors piece by piece: arrays that are views of a file, or turned around, are never copied whole."""

import json
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float32

from selfpab_jax.errors import ModelError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.signal.stft import SpectrogramSettings

# Safetensors piece by piece: arrays that are views of a file, or turned around, are never copied whole.

PIECE_BYTES = 2**22
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def write_tensors(path: Path, arrays: Mapping[str, Float32[np.ndarray, "..."]]) -> None:
    """Write float32 arrays as a safetensors file, in the order given.

    Raises:
        OSError: the disk is full, say.
    """
    header: dict[str, dict] = {}
    end = 0
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise ValueError(f"{name} is {array.dtype}; only float32 is written")
        start, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors then start at a multiple of 8 bytes, as the format asks
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            rows = array.reshape(1) if array.ndim == 0 else array
            step = max(1, PIECE_BYTES // max(1, rows[:1].nbytes))
            for first in range(0, len(rows), step):
                file.write(np.ascontiguousarray(rows[first : first + step], "<f4").data)


@dataclass(frozen=True)
class TensorOnDisk:
    """An array that has not been read.

    Args:
        path: of the file.
        start: its first byte there.
        shape, dtype: of the array; only float32 can be read.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> Float32[np.ndarray, "..."]:
        """The array in memory; nothing of the file stays mapped."""
        return np.fromfile(self.path, "<f4", math.prod(self.shape), offset=self.start).reshape(self.shape)


def open_tensors(path: Path) -> dict[str, TensorOnDisk]:
    """Names, shapes and places of the arrays in a safetensors file.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass  # checks that sizes and places add up to the file
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; copy the whole model directory again") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path} is damaged ({error}); copy it again") from None
    header.pop("__metadata__", None)
    return {
        name: TensorOnDisk(
            path,
            8 + size + each["data_offsets"][0],
            tuple(each["shape"]),
            DTYPES.get(str(each["dtype"]), str(each["dtype"])),
        )
        for name, each in header.items()
    }


# A model for use: weights, configuration, normalization statistics and a model card in one directory.

FORMAT = 1
WEIGHTS_FILE, CONFIG_FILE, STATISTICS_FILE, CARD_FILE = (
    "model.safetensors",
    "config.json",
    "statistics.npz",
    "README.md",
)


@dataclass(frozen=True)
class ModelConfig:
    """What `config.json` says.

    Attributes:
        family: `selfpab`, `monoselfpab` or `lta2v`.
        model: sizes and numerics.
        features, outputs: of an input and of a reconstructed frame.
        channels: names in the order of the records' features; sensors: theirs.
        spectrogram: how signals become frames.
        frames: T of a training window.
        provenance: hours, steps, held-out loss, source, subjects and the like, as far as known.
    """

    family: str
    model: ModelSettings
    features: int
    outputs: int
    channels: tuple[str, ...]
    sensors: tuple[str, ...]
    spectrogram: SpectrogramSettings
    frames: int
    provenance: dict[str, Any] = field(default_factory=dict)


def write_model(
    directory: Path,
    config: ModelConfig,
    parameters: Mapping[str, np.ndarray],
    statistics: Statistics | None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a model directory, whole or not at all.

    Args:
        directory: to be made; it must not exist unless `overwrite`.
        config: what the model is.
        parameters: float32 arrays under the names of `FunctionalModel.abstract`.
        statistics: that its inputs are normalized with; None for a model that must be given normalized frames.
        overwrite: replace a model directory that is there.

    Raises:
        ModelError: the directory exists, or the disk is full.
    """
    check_writable(directory, overwrite=overwrite)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    except OSError as error:
        raise ModelError(f"{directory} cannot be made: {error}") from error
    try:
        write_tensors(temporary / WEIGHTS_FILE, parameters)
        content = {"format": FORMAT, **asdict(config), "statistics": STATISTICS_FILE if statistics else None}
        (temporary / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if statistics:
            statistics.save(temporary / STATISTICS_FILE)
        (temporary / CARD_FILE).write_text(model_card(config, parameters, statistics), encoding="utf-8")
        temporary.chmod(0o755)
        if directory.exists():
            shutil.rmtree(directory)
        os.replace(temporary, directory)
    except OSError as error:
        raise ModelError(f"{directory} could not be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_writable(directory: Path, *, overwrite: bool) -> None:
    """See before any work whether a model directory may be written.

    Raises:
        ModelError: something is there that is not to be replaced.
    """
    if directory.exists() and not directory.is_dir():
        raise ModelError(f"{directory} is a file; choose another directory")
    if directory.exists() and any(directory.iterdir()):
        if not overwrite:
            raise ModelError(f"{directory} exists; choose another directory or add --overwrite")
        if not (directory / CONFIG_FILE).exists():
            raise ModelError(f"{directory} is no model directory, so --overwrite leaves it alone")


def read_model(directory: Path) -> tuple[ModelConfig, dict[str, np.ndarray], Statistics | None]:
    """Read a model directory.

    Raises:
        ModelError: a file is missing or damaged.
    """
    config, statistics_file = read_config(directory)
    path = directory / WEIGHTS_FILE
    try:
        parameters = safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; copy the whole model directory again") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path} is damaged ({error}); copy it again") from None
    return config, parameters, Statistics.load(directory / statistics_file) if statistics_file else None


def read_config(directory: Path) -> tuple[ModelConfig, str | None]:
    """The configuration and the name of the statistics file, if the model has statistics.

    Raises:
        ModelError: not a model directory, or of another format.
    """
    path = directory / CONFIG_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ModelError(f"{path} has a format this version does not know; update selfpab-jax")
        statistics_file = content.pop("statistics")
        content["model"] = ModelSettings(**content["model"])
        content["spectrogram"] = SpectrogramSettings(**content["spectrogram"])
        content |= {name: tuple(content[name]) for name in ("channels", "sensors")}
        return ModelConfig(**content), statistics_file
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(
            f"{directory} is no model directory (no {CONFIG_FILE}); `selfpab-jax export` makes one"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {type(error).__name__} {error}") from None


def model_card(config: ModelConfig, parameters: Mapping[str, np.ndarray], statistics: Statistics | None) -> str:
    """The directory's README for people."""
    model, spectrogram = config.model, config.spectrogram
    seconds = (spectrogram.fft_window + (config.frames - 1) * spectrogram.fft_hop) / spectrogram.rate_hz
    normalization = (
        f"`{STATISTICS_FILE}` ({statistics.kind}); `load_encoder` applies it"
        if statistics
        else "**none in this directory**: frames must be given normalized"
    )
    known = "\n".join(
        f"- {name.replace('_', ' ')}: {_short(value)}"
        for name, value in config.provenance.items()
        if value is not None and not isinstance(value, dict)
    )
    return f"""---
library_name: selfpab-jax
tags: [accelerometer, human-activity-recognition, self-supervised]
---
# {config.family}: an accelerometer encoder

A transformer encoder pre-trained by masked reconstruction of spectrograms (SelfPAB, Logacjov et al. 2024).

- sensors: {", ".join(config.sensors)}; channels {", ".join(config.channels)}, in g
- spectrogram: {spectrogram.rate_hz:g} Hz, window {spectrogram.fft_window}, hop {spectrogram.fft_hop} samples;
  {config.features} features a frame, {config.frames} frames ({seconds:g} s) a training window
- encoder: width {model.width}, {model.heads} heads, feed-forward {model.feedforward}, {model.layers} layers;
  {sum(array.size for array in parameters.values()):,} parameters with the reconstruction head
- normalization: {normalization}

## Use

```python
import selfpab_jax

encoder = selfpab_jax.load_encoder("path/to/this/directory")
features_BxTxD = encoder.encode_signal(signal_NxC, rate_hz=100)  # signal in g, channels as above
```

## Training

{known or "Nothing is recorded of it."}

The subjects it was trained on are in `config.json` under `provenance.subjects`, where known: do not measure on them.
"""


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value[:8])) + (f" and {len(value) - 8} more" if len(value) > 8 else "")
    return f"{value:.6g}" if isinstance(value, float) else str(value)
