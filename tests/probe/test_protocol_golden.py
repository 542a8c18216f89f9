"""The original's downstream protocol, from a recording's samples to their scores."""

import json
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from selfpab_jax.data.sources.base import Recording, Skipped, SourceFile
from selfpab_jax.probe.alignment import (
    frame_labels,
    frame_probabilities,
    padded_frame_count,
    predict_recordings,
    sample_probabilities,
    subject_confusions,
)
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.metrics import confusion, score_subjects
from selfpab_jax.probe.prepare import prepare_corpus
from selfpab_jax.signal.normalization import Statistics, normalize
from selfpab_jax.signal.stft import SpectrogramSettings, spectrogram

FRAMES, SHIFT, CLASSES = 119, 12, 5
SETTINGS = SpectrogramSettings()


class OneRecording:
    """The golden recording as a source."""

    name = "golden"
    channels = ("back_x", "back_y", "back_z", "thigh_x", "thigh_y", "thigh_z")
    card = SimpleNamespace(rate_hz=50.0, classes=tuple((i, str(i)) for i in range(CLASSES)), class_names=tuple("01234"))

    def __init__(self, table: np.ndarray):
        self.table = table

    def files(self) -> Iterator[SourceFile]:
        yield SourceFile("S006", "S006", "S006.csv", len(self.table))

    def passed_over(self) -> list[Skipped]:
        return []

    def read(self, file: SourceFile) -> list[Recording]:
        return [Recording("S006", file.name, None, 50.0, self.table[:, :6], self.table[:, 6].astype(np.int32))]


@pytest.fixture(scope="module")
def expected(golden) -> dict[str, np.ndarray]:
    with np.load(golden / "downstream_protocol.npz") as archive:
        return {name: archive[name] for name in archive}


@pytest.fixture(scope="module")
def recording(expected) -> Corpus:
    source = OneRecording(expected["csv_signal"])
    return prepare_corpus(source, spectrogram=SETTINGS, frames=FRAMES, shift=SHIFT)  # pyright: ignore[reportArgumentType]


def test_training_windows_and_their_labels(expected):
    labels_N = expected["csv_signal"][:, 6].astype(np.int32)
    whole = SETTINGS.frame_count(len(labels_N))
    labels_T = frame_labels(labels_N, CLASSES, 50, 25, whole)
    np.testing.assert_array_equal(labels_T, expected["frame_labels_train"])
    count = int(expected["train_windows"])
    windows_WxT = np.stack([labels_T[SHIFT * w : SHIFT * w + FRAMES] for w in range(count)])
    np.testing.assert_array_equal(windows_WxT, expected["train_y"])


def test_windows_of_the_corpus_hold_the_originals_training_labels(recording, expected):
    labels_T = recording.frame_labels[0]
    assert len(labels_T) == 841
    np.testing.assert_array_equal(labels_T[:839], expected["frame_labels_train"])
    np.testing.assert_array_equal(recording.whole_R, recording.frame_R < 839)
    first_W = recording.windows.first_W
    train_W = np.flatnonzero(first_W + FRAMES <= 839)
    assert len(train_W) == expected["train_windows"]
    rows = recording.label_R[np.isin(recording.window_R, train_W)].reshape(-1, FRAMES)
    np.testing.assert_array_equal(rows, expected["train_y"])


def test_test_windows_are_padded_as_the_originals(recording, expected, golden):
    samples = len(expected["csv_signal"])
    frames = padded_frame_count(samples, 25)
    assert frames == recording.frame_counts[0] == 841
    assert len(recording.windows.first_W) == expected["test_windows"]
    signal_NxC = recording.recordings[0].signal_NxC
    padded_NxC = np.pad(signal_NxC, ((0, (frames - 1) * 25 + 50 - samples), (0, 0)))
    with np.load(golden / "spectrogram.npz") as archive:
        statistics = Statistics(archive["mean"], archive["std"], "given")
    x_TxX = normalize(spectrogram(padded_NxC, SETTINGS), statistics)
    for w, name in ((0, "train_x0"), (60, "train_last_x"), (70, "test_last_x")):
        first, rows = recording.windows.first_W[w], recording.rows_of_windows[w]
        window_TxX = np.zeros((FRAMES, x_TxX.shape[1]), np.float32)
        window_TxX[:rows] = x_TxX[first : first + rows]
        np.testing.assert_array_equal(expected[name][rows:], 0)
        error = np.linalg.norm(window_TxX - expected[name]) / np.linalg.norm(expected[name])
        assert error < 1e-5, name


def test_sample_predictions_and_scores_are_the_originals(recording, expected):
    inside_R = (recording.window_R, recording.frame_R - recording.windows.first_W[recording.window_R])
    probabilities_RxY = expected["window_probabilities"][inside_R]
    predictions = predict_recordings(recording, probabilities_RxY)
    np.testing.assert_array_equal(predictions[0], expected["sample_predictions"])
    np.testing.assert_array_equal(recording.recordings[0].labels_N, expected["sample_truth"])
    scores = score_subjects(subject_confusions(recording, predictions), recording.classes)
    of_subject = scores.subjects["S006"]
    for ours, name in (
        (of_subject.macro_f1, "macro_f1"),
        (scores.macro_f1_mean, "macro_f1"),
        (scores.pooled_macro_f1, "macro_f1"),
        (of_subject.accuracy, "accuracy"),
        (of_subject.f1, "f1_per_class"),
        (of_subject.recall, "recall"),
        (of_subject.precision, "precision"),
        (scores.f1, "f1_per_class"),
    ):
        np.testing.assert_allclose(ours, expected[name], rtol=0, atol=1e-12, err_msg=name)


def test_all_probabilities_agree_with_the_predictions(recording, expected):
    inside_R = (recording.window_R, recording.frame_R - recording.windows.first_W[recording.window_R])
    by_frame_TxY = frame_probabilities(expected["window_probabilities"][inside_R], recording.frame_R, 841)
    by_sample_NxY = sample_probabilities(by_frame_TxY, 21013, 50, 25)
    np.testing.assert_array_equal(by_sample_NxY.argmax(axis=1), expected["sample_predictions"])
    np.testing.assert_allclose(by_sample_NxY.sum(axis=1), 1, atol=1e-6)


def test_absent_classes_count_as_the_originals(golden):
    expected = json.loads((golden / "macro_f1_absent_class.json").read_text())
    matrix = confusion(np.array(expected["y_true"]), np.array(expected["y_pred"]), expected["labels"])
    scores = score_subjects({"one": matrix}, tuple("abcde")).as_dict()
    of_subject = scores["subjects"]["one"]
    assert [f1 is None for f1 in of_subject["f1"]] == [f1 is None for f1 in expected["f1score_per_class"]]
    theirs_Y = expected["f1score_per_class"]
    given = [(ours, theirs) for ours, theirs in zip(of_subject["f1"], theirs_Y, strict=True) if ours is not None]
    np.testing.assert_allclose(*np.array(given).T, rtol=0, atol=1e-12)
    assert of_subject["macro_f1"] == pytest.approx(expected["average_f1score"], abs=1e-12)
    assert of_subject["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-12)
