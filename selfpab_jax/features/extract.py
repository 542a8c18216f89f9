"""Windows through a frozen encoder, at the speed of its forward pass."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, Shaped

from selfpab_jax.errors import ConfigError, ModelError
from selfpab_jax.features.encoder import Layers
from selfpab_jax.features.sensors import Branch, branch_frames
from selfpab_jax.model.functional import Parameters
from selfpab_jax.prefetch import InBackground
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.signal.stft import SpectrogramSettings

# Windows through a frozen encoder, at the speed of its forward pass.

Merge = Literal["together", "mean", "max", "concatenate"]
FRAMES_A_BATCH = {"cpu": 1024}
"""Frames that fill a device: more only take memory, and time on CPUs, whose caches they overflow."""
FRAMES_A_BATCH_ELSEWHERE = 2**16
LARGEST_FLOAT16 = 65504.0


@dataclass(frozen=True)
class Extraction:
    """What is kept of an encoder's outputs.

    Args:
        layers: `last`, `all` (the embedding and every layer), or depths: 0 the embedding, 1 the first layer, -1 the
            last one.
        merge: of cross-sensor encoders, one for each sensor: `mean`, `max` or `concatenate` (over the width); an
            encoder of several sensors takes them `together`.
        surroundings_seconds: beside each frame's features, their mean and standard deviation over the frames within so
            many seconds around it, for each length given. They are taken on the host, where a window of the published
            size takes some 20 ms: a GPU waits for that.
        random_seed: weights drawn anew by this seed instead of the trained ones; None for the trained ones.
        compute: dtype of matrix products.
        batch_size: windows at a time; None for as many as fill the device.
        dtype: of the features kept.
    """

    layers: Layers = "last"
    merge: Merge = "together"
    surroundings_seconds: tuple[float, ...] = ()
    random_seed: int | None = None
    compute: Literal["float32", "bfloat16"] = "float32"
    batch_size: int | None = None
    dtype: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        for name, choices in (
            ("merge", ("together", "mean", "max", "concatenate")),
            ("compute", ("float32", "bfloat16")),
            ("dtype", ("float16", "float32")),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; it must be at least 1")

    def windows_a_batch(self, frames: int) -> int:
        """How many windows of so many frames go through the encoder at a time."""
        filling = FRAMES_A_BATCH.get(jax.default_backend(), FRAMES_A_BATCH_ELSEWHERE)
        return self.batch_size or max(1, filling // frames)


def prepared(branches: tuple[Branch, ...], extraction: Extraction) -> tuple[Branch, ...]:
    """The branches with the weights and the dtype that the extraction asks for.

    Raises:
        ConfigError: `merge` or `layers` do not fit the encoder.
    """
    first = branches[0].encoder
    first.depths(extraction.layers)
    if first.config.family == "monoselfpab":
        if extraction.merge == "together" and len(branches) > 1:
            sensors = " and ".join(sensor for branch in branches for sensor in branch.sensors)
            raise ConfigError(
                f"this cross-sensor model takes {sensors} one at a time: merge is mean, max or concatenate, "
                "or choose one sensor"
            )
    elif extraction.merge != "together":
        raise ConfigError(f"merge is {extraction.merge}; this model takes its sensors together: leave it out")
    encoders = [branch.encoder.with_compute(extraction.compute) for branch in branches]
    if jax.default_backend() != "cpu":
        encoders = [encoder.with_layout("padded") for encoder in encoders]  # whatever it was trained in
    if extraction.random_seed is not None:
        drawn = encoders[0].with_random_weights(extraction.random_seed)
        encoders = [drawn, *(drawn.for_sensor(encoder.sensors[0]) for encoder in encoders[1:])]
    return tuple(Branch(e, b.columns, b.sensors) for e, b in zip(encoders, branches, strict=True))


def feature_shape(branches: tuple[Branch, ...], extraction: Extraction) -> tuple[int, int]:
    """(L, D) of the features, with their surroundings."""
    encoder = branches[0].encoder
    wide = len(branches) if extraction.merge == "concatenate" else 1
    wide *= 1 + 2 * len(extraction.surroundings_seconds)
    return len(encoder.depths(extraction.layers)), wide * encoder.width


Forward = Callable[[list[Parameters], Shaped[np.ndarray, "B T X"]], Array]


def make_forward(branches: tuple[Branch, ...], extraction: Extraction, *, pool: bool = False) -> Forward:
    """The compiled pass from normalized frames (B, T, X) to features (B, T, L, D), or (B, L, D) with `pool`.

    Args:
        branches: as `prepared` gives them.
        extraction: what to keep.
        pool: the mean over frames, taken on the device.
    """
    depths = branches[0].encoder.depths(extraction.layers)
    edges = np.cumsum([branch.encoder.features for branch in branches])[:-1]

    def forward(parameters: list[Parameters], x_BxTxX: Array) -> Array:
        outputs = [
            branch.encoder.hidden(arrays, part_BxTxX, None, depths)
            for branch, arrays, part_BxTxX in zip(branches, parameters, jnp.split(x_BxTxX, edges, axis=2), strict=True)
        ]
        merged = _merged(outputs, extraction.merge)
        if pool:
            merged = merged.mean(axis=1)
        if extraction.dtype == "float16":
            merged = jnp.clip(merged, -LARGEST_FLOAT16, LARGEST_FLOAT16)
        return merged.astype(extraction.dtype)

    return jax.jit(forward)


def _merged(outputs: list[Array], merge: Merge) -> Array:
    match merge:
        case "mean":
            return jnp.stack(outputs).mean(axis=0)
        case "max":
            return jnp.stack(outputs).max(axis=0)
        case _:
            return jnp.concatenate(outputs, axis=-1)


def run_ahead(
    batches: Iterator[tuple[Any, Float32[np.ndarray, "B T X"]]], forward: Forward, parameters: list[Parameters]
) -> Iterator[tuple[Any, np.ndarray]]:
    """Each batch's tag and features; the device has the next batch before the host fetches the last one's features."""
    waiting: tuple[Any, Array] | None = None
    for tag, x_BxTxX in batches:
        begun = (tag, forward(parameters, x_BxTxX))
        if waiting is not None:
            yield waiting[0], np.asarray(waiting[1])
        waiting = begun
    if waiting is not None:
        yield waiting[0], np.asarray(waiting[1])


def window_order(corpus: Corpus) -> Int[np.ndarray, " W"]:
    """The windows in the order in which they are encoded: by length, so that few shapes are compiled."""
    windows = corpus.windows
    return np.lexsort((windows.first_W, windows.recording_W, windows.length_W))


def encode_windows(
    corpus: Corpus, branches: tuple[Branch, ...], extraction: Extraction, *, start: int = 0
) -> Iterator[tuple[Int[np.ndarray, " b"], Shaped[np.ndarray, "b T L D"]]]:
    """The features of a corpus' windows, from place `start` of `window_order` on: (windows, features) a batch.

    Frames are made in one thread, the encoder runs from another, and the caller writes meanwhile. Memory: a few
    batches, and the frames of two recordings. Windows that reach beyond their recording see zeros there, after
    normalization, as in the original.

    Raises:
        ModelError: the corpus was prepared with another spectrogram than the encoder's.
        ConfigError: `merge` or `layers` do not fit.
    """
    branches = prepared(branches, extraction)
    wanted = branches[0].encoder.config.spectrogram
    if corpus.spectrogram != wanted:
        raise ModelError(f"the data was prepared with {corpus.spectrogram}; this encoder needs {wanted}")
    forward = make_forward(branches, extraction)
    parameters = [branch.encoder.parameters for branch in branches]
    batches = InBackground(_batches(corpus, branches, extraction, start))
    for windows_b, features_BxTxLxD in InBackground(run_ahead(iter(batches), forward, parameters), ahead=1):
        yield windows_b, features_BxTxLxD[: len(windows_b)]


def _batches(
    corpus: Corpus, branches: tuple[Branch, ...], extraction: Extraction, start: int
) -> Iterator[tuple[Int[np.ndarray, " b"], Float32[np.ndarray, "B T X"]]]:
    """Windows of one length, and their frames; the last batch of a length is filled up with zeros."""

    @lru_cache(maxsize=2)
    def frames(recording: int) -> Float32[np.ndarray, "T X"]:
        return branch_frames(corpus.recordings[recording].signal_NxC, branches)

    windows, order_W = corpus.windows, window_order(corpus)[start:]
    features = sum(branch.encoder.features for branch in branches)
    for length in np.unique(windows.length_W[order_W]):
        same_w = order_W[windows.length_W[order_W] == length]
        batch_size = extraction.windows_a_batch(int(length))
        for at in range(0, len(same_w), batch_size):
            batch_w = same_w[at : at + batch_size]
            x_BxTxX = np.zeros((batch_size, length, features), np.float32)
            for place, window in enumerate(batch_w):
                first = windows.first_W[window]
                given_TxX = frames(int(windows.recording_W[window]))[first : first + length]
                x_BxTxX[place, : len(given_TxX)] = given_TxX
            yield batch_w, x_BxTxX


# What lies around each frame: a frame of a second does not tell how its surroundings vary.


def frames_of(seconds: float, spectrogram: SpectrogramSettings) -> int:
    """Frames that lie wholly in a stretch of so many seconds around a frame's center.

    Raises:
        ConfigError: fewer than two.
    """
    frames = int((seconds * spectrogram.rate_hz - spectrogram.fft_window) // spectrogram.fft_hop) + 1
    if frames < 2:
        least = (spectrogram.fft_window + spectrogram.fft_hop) / spectrogram.rate_hz
        raise ConfigError(f"surroundings of {seconds:g} s hold one frame only; give at least {least:g} s")
    return frames


def with_surroundings(
    features_TxLxD: Shaped[np.ndarray, "T L D"], lengths: tuple[int, ...]
) -> Float32[np.ndarray, "T L K"]:
    """Each frame's features, then for each length their mean and standard deviation over the frames around it.

    Args:
        features_TxLxD: of the frames of a window, in order.
        lengths: frames of the surroundings, the frame's own place in the middle; at the window's ends they are
            shorter, never filled up.

    Returns:
        K is D * (1 + 2 * len(lengths)).
    """
    own_TxLxD = features_TxLxD.astype(np.float32)
    # Sums run over the whole window: less its mean, so that squares lose no digits.
    centered_TxLxD = own_TxLxD.astype(np.float64) - own_TxLxD.mean(axis=0, dtype=np.float64)
    nothing = np.zeros((1, *own_TxLxD.shape[1:]))
    sums = np.concatenate([nothing, np.cumsum(centered_TxLxD, axis=0)])
    squares = np.concatenate([nothing, np.cumsum(centered_TxLxD**2, axis=0)])
    places_T = np.arange(len(own_TxLxD))
    parts = [own_TxLxD]
    for length in lengths:
        first_T = np.clip(places_T - length // 2, 0, None)
        end_T = np.clip(places_T - length // 2 + length, None, len(own_TxLxD))
        count_T = (end_T - first_T)[:, None, None]
        mean_TxLxD = (sums[end_T] - sums[first_T]) / count_T
        variance_TxLxD = (squares[end_T] - squares[first_T]) / count_T - mean_TxLxD**2
        parts.append((mean_TxLxD + own_TxLxD.mean(axis=0, dtype=np.float64)).astype(np.float32))
        parts.append(np.sqrt(np.maximum(variance_TxLxD, 0)).astype(np.float32))
    return np.concatenate(parts, axis=-1)
