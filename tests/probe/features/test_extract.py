"""Windows through the encoder: which frames go in, which outputs come out, in whatever batches."""

from dataclasses import replace

import numpy as np
import pytest

from selfpab_jax.errors import ConfigError, ModelError
from selfpab_jax.features.encoder import PretrainedEncoder
from selfpab_jax.features.extract import Extraction, encode_windows, prepared
from selfpab_jax.features.sensors import branches_of, frames_of, open_branches
from selfpab_jax.features.windows import make_windows
from selfpab_jax.prefetch import InBackground, several_at_once
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.signal.stft import SpectrogramSettings

EXACT = Extraction(dtype="float32", batch_size=8)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def features_of(corpus: Corpus, branches: tuple, extraction: Extraction, start: int = 0) -> dict[int, np.ndarray]:
    parts = encode_windows(corpus, branches, extraction, start=start)
    return {int(window): features for windows, batch in parts for window, features in zip(windows, batch, strict=True)}


@pytest.fixture(scope="module")
def last(overlapping: Corpus, encoder: PretrainedEncoder) -> dict[int, np.ndarray]:
    return features_of(overlapping, branches_of(encoder, overlapping.channels), EXACT)


def windows_by_hand(overlapping: Corpus, encoder: PretrainedEncoder) -> np.ndarray:
    """Each window as the original makes it: frames of the zero-padded signal, zeros behind them."""
    made = []
    for recording, first, length in zip(*vars(overlapping.windows).values(), strict=True):
        frames = frames_of(overlapping.recordings[recording].signal_NxC, encoder)[first : first + length]
        made.append(np.pad(frames, ((0, length - len(frames)), (0, 0))))
    return np.stack(made)


def test_a_window_is_what_encode_gives(overlapping: Corpus, encoder: PretrainedEncoder, last: dict) -> None:
    x = windows_by_hand(overlapping, encoder)
    assert len(x) == len(last) == len(overlapping.windows.first_W)
    assert (overlapping.rows_of_windows < overlapping.windows.length_W).any(), "no window reaches beyond its recording"
    found = np.stack([last[window] for window in range(len(x))])
    np.testing.assert_allclose(found[:, :, 0], encoder.encode(x, normalized=True), **CLOSE)


def test_frames_cover_every_sample(overlapping: Corpus, encoder: PretrainedEncoder) -> None:
    signal = np.random.default_rng(0).normal(size=(1001, 6)).astype(np.float32)
    for samples in (1, 25, 26, 50, 975, 1000, 1001):
        frames = frames_of(signal[:samples], encoder)
        assert frames.shape == ((samples - 1) // 25 + 1, 156)
    np.testing.assert_allclose(frames[:39], frames_of(signal, encoder, pad=False), **CLOSE)
    assert [len(t) for t in overlapping.frame_labels] == [
        len(frames_of(r.signal_NxC, encoder)) for r in overlapping.recordings
    ]


def test_layers_are_the_embedding_and_every_layer(overlapping: Corpus, encoder: PretrainedEncoder, last: dict) -> None:
    branches = branches_of(encoder, overlapping.channels)
    every = features_of(overlapping, branches, replace(EXACT, layers="all"))
    assert every[0].shape == (20, 3, 16)
    trace = encoder.encode_layers(windows_by_hand(overlapping, encoder)[:1], normalized=True)
    np.testing.assert_allclose(every[0], trace[0], **CLOSE)
    np.testing.assert_allclose(every[3][:, 2:], last[3], **CLOSE)
    chosen = features_of(overlapping, branches, replace(EXACT, layers=(-1, 0), dtype="float16"))
    assert chosen[3].dtype == np.float16
    np.testing.assert_allclose(chosen[3], every[3][:, [2, 0]], rtol=2e-3, atol=2e-3)
    for wrong in ((3,), (-4,), ()):
        with pytest.raises(ConfigError, match="layers"):
            encoder.depths(wrong)


def test_batches_change_nothing(overlapping: Corpus, encoder: PretrainedEncoder, last: dict) -> None:
    branches = branches_of(encoder, overlapping.channels)
    rest = features_of(overlapping, branches, EXACT, start=5)
    order = np.lexsort((overlapping.windows.first_W, overlapping.windows.recording_W, overlapping.windows.length_W))
    assert set(rest) == set(order[5:].tolist())
    for window, features in rest.items():
        np.testing.assert_allclose(features, last[window], **CLOSE)


def test_windows_of_several_lengths(overlapping: Corpus, encoder: PretrainedEncoder) -> None:
    mixed = replace(overlapping, windows=make_windows([19, 13, 33, 27], 20, 20, "fit"))
    found = features_of(mixed, branches_of(encoder, overlapping.channels), EXACT)
    lengths = mixed.windows.length_W
    assert len(found) == len(lengths)
    assert len(set(lengths.tolist())) == 3
    window = int(np.flatnonzero(lengths == 10)[-1])
    first = mixed.windows.first_W[window]
    x = frames_of(overlapping.recordings[1].signal_NxC, encoder)[None, first : first + 10]
    np.testing.assert_allclose(found[window][:, 0], encoder.encode(x, normalized=True)[0], **CLOSE)


def test_one_encoder_a_sensor_merged(overlapping: Corpus, mono_directory) -> None:
    branches = open_branches(mono_directory, overlapping.channels)
    assert [branch.sensors for branch in branches] == [("back",), ("thigh",)]
    alone = [features_of(overlapping, (branch,), EXACT)[2] for branch in branches]
    assert not np.allclose(*alone, atol=1e-2)
    expected = {"mean": np.mean(alone, axis=0), "max": np.max(alone, axis=0), "concatenate": np.concatenate(alone, -1)}
    for merge, features in expected.items():
        found = features_of(overlapping, branches, replace(EXACT, merge=merge))
        np.testing.assert_allclose(found[2], features, **CLOSE)
    with pytest.raises(ConfigError, match="merge is mean, max or concatenate"):
        features_of(overlapping, branches, EXACT)


def test_sensors_are_found_by_name_or_role(overlapping: Corpus, encoder: PretrainedEncoder, mono_directory) -> None:
    swapped = (*overlapping.channels[3:], *overlapping.channels[:3])
    (branch,) = branches_of(encoder, swapped)
    assert branch.columns == (3, 4, 5, 0, 1, 2)
    hip = tuple(channel.replace("thigh", "hip") for channel in overlapping.channels)
    (branch,) = branches_of(encoder, hip, {"hip": "thigh"})
    assert branch.columns == (0, 1, 2, 3, 4, 5)
    (branch,) = open_branches(mono_directory, hip)
    assert branch.sensors == ("back",)
    assert branch.encoder.sensors == ("back",)
    with pytest.raises(ConfigError, match="has no thigh_x"):
        branches_of(encoder, hip)
    with pytest.raises(ConfigError, match="knee=thigh needs a sensor of the data"):
        branches_of(encoder, hip, {"knee": "thigh"})
    with pytest.raises(ConfigError, match="go in as thigh"):
        branches_of(encoder, (*overlapping.channels, "hip_x"), {"hip": "thigh"})
    with pytest.raises(ConfigError, match="knows back, thigh"):
        open_branches(mono_directory, ("wrist_x", "wrist_y", "wrist_z"))


def test_random_weights_are_drawn_by_their_seed(overlapping: Corpus, encoder: PretrainedEncoder, last: dict) -> None:
    branches = branches_of(encoder, overlapping.channels)
    first, again, other = (prepared(branches, replace(EXACT, random_seed=seed))[0].encoder for seed in (5, 5, 6))
    name = "encoder.layers.0.expand.kernel"
    np.testing.assert_array_equal(first.parameters[name], again.parameters[name])
    drawn = [encoder.parameters[name], first.parameters[name], other.parameters[name]]
    assert len({float(kernel[0, 0]) for kernel in drawn}) == 3
    found = features_of(overlapping, branches, replace(EXACT, random_seed=5))[0]
    assert not np.allclose(found, last[0], atol=1e-2)
    expected = first.encode(windows_by_hand(overlapping, encoder)[:1], normalized=True)[0]
    np.testing.assert_allclose(found[:, 0], expected, **CLOSE)


def test_what_does_not_fit_is_told(overlapping: Corpus, encoder: PretrainedEncoder, bare_directory) -> None:
    branches = branches_of(encoder, overlapping.channels)
    other = replace(overlapping, spectrogram=SpectrogramSettings(50.0, 100, 50))
    with pytest.raises(ModelError, match=r"prepared with .*fft_window=100"):
        features_of(other, branches, EXACT)
    with pytest.raises(ConfigError, match="takes its sensors together"):
        features_of(overlapping, branches, replace(EXACT, merge="mean"))
    with pytest.raises(ModelError, match=r"no normalization statistics.*--statistics"):
        open_branches(bare_directory, overlapping.channels)
    for wrong in ({"merge": "sum"}, {"dtype": "float64"}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Extraction(**wrong)


def test_threads_end_and_pass_errors_on() -> None:
    closed = []

    def numbers(upto: int):
        try:
            for number in range(upto):
                if number == 3:
                    raise OSError("no more")
                yield number
        finally:
            closed.append(upto)

    found = []
    with pytest.raises(OSError, match="no more"):
        found.extend(InBackground(numbers(5)))
    reader = iter(InBackground(numbers(100)))
    assert next(reader) == 0
    reader.close()
    assert closed == [5, 100]
    sources = [lambda start=start: iter(range(start, start + 3)) for start in range(0, 30, 3)]
    assert list(several_at_once(sources, workers=4, ahead=1)) == list(range(30))
