"""Windows through the encoder: which frames go in, which outputs come out, in whatever batches."""

from dataclasses import replace

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from selfpab_jax.errors import ConfigError, ModelError
from selfpab_jax.features.encoder import PretrainedEncoder
from selfpab_jax.features.extract import ExtractionSettings, configure_encoders, encode_windows, feature_shape
from selfpab_jax.features.sensors import normalized_frames, open_sensor_encoders, sensor_encoders
from selfpab_jax.features.windows import make_windows, whole_recordings
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.signal.stft import SpectrogramSettings

EXACT = ExtractionSettings(dtype="float32", batch_size=8)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def features_of(
    corpus: Corpus, encoders: tuple, extraction: ExtractionSettings, start: int = 0
) -> dict[int, np.ndarray]:
    parts = encode_windows(corpus, encoders, extraction, start=start)
    return {int(window): features for windows, batch in parts for window, features in zip(windows, batch, strict=True)}


@pytest.fixture(scope="module")
def last(overlapping: Corpus, encoder: PretrainedEncoder) -> dict[int, np.ndarray]:
    return features_of(overlapping, sensor_encoders(encoder, overlapping.channels), EXACT)


def windows_by_hand(overlapping: Corpus, encoder: PretrainedEncoder) -> np.ndarray:
    """Each window as the original makes it: frames of the zero-padded signal, zeros behind them."""
    made = []
    windows = overlapping.windows
    for recording, first, length in zip(windows.recording_W, windows.first_W, windows.length_W, strict=True):
        frames = normalized_frames(overlapping.recordings[recording].signal_NxC, encoder)[first : first + length]
        made.append(np.pad(frames, ((0, length - len(frames)), (0, 0))))
    return np.stack(made)


def test_a_window_is_what_encode_gives(overlapping: Corpus, encoder: PretrainedEncoder, last: dict) -> None:
    x = windows_by_hand(overlapping, encoder)
    assert len(x) == len(last) == len(overlapping.windows.first_W)
    assert (overlapping.rows_of_windows < overlapping.windows.length_W).any(), "no window reaches beyond its recording"
    found = np.stack([last[window] for window in range(len(x))])
    np.testing.assert_allclose(found[:, :, 0], encoder.encode(x, normalized=True), **CLOSE)


def test_the_input_are_the_normalized_frames_with_their_context(
    overlapping: Corpus, encoder: PretrainedEncoder
) -> None:
    encoders = sensor_encoders(encoder, overlapping.channels)
    extraction = replace(EXACT, layers="input", context_seconds=(5,))
    found = features_of(overlapping, encoders, extraction)
    x = windows_by_hand(overlapping, encoder)
    assert feature_shape(encoders, extraction) == (1, 3 * x.shape[2])
    np.testing.assert_allclose(found[3][:, 0, : x.shape[2]], x[3], **CLOSE)
    rows = overlapping.rows_of_windows[3]
    np.testing.assert_allclose(found[3][2, 0, x.shape[2] : 2 * x.shape[2]], x[3][: min(7, rows)].mean(axis=0), **CLOSE)


def test_layers_are_the_embedding_and_every_layer(overlapping: Corpus, encoder: PretrainedEncoder, last: dict) -> None:
    encoders = sensor_encoders(encoder, overlapping.channels)
    every = features_of(overlapping, encoders, replace(EXACT, layers="all"))
    assert every[0].shape == (20, 3, 16)
    trace = encoder.encode_layers(windows_by_hand(overlapping, encoder)[:1], normalized=True)
    np.testing.assert_allclose(every[0], trace[0], **CLOSE)
    np.testing.assert_allclose(every[3][:, 2:], last[3], **CLOSE)
    chosen = features_of(overlapping, encoders, replace(EXACT, layers=(-1, 0), dtype="float16"))
    assert chosen[3].dtype == np.float16
    np.testing.assert_allclose(chosen[3], every[3][:, [2, 0]], rtol=2e-3, atol=2e-3)
    for wrong in ((3,), (-4,), ()):
        with pytest.raises(ConfigError, match="layers"):
            encoder.depths(wrong)


def test_batches_change_nothing(overlapping: Corpus, encoder: PretrainedEncoder, last: dict) -> None:
    encoders = sensor_encoders(encoder, overlapping.channels)
    rest = features_of(overlapping, encoders, EXACT, start=5)
    order = np.lexsort((overlapping.windows.first_W, overlapping.windows.recording_W, overlapping.windows.length_W))
    assert set(rest) == set(order[5:].tolist())
    for window, features in rest.items():
        np.testing.assert_allclose(features, last[window], **CLOSE)


def test_windows_of_several_lengths(overlapping: Corpus, encoder: PretrainedEncoder) -> None:
    mixed = replace(overlapping, windows=make_windows([19, 13, 33, 27], 20, 20, "fit"))
    found = features_of(mixed, sensor_encoders(encoder, overlapping.channels), EXACT)
    lengths = mixed.windows.length_W
    assert len(found) == len(lengths)
    assert len(set(lengths.tolist())) == 3
    window = int(np.flatnonzero(lengths == 10)[-1])
    first = mixed.windows.first_W[window]
    x = normalized_frames(overlapping.recordings[1].signal_NxC, encoder)[None, first : first + 10]
    np.testing.assert_allclose(found[window][:, 0], encoder.encode(x, normalized=True)[0], **CLOSE)


def test_a_whole_recording_is_encoded_as_if_it_were_alone(overlapping: Corpus, encoder: PretrainedEncoder) -> None:
    counts = [30, 20, 17, 29]  # the next lengths are 30, 22, 22 and 30
    short = tuple(
        replace(recording, signal_NxC=recording.signal_NxC[: 25 * count], labels_N=recording.labels_N[: 25 * count])
        for recording, count in zip(overlapping.recordings, counts, strict=True)
    )
    labels = tuple(of_frames[:count] for of_frames, count in zip(overlapping.frame_labels, counts, strict=True))
    windows = whole_recordings(counts)
    assert len(set(windows.length_W.tolist())) == 2
    corpus = replace(overlapping, recordings=short, frame_labels=labels, windows=windows)
    encoders = sensor_encoders(encoder, corpus.channels)
    for batch_size in (1, 8):
        found = features_of(corpus, encoders, replace(EXACT, batch_size=batch_size))
        for window, count in enumerate(counts):
            x = normalized_frames(short[window].signal_NxC, encoder)[None]
            assert x.shape[1] == count == corpus.rows_of_windows[window]
            expected = encoder.encode(x, normalized=True)[0]
            np.testing.assert_allclose(found[window][:count, 0], expected, **CLOSE)
    attended = features_of(replace(corpus, windows=replace(windows, masked=False)), encoders, EXACT)
    assert not np.allclose(attended[2][:17], found[2][:17], atol=1e-3)


def test_a_cross_sensor_encoder_encodes_each_sensor_and_merges(overlapping: Corpus, mono_directory) -> None:
    encoders = open_sensor_encoders(mono_directory, overlapping.channels)
    assert [each.sensors for each in encoders] == [("back",), ("thigh",)]
    alone = [features_of(overlapping, (each,), EXACT)[2] for each in encoders]
    assert not np.allclose(*alone, atol=1e-2)
    expected = {"mean": np.mean(alone, axis=0), "max": np.max(alone, axis=0), "concatenate": np.concatenate(alone, -1)}
    for merge, features in expected.items():
        found = features_of(overlapping, encoders, replace(EXACT, merge=merge))
        np.testing.assert_allclose(found[2], features, **CLOSE)
    with pytest.raises(ConfigError, match="merge"):
        features_of(overlapping, encoders, EXACT)


def test_random_weights_are_drawn_by_their_seed(overlapping: Corpus, encoder: PretrainedEncoder, last: dict) -> None:
    encoders = sensor_encoders(encoder, overlapping.channels)
    first, again, other = (
        configure_encoders(encoders, replace(EXACT, random_seed=seed))[0].encoder for seed in (5, 5, 6)
    )
    name = "encoder.layers.0.expand.kernel"
    np.testing.assert_array_equal(first.parameters[name], again.parameters[name])
    drawn = [encoder.parameters[name], first.parameters[name], other.parameters[name]]
    assert len({float(kernel[0, 0]) for kernel in drawn}) == 3
    found = features_of(overlapping, encoders, replace(EXACT, random_seed=5))[0]
    assert not np.allclose(found, last[0], atol=1e-2)
    expected = first.encode(windows_by_hand(overlapping, encoder)[:1], normalized=True)[0]
    np.testing.assert_allclose(found[:, 0], expected, **CLOSE)


def test_what_does_not_fit_is_refused(overlapping: Corpus, encoder: PretrainedEncoder, bare_directory) -> None:
    encoders = sensor_encoders(encoder, overlapping.channels)
    other = replace(overlapping, spectrogram=SpectrogramSettings(50.0, 100, 50))
    with pytest.raises(ModelError, match=r"prepared with .*fft_window=100"):
        features_of(other, encoders, EXACT)
    with pytest.raises(ConfigError, match="together"):
        features_of(overlapping, encoders, replace(EXACT, merge="mean"))
    with pytest.raises(ModelError, match="--statistics"):
        open_sensor_encoders(bare_directory, overlapping.channels)
    for wrong in ({"merge": "sum"}, {"dtype": "float64"}, {"batch_size": 0}):
        with pytest.raises((ConfigError, TypeCheckError), match=next(iter(wrong))):
            ExtractionSettings(**wrong)
