"""The pre-trained encoder: `load_encoder` opens a model directory, `PretrainedEncoder` encodes signals or spectrograms.

Everything here works in memory; for long recordings in files see `selfpab_jax.features.streaming`.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from selfpab_jax.data.sources.checks import unit_doubt
from selfpab_jax.errors import ConfigError, DataError, ModelError
from selfpab_jax.features.windows import fitting_windows
from selfpab_jax.model.functional import FunctionalModel, Parameters, make_functional
from selfpab_jax.model_dir import ModelConfig, read_model
from selfpab_jax.signal.normalization import Statistics, normalize
from selfpab_jax.signal.resample import ratio, resample
from selfpab_jax.signal.stft import spectrogram as make_spectrogram

Layers = Literal["last", "all"] | int | tuple[int, ...]
"""Which outputs to keep: `last`, `all` (the embedding and every layer), or depths: 0 the embedding, 1 the first layer,
-1 the last one."""
EXECUTION_FIELDS = ("dropout", "rematerialize", "layout", "attention")
"""Settings of the model that change how it is trained or executed, but not its outputs."""


class PretrainedEncoder:
    """A frozen encoder with the statistics it was trained with; `load_encoder` makes one.

    Args:
        config: of the model directory.
        parameters: of encoder and reconstruction head.
        statistics: for normalization; without them, only normalized frames can be encoded.
        sensor: the sensor to encode, for a cross-sensor model.

    Raises:
        ModelError: the sensor or the statistics do not fit the model.
    """

    def __init__(
        self, config: ModelConfig, parameters: Parameters, statistics: Statistics | None, sensor: str | None = None
    ):
        self.config = config
        self.parameters = parameters
        self.sensors = _input_sensors(config, sensor)
        self.statistics = statistics
        self._statistics = None if statistics is None else _select_statistics(statistics, config, self.sensors)

    @cached_property
    def functional(self) -> FunctionalModel:
        """The network without its arrays."""
        return make_functional(self.config.model, self.config.features, self.config.outputs)

    @property
    def width(self) -> int:
        """Features D of an encoded frame."""
        return self.config.model.width

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that `encode_signal` takes, in order."""
        return tuple(name for name in self.config.channels if name.rsplit("_", 1)[0] in self.sensors)

    @property
    def features(self) -> int:
        """Features X of an input frame."""
        return len(self.channels) * self.config.spectrogram.bins

    @cached_property
    def digest(self) -> str:
        """A hash of everything that features depend on: sizes, sensors, spectrogram, weights, statistics and dtype."""
        config = asdict(self.config)
        sizes = {name: value for name, value in config["model"].items() if name not in EXECUTION_FIELDS}
        kept = {name: config[name] for name in ("family", "features", "channels", "spectrogram")}
        digest = hashlib.sha256(json.dumps([sizes, kept, self.sensors], sort_keys=True).encode())
        for name, array in sorted(self.parameters.items()):
            if name.startswith("encoder."):
                digest.update(name.encode() + np.ascontiguousarray(array).data)
        if self._statistics is not None:
            digest.update(self._statistics.mean.tobytes() + self._statistics.std.tobytes())
            if self._statistics.scale != "linear":
                digest.update(self._statistics.scale.encode())
        return digest.hexdigest()

    def with_compute(self, compute: Literal["float32", "bfloat16"]) -> "PretrainedEncoder":
        """The same encoder with matrix products in this dtype."""
        return self._with(replace(self.config, model=replace(self.config.model, compute=compute)), self.parameters)

    def with_layout(self, layout: Literal["exact", "padded"]) -> "PretrainedEncoder":
        """The same function in this layout."""
        return self._with(replace(self.config, model=replace(self.config.model, layout=layout)), self.parameters)

    def with_frames(self, frames: int) -> "PretrainedEncoder":
        """The same encoder with windows of this many frames."""
        return self._with(replace(self.config, frames=frames), self.parameters)

    def with_random_weights(self, seed: int) -> "PretrainedEncoder":
        """The same network and statistics with random weights, for comparison with the pre-trained ones."""
        return self._with(self.config, self.functional.initialize(jax.random.key(seed)))

    def without_calendar(self) -> "PretrainedEncoder":
        """The encoder without calendar positions, as the original uses LTA2V downstream; others are unchanged."""
        return self._with(
            replace(self.config, model=replace(self.config.model, temporal_positions=False)), self.parameters
        )

    def for_sensor(self, sensor: str) -> "PretrainedEncoder":
        """A cross-sensor encoder for another sensor's frames; the weights are shared."""
        return PretrainedEncoder(self.config, self.parameters, self.statistics, sensor)

    def _with(self, config: ModelConfig, parameters: Parameters) -> "PretrainedEncoder":
        sensor = self.sensors[0] if config.family == "monoselfpab" else None
        return PretrainedEncoder(config, parameters, self.statistics, sensor)

    def frame_count(self, samples: int, rate_hz: float) -> int:
        """Number of frames of a signal; further frames that `encode_signal` returns are padding."""
        settings = self.config.spectrogram
        factor = ratio(rate_hz, settings.rate_hz)
        return settings.frame_count(-(-samples * factor.numerator // factor.denominator))

    def encode(
        self,
        spectrogram: Float[np.ndarray, "B T X"],
        timestamps: Int[np.ndarray, "B T 5"] | None = None,
        *,
        normalized: bool = False,
        batch_size: int = 8,
        normalised: bool | None = None,
    ) -> Float32[np.ndarray, "B T D"]:
        """Hidden states of the last layer, without dropout.

        Args:
            spectrogram: magnitudes as `selfpab_jax.signal.stft.spectrogram` computes them, not normalized.
            timestamps: month, day, weekday (Monday 0), hour and minute of the center of each frame; models with
                calendar positions (LTA2V) need them, others take none.
            normalized: the frames are normalized already.
            batch_size: windows per batch; it limits the memory that is needed.
            normalised: deprecated spelling of `normalized`.

        Raises:
            ModelError: the frames do not fit the model, or it has no statistics to normalize them with.
        """
        h_BxTxLxD = self.encode_layers(
            spectrogram,
            timestamps,
            layers="last",
            normalized=_new_spelling(normalized, normalised),
            batch_size=batch_size,
        )
        return h_BxTxLxD[:, :, 0]

    def encode_layers(
        self,
        spectrogram: Float[np.ndarray, "B T X"],
        timestamps: Int[np.ndarray, "B T 5"] | None = None,
        *,
        layers: Layers = "all",
        normalized: bool = False,
        batch_size: int = 8,
        normalised: bool | None = None,
    ) -> Float32[np.ndarray, "B T L D"]:
        """Hidden states of several layers, without dropout.

        Args:
            spectrogram: see `encode`.
            timestamps: see `encode`.
            layers: which; `all` returns the embedding and every layer, so that L is one more than the layers.
            normalized: see `encode`.
            batch_size: see `encode`.
            normalised: deprecated spelling of `normalized`.

        Raises:
            ModelError: see `encode`.
            ConfigError: there is no such layer.
        """
        normalized = _new_spelling(normalized, normalised)
        spectrogram = np.asarray(spectrogram)
        if spectrogram.ndim != 3 or spectrogram.shape[-1] != self.config.features:
            raise ModelError(
                f"the encoder takes (B, T, {self.config.features}) frames of {', '.join(self.sensors)}, "
                f"not {spectrogram.shape}"
            )
        if self.config.model.temporal_positions != (timestamps is not None):
            needed = "needs" if self.config.model.temporal_positions else "takes no"
            raise ModelError(f"this encoder {needed} timestamps: month, day, weekday, hour, minute of every frame")
        if timestamps is not None and np.shape(timestamps) != (*spectrogram.shape[:2], 5):
            raise ModelError(f"timestamps have shape {np.shape(timestamps)}; it must be {(*spectrogram.shape[:2], 5)}")
        frames = spectrogram.astype(np.float32) if normalized else self.normalize(spectrogram)
        return self._encode_normalized(frames, timestamps, batch_size, self.depths(layers))

    def depths(self, layers: Layers) -> tuple[int, ...]:
        """The chosen layers as depths from 0 (the embedding) to the number of layers.

        Raises:
            ConfigError: there is no such layer, or none is chosen.
        """
        last = self.config.model.layers
        if isinstance(layers, str):
            if layers not in ("last", "all"):
                raise ConfigError(f"layers is {layers!r}; it must be last, all, or depths from 0 to {last}")
            return tuple(range(last + 1)) if layers == "all" else (last,)
        given = (layers,) if isinstance(layers, int) else tuple(layers)
        if not given or any(not -last - 1 <= depth <= last for depth in given):
            raise ConfigError(f"layers is {layers}; this encoder has 0 (the embedding) to {last} (the last layer)")
        return tuple(depth % (last + 1) for depth in given)

    def hidden(
        self,
        parameters: Mapping[str, Array],
        frames_BxTxX: Float[Array, "B T X"],
        timestamps_BxTx5: Int[Array, "B T 5"] | None,
        depths: tuple[int, ...],
        valid_B: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B T L D"]:
        """Outputs for normalized frames: a pure function, to be compiled as part of a larger one.

        Args:
            parameters: of encoder and head.
            frames_BxTxX: normalized.
            timestamps_BxTx5: see `encode`.
            depths: layers to return, see `depths`.
            valid_B: frames of each window that are attended to; outputs of those after them have no meaning. All where
                not given.
        """
        encoder = self.functional.build(dict(parameters)).encoder
        outputs = encoder.layer_outputs(frames_BxTxX, timestamps_BxTx5, valid_B)
        return jnp.stack([outputs[depth] for depth in depths], axis=2)

    def encode_signal(
        self, signal: Float[np.ndarray, "N C"], rate_hz: float, *, batch_size: int = 8
    ) -> Float32[np.ndarray, "B T D"]:
        """Hidden states of a recording, in consecutive windows of the training length.

        `features.reshape(-1, D)[:frame_count(N, rate_hz)]` are the frames of the recording in order, and what is beyond
        them is 0. The numbers are those that `embed` writes: the encoder sees no padding, because the last window is
        moved back to end with the recording. A signal shorter than one window gives one shorter window, which the
        encoder sees as one or two overlapping ones (`selfpab_jax.features.windows.fitting_windows`).

        Args:
            signal: in g, with the channels in `channels`.
            rate_hz: sampling rate of the signal; the signal is resampled if the model has another one.
            batch_size: windows per batch; it limits the memory that is needed.

        Raises:
            ModelError: wrong channels, too short for one frame, values that are not finite, or a model that needs
                timestamps, for which `encode` is to be used.
            DataError: the signal is in another unit than g.
        """
        signal = np.asarray(signal)
        if signal.ndim != 2 or signal.shape[1] != len(self.channels):
            raise ModelError(
                f"the signal has shape {signal.shape}; it must be (N, {len(self.channels)}): {self.channels}"
            )
        if not np.isfinite(signal).all():
            raise ModelError("the signal has values that are not finite; remove or fill them first")
        if self.config.model.temporal_positions:
            raise ModelError(
                "this encoder needs timestamps: call `encode` with a spectrogram and its timestamps, or leave calendar "
                "positions out (`without_calendar()`)"
            )
        if not rate_hz > 0:
            raise ModelError(f"rate_hz is {rate_hz}; it must be greater than 0")
        settings = self.config.spectrogram
        signal = resample(signal, rate_hz, settings.rate_hz)
        if len(signal) < settings.fft_window:
            seconds = settings.fft_window / settings.rate_hz
            raise ModelError(
                f"the signal has {len(signal)} samples at {settings.rate_hz:g} Hz; it must last {seconds:g} s"
            )
        if doubt := unit_doubt(signal, self.channels, settings.rate_hz):
            if "--unit" in doubt:  # it looks like another one
                raise DataError(f"{doubt} The signal must be in g: selfpab_jax.signal.resample.to_g converts it")
            warnings.warn(doubt, stacklevel=2)
        frames = self.normalize(make_spectrogram(signal, settings))
        length, first_w = fitting_windows(len(frames), self.config.frames)
        windows_BxTxX = np.stack([frames[first : first + length] for first in first_w])
        encoded_BxTxD = self._encode_normalized(windows_BxTxX, None, batch_size, self.depths("last"))[:, :, 0]
        whole = min(self.config.frames, len(frames))
        features_TxD = np.zeros((-(-len(frames) // whole) * whole, self.width), np.float32)
        for first, of_window_TxD in zip(first_w[::-1], encoded_BxTxD[::-1], strict=True):
            features_TxD[first : first + length] = of_window_TxD  # an overlap is the earlier window's
        return features_TxD.reshape(-1, whole, self.width)

    def normalize(self, spectrogram: Float[np.ndarray, "*B T X"]) -> Float32[np.ndarray, "*B T X"]:
        """(x - mean) / std of each feature, x on the scale and with the statistics that the encoder was trained with.

        Raises:
            ModelError: the model has no statistics.
        """
        if self._statistics is None:
            raise ModelError(
                "this model has no normalization statistics: convert it again with --statistics, or normalize the "
                "frames yourself and call `encode(..., normalized=True)`"
            )
        return normalize(spectrogram.astype(np.float32), self._statistics)

    def _encode_normalized(
        self, frames: np.ndarray, timestamps: np.ndarray | None, batch_size: int, depths: tuple[int, ...]
    ) -> Float32[np.ndarray, "B T L D"]:
        if batch_size < 1:
            raise ModelError(f"batch_size is {batch_size}; it must be at least 1")
        out = np.empty((*frames.shape[:2], len(depths), self.width), np.float32)
        for start in range(0, len(frames), batch_size):
            batch = slice(start, start + batch_size)
            times = None if timestamps is None else timestamps[batch]
            out[batch] = np.asarray(self._forward(self.parameters, frames[batch], times, depths))
        return out

    @cached_property
    def _forward(self) -> "jax.stages.Wrapped":
        return jax.jit(self.hidden, static_argnums=3)


def load_encoder(
    directory: str | Path,
    *,
    sensor: str | None = None,
    compute: Literal["float32", "bfloat16"] | None = None,
) -> PretrainedEncoder:
    """Load the encoder of a model directory (`selfpab-jax export`, `selfpab-jax convert from-torch`).

    Args:
        directory: with `model.safetensors`, `config.json` and the statistics; or the name of a model that ships with
            the package, `har-small`.
        sensor: the sensor to encode, for a cross-sensor model (MonoSelfPAB).
        compute: dtype of matrix products; float32 by default.

    Raises:
        ModelError: a file is missing or damaged, or the weights do not fit the configuration.
    """
    config, arrays, statistics = read_model(directory)
    if statistics is None:
        warnings.warn(
            f"{directory} has no normalization statistics: it can encode normalized frames only", stacklevel=2
        )
    config = replace(config, model=replace(config.model, compute=compute or "float32"))
    abstract = make_functional(config.model, config.features, config.outputs).abstract
    wrong = [
        f"{name} {arrays[name].shape if name in arrays else 'missing'}"
        for name, shape in abstract.items()
        if name not in arrays or arrays[name].shape != shape.shape
    ]
    wrong += [f"{name} unexpected" for name in arrays if name not in abstract]
    if wrong:
        raise ModelError(f"{directory}: weights do not fit config.json: {'; '.join(wrong[:6])}")
    parameters = {name: jnp.asarray(array) for name, array in arrays.items()}
    return PretrainedEncoder(config, parameters, statistics, sensor)


def _new_spelling(normalized: bool, normalised: bool | None) -> bool:
    """The value of `normalized`, perhaps given with the spelling of version 0.1."""
    if normalised is None:
        return normalized
    warnings.warn("normalised= is deprecated; use normalized=", DeprecationWarning, stacklevel=3)
    return normalised


def _input_sensors(config: ModelConfig, sensor: str | None) -> tuple[str, ...]:
    if config.family != "monoselfpab":
        if sensor is not None and config.sensors != (sensor,):
            raise ModelError(f"this encoder takes {' and '.join(config.sensors)} together; leave `sensor` out")
        return config.sensors
    if sensor not in config.sensors:
        raise ModelError(f"this encoder takes one sensor: set sensor= to one of {', '.join(config.sensors)}")
    return (sensor,)


def _select_statistics(statistics: Statistics, config: ModelConfig, sensors: tuple[str, ...]) -> Statistics:
    bins = config.spectrogram.bins
    kept = [i for i, name in enumerate(config.channels) if name.rsplit("_", 1)[0] in sensors]
    columns = np.concatenate([np.arange(i * bins, (i + 1) * bins) for i in kept])
    if len(statistics.mean) != len(config.channels) * bins:
        raise ModelError(
            f"the statistics have {len(statistics.mean)} features, the model's channels {len(config.channels) * bins}"
        )
    return replace(statistics, mean=statistics.mean[columns], std=statistics.std[columns])
