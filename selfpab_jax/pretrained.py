"""The door for users of features: a frozen encoder that takes signals or spectrograms."""

import warnings
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float, Float32, Int

from selfpab_jax.errors import ModelError
from selfpab_jax.model.blueprint import Blueprint, Parameters, draw_blueprint
from selfpab_jax.model_directory import ModelConfig, read_model
from selfpab_jax.signal.resample import ratio, resample
from selfpab_jax.signal.statistics import Statistics
from selfpab_jax.signal.stft import spectrogram as make_spectrogram


class PretrainedEncoder:
    """A frozen encoder with the statistics it was trained with. Make it with `load_encoder`.

    Args:
        config: of the model directory.
        parameters: encoder and head.
        statistics: for normalisation, or None: then only normalised frames are taken.
        sensor: the one sensor whose frames come in, for a cross-sensor model.
    """

    def __init__(
        self, config: ModelConfig, parameters: Parameters, statistics: Statistics | None, sensor: str | None = None
    ):
        self.config = config
        self.parameters = parameters
        self.sensors = _input_sensors(config, sensor)
        self._statistics = None if statistics is None else _of_sensors(statistics, config, self.sensors)

    @cached_property
    def blueprint(self) -> Blueprint:
        """The network without its arrays."""
        return draw_blueprint(self.config.model, self.config.features, self.config.outputs)

    @property
    def width(self) -> int:
        """Features D of an encoded frame."""
        return self.config.model.width

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that `encode_signal` takes, in order."""
        return tuple(name for name in self.config.channels if name.rsplit("_", 1)[0] in self.sensors)

    def frame_count(self, samples: int, rate_hz: float) -> int:
        """Frames of a signal: those of `encode_signal` beyond it are padding."""
        settings = self.config.spectrogram
        factor = ratio(rate_hz, settings.rate_hz)
        return settings.frame_count(-(-samples * factor.numerator // factor.denominator))

    def encode(
        self,
        spectrogram: Float[np.ndarray, "B T X"],
        timestamps: Int[np.ndarray, "B T 5"] | None = None,
        *,
        normalised: bool = False,
        batch_size: int = 8,
    ) -> Float32[np.ndarray, "B T D"]:
        """Hidden states of the last layer, without dropout.

        Args:
            spectrogram: magnitudes as `selfpab_jax.signal.stft.spectrogram` makes them, not normalised.
            timestamps: month, day, weekday (Monday 0), hour and minute of each frame's centre; models with calendar
                positions (LTA2V) need them, others take none.
            normalised: the frames are normalised already.
            batch_size: windows at a time; bounds the memory.

        Raises:
            ModelError: the frames do not fit the model, or it has no statistics to normalise them with.
        """
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
        frames = spectrogram.astype(np.float32) if normalised else self._normalise(spectrogram)
        return self._encode_normalised(frames, timestamps, batch_size)

    def encode_signal(
        self, signal: Float[np.ndarray, "N C"], rate_hz: float, *, batch_size: int = 8
    ) -> Float32[np.ndarray, "B T D"]:
        """Hidden states of a recording: windows of the training length, one after another.

        The spectrogram of the whole signal is cut into windows of T frames; what is missing from the last one is 0
        after normalisation, as in the original's downstream test. `features.reshape(-1, D)[:frame_count(N, rate_hz)]`
        is the series of the recording's frames. A signal shorter than one window gives one shorter window.

        Args:
            signal: in g, channels as in `channels`.
            rate_hz: of the signal; other rates than the model's are resampled.
            batch_size: windows at a time; bounds the memory.

        Raises:
            ModelError: wrong channels, too short for one frame, values that are not finite, or a model that was
                trained with timestamps, for which `encode` is the way.
        """
        signal = np.asarray(signal)
        if signal.ndim != 2 or signal.shape[1] != len(self.channels):
            raise ModelError(
                f"the signal has shape {signal.shape}; it must be (N, {len(self.channels)}): {self.channels}"
            )
        if not np.isfinite(signal).all():
            raise ModelError("the signal has values that are not finite; cut or fill them first")
        if self.config.model.temporal_positions:
            raise ModelError("this encoder needs timestamps: make the spectrogram yourself and call `encode` with them")
        if not rate_hz > 0:
            raise ModelError(f"rate_hz is {rate_hz}; it must be greater than 0")
        settings = self.config.spectrogram
        signal = resample(signal, rate_hz, settings.rate_hz)
        if len(signal) < settings.fft_window:
            seconds = settings.fft_window / settings.rate_hz
            raise ModelError(
                f"the signal has {len(signal)} samples at {settings.rate_hz:g} Hz; it must last {seconds:g} s"
            )
        frames = self._normalise(make_spectrogram(signal, settings))
        length = min(self.config.frames, len(frames))
        windows = -(-len(frames) // length)
        padded = np.zeros((windows * length, frames.shape[1]), np.float32)
        padded[: len(frames)] = frames
        return self._encode_normalised(padded.reshape(windows, length, -1), None, batch_size)

    def _normalise(self, spectrogram: np.ndarray) -> np.ndarray:
        if self._statistics is None:
            raise ModelError(
                "this model has no normalisation statistics: convert it again with --statistics, or normalise the "
                "frames yourself and call `encode(..., normalised=True)`"
            )
        return (spectrogram.astype(np.float32) - self._statistics.mean) / self._statistics.std

    def _encode_normalised(
        self, frames: np.ndarray, timestamps: np.ndarray | None, batch_size: int
    ) -> Float32[np.ndarray, "B T D"]:
        if batch_size < 1:
            raise ModelError(f"batch_size is {batch_size}; it must be at least 1")
        out = np.empty((*frames.shape[:2], self.width), np.float32)
        for start in range(0, len(frames), batch_size):
            part = slice(start, start + batch_size)
            given = (frames[part],) if timestamps is None else (frames[part], timestamps[part])
            out[part] = np.asarray(self._forward(self.parameters, *given))
        return out

    @cached_property
    def _forward(self) -> "jax.stages.Wrapped":
        blueprint = self.blueprint
        return jax.jit(lambda parameters, *given: blueprint.build(parameters).encoder(*given))


def load_encoder(
    directory: str | Path,
    *,
    sensor: str | None = None,
    compute: Literal["float32", "bfloat16"] | None = None,
) -> PretrainedEncoder:
    """Load the encoder of a model directory (`selfpab-jax export`, `selfpab-jax convert from-torch`).

    Args:
        directory: with `model.safetensors`, `config.json` and the statistics.
        sensor: for a cross-sensor model (MonoSelfPAB): whose frames will come in.
        compute: dtype of matrix products; float32 where not set.

    Raises:
        ModelError: a file is missing or damaged, or the weights do not fit the configuration.
    """
    directory = Path(directory)
    config, arrays, statistics = read_model(directory)
    if statistics is None:
        warnings.warn(f"{directory} has no normalisation statistics: give it normalised frames", stacklevel=2)
    config = replace(config, model=replace(config.model, compute=compute or "float32"))
    abstract = draw_blueprint(config.model, config.features, config.outputs).abstract
    wrong = [
        f"{name} {arrays[name].shape if name in arrays else 'missing'}"
        for name, shape in abstract.items()
        if name not in arrays or arrays[name].shape != shape.shape
    ]
    wrong += [f"{name} unexpected" for name in arrays if name not in abstract]
    if wrong:
        raise ModelError(f"{directory}: weights do not fit config.json: {'; '.join(wrong[:6])}")
    parameters = {name: jax.numpy.asarray(array) for name, array in arrays.items()}
    return PretrainedEncoder(config, parameters, statistics, sensor)


def _input_sensors(config: ModelConfig, sensor: str | None) -> tuple[str, ...]:
    if config.family != "monoselfpab":
        if sensor is not None and config.sensors != (sensor,):
            raise ModelError(f"this encoder takes {' and '.join(config.sensors)} together; leave `sensor` out")
        return config.sensors
    if sensor not in config.sensors:
        raise ModelError(f"this encoder takes one sensor: say which with sensor=, one of {', '.join(config.sensors)}")
    return (sensor,)


def _of_sensors(statistics: Statistics, config: ModelConfig, sensors: tuple[str, ...]) -> Statistics:
    bins = config.spectrogram.bins
    kept = [i for i, name in enumerate(config.channels) if name.rsplit("_", 1)[0] in sensors]
    columns = np.concatenate([np.arange(i * bins, (i + 1) * bins) for i in kept])
    if len(statistics.mean) != len(config.channels) * bins:
        raise ModelError(
            f"the statistics have {len(statistics.mean)} features, the model's channels {len(config.channels) * bins}"
        )
    return Statistics(statistics.mean[columns], statistics.std[columns], statistics.kind)
