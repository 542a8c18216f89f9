"""Windows through a frozen encoder, as fast as its forward pass, and the temporal context of each frame."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Shaped

from selfpab_jax.errors import ConfigError, ModelError
from selfpab_jax.features.encoder import Layers, PretrainedEncoder
from selfpab_jax.features.sensors import SensorEncoder, input_frames
from selfpab_jax.features.windows import WindowedRecordings, valid_frames
from selfpab_jax.model.functional import Parameters
from selfpab_jax.prefetch import Prefetcher, run_ahead
from selfpab_jax.signal.stft import SpectrogramSettings

Merge = Literal["together", "mean", "max", "concatenate"]
Compute = Literal["float32", "bfloat16"]
FeatureDtype = Literal["float16", "float32"]

FRAMES_PER_BATCH = {"cpu": 1024}
"""Frames that keep a device busy: more would only take memory, and time on CPUs, whose caches they overflow."""
FRAMES_PER_BATCH_ELSEWHERE = 2**16
LARGEST_FLOAT16 = 65504.0


@runtime_checkable
class Forward(Protocol):
    """The compiled forward pass; see `make_forward`."""

    def __call__(
        self,
        parameters: list[Parameters],
        x_BxTxX: Shaped[np.ndarray, "B T X"],
        valid_B: Int[np.ndarray, " B"] | None = None,
        timestamps_BxTx5: Int[np.ndarray, "B T 5"] | None = None,
        /,
    ) -> Array:
        """Features from the parameters of each encoder, normalized frames, how many are attended to, and their time."""
        ...


@dataclass(frozen=True)
class ExtractionSettings:
    """What is kept of an encoder's outputs, and how they are computed.

    Args:
        layers: `last`, `all` (the embedding and every layer), or depths: 0 the embedding, 1 the first layer, -1 the
            last one; or `input`, the normalized frames themselves, to compare with.
        merge: how the features of a cross-sensor encoder, which encodes each sensor by itself, are merged: `mean`,
            `max` or `concatenate` (over the width). An encoder of several sensors takes them `together`.
        context_seconds: temporal context: beside the features of each frame, their mean and standard deviation over
            the frames within so many seconds around it, for each length given.
        random_seed: seed of random weights to use instead of the trained ones; None for the trained ones.
        compute: dtype of matrix products.
        batch_size: windows per batch; None for as many as keep the device busy.
        dtype: of the features that are kept.
    """

    layers: Layers | Literal["input"] = "last"
    merge: Merge = "together"
    context_seconds: tuple[float, ...] = ()
    random_seed: int | None = None
    compute: Compute = "float32"
    batch_size: int | None = None
    dtype: FeatureDtype = "float16"

    def __post_init__(self) -> None:
        for name, kind in (("merge", Merge), ("compute", Compute), ("dtype", FeatureDtype)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(get_args(kind))}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; it must be at least 1")

    def windows_per_batch(self, frames: int) -> int:
        """How many windows of so many frames are encoded at a time."""
        enough = FRAMES_PER_BATCH.get(jax.default_backend(), FRAMES_PER_BATCH_ELSEWHERE)
        return self.batch_size or max(1, enough // frames)


def configure_encoders(
    encoders: tuple[SensorEncoder, ...], extraction: ExtractionSettings
) -> tuple[SensorEncoder, ...]:
    """The encoders with the weights and the dtype that the settings ask for.

    Raises:
        ConfigError: `merge` or `layers` do not fit the encoder.
    """
    first = encoders[0].encoder
    depths_of(first, extraction)
    if first.config.family == "monoselfpab":
        if extraction.merge == "together" and len(encoders) > 1:
            sensors = " and ".join(sensor for each in encoders for sensor in each.sensors)
            raise ConfigError(
                f"this cross-sensor model encodes {sensors} one at a time: set merge to mean, max or concatenate, "
                "or choose one sensor"
            )
    elif extraction.merge != "together":
        raise ConfigError(f"merge is {extraction.merge}; this model takes its sensors together: leave merge out")
    configured = [each.encoder.with_compute(extraction.compute) for each in encoders]
    if jax.default_backend() != "cpu":
        configured = [encoder.with_layout("padded") for encoder in configured]  # whatever it was trained in
    if extraction.random_seed is not None:
        drawn = configured[0].with_random_weights(extraction.random_seed)
        configured = [drawn, *(drawn.for_sensor(encoder.sensors[0]) for encoder in configured[1:])]
    return tuple(
        SensorEncoder(encoder, each.columns, each.sensors) for encoder, each in zip(configured, encoders, strict=True)
    )


def feature_shape(encoders: tuple[SensorEncoder, ...], extraction: ExtractionSettings) -> tuple[int, int]:
    """(L, D) of the features, with their temporal context."""
    encoder = encoders[0].encoder
    factor = 1 + 2 * len(extraction.context_seconds)
    if extraction.layers == "input":
        return 1, factor * sum(each.encoder.features for each in encoders)
    factor *= len(encoders) if extraction.merge == "concatenate" else 1
    return len(depths_of(encoder, extraction)), factor * encoder.width


def depths_of(encoder: PretrainedEncoder, extraction: ExtractionSettings) -> tuple[int, ...]:
    """The layers that are kept, as depths; none where the input is.

    Raises:
        ConfigError: there is no such layer.
    """
    return () if extraction.layers == "input" else encoder.depths(extraction.layers)


def make_forward(encoders: tuple[SensorEncoder, ...], extraction: ExtractionSettings, *, pool: bool = False) -> Forward:
    """The compiled pass from normalized frames (B, T, X) to features (B, T, L, D), or (B, L, D) with `pool`.

    Args:
        encoders: as `configure_encoders` returns them.
        extraction: what to keep.
        pool: return the mean over frames, computed on the device.
    """
    depths = depths_of(encoders[0].encoder, extraction)
    edges = np.cumsum([each.encoder.features for each in encoders])[:-1]

    def forward(
        parameters: list[Parameters],
        x_BxTxX: Array,
        valid_B: Array | None = None,
        timestamps_BxTx5: Array | None = None,
    ) -> Array:
        if extraction.layers == "input":
            merged = x_BxTxX[:, :, None]
        else:
            outputs = [
                each.encoder.hidden(arrays, sensor_BxTxX, timestamps_BxTx5, depths, valid_B)
                for each, arrays, sensor_BxTxX in zip(
                    encoders, parameters, jnp.split(x_BxTxX, edges, axis=2), strict=True
                )
            ]
            merged = _merge(outputs, extraction.merge)
        if pool:
            merged = merged.mean(axis=1)
        if extraction.dtype == "float16":
            merged = jnp.clip(merged, -LARGEST_FLOAT16, LARGEST_FLOAT16)
        return merged.astype(extraction.dtype)

    return jax.jit(forward)


def _merge(outputs: list[Array], merge: Merge) -> Array:
    match merge:
        case "mean":
            return jnp.stack(outputs).mean(axis=0)
        case "max":
            return jnp.stack(outputs).max(axis=0)
        case _:
            return jnp.concatenate(outputs, axis=-1)


def window_order(corpus: WindowedRecordings) -> Int[np.ndarray, " W"]:
    """The order in which windows are encoded: by length, so that few shapes are compiled."""
    windows = corpus.windows
    return np.lexsort((windows.first_W, windows.recording_W, windows.length_W))


def encode_windows(
    corpus: WindowedRecordings,
    encoders: tuple[SensorEncoder, ...],
    extraction: ExtractionSettings,
    *,
    start: int = 0,
) -> Iterator[tuple[Int[np.ndarray, " b"], Shaped[np.ndarray, "b T L D"]]]:
    """The features of a corpus' windows, with their temporal context.

    Frames are computed in one thread, the encoder runs from another, and the caller handles results meanwhile. Memory:
    a few batches, and the frames of two recordings. Frames beyond the end of a recording are zeros after
    normalization, as in the original, and are attended to unless the windows are masked.

    Args:
        corpus: recordings and windows.
        encoders: see `open_sensor_encoders`.
        extraction: what to keep.
        start: position in `window_order` to start from.

    Yields:
        Numbers of the windows of a batch, and their features.

    Raises:
        ModelError: the corpus was prepared with another spectrogram than the encoder's.
        ConfigError: `merge` or `layers` do not fit.
    """
    encoders = configure_encoders(encoders, extraction)
    wanted = encoders[0].encoder.config.spectrogram
    if corpus.spectrogram != wanted:
        raise ModelError(f"the data was prepared with {corpus.spectrogram}; this encoder needs {wanted}")
    forward = make_forward(encoders, extraction)
    parameters = [each.encoder.parameters for each in encoders]
    lengths = tuple(context_frames(seconds, corpus.spectrogram) for seconds in extraction.context_seconds)

    def encode(windows_b: np.ndarray, x_BxTxX: np.ndarray, valid_B: np.ndarray | None) -> Array:
        features_BxTxLxD = forward(parameters, x_BxTxX, valid_B)
        if not lengths:
            return features_BxTxLxD
        frames_B = np.zeros(len(x_BxTxX), np.int64)
        frames_B[: len(windows_b)] = corpus.rows_of_windows[windows_b]
        return with_temporal_context(features_BxTxLxD, lengths, frames_B).astype(extraction.dtype)

    batches = Prefetcher(_batches(corpus, encoders, extraction, start))
    results = run_ahead((windows_b, encode(windows_b, x_BxTxX, valid_B)) for windows_b, x_BxTxX, valid_B in batches)
    for windows_b, features_BxTxLxD in Prefetcher(results, ahead=1):
        yield windows_b, features_BxTxLxD[: len(windows_b)]


def _batches(
    corpus: WindowedRecordings, encoders: tuple[SensorEncoder, ...], extraction: ExtractionSettings, start: int
) -> Iterator[tuple[Int[np.ndarray, " b"], Float32[np.ndarray, "B T X"], Int[np.ndarray, " B"] | None]]:
    """Windows of one length, their frames, and how many are valid; the last batch is filled up with zeros."""

    @lru_cache(maxsize=2)
    def frames(recording: int) -> Float32[np.ndarray, "T X"]:
        return input_frames(corpus.recordings[recording].signal_NxC, encoders)

    windows, order_W = corpus.windows, window_order(corpus)[start:]
    features = sum(each.encoder.features for each in encoders)
    for length in np.unique(windows.length_W[order_W]):
        same_w = order_W[windows.length_W[order_W] == length]
        batch_size = extraction.windows_per_batch(int(length))
        for at in range(0, len(same_w), batch_size):
            batch_w = same_w[at : at + batch_size]
            x_BxTxX = np.zeros((batch_size, length, features), np.float32)
            for place, window in enumerate(batch_w):
                first = windows.first_W[window]
                frames_TxX = frames(int(windows.recording_W[window]))[first : first + length]
                x_BxTxX[place, : len(frames_TxX)] = frames_TxX
            filled_B = np.concatenate([batch_w, np.repeat(batch_w[-1:], batch_size - len(batch_w))])
            count_B = corpus.frame_counts[windows.recording_W[filled_B]]
            yield batch_w, x_BxTxX, valid_frames(windows, count_B, windows.first_W[filled_B], int(length))


# Temporal context: a frame of one second does not show how the signal varies around it.


def context_frames(seconds: float, spectrogram: SpectrogramSettings) -> int:
    """Frames that are wholly within so many seconds around a frame's center.

    Raises:
        ConfigError: there are fewer than two.
    """
    frames = int((seconds * spectrogram.rate_hz - spectrogram.fft_window) // spectrogram.fft_hop) + 1
    if frames < 2:
        least = (spectrogram.fft_window + spectrogram.fft_hop) / spectrogram.rate_hz
        raise ConfigError(f"context_seconds: {seconds:g} s hold one frame only; it must be at least {least:g} s")
    return frames


@partial(jax.jit, static_argnames="lengths")
def with_temporal_context(
    features_BxTxLxD: Float[Array, "B T L D"] | Float[np.ndarray, "B T L D"],
    lengths: tuple[int, ...],
    frames_B: Int[Array, " B"] | Int[np.ndarray, " B"] | None = None,
) -> Float32[Array, "B T L K"]:
    """The features of each frame, then for each length their mean and standard deviation over the frames around it.

    It is computed on the device, in float32.

    Args:
        features_BxTxLxD: of the frames of windows, in order.
        lengths: numbers of frames to look at, with the frame itself in the middle; at the ends of a window there are
            fewer, and no padding.
        frames_B: frames of each window that are counted, where its end is padding; all if not given.

    Returns:
        K is D * (1 + 2 * len(lengths)).
    """
    own_BxTxLxD = jnp.asarray(features_BxTxLxD).astype(jnp.float32)
    batch, frames = own_BxTxLxD.shape[:2]
    counted_BxT = jnp.ones((batch, frames), bool)
    if frames_B is not None:
        counted_BxT = jnp.arange(frames) < jnp.asarray(frames_B)[:, None]
    columns = [own_BxTxLxD]
    for length in lengths:
        mean_BxTxLxD, variance_BxTxLxD = _moments_around(own_BxTxLxD, counted_BxT, length)
        columns += [mean_BxTxLxD, jnp.sqrt(variance_BxTxLxD)]
    return jnp.concatenate(columns, axis=-1)


class _FrameMoments(NamedTuple):
    """Of some frames from each frame on: how many are counted, their mean, and the sum of squares around it."""

    count: Float[Array, "B P 1 1"]
    mean: Float[Array, "B P L D"]
    squares: Float[Array, "B P L D"]

    def later(self, frames: int) -> "_FrameMoments":
        """From so many frames later on; beyond the end nothing is counted."""
        return _FrameMoments(*(jnp.pad(a[:, frames:], ((0, 0), (0, frames), (0, 0), (0, 0))) for a in self))

    def merge(self, other: "_FrameMoments") -> "_FrameMoments":
        """Of both sets of frames together, without the cancellation of sums of squares."""
        count = self.count + other.count
        share = other.count / jnp.maximum(count, 1)
        step = other.mean - self.mean
        squares = self.squares + other.squares + step**2 * (self.count * share)
        return _FrameMoments(count, self.mean + step * share, squares)


def _moments_around(
    x_BxTxLxD: Float[Array, "B T L D"], counted_BxT: Bool[Array, "B T"], length: int
) -> tuple[Float[Array, "B T L D"], Float[Array, "B T L D"]]:
    """Mean and variance over the counted ones of `length` frames around each: 2, 4, 8, ... frames are merged."""
    before, frames = length // 2, x_BxTxLxD.shape[1]
    padding = ((0, 0), (before, length), (0, 0), (0, 0))
    count_BxTx1x1 = counted_BxT[:, :, None, None].astype(jnp.float32)
    x_BxPxLxD = jnp.pad(jnp.where(count_BxTx1x1 > 0, x_BxTxLxD, 0), padding)
    doubled = _FrameMoments(jnp.pad(count_BxTx1x1, padding), x_BxPxLxD, jnp.zeros_like(x_BxPxLxD))
    found, done = _FrameMoments(*map(jnp.zeros_like, doubled)), 0
    for bit in range(length.bit_length()):
        if length >> bit & 1:
            found, done = found.merge(doubled.later(done)), done + (1 << bit)
        if length >> bit > 1:
            doubled = doubled.merge(doubled.later(1 << bit))
    variance = found.squares / jnp.maximum(found.count, 1)
    return found.mean[:, :frames], variance[:, :frames]
