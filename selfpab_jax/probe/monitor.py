"""A linear probe of an encoder that is still training: the same labeled windows, encoded and scored at intervals.

It is made to be cheap and the same every time, so that its curve shows whether features get better. Classes are fitted
by ridge regression on 0 and 1, which has one solution and no hyper-parameters to select; `selfpab-jax probe` scores
better heads. Subjects of the probe should not be scored later by an encoder that was chosen by it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float32, Int

from selfpab_jax.config import load_settings
from selfpab_jax.errors import DataError
from selfpab_jax.features.encoder import PretrainedEncoder
from selfpab_jax.features.extract import configure_encoders, make_forward
from selfpab_jax.features.sensors import input_frames, sensor_encoders
from selfpab_jax.model.functional import Parameters, make_functional
from selfpab_jax.probe.config import ProbeSettings
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.metrics import confusion, macro_f1
from selfpab_jax.probe.run import open_corpus, open_source
from selfpab_jax.probe.splits import group_folds
from selfpab_jax.progress import Progress
from selfpab_jax.train.checkpoint import statistics_of
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.export import config_of
from selfpab_jax.train.loop import Probe

PENALTY = 1.0
"""Of the squared weights of standardized features, per thousand training frames."""


def open_probe(settings: PretrainSettings, metadata: dict[str, Any]) -> Probe:
    """Read the labeled recordings of `settings.probe` and keep the frames of some windows.

    Args:
        settings: of the run.
        metadata: of a checkpoint of the run, which says what its encoder is.

    Returns:
        Its macro-F1 is the mean over subjects, each predicted by a probe of other subjects.

    Raises:
        ConfigError: the preset is wrong, or its sensors do not fit the encoder.
        DataError: the recordings cannot be used, or there are fewer subjects than folds.
    """
    chosen, data = settings.probe, settings.probe.data
    assert chosen.config is not None
    assert data is not None
    probe = load_settings(ProbeSettings, chosen.config)
    config = config_of(metadata, [])
    source = open_source(probe.dataset, Path(data))
    corpus = open_corpus(probe, source, config, strict=False, console=Progress("probe", enabled=False))
    group_folds(corpus.subjects, chosen.folds, 0)  # refused now, if at all
    functional = make_functional(config.model, config.features, config.outputs)
    sensor = config.sensors[0] if config.family == "monoselfpab" else None
    encoder = PretrainedEncoder(config, functional.initialize(jax.random.key(0)), statistics_of(metadata), sensor)
    extraction = replace(probe.features.extraction(None), layers="last", context_seconds=(), dtype="float32")
    encoders = configure_encoders(sensor_encoders(encoder, corpus.channels, probe.dataset.roles), extraction)
    windows_w = _choose(corpus, chosen.windows)
    if not len(windows_w):
        raise DataError(
            f"probe.data {data}: no recording is as long as a window of {corpus.windows.length_W.max()} frames"
        )
    frames = {
        int(r): input_frames(corpus.recordings[r].signal_NxC, encoders) for r in corpus.windows.recording_W[windows_w]
    }
    length = int(corpus.windows.length_W.max())
    spans = [(int(corpus.windows.recording_W[w]), int(corpus.windows.first_W[w])) for w in windows_w]
    x_wxTxX = np.stack([frames[recording][first : first + length] for recording, first in spans])
    label_wxT = np.stack([corpus.frame_labels[recording][first : first + length] for recording, first in spans])
    names = {subject: number for number, subject in enumerate(corpus.subjects)}
    subject_w = np.array([names[corpus.recordings[recording].subject] for recording, _ in spans])
    fold_s = np.zeros(len(names), np.int32)
    for number, fold in enumerate(group_folds(corpus.subjects, chosen.folds, 0).folds):
        fold_s[[names[subject] for subject in fold.test]] = number
    forward = make_forward(encoders, extraction)
    size = extraction.windows_per_batch(length)

    def score(parameters: Parameters) -> float:
        arrays = [{name: parameters[name] for name in each.encoder.parameters} for each in encoders]
        parts = []
        for first in range(0, len(x_wxTxX), size):
            batch = x_wxTxX[first : first + size]
            padded = np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0)))
            parts.append(np.asarray(forward(arrays, padded))[: len(batch), :, 0])
        features_wxTxD = np.concatenate(parts)
        labeled = label_wxT >= 0
        subject_R = np.broadcast_to(subject_w[:, None], label_wxT.shape)[labeled]
        return cross_validated(
            features_wxTxD[labeled], label_wxT[labeled], subject_R, fold_s[subject_R], len(corpus.classes)
        )

    return Probe(score, source.name, tuple(corpus.subjects))


def cross_validated(
    features_RxD: Float32[np.ndarray, "R D"],
    label_R: Int[np.ndarray, " R"],
    subject_R: Int[np.ndarray, " R"],
    fold_R: Int[np.ndarray, " R"],
    classes: int,
) -> float:
    """Macro-F1 of ridge regression, the mean over subjects, each fold predicted from all others.

    Args:
        features_RxD: of labeled frames.
        label_R: class of each.
        subject_R: number of its subject.
        fold_R: number of its fold.
        classes: how many there are.
    """
    predicted_R = np.empty(len(label_R), np.int64)
    target_RxY = np.eye(classes, dtype=np.float64)[label_R]
    for fold in np.unique(fold_R):
        held_out = fold_R == fold
        x, mean, std = _standardized(features_RxD[~held_out])
        target, center = target_RxY[~held_out], target_RxY[~held_out].mean(axis=0)
        penalty = PENALTY * len(x) / 1000 * np.eye(x.shape[1])
        weights_DxY = np.linalg.solve(x.T @ x + penalty, x.T @ (target - center))
        predicted_R[held_out] = ((features_RxD[held_out] - mean) / std @ weights_DxY + center).argmax(axis=1)
    matrices = np.stack([
        confusion(label_R[subject_R == subject], predicted_R[subject_R == subject], classes)
        for subject in np.unique(subject_R)
    ])  # fmt: skip
    return float(np.mean(macro_f1(matrices)))


def _standardized(
    x_RxD: Float32[np.ndarray, "R D"],
) -> tuple[Float[np.ndarray, "R D"], Float[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    mean, std = x_RxD.mean(axis=0, dtype=np.float64), x_RxD.std(axis=0, dtype=np.float64) + 1e-6
    return (x_RxD - mean) / std, mean, std


def _choose(corpus: Corpus, count: int) -> Int[np.ndarray, " w"]:
    """Windows that are whole and have a label, the same number of each subject, evenly spaced."""
    windows = corpus.windows
    whole_W = windows.first_W + windows.length_W <= corpus.frame_counts[windows.recording_W]
    whole_W &= windows.length_W == windows.length_W.max()
    labeled_W = np.array([
        bool((corpus.frame_labels[r][first : first + length] >= 0).any())
        for r, first, length in zip(windows.recording_W, windows.first_W, windows.length_W, strict=True)
    ])  # fmt: skip
    subject_W = np.array([corpus.recordings[r].subject for r in windows.recording_W])
    each = max(1, count // len(corpus.subjects))
    chosen = []
    for subject in corpus.subjects:
        own_w = np.flatnonzero(whole_W & labeled_W & (subject_W == subject))
        chosen.append(
            own_w[np.linspace(0, len(own_w) - 1, min(each, len(own_w))).round().astype(int)] if len(own_w) else own_w
        )
    return np.concatenate(chosen)
