"""A head as a folder: weights, standardization, classes, and all that its features depend on.

`head.safetensors` holds the arrays, `head.json` the rest. `selfpab-jax probe --save_head` writes one.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Array, Float, Float32

from selfpab_jax.errors import ConfigError, ModelError, StorageError
from selfpab_jax.features.extract import ExtractionSettings, configure_encoders, context_frames, with_temporal_context
from selfpab_jax.features.sensors import SensorEncoder
from selfpab_jax.io import atomic_path, require_parent
from selfpab_jax.model_dir import write_tensors
from selfpab_jax.probe.heads.batch import rows_around
from selfpab_jax.probe.heads.model import Head, head_logits
from selfpab_jax.signal.stft import SpectrogramSettings

FORMAT = 1
HEAD_FILE, DESCRIPTION_FILE = "head.safetensors", "head.json"
STANDARDIZATION = ("center_E", "mean_E", "std_E")
LINEAR_ARRAYS, MLP_ARRAYS, TEMPORAL_ARRAYS = ("mix_L", "weight_DxH", "bias_H"), ("out_HxY", "out_bias_Y"), ("tap_WxH",)
"""Arrays of a linear head, those that an MLP has besides, and that a temporal head has besides these."""
LARGEST_BATCH = 2048
"""Rows that are classified at a time."""


@dataclass(frozen=True, eq=False)
class SavedHead:
    """A trained head, and what it may be applied to.

    L layers of width D (with temporal context) make E = L * D features of a frame, or W * L * D with the W frames
    around it that a temporal head sees; Y classes.

    Attributes:
        parameters: see `heads.model.Head`.
        center_E: subtracted from every feature first.
        mean_E: of the training rows, relative to the center; the negative center if not standardized.
        std_E: their standard deviation; 1 if not standardized.
        classes: names, in the order of the outputs.
        labels: the data set's label of each class.
        extraction: how its features are computed.
        window_frames: frames that the encoder saw together.
        spectrogram: how signals become frames.
        encoder_digests: of the encoder, or of the encoder of each sensor; see `encoder_digests`.
        sensors: of the data set, for each encoder.
        roles: which of the model's sensors each sensor of the data set was used as, where their names differ.
        offsets: frames that a temporal head sees, relative to its own.
        trained: how: hyper-parameters, the rule that chose them, subjects, rows.
        scores: of the cross-validation of this kind of head on subjects that were held out.
        dataset: name, title, version and card digest of the data set.
        version: of the package that wrote it.
    """

    parameters: dict[str, Float32[np.ndarray, "..."]]
    center_E: Float32[np.ndarray, " E"]
    mean_E: Float32[np.ndarray, " E"]
    std_E: Float32[np.ndarray, " E"]
    classes: tuple[str, ...]
    labels: tuple[int | str, ...]
    extraction: ExtractionSettings
    window_frames: int
    spectrogram: SpectrogramSettings
    encoder_digests: tuple[str, ...]
    sensors: tuple[tuple[str, ...], ...]
    roles: dict[str, str] = field(default_factory=dict)
    offsets: tuple[int, ...] = ()
    trained: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    version: str = ""

    def __post_init__(self) -> None:
        shapes, features = {name: array.shape for name, array in self.parameters.items()}, len(self.center_E)
        known = [{*LINEAR_ARRAYS}, {*LINEAR_ARRAYS, *MLP_ARRAYS}, {*LINEAR_ARRAYS, *MLP_ARRAYS, *TEMPORAL_ARRAYS}]
        if set(shapes) not in known:
            raise ModelError(f"a head has no such arrays: {', '.join(shapes)}")
        layers, width, hidden = *shapes["mix_L"], *shapes["weight_DxH"]
        outputs = shapes.get("out_HxY", (hidden, hidden))
        fits = max(1, len(self.offsets)) * layers * width == features == len(self.mean_E) == len(self.std_E)
        fits = (
            fits and shapes["bias_H"] == (hidden,) and shapes.get("tap_WxH", (0, hidden)) == (len(self.offsets), hidden)
        )
        if not fits or outputs != (hidden, len(self.classes)) or len(self.labels) != len(self.classes):
            raise ModelError(
                f"the head's arrays {shapes} do not fit {features} features and {len(self.classes)} classes"
            )

    @property
    def kind(self) -> str:
        """`linear`, `mlp` or `temporal`."""
        if "tap_WxH" in self.parameters:
            return "temporal"
        return "mlp" if "out_HxY" in self.parameters else "linear"

    @cached_property
    def digest(self) -> str:
        """A hash of all of it."""
        digest = hashlib.sha256(json.dumps(self.summary(), sort_keys=True, default=str).encode())
        arrays = {**self.parameters, **{name: getattr(self, name) for name in STANDARDIZATION}}
        for name, array in sorted(arrays.items()):
            digest.update(name.encode() + np.ascontiguousarray(array, "<f4").data)
        return digest.hexdigest()

    @property
    def context_lengths(self) -> tuple[int, ...]:
        """Frames of temporal context, for each length of `extraction.context_seconds`."""
        return tuple(context_frames(seconds, self.spectrogram) for seconds in self.extraction.context_seconds)

    def window_probabilities(self, features_BxTxLxD: Float[np.ndarray, "B T L D"]) -> Float32[np.ndarray, "B T Y"]:
        """Probabilities of the frames of windows; nothing beyond a window counts for its frames, as in the probe.

        Args:
            features_BxTxLxD: of the encoder, without temporal context.
        """
        if lengths := self.context_lengths:
            features_BxTxLxD = np.asarray(with_temporal_context(features_BxTxLxD, lengths)).astype(
                self.extraction.dtype
            )
        windows, frames = features_BxTxLxD.shape[:2]
        features_RxE = features_BxTxLxD.reshape(windows * frames, -1)
        if self.offsets:
            around_RxW = rows_around(np.full(windows, frames), self.offsets)
            features_RxE = features_RxE[around_RxW].reshape(windows * frames, -1)
        return self.probabilities(features_RxE).reshape(windows, frames, -1)

    def probabilities(self, features_RxE: Float[np.ndarray, "R E"]) -> Float32[np.ndarray, "R Y"]:
        """Probabilities of rows, with temporal context where the head has it.

        Args:
            features_RxE: layers side by side, and the frames at `offsets` side by side where there are any.

        Raises:
            ModelError: another number of features.
        """
        if features_RxE.shape[1] != len(self.center_E):
            raise ModelError(f"the head takes {len(self.center_E)} features, not {features_RxE.shape[1]}")
        arrays = jax.tree.map(jnp.asarray, (self.parameters, self.center_E, self.mean_E, self.std_E))
        found = [np.zeros((0, len(self.classes)), np.float32)]
        for first in range(0, len(features_RxE), LARGEST_BATCH):
            x_BxE = features_RxE[first : first + LARGEST_BATCH]
            size = 1 << (len(x_BxE) - 1).bit_length()  # few shapes, few compilations
            padded_BxE = np.pad(x_BxE, ((0, size - len(x_BxE)), (0, 0)))
            found.append(np.asarray(_probabilities(*arrays, padded_BxE))[: len(x_BxE)])
        return np.concatenate(found)

    def summary(self) -> dict[str, Any]:
        """What `head.json` holds beside the format."""
        skipped = ("parameters", *STANDARDIZATION)
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in skipped}
        return {
            "kind": self.kind,
            **fields,
            "extraction": asdict(self.extraction),
            "spectrogram": asdict(self.spectrogram),
        }


@jax.jit
def _probabilities(head: Head, center_E: Array, mean_E: Array, std_E: Array, x_BxE: Array) -> Float[Array, "B Y"]:
    return jax.nn.softmax(head_logits(head, mean_E, std_E, x_BxE.astype(jnp.float32) - center_E), axis=-1)


# The encoder that belongs to a head.


def encoder_digests(encoders: tuple[SensorEncoder, ...]) -> tuple[str, ...]:
    """Hashes of all that an encoder's features depend on, whatever they are computed with."""
    return tuple(each.encoder.with_compute("float32").digest for each in encoders)


def encoders_for(head: SavedHead, encoders: tuple[SensorEncoder, ...]) -> tuple[SensorEncoder, ...]:
    """The encoders as `configure_encoders` returns them for this head.

    Args:
        head: that their features are for.
        encoders: see `open_sensor_encoders`.

    Raises:
        ModelError: the head is of another encoder.
        ConfigError: the head was trained with other sensors of the model.
    """
    given = encoder_digests(encoders)
    if given != head.encoder_digests:
        if set(given) & set(head.encoder_digests):
            sensors = ", ".join(sensor for of_encoder in head.sensors for sensor in of_encoder)
            raise ConfigError(f"the head was trained on {sensors}: give the same sensors, in this order")
        raise ModelError(
            f"the head is of another encoder (digest {head.encoder_digests[0][:12]}, the model's is {given[0][:12]}): "
            "give the model that it was trained with, or train a head on this one (probe --save_head)"
        )
    return configure_encoders(encoders, head.extraction)


# Files.


def require_head_writable(directory: Path, *, overwrite: bool) -> None:
    """Check before any work that a head may be written.

    Raises:
        StorageError: something else is in its place, or the folder above it cannot be written to.
    """
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"{directory} is a file; choose another folder for the head")
    if directory.exists() and any(directory.iterdir()):
        if not overwrite:
            raise StorageError(f"{directory} exists; choose another folder for the head or add --overwrite")
        if not (directory / DESCRIPTION_FILE).exists():
            raise StorageError(f"{directory} holds no head, so it is kept, also with --overwrite")
    require_parent(directory)


def write_head(directory: Path | str, head: SavedHead, *, overwrite: bool = False) -> None:
    """Write a head, completely or not at all.

    Args:
        directory: to create.
        head: what to write.
        overwrite: replace a head that is there.

    Raises:
        StorageError: the folder exists or cannot be written.
    """
    directory = Path(directory)
    require_head_writable(directory, overwrite=overwrite)
    arrays = {**head.parameters, **{name: getattr(head, name) for name in STANDARDIZATION}}
    with atomic_path(directory) as temporary:
        temporary.mkdir()
        write_tensors(temporary / HEAD_FILE, arrays)
        text = json.dumps({"format": FORMAT, **head.summary()}, indent=2, ensure_ascii=False)
        (temporary / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")
        if directory.exists():
            shutil.rmtree(directory)


def load_head(directory: Path | str) -> SavedHead:
    """Read a head that `selfpab-jax probe --save_head` wrote.

    Args:
        directory: of the head.

    Raises:
        ModelError: a file is missing, damaged or of a newer version.
    """
    directory = Path(directory)
    path = directory / DESCRIPTION_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ModelError(f"{path} has a format that this version does not know; update selfpab-jax")
        arrays = safetensors.numpy.load_file(directory / HEAD_FILE)
        return _from_json(content, arrays)
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = Path(error.filename or path).name
        raise ModelError(
            f"{directory} is not a head (no {missing}); `selfpab-jax probe --save_head` writes one"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, safetensors.SafetensorError) as error:
        raise ModelError(f"{directory} is damaged: {type(error).__name__} {error}; write the head again") from None


def package_version() -> str:
    """Version of the package, which holds it at its root; a static import of the root would be a circle."""
    return import_module(__name__.partition(".")[0]).__version__


def _from_json(content: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> SavedHead:
    content = {name: value for name, value in content.items() if name != "kind"}
    extraction = dict(content["extraction"])
    layers = extraction["layers"]
    extraction |= {
        "layers": tuple(layers) if isinstance(layers, list) else layers,
        "context_seconds": tuple(extraction["context_seconds"]),
    }
    content |= {
        "extraction": ExtractionSettings(**extraction),
        "spectrogram": SpectrogramSettings(**content["spectrogram"]),
        "sensors": tuple(map(tuple, content["sensors"])),
        **{name: tuple(content[name]) for name in ("classes", "labels", "encoder_digests")},
        "offsets": tuple(content.get("offsets", ())),
    }
    parameters = {name: arrays[name] for name in (*LINEAR_ARRAYS, *MLP_ARRAYS, *TEMPORAL_ARRAYS) if name in arrays}
    center_E, mean_E, std_E = (arrays[name] for name in STANDARDIZATION)
    return SavedHead(parameters, center_E, mean_E, std_E, **content)
