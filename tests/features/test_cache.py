"""Features are computed once, are never stale, survive a kill, and are refused where they do not fit."""

import fcntl
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.errors import DataError, LockedError, ModelError, StorageError
from selfpab_jax.features import cache as feature_cache
from selfpab_jax.features.cache import cached_features, describe_features, open_features
from selfpab_jax.features.encoder import PretrainedEncoder, load_encoder
from selfpab_jax.features.extract import ExtractionSettings, encode_windows
from selfpab_jax.features.sensors import SensorEncoder, sensor_encoders
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.progress import Progress
from selfpab_jax.signal.normalization import Statistics

EXACT = ExtractionSettings(dtype="float32", batch_size=8)


@pytest.fixture(scope="module")
def encoders(overlapping: Corpus, encoder: PretrainedEncoder) -> tuple[SensorEncoder, ...]:
    return sensor_encoders(encoder, overlapping.channels)


@pytest.fixture(scope="module")
def expected(overlapping: Corpus, encoders: tuple[SensorEncoder, ...]) -> np.ndarray:
    """By row, from the windows' own numbering."""
    by_window = {}
    for windows, features in encode_windows(overlapping, encoders, EXACT):
        by_window.update(zip(windows.tolist(), features, strict=True))
    first = overlapping.windows.first_W[overlapping.window_R]
    pairs = zip(overlapping.window_R, overlapping.frame_R - first, strict=True)
    return np.stack([by_window[int(window)][frame] for window, frame in pairs])


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing may be computed."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(feature_cache, "encode_windows", refuse)


@pytest.fixture(scope="module")
def filled(
    overlapping: Corpus, encoders: tuple[SensorEncoder, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[tuple[float, float]]]:
    shown: list[tuple[float, float]] = []

    class RecordingProgress(Progress):
        def update(self, done: float, note: str = "", *, force: bool = False) -> None:
            assert self.total is not None
            shown.append((done, self.total))

    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_cache, "Progress", RecordingProgress)
        cached_features(overlapping, encoders, EXACT, cache)
    return cache, shown


@pytest.mark.usefixtures("no_encoder")
def test_rows_are_the_corpus_rows_and_computed_once(
    overlapping: Corpus, encoders: tuple[SensorEncoder, ...], filled: tuple, expected: np.ndarray
) -> None:
    cache, shown = filled
    table = cached_features(overlapping, encoders, EXACT, cache)
    np.testing.assert_array_equal(table.features_RxLxD, expected)
    assert table.features_RxLxD.shape == (len(overlapping.label_R), 1, 16) == (len(expected), table.layers, table.width)
    assert isinstance(table.features_RxLxD, np.memmap)
    hours = [done for done, _ in shown]
    assert hours == sorted(hours)
    assert shown[-1][0] == shown[-1][1] == pytest.approx(overlapping.windows.length_W.sum() * 0.5 / 3600)
    (folder,) = cache.iterdir()
    assert folder.name == table.key
    assert not (folder / "progress.json").exists()


def test_the_key_knows_all_that_decides_and_nothing_else(
    overlapping: Corpus, encoder: PretrainedEncoder, encoders: tuple[SensorEncoder, ...]
) -> None:
    def key(corpus: Corpus = overlapping, of: PretrainedEncoder = encoder, how: ExtractionSettings = EXACT) -> str:
        return describe_features(corpus, sensor_encoders(of, corpus.channels), how)["key"]

    louder = [replace(r, signal_NxC=r.signal_NxC * np.float32(1.001)) for r in overlapping.recordings]
    moved = replace(overlapping.windows, first_W=overlapping.windows.first_W + 1)
    weights = dict(encoder.parameters)
    weights["encoder.embed.bias"] = weights["encoder.embed.bias"] + np.float32(1e-6)
    statistics = encoder.statistics
    assert statistics is not None
    shifted = Statistics(statistics.mean + np.float32(1e-6), statistics.std, "plain")
    keys = [
        key(),
        key(replace(overlapping, recordings=tuple(louder))),
        key(replace(overlapping, windows=moved)),
        key(of=PretrainedEncoder(encoder.config, weights, encoder.statistics)),
        key(of=PretrainedEncoder(encoder.config, encoder.parameters, shifted)),
        key(how=replace(EXACT, layers="all")),
        key(how=replace(EXACT, dtype="float16")),
        key(how=replace(EXACT, compute="bfloat16")),
        key(how=replace(EXACT, random_seed=7)),
        key(how=replace(EXACT, random_seed=8)),
    ]
    assert len(set(keys)) == len(keys)
    unlabeled = tuple(np.full_like(labels, -1) for labels in overlapping.frame_labels)
    same = [
        key(replace(overlapping, frame_labels=unlabeled, name="renamed")),
        key(how=replace(EXACT, batch_size=3)),
        key(how=replace(EXACT, layers=-1)),
        key(of=replace_dropout(encoder, 0.3)),
    ]
    assert set(same) == {keys[0]}


def replace_dropout(encoder: PretrainedEncoder, rate: float) -> PretrainedEncoder:
    model = replace(encoder.config.model, dropout=rate)
    return PretrainedEncoder(replace(encoder.config, model=model), encoder.parameters, encoder.statistics)


def test_a_killed_computation_continues(
    overlapping: Corpus, encoders: tuple[SensorEncoder, ...], expected: np.ndarray, tmp_path: Path, monkeypatch
) -> None:
    computed: list[int] = []

    def dying_after(batches: int | None):
        def encode(*given: object, start: int = 0) -> Iterator:
            for number, (windows, features) in enumerate(encode_windows(*given, start=start)):
                if number == batches:
                    raise KeyboardInterrupt
                computed.extend(windows.tolist())
                yield windows, features

        return encode

    monkeypatch.setattr(feature_cache, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(feature_cache, "encode_windows", dying_after(3))
    with pytest.raises(KeyboardInterrupt):
        cached_features(overlapping, encoders, EXACT, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "progress.json").read_text()) == {"windows": 24}
    with pytest.raises(DataError, match="no complete features"):
        open_features(folder, overlapping, encoders, EXACT)
    monkeypatch.setattr(feature_cache, "encode_windows", dying_after(None))
    table = cached_features(overlapping, encoders, EXACT, tmp_path)
    assert sorted(computed) == list(range(len(overlapping.windows.first_W)))
    np.testing.assert_allclose(table.features_RxLxD, expected, rtol=1e-5, atol=1e-5)


def test_damaged_features_are_logged_and_computed_again(
    overlapping: Corpus,
    encoders: tuple[SensorEncoder, ...],
    expected: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cached_features(overlapping, encoders, EXACT, tmp_path)
    (folder,) = tmp_path.iterdir()
    whole = (folder / "features.npy").read_bytes()
    for damage in (whole[: len(whole) // 2], None):
        if damage is None:
            (folder / "features.npy").unlink()
        else:
            (folder / "features.npy").write_bytes(damage)
        with pytest.raises(DataError, match="damaged"):
            open_features(folder, overlapping, encoders, EXACT)
        table = cached_features(overlapping, encoders, EXACT, tmp_path)
        np.testing.assert_array_equal(table.features_RxLxD, expected)
    assert len(caplog.messages) == 2
    assert all("damaged" in line for line in caplog.messages)


def test_a_second_process_is_refused(overlapping: Corpus, encoders: tuple[SensorEncoder, ...], tmp_path: Path) -> None:
    folder = tmp_path / describe_features(overlapping, encoders, EXACT)["key"]
    folder.mkdir()
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="another process"):
            cached_features(overlapping, encoders, EXACT, tmp_path)


@pytest.mark.usefixtures("no_encoder")
def test_features_of_another_encoder_are_refused(
    overlapping: Corpus, encoders: tuple[SensorEncoder, ...], filled: tuple, write_tiny, tmp_path: Path
) -> None:
    (folder,) = filled[0].iterdir()
    other = sensor_encoders(load_encoder(write_tiny(tmp_path / "other", seed=9)), overlapping.channels)
    with pytest.raises(ModelError, match="another encoder"):
        open_features(folder, overlapping, other, EXACT)
    with pytest.raises(ModelError, match="another encoder"):
        cached_features(overlapping, other, EXACT, folder)
    with pytest.raises(ModelError, match="other recordings or windows"):
        open_features(folder, replace(overlapping, recordings=overlapping.recordings[::-1]), encoders, EXACT)
    with pytest.raises(ModelError, match="other layers"):
        open_features(folder, overlapping, encoders, replace(EXACT, layers="all"))
    assert cached_features(overlapping, encoders, EXACT, folder).key == folder.name


def test_a_full_disk_is_an_error_before_the_work(
    overlapping: Corpus, encoders: tuple[SensorEncoder, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("selfpab_jax.io.shutil.disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="free space"):
        cached_features(overlapping, encoders, EXACT, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="another cache"):
        cached_features(overlapping, encoders, EXACT, tmp_path / "file")
