import numpy as np
import pytest

from selfpab_jax.errors import DataError
from selfpab_jax.signal.normalization import (
    UNKNOWN_HOUR,
    Moments,
    Statistics,
    hour_weighted_statistics,
    merge,
    merged,
    normalize,
    plain_statistics,
)
from selfpab_jax.signal.stft import SpectrogramSettings, spectrogram


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.fixture(scope="module")
def hour_wise(golden):
    return np.load(golden / "hour_wise_norm.npz")


@pytest.fixture(scope="module")
def moments(hour_wise):
    counted = Moments.empty(156)
    for name in hour_wise.files:
        if "/" in name:
            counted.add(spectrogram(hour_wise[name], SpectrogramSettings()), int(name[-2:]))
    return counted


def test_hour_weighted_equals_the_original(moments, hour_wise):
    mean, std = merged(moments.windows, moments.mean_sums, moments.mean_squares)
    assert relative(mean, hour_wise["mean"]) < 1e-6
    assert relative(std, hour_wise["std"]) < 1e-6
    # Element by element the original's own float32 shows: its spectrograms carry 1e-7 of the mean, and std is smaller.
    np.testing.assert_allclose(mean, hour_wise["mean"], rtol=1e-6)
    np.testing.assert_allclose(std, hour_wise["std"], rtol=5e-6)
    assert hour_weighted_statistics(moments).kind == "hour_weighted"


def test_plain_is_over_all_frames(moments, hour_wise):
    frames = np.concatenate(
        [spectrogram(hour_wise[name], SpectrogramSettings()) for name in hour_wise.files if "/" in name]
    ).astype(np.float64)
    statistics = plain_statistics(moments)
    np.testing.assert_allclose(statistics.mean, frames.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.std, frames.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.mean, hour_weighted_statistics(moments).mean, rtol=1e-6)


def test_normalize_equals_the_original(golden):
    expected = np.load(golden / "spectrogram.npz")
    ours = normalize(expected["spectrogram"], Statistics(expected["mean"], expected["std"], "given"))
    np.testing.assert_allclose(ours, expected["normalized"], rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match="78"):
        normalize(expected["spectrogram"][:, :78], Statistics(expected["mean"], expected["std"], "given"))


def test_merging_counts_everything_once():
    rng = np.random.default_rng(0)
    windows = rng.gamma(1.0, 1.0, (12, 7, 5)).astype(np.float32)
    whole, first, second = (Moments.empty(5) for _ in range(3))
    for i, window in enumerate(windows):
        whole.add(window, i % 3 if i % 4 else UNKNOWN_HOUR)
        (first if i < 5 else second).add(window, i % 3 if i % 4 else UNKNOWN_HOUR)
    together = merge([first, second], 5)
    for name, array in whole.to_arrays().items():
        np.testing.assert_allclose(together.to_arrays()[name], array, rtol=1e-14)
    assert whole.windows.sum() == 12
    assert whole.frames.sum() == 84
    assert first.windows.sum() == 5


def test_a_large_mean_costs_no_precision():
    rng = np.random.default_rng(1)
    moments = Moments.empty(3)
    windows = (25 + 1e-3 * rng.normal(size=(200, 50, 3))).astype(np.float32)
    for window in windows:
        moments.add(window, 0)
    _, std = merged(moments.frames, moments.sums, moments.squares)
    np.testing.assert_allclose(std, windows.reshape(-1, 3).astype(np.float64).std(axis=0), rtol=1e-6)


def test_a_constant_feature_gets_the_smallest_std():
    moments = Moments.empty(2)
    moments.add(np.zeros((10, 2), np.float32), 3)
    np.testing.assert_array_equal(plain_statistics(moments).std, np.float32(1e-10))


def test_nothing_counted_is_an_error():
    with pytest.raises(DataError, match="empty"):
        plain_statistics(Moments.empty(2))


def test_saved_and_loaded(tmp_path):
    statistics = Statistics(np.arange(3, dtype=np.float32), np.ones(3, np.float32), "plain")
    statistics.save(tmp_path / "s.npz")
    loaded = Statistics.load(tmp_path / "s.npz")
    np.testing.assert_array_equal(loaded.mean, statistics.mean)
    assert loaded.kind == "plain"
    np.savez(tmp_path / "published.npz", mean=statistics.mean, std=statistics.std)
    assert Statistics.load(tmp_path / "published.npz").kind == "given"


def test_unreadable_statistics_are_an_error(tmp_path):
    (tmp_path / "s.npz").write_bytes(b"no npz")
    np.savez(tmp_path / "other.npz", x=1)
    for name in ("s.npz", "other.npz", "missing.npz"):
        with pytest.raises(DataError, match=name):
            Statistics.load(tmp_path / name)
    with pytest.raises(DataError, match="above 0"):
        Statistics(np.zeros(2, np.float32), np.zeros(2, np.float32), "plain")
    np.savez(tmp_path / "shapes.npz", mean=np.zeros(2, np.float32), std=np.ones(3, np.float32))
    with pytest.raises((DataError, TypeError)):  # by the file's reader, or by the checker of shapes in this test run
        Statistics.load(tmp_path / "shapes.npz")


@pytest.mark.parametrize("name", ["stacked.npy", "text.npz", "shapes.npz", "mean_only.npz", "words.npz", "zero.npz"])
def test_files_that_are_no_statistics_get_one_line(name, tmp_path):
    path, ones = tmp_path / name, np.ones(4, np.float32)
    match name:
        case "stacked.npy":
            np.save(path, np.stack([ones, ones]))
        case "text.npz":
            path.write_text("mean,std\n1,2\n")
        case "shapes.npz":
            np.savez(path, mean=ones, std=np.ones((2, 2)))
        case "mean_only.npz":
            np.savez(path, mean=ones)
        case "words.npz":
            np.savez(path, mean=np.array(["a"]), std=np.array(["b"]))
        case _:
            np.savez(path, mean=ones, std=0 * ones)
    with pytest.raises(DataError, match=name) as raised:
        Statistics.load(path)
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(DataError, match="nowhere"):
        Statistics.load(tmp_path / "nowhere.npz")
