import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from selfpab_jax.errors import DataError
from selfpab_jax.probe.alignment import (
    frame_densities,
    frame_labels,
    frame_probabilities,
    padded_frame_count,
    predict_recordings,
    sample_predictions,
    sample_probabilities,
)

CLASSES = 4


@st.composite
def frames_of_samples(draw) -> tuple[int, int, int]:
    window = draw(st.integers(2, 12))
    return draw(st.integers(1, 80)), window, draw(st.integers(1, window))


@settings(max_examples=150, deadline=None)
@given(shape=frames_of_samples(), data=st.data())
def test_frame_labels_are_the_most_frequent_ties_to_the_smallest(shape, data):
    samples, window, hop = shape
    labels = data.draw(arrays(np.int16, samples, elements=st.integers(-1, CLASSES - 1)))
    frames = padded_frame_count(samples, hop)
    assert (frames - 1) * hop < samples <= (frames - 1) * hop + window
    ours = frame_labels(labels, CLASSES, window, hop, frames)
    for t in range(frames):
        chunk = labels[t * hop : t * hop + window].tolist()
        assert ours[t] == min(set(chunk), key=lambda label: (-chunk.count(label), label))


@settings(max_examples=150, deadline=None)
@given(shape=frames_of_samples(), data=st.data())
def test_frame_densities_are_the_shares_of_labeled_samples(shape, data):
    samples, window, hop = shape
    labels = data.draw(arrays(np.int16, samples, elements=st.integers(-1, CLASSES - 1)))
    frames = padded_frame_count(samples, hop)
    ours = frame_densities(labels, CLASSES, window, hop, frames)
    for t in range(frames):
        chunk = labels[t * hop : t * hop + window]
        known = chunk[chunk >= 0]
        expected = [np.mean(known == label) if len(known) else 0 for label in range(CLASSES)]
        np.testing.assert_allclose(ours[t], expected, rtol=1e-6)


def naive_samples(probabilities_TxY: np.ndarray, samples: int, window: int, hop: int) -> np.ndarray:
    frames, classes = probabilities_TxY.shape
    total, covering = np.zeros((samples + window, classes)), np.zeros((samples + window, 1))
    for t in range(frames):
        if t * hop < samples:
            total[t * hop : t * hop + window] += probabilities_TxY[t]
            covering[t * hop : t * hop + window] += 1
    return total[:samples] / covering[:samples]


@settings(max_examples=150, deadline=None)
@given(shape=frames_of_samples(), seed=st.integers(0, 1000), fewer=st.booleans())
def test_samples_get_the_mean_over_their_frames(shape, seed, fewer):
    samples, window, hop = shape
    frames = padded_frame_count(samples, hop)
    if fewer and (frames - 2) * hop + window >= samples and frames > 1:
        frames -= 1
    probabilities = np.random.default_rng(seed).random((frames, CLASSES)).astype(np.float32)
    expected = naive_samples(probabilities, samples, window, hop)
    np.testing.assert_array_equal(sample_probabilities(probabilities, samples, window, hop), expected)
    np.testing.assert_array_equal(sample_predictions(probabilities, samples, window, hop), expected.argmax(axis=1))


@settings(max_examples=50, deadline=None)
@given(frames=st.integers(1, 20), extra=st.integers(0, 40), seed=st.integers(0, 1000))
def test_frames_get_the_mean_over_their_windows(frames, extra, seed):
    rng = np.random.default_rng(seed)
    frame_R = np.concatenate([np.arange(frames), rng.integers(0, frames, extra)])
    probabilities = rng.random((len(frame_R), CLASSES)).astype(np.float16)
    ours = frame_probabilities(probabilities, frame_R, frames)
    for t in range(frames):
        np.testing.assert_allclose(ours[t], probabilities[frame_R == t].astype(np.float64).mean(axis=0), rtol=1e-12)


def test_frames_and_samples_without_a_prediction_are_refused():
    with pytest.raises(DataError, match="1 of 3 frames"):
        frame_probabilities(np.ones((2, 2)), np.array([0, 2]), 3)
    with pytest.raises(DataError, match="reach 75 samples"):
        sample_probabilities(np.ones((2, 2)), 76, 50, 25)


def test_only_wanted_subjects_need_predictions(corpus):
    probabilities = np.full((len(corpus.label_R), len(corpus.classes)), np.nan)
    mine = corpus.subject_R == 1
    probabilities[mine] = np.eye(len(corpus.classes))[corpus.label_R[mine]]
    predictions = predict_recordings(corpus, probabilities, ["s1"])
    (index,) = predictions
    assert corpus.recordings[index].subject == "s1"
    assert (predictions[index] == corpus.recordings[index].labels_N).mean() > 0.95
    with pytest.raises(DataError, match=r"s0\.csv.*no finite"):
        predict_recordings(corpus, probabilities)
    with pytest.raises(DataError, match="3 rows"):
        predict_recordings(corpus, probabilities[:3])
