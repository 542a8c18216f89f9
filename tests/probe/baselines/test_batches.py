"""Batches of windows: what is in them, how often, and what is trained on."""

from itertools import islice

import numpy as np
import pytest

from selfpab_jax.data.sources.segments import cut
from selfpab_jax.probe.baselines.batches import network_inputs, prediction_batches, training_batches
from selfpab_jax.probe.budgets import choose_windows
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.signal.stft import spectrogram


def test_inputs_are_samples_or_frames_of_the_padded_signal_and_zeros_beyond(corpus: Corpus):
    recording, count = corpus.recordings[1], int(corpus.frame_counts[1])
    signal_NxC = recording.signal_NxC
    padded = np.pad(signal_NxC, ((0, (count + 1) * 25 - len(signal_NxC)), (0, 0)))
    frames_TxX = spectrogram(padded, corpus.spectrogram)
    assert len(frames_TxX) == count
    first, at = np.array([count - 10]), np.array([1])
    frames = network_inputs(corpus, "frames").windows(at, first, 20)
    np.testing.assert_array_equal(frames[0, :10], frames_TxX[-10:])
    assert frames.shape == (1, 20, 156)
    assert (frames[0, 10:] == 0).all()
    samples = network_inputs(corpus, "signal").windows(at, first, 20)
    assert samples.shape == (1, 19 * 25 + 50, 6)
    rest = signal_NxC[(count - 10) * 25 :]
    np.testing.assert_array_equal(samples[0, : len(rest)], rest)
    assert (samples[0, len(rest) :] == 0).all()


@pytest.mark.parametrize("kind", ["frames", "signal"])
def test_standardization_is_that_of_the_chosen_recordings(corpus: Corpus, kind):
    inputs = network_inputs(corpus, kind)
    standardized = inputs.standardized([0, 2])
    part = np.concatenate(
        [inputs.values_NxX[f : f + n] for f, n in zip(inputs.firsts, inputs.counts, strict=True)][::2]
    )
    np.testing.assert_allclose(standardized.mean_X, part.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(standardized.std_X, part.std(0), rtol=1e-3)
    first = np.array([0]), np.array([5])
    expected = (inputs.windows(*first, 10) - standardized.mean_X) / standardized.std_X
    np.testing.assert_array_equal(standardized.windows(*first, 10), expected)


def test_each_window_comes_as_often_and_only_chosen_rows_have_weight(corpus: Corpus):
    inputs = network_inputs(corpus, "frames")
    mask_R, _ = choose_windows(corpus, corpus.subjects, 2, None, 0)
    batches = training_batches(corpus, inputs, mask_R, batch_size=4, seed=0, random_starts=False, balanced=False)
    chosen = np.unique(corpus.window_R[mask_R])
    assert len(chosen) == 8
    seen = []
    for batch in islice(batches, 6):
        for x_TxX, targets_TxY, weights_T in zip(*batch[:3], strict=True):
            window = next(
                w
                for w in chosen
                if np.array_equal(
                    inputs.windows(corpus.windows.recording_W[[w]], corpus.windows.first_W[[w]], 20)[0], x_TxX
                )
            )
            seen.append(window)
            rows = corpus.window_R == window
            np.testing.assert_array_equal(weights_T[: rows.sum()], mask_R[rows])
            trained = weights_T[: rows.sum()] > 0
            expected = np.eye(len(corpus.classes))[corpus.label_R[rows][trained]]
            np.testing.assert_array_equal(targets_TxY[: rows.sum()][trained], expected)
            assert (weights_T[rows.sum() :] == 0).all()
    np.testing.assert_array_equal(np.unique(seen, return_counts=True)[1], 3)


def test_random_starts_move_windows_within_their_recordings_and_keep_labels_at_their_frames(corpus: Corpus):
    inputs = network_inputs(corpus, "frames")
    rows_R = corpus.label_R >= 0
    batches = training_batches(corpus, inputs, rows_R, batch_size=8, seed=1, random_starts=True, balanced=False)
    label_of = {
        frame.tobytes(): label
        for frame, label in zip(inputs.values_NxX, np.concatenate(corpus.frame_labels), strict=True)
    }
    starts = set()
    for batch in islice(batches, 5):
        for x_TxX, targets_TxY, weights_T in zip(*batch[:3], strict=True):
            starts.add(x_TxX[0].tobytes())
            for frame, label, weight in zip(x_TxX, targets_TxY.argmax(axis=1), weights_T, strict=True):
                assert label == label_of[frame.tobytes()] if weight else not frame.any()
    usual = {
        inputs.windows(r[None], f[None], 20)[0, 0].tobytes()
        for r, f in zip(corpus.windows.recording_W, corpus.windows.first_W, strict=True)
    }
    assert len(starts) > 20
    assert len(starts - usual) > 15


def test_prediction_takes_every_window_once_in_full_batches(corpus: Corpus):
    windows_W = np.arange(3, 10)
    parts = list(prediction_batches(corpus, network_inputs(corpus, "frames"), windows_W, 4))
    assert [len(x) for _, x, _ in parts] == [4, 4]
    np.testing.assert_array_equal(np.concatenate([part for part, _, _ in parts]), windows_W)
    assert all(valid is None for _, _, valid in parts)


def test_whole_recordings_come_with_their_frames_and_the_shares_of_classes(make_corpus, synthetic):
    source = synthetic(subjects=2, damage={"s1": lambda recording: [cut(recording, 0, 3000)]})
    corpus = make_corpus(source, whole=True, labels="densities")
    inputs = network_inputs(corpus, "frames")
    rows_R = corpus.label_R >= 0
    batches = training_batches(corpus, inputs, rows_R, batch_size=1, seed=0, random_starts=True, balanced=False)
    counts = set()
    for batch in islice(batches, 12):
        (count,) = batch.valid_B
        counts.add(int(count))
        assert batch.weights_BxT[0, count:].sum() == 0
        assert not batch.x_BxNxX[0, count:].any()
        np.testing.assert_allclose(batch.targets_BxTxY[0, :count].sum(axis=1), 1, rtol=1e-6)
        of_recording = corpus.frame_densities[list(corpus.frame_counts).index(count)]
        np.testing.assert_array_equal(batch.targets_BxTxY[0, :count], of_recording)
    assert counts == {300, 120}
    assert ((corpus.density_RxY > 0).sum(axis=1) > 1).any(), "no frame has two activities"
    (first, _), (second, _) = ((part, valid) for part, _, valid in prediction_batches(corpus, inputs, np.arange(2), 4))
    assert sorted([*first, *second]) == [0, 1]
