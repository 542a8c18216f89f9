"""A random forest on hand-crafted features in the time and frequency domain, of a window centered on each frame."""

from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float32
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.ensemble import RandomForestClassifier

from selfpab_jax.errors import DataError
from selfpab_jax.probe.baselines.batches import (
    cached_per_corpus,
    present_macro_f1,
    rows_of,
    split_training_rows,
)
from selfpab_jax.probe.baselines.config import BaselinePrediction, BaselineSettings
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.splits import Fold
from selfpab_jax.signal.stft import SpectrogramSettings

BANDS_HZ = (0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.5, 5.0, 7.5, 10.0)
"""Lower edges of frequency bands: narrow around the rates of steps; the last band has no upper edge."""
CHANNEL_FEATURES = (
    "mean", "std", "min", "lower_quartile", "median", "upper_quartile", "max", "interquartile_range", "energy",
    "mean_absolute_difference", "dominant_hz", "dominant_power", "spectral_entropy",
    *(f"power_from_{edge:g}_hz" for edge in BANDS_HZ),
)  # fmt: skip
CHUNK_VALUES = 4_000_000
"""Samples of windows in memory at a time: about 100 MB."""


@cached_per_corpus
def handcrafted_features(corpus: Corpus, seconds: float) -> Float32[np.ndarray, "F K"]:
    """Features of the frames of all recordings, one after another, in the order of `feature_names`.

    Args:
        corpus: the data set.
        seconds: length of the window around each frame.

    Raises:
        DataError: a window is shorter than a frame.
    """
    if seconds * corpus.spectrogram.rate_hz < corpus.spectrogram.fft_window:
        frame = corpus.spectrogram.fft_window / corpus.spectrogram.rate_hz
        raise DataError(f"forest.seconds is {seconds:g}, but a single frame lasts {frame:g} s; give at least as much")
    parts = [
        features_of_frames(recording.signal_NxC, len(labels_T), corpus.spectrogram, seconds)
        for recording, labels_T in zip(corpus.recordings, corpus.frame_labels, strict=True)
    ]
    return np.concatenate(parts)


def feature_names(channels: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the features: those of each channel and each sensor's magnitude, then correlations."""
    names = _with_magnitudes(channels)
    pairs = [f"{a}~{b}" for a, b in combinations(names, 2)]
    return tuple([f"{name}.{feature}" for name in names for feature in CHANNEL_FEATURES] + pairs)


def features_of_frames(
    signal_NxC: Float32[np.ndarray, "N C"], frames: int, settings: SpectrogramSettings, seconds: float
) -> Float32[np.ndarray, "T K"]:
    """Features of a recording's frames.

    A window is centered on its frame, or shifted to stay within the recording; a shorter recording is one window.

    Args:
        signal_NxC: C is a multiple of 3: the axes of each sensor.
        frames: T.
        settings: how frames are cut.
        seconds: length of a window.
    """
    signal_CxN = _signals_with_magnitudes(signal_NxC)
    samples = signal_CxN.shape[1]
    window = min(round(seconds * settings.rate_hz), samples)
    centers_T = np.arange(frames) * settings.fft_hop + settings.fft_window // 2
    starts_T = np.clip(centers_T - window // 2, 0, samples - window)
    windows_CxSxW = sliding_window_view(signal_CxN, window, axis=1)
    chunk = max(1, CHUNK_VALUES // (window * len(signal_CxN)))
    parts = [
        _features(windows_CxSxW[:, starts_T[i : i + chunk]].transpose(1, 0, 2), settings.rate_hz)
        for i in range(0, frames, chunk)
    ]
    return np.concatenate(parts)


def _with_magnitudes(channels: tuple[str, ...]) -> list[str]:
    names = []
    for i in range(0, len(channels), 3):
        names += [*channels[i : i + 3], f"{channels[i].rsplit('_', 1)[0]}_magnitude"]
    return names


def _signals_with_magnitudes(signal_NxC: np.ndarray) -> np.ndarray:
    signal_CxN = signal_NxC.T.astype(np.float32)
    sensors = signal_CxN.reshape(-1, 3, signal_CxN.shape[1])
    magnitudes = np.linalg.norm(sensors, axis=1, keepdims=True)
    return np.concatenate([sensors, magnitudes], axis=1).reshape(-1, signal_CxN.shape[1])


def _features(x_TxCxW: Float32[np.ndarray, "T C W"], rate_hz: float) -> Float32[np.ndarray, "T K"]:
    frames, channels, window = x_TxCxW.shape
    ordered = np.sort(x_TxCxW, axis=-1)
    quartiles = [_quantile(ordered, fraction) for fraction in (0.25, 0.5, 0.75)]
    mean = x_TxCxW.mean(-1)
    centered = x_TxCxW - mean[..., None]
    variance = np.square(centered).mean(-1)
    time = [
        mean,
        np.sqrt(variance),
        ordered[..., 0],
        *quartiles,
        ordered[..., -1],
        quartiles[2] - quartiles[0],
        mean**2 + variance,
        np.abs(np.diff(x_TxCxW, axis=-1)).mean(-1),
    ]
    each_TxCxK = np.stack([*time, *_spectral(centered, rate_hz)], axis=-1)
    first, second = np.array(list(combinations(range(channels), 2))).T
    covariance_TxCxC = centered @ centered.transpose(0, 2, 1) / window
    scale_TxP = np.sqrt(variance[:, first] * variance[:, second])
    correlation_TxP = covariance_TxCxC[:, first, second] / np.maximum(scale_TxP, 1e-12)
    return np.concatenate([each_TxCxK.reshape(frames, -1), correlation_TxP], axis=1).astype(np.float32)


def _spectral(centered_TxCxW: np.ndarray, rate_hz: float) -> list[np.ndarray]:
    """Dominant frequency and its power, entropy, and the power in each band, in g²."""
    window = centered_TxCxW.shape[-1]
    taper_W = np.hanning(window + 2)[1:-1].astype(np.float32)
    spectrum = np.asarray(scipy.fft.rfft(centered_TxCxW * taper_W, axis=-1))
    power = 2 * np.square(np.abs(spectrum))[..., 1:] / (window * np.square(taper_W).sum())
    frequency = np.arange(1, power.shape[-1] + 1) * rate_hz / window
    peak = power.argmax(-1)
    total = power.sum(-1)
    fraction = power / np.maximum(total, 1e-12)[..., None]
    entropy = -(fraction * np.log(np.maximum(fraction, 1e-12))).sum(-1) / np.log(max(2, power.shape[-1]))
    edges: list[float] = [*BANDS_HZ, np.inf]
    bands = [power[..., (frequency >= low) & (frequency < high)].sum(-1) for low, high in pairwise(edges)]
    return [frequency[peak].astype(np.float32), power.max(-1), entropy, *bands]


def _quantile(ordered: np.ndarray, fraction: float) -> np.ndarray:
    """Of sorted values, linear between neighbors: as numpy.quantile, which would sort again."""
    position = fraction * (ordered.shape[-1] - 1)
    below, rest = int(position), np.float32(position % 1)
    above = min(below + 1, ordered.shape[-1] - 1)
    return ordered[..., below] * (1 - rest) + ordered[..., above] * rest


def fit_predict_forest(
    corpus: Corpus,
    fold: Fold,
    settings: BaselineSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None = None,
    progress: Callable[[str], None] | None = None,
) -> BaselinePrediction:
    """Train a forest on a fold and predict its test subjects.

    It uses the features of every window length in the settings, or (`lengths="best"`) of the one with the best macro-F1
    on held-out training subjects, and is then trained again on all training subjects. Features are computed once for
    each corpus and window length.

    Args:
        corpus: the data set.
        fold: test and training subjects.
        settings: of the forest and of validation.
        seed: of the forest and of the inner split.
        rows_mask_R: rows whose labels may be used; all if None.
        progress: called with a line for each window length that is validated.

    Raises:
        DataError: fewer than two classes to train on, or a window is shorter than a frame.
    """
    forest = settings.forest
    rows = split_training_rows(corpus, fold, settings.validation_share, seed, rows_mask_R)
    description: dict[str, Any] = {"trees": forest.trees}
    seconds = forest.seconds
    if forest.lengths == "best" and len(seconds) > 1:
        seconds = forest.seconds[:1]
        if rows.fit_R is not None and rows.validation_R is not None:
            scores = {}
            for length in forest.seconds:
                probabilities = _fit_predict(corpus, rows.fit_R, rows.validation_R, (length,), settings, seed)
                scores[length] = present_macro_f1(corpus.label_R[rows.validation_R], probabilities.argmax(1))
                if progress is not None:
                    progress(f"{fold.name}: windows of {length:g} s, validation macro-F1 {scores[length]:.3f}")
            seconds = (max(scores, key=lambda length: scores[length]),)
            description["validation_macro_f1"] = {f"{length:g}": score for length, score in scores.items()}
        description["validation"] = rows.split
    description["seconds"] = list(seconds)
    test_R = rows_of(corpus, fold.test)
    return BaselinePrediction(_fit_predict(corpus, rows.all_R, test_R, seconds, settings, seed), description)


def _fit_predict(
    corpus: Corpus,
    fit_R: Bool[np.ndarray, " R"],
    predict_R: Bool[np.ndarray, " R"],
    seconds: tuple[float, ...],
    settings: BaselineSettings,
    seed: int,
) -> Float32[np.ndarray, "P Y"]:
    features = [handcrafted_features(corpus, length) for length in seconds]
    frames_R = corpus.frame_of_rows
    # Overlapping windows have a row each for the same frame.
    frames, rows = np.unique(frames_R[fit_R], return_index=True)
    labels = corpus.label_R[fit_R][rows]
    forest = RandomForestClassifier(
        settings.forest.trees,
        min_samples_leaf=settings.forest.min_samples_leaf,
        max_samples=min(len(frames), settings.forest.rows_per_tree),
        class_weight="balanced_subsample" if settings.class_weight else None,
        n_jobs=settings.forest.jobs,
        random_state=seed,
    ).fit(np.concatenate([features_FxK[frames] for features_FxK in features], axis=1), labels)
    predicted, inverse = np.unique(frames_R[predict_R], return_inverse=True)
    out_FxY = np.zeros((len(predicted), len(corpus.classes)), np.float32)
    inputs = np.concatenate([features_FxK[predicted] for features_FxK in features], axis=1)
    out_FxY[:, forest.classes_] = forest.predict_proba(inputs)
    return out_FxY[inverse]
