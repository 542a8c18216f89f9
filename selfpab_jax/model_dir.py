"""A model directory: an encoder's weights, configuration, normalization statistics and model card in one folder.

Weights are a safetensors file. It is written in pieces, so that arrays that are transposed views of another file are
never copied whole, and can be read one array at a time.
"""

import hashlib
import json
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float32

from selfpab_jax.config import update_names
from selfpab_jax.errors import ModelError, StorageError
from selfpab_jax.io import atomic_path, require_parent
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import split_packed
from selfpab_jax.signal.normalization import Scale, Statistics
from selfpab_jax.signal.stft import SpectrogramSettings

FORMAT = 1
WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "README.md"
STATISTICS_FILE = "statistics.npz"
HEAD_FOLDER = "head"
"""A model that ships with the package has a head in this folder."""
SHIPPED_MODELS = Path(__file__).parent / "pretrained"

SubjectListing = Literal["hashed", "named", "none"]
"""How a model card lists the subjects that the model was trained on."""
WeightsDtype = Literal["float32", "bfloat16"]
"""Of the weights in a file; in memory they are float32."""
HASH_PREFIX, HASH_DIGITS = "sha256:", 12
PIECE_BYTES = 2**22
"""Weights are written in pieces of this size."""


@dataclass(frozen=True)
class ModelConfig:
    """The content of `config.json`.

    Args:
        family: `selfpab`, `monoselfpab` or `lta2v`.
        model: sizes and numerics.
        features: of an input frame.
        outputs: features of a reconstructed frame.
        channels: names, in the order of the records' features.
        sensors: names, in the order of the channels.
        spectrogram: how signals become frames.
        frames: T of a training window.
        scale: of the magnitudes before they are normalized.
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
    scale: Scale = "linear"
    provenance: dict[str, Any] = field(default_factory=dict)


# Writing


def write_model(
    directory: Path,
    config: ModelConfig,
    parameters: Mapping[str, np.ndarray],
    statistics: Statistics | None,
    *,
    weights: WeightsDtype = "float32",
    overwrite: bool = False,
) -> None:
    """Write a model directory, completely or not at all.

    Args:
        directory: to create; it must not exist unless `overwrite`.
        config: what the model is.
        parameters: float32 arrays under the names of `FunctionalModel.abstract`.
        statistics: that its inputs are normalized with; None for a model that must be given normalized frames.
        weights: dtype of the file; bfloat16 halves its size and rounds every weight to 8 bits.
        overwrite: replace an existing model directory.

    Raises:
        StorageError: the directory exists or cannot be written.
    """
    require_writable(directory, overwrite=overwrite)
    with atomic_path(directory) as temporary:
        temporary.mkdir()
        write_tensors(temporary / WEIGHTS_FILE, parameters, weights)
        content = {"format": FORMAT, **asdict(config), "statistics": STATISTICS_FILE if statistics else None}
        (temporary / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if statistics:
            statistics.save(temporary / STATISTICS_FILE)
        (temporary / CARD_FILE).write_text(model_card(config, parameters, statistics), encoding="utf-8")
        if directory.exists():
            shutil.rmtree(directory)


def require_writable(directory: Path, *, overwrite: bool) -> None:
    """Check before any work that a model directory may be written.

    Raises:
        StorageError: something else is in its place, or the folder above it cannot be written to.
    """
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"{directory} is a file; choose another directory")
    if directory.exists() and any(directory.iterdir()):
        if not overwrite:
            raise StorageError(f"{directory} exists; choose another directory or add --overwrite")
        if not (directory / CONFIG_FILE).exists():
            raise StorageError(f"{directory} is not a model directory, so it is kept, also with --overwrite")
    require_parent(directory)


# Finding


def find_model(model: Path | str) -> Path:
    """The model directory of that path, or the model of that name that ships with the package, such as `har-small`.

    A path that has a `config.json` comes first; a folder that only happens to have the name of a model does not count.

    Args:
        model: path or name. A path to nothing is returned as it is.
    """
    path, shipped = Path(model), SHIPPED_MODELS / model
    if not (path / CONFIG_FILE).is_file() and len(path.parts) == 1 and (shipped / CONFIG_FILE).is_file():
        return shipped
    return path


def shipped_models() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(path.parent.name for path in SHIPPED_MODELS.glob(f"*/{CONFIG_FILE}"))


# Reading


def read_model(model: Path | str) -> tuple[ModelConfig, dict[str, np.ndarray], Statistics | None]:
    """Read a model directory, also one that version 0.1 wrote.

    Args:
        model: see `find_model`.

    Raises:
        ModelError: a file is missing or damaged.
    """
    directory = find_model(model)
    config, statistics_file = read_config(directory)
    with _readable(directory / WEIGHTS_FILE):
        stored = safetensors.numpy.load_file(directory / WEIGHTS_FILE)
    parameters = split_packed({name: _in_float32(array) for name, array in stored.items()})
    statistics = Statistics.load(directory / statistics_file) if statistics_file else None
    if statistics is not None and statistics.scale != config.scale:
        raise ModelError(
            f"{directory}: {CONFIG_FILE} has magnitudes on the scale {config.scale}, {statistics_file} on the scale "
            f"{statistics.scale}: they are of two models; copy the whole model directory again"
        )
    return config, parameters, statistics


def read_config(model: Path | str) -> tuple[ModelConfig, str | None]:
    """The configuration and the name of the statistics file, if the model has statistics.

    Args:
        model: see `find_model`.

    Raises:
        ModelError: not a model directory, or of another format.
    """
    directory = find_model(model)
    path = directory / CONFIG_FILE
    try:
        content = update_names(json.loads(path.read_text(encoding="utf-8")))
        if content.pop("format") != FORMAT:
            raise ModelError(f"{path} has a format that this version does not know; update selfpab-jax")
        statistics_file = content.pop("statistics")
        content["model"] = ModelSettings(**content["model"])
        content["spectrogram"] = SpectrogramSettings(**content["spectrogram"])
        content |= {name: tuple(content[name]) for name in ("channels", "sensors")}
        return ModelConfig(**content), statistics_file
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(
            f"{directory} is not a model directory (no {CONFIG_FILE}): `selfpab-jax export` writes one, and the "
            f"package has {', '.join(shipped_models())}"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {type(error).__name__} {error}") from None


# Subjects


def listed_subjects(names: Iterable[str], listing: SubjectListing) -> list[str]:
    """Subjects as a model card lists them: hashed, by name, or not at all."""
    if listing == "none":
        return []
    return [hash_subject(name) if listing == "hashed" else name for name in names]


def hash_subject(name: str) -> str:
    """A name as a short hash: unreadable, but whoever knows a name can look it up."""
    return HASH_PREFIX + hashlib.sha256(name.encode()).hexdigest()[:HASH_DIGITS]


def find_subjects(provenance: Mapping[str, Any], names: Iterable[str], field: str = "subjects") -> tuple[str, ...]:
    """Those of the named subjects that a field of the model card (`subjects`, `choosing_subjects`) lists, by name or
    hashed; sorted."""
    listed = {str(subject) for subject in provenance.get(field) or ()}
    return tuple(sorted(name for name in set(names) if name in listed or hash_subject(name) in listed))


# Model card


def model_card(config: ModelConfig, parameters: Mapping[str, np.ndarray], statistics: Statistics | None) -> str:
    """The directory's README.

    Args:
        config: what the model is.
        parameters: its arrays.
        statistics: that its inputs are normalized with, if any.
    """
    model, spectrogram = config.model, config.spectrogram
    seconds = (spectrogram.fft_window + (config.frames - 1) * spectrogram.fft_hop) / spectrogram.rate_hz
    normalization = (
        f"`{STATISTICS_FILE}` ({statistics.kind}); `load_encoder` applies it"
        if statistics
        else "**none in this directory**: frames must be given normalized"
    )
    known = "\n".join(
        f"- {name.replace('_', ' ')}: {_card_value(value)}"
        for name, value in config.provenance.items()
        if value is not None and value != [] and not isinstance(value, dict)
    )
    return f"""---
library_name: selfpab-jax
tags: [accelerometer, human-activity-recognition, self-supervised]
---
# {config.family}: an accelerometer encoder

A transformer encoder pre-trained by masked reconstruction of spectrograms (SelfPAB, Logacjov et al. 2024).

- sensors: {", ".join(config.sensors)}; channels {", ".join(config.channels)}, in g
- spectrogram: {spectrogram.rate_hz:g} Hz, window {spectrogram.fft_window}, hop {spectrogram.fft_hop} samples;
  {config.features} features per frame, {config.frames} frames ({seconds:g} s) per training window; magnitudes on the
  scale `{config.scale}`
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

{known or "Nothing is known about it."}

{_card_subjects(config.provenance)}
"""


def _card_subjects(provenance: Mapping[str, Any]) -> str:
    subjects = provenance.get("subjects")
    if not subjects:
        return (
            "The subjects it was trained on are not listed: make sure that none of them is among those it is tested on."
        )
    form = ", hashed" if str(subjects[0]).startswith(HASH_PREFIX) else ""
    return f"The subjects it was trained on are in `config.json` (`provenance.subjects`{form}): do not test it on them."


def _card_value(value: Any) -> str:
    if isinstance(value, list):
        if str(value[0]).startswith(HASH_PREFIX):
            return f"{len(value)}, hashed"
        return ", ".join(map(str, value[:8])) + (f" and {len(value) - 8} more" if len(value) > 8 else "")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# Safetensors


@dataclass(frozen=True)
class TensorOnDisk:
    """An array that has not been read; `np.asarray` reads it.

    Args:
        path: of the file.
        name: of the array in the file.
        shape: of the array, or of the part of it that `index` selects.
        dtype: of the array in memory, such as `float32`.
        index: an integer on one axis selects a part; None for the whole array.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    index: tuple[int | slice, ...] | None = None

    def __getitem__(self, index: tuple[int | slice, ...]) -> "TensorOnDisk":
        """A part, unread; slices must be complete."""
        kept = [size for size, at in zip(self.shape, index, strict=False) if at == slice(None)]
        return TensorOnDisk(self.path, self.name, (*kept, *self.shape[len(index) :]), self.dtype, index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Float32[np.ndarray, "..."]:
        """The array in memory; nothing of the file stays mapped."""
        with safetensors.safe_open(self.path, framework="numpy") as file:
            array = file.get_tensor(self.name) if self.index is None else file.get_slice(self.name)[self.index]
        array = _in_float32(array)
        return array if dtype is None else array.astype(dtype, copy=False)


def open_tensors(path: Path) -> dict[str, TensorOnDisk]:
    """Names and shapes of the arrays in a safetensors file, also of one that version 0.1 wrote.

    Raises:
        ModelError: the file is missing or damaged.
    """
    tensors = {}
    with _readable(path), safetensors.safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118  (no mapping)
            stored = file.get_slice(name)
            dtype = "float32" if stored.get_dtype() in ("F32", "BF16") else str(stored.get_dtype())
            tensors[name] = TensorOnDisk(path, name, tuple(stored.get_shape()), dtype)
    return split_packed(tensors)


def _in_float32(array: np.ndarray) -> np.ndarray:
    """Bfloat16 as float32, which is exact; other dtypes as they are."""
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array


def write_tensors(
    path: Path, arrays: Mapping[str, Float32[np.ndarray, "..."]], dtype: WeightsDtype = "float32"
) -> None:
    """Write float32 arrays as a safetensors file, in the order given.

    Args:
        path: of the file.
        arrays: by name.
        dtype: that they are rounded to.

    Raises:
        OSError: it cannot be written.
    """
    code, size, stored = ("F32", 4, "<f4") if dtype == "float32" else ("BF16", 2, ml_dtypes.bfloat16)
    header: dict[str, dict] = {}
    end = 0
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise ValueError(f"{name} is {array.dtype}; only float32 is written")
        start, end = end, end + array.size * size
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors then start at a multiple of 8 bytes, as the format asks
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            rows = array.reshape(1) if array.ndim == 0 else array
            step = max(1, PIECE_BYTES // max(1, rows[:1].nbytes))
            for first in range(0, len(rows), step):
                file.write(np.ascontiguousarray(rows[first : first + step], stored).tobytes())


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; copy the whole model directory again") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path} is damaged ({error}); copy it again") from None
