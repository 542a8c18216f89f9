"""The pretext task's options beyond the published ones: distributions of masks, and losses by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfpab_jax.errors import ConfigError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model.masking import MaskingSettings, TaskSettings, alter_half, draw_disjoint, mask_batch, mask_sample
from selfpab_jax.signal.normalization import LOG_FLOOR, POWER, Statistics, to_scale
from selfpab_jax.train.step import FrameInfo, Objective

DRAWS = 4000
T, C, F = 60, 6, 4
NOTHING = {"time_share": 0.0, "frequency_share": 0.0}


def masks(settings: MaskingSettings, frames: int = T) -> np.ndarray:
    """Masks of many samples, as (draws, frames, channels, bins)."""
    sample = jnp.ones((frames, C * F))

    def mask(key: jax.Array) -> jax.Array:
        return mask_sample(sample, key, C, settings, sensors=2).mask

    keys = jax.random.split(jax.random.key(3), DRAWS)
    return np.asarray(jax.lax.map(mask, keys, batch_size=200)).reshape(DRAWS, frames, C, F)


def is_share(hits: np.ndarray, expected: float) -> None:
    assert abs(hits.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / len(hits)), (hits.mean(), expected)


def test_disjoint_segments_cover_their_share_exactly_and_every_frame_alike() -> None:
    time = MaskingSettings(time_share=0.8, time_width=6, mask_probability=1, swap_probability=0, frequency_share=0)
    overlapping = masks(time)[:, :, 0, 0].mean(1)
    assert 0.5 < overlapping.mean() < 0.6  # what the published drawing makes of 80%
    exact = masks(MaskingSettings(**{**vars(time), "disjoint": True}))[:, :, 0, 0]
    assert (exact.sum(1) == 48).all()
    for frame in (0, 30, T - 1):
        is_share(exact[:, frame], 0.8)


@given(st.integers(0, 2**31), st.integers(2, 80), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_disjoint_positions_are_distinct_blocks(seed: int, length: int, width: int) -> None:
    count = length // width
    positions = np.asarray(draw_disjoint(jax.random.key(seed), length, count, width))
    assert positions.size == len(set(positions.ravel().tolist()))
    assert ((positions >= 0) & (positions < length)).all()
    assert ((np.diff(positions, axis=1) % length) == 1).all()


@pytest.mark.parametrize("valid", [5, 31, T])
def test_disjoint_segments_stay_in_the_valid_frames(valid: int) -> None:
    time = MaskingSettings(
        time_share=0.5, time_width=5, mask_probability=1, swap_probability=0, frequency_share=0, disjoint=True
    )
    sample = jnp.ones((T, C * F))
    for seed in range(20):
        mask = mask_sample(sample, jax.random.key(seed), C, time, jnp.asarray(valid)).mask.any(1)
        assert not mask[valid:].any()
        assert mask.sum() == 5 * int(0.5 * valid / 5)


def test_one_channel_is_hidden_as_a_whole() -> None:
    hidden = masks(MaskingSettings(**NOTHING, channel_probability=0.4))
    assert (hidden.all((1, 3)) == hidden.any((1, 3))).all()
    by_channel = hidden.all((1, 3))
    is_share(by_channel.any(1), 0.4)
    assert (by_channel.sum(1) <= 1).all()
    for channel in range(C):
        is_share(by_channel[:, channel], 0.4 / C)


def test_one_sensor_is_hidden_as_a_whole() -> None:
    by_channel = masks(MaskingSettings(**NOTHING, sensor_probability=0.5)).all((1, 3))
    back, thigh = by_channel[:, :3].all(1), by_channel[:, 3:].all(1)
    assert (by_channel.sum(1) % 3 == 0).all()
    is_share(back, 0.25)
    is_share(thigh, 0.25)
    assert not (back & thigh).any()


def test_options_that_are_off_change_no_draw() -> None:
    sample = jax.random.normal(jax.random.key(0), (T, C * F))
    for seed in range(50):
        before = mask_sample(sample, jax.random.key(seed), C, MaskingSettings())
        hidden = mask_sample(sample, jax.random.key(seed), C, MaskingSettings(sensor_probability=1), sensors=2)
        columns = hidden.mask.all(0)
        kept = ~np.asarray(columns)
        assert (before.mask[:, kept] == hidden.mask[:, kept]).all()
        assert (before.frames[:, kept] == hidden.frames[:, kept]).all()


@pytest.mark.parametrize("wrong", [{"masking": MaskingSettings(sensor_probability=0.5)}, {"loss": "log_spectral"}])
def test_options_that_the_cross_sensor_task_cannot_have(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="masked"):
        TaskSettings(kind="cross_sensor", **wrong)


@pytest.mark.parametrize("scale", ["linear", "log", "power"])
def test_the_log_spectral_loss_compares_log_magnitudes_on_every_scale(scale: str) -> None:
    rng = np.random.default_rng(0)
    magnitudes = rng.gamma(0.5, 3, (2, T, C * F)).astype(np.float16)
    scaled = to_scale(magnitudes.astype(np.float64), scale)
    statistics = Statistics(
        scaled.mean((0, 1)).astype(np.float32), scaled.std((0, 1)).astype(np.float32), "plain", scale
    )
    model = make_functional(ModelSettings(width=8, heads=1, feedforward=8, layers=1), C * F, C * F)
    objective = Objective(model, TaskSettings(loss="log_spectral"), statistics, ("back", "thigh"), C)
    frames = objective.normalize(jnp.asarray(magnitudes))
    assert np.allclose(frames.mean((0, 1)), 0, atol=1e-3)
    assert np.allclose(frames.std((0, 1)), 1, atol=1e-3)
    logs = np.log(magnitudes.astype(np.float64) + LOG_FLOOR)
    assert np.allclose(objective.compared(frames), logs, atol=2e-3)
    assert np.isfinite(objective.compared(jnp.full((1, T, C * F), -50.0))).all()


def test_scales_by_hand() -> None:
    magnitudes = np.array([0.0, 1.0, 25.0])
    assert to_scale(magnitudes, "linear") is magnitudes
    assert np.allclose(to_scale(magnitudes, "log"), [np.log(0.01), np.log(1.01), np.log(25.01)])
    assert np.allclose(to_scale(jnp.asarray(magnitudes), "power"), [0, 1, 25**POWER])


@pytest.mark.parametrize("kind", ["permuted", "warped"])
@pytest.mark.parametrize("valid", [None, 41])
def test_one_half_is_altered_and_the_other_one_and_the_padding_are_not(kind: str, valid: int | None) -> None:
    frames = jnp.arange(T, dtype=jnp.float32)[:, None]
    half = (valid or T) // 2
    first = 0
    for seed in range(40):
        count = None if valid is None else jnp.array(valid)
        altered, second = alter_half(frames, jax.random.key(seed), kind, count)
        order = np.asarray(altered)[:, 0].astype(int)
        begin = int(second) * half
        own, rest = order[begin : begin + half], np.delete(order, slice(begin, begin + half))
        np.testing.assert_array_equal(rest, np.delete(np.arange(T), slice(begin, begin + half)))
        assert (own != np.arange(begin, begin + half)).any()
        if kind == "permuted":
            assert sorted(own) == list(range(begin, begin + half))
        else:
            assert (own[0], own[-1]) == (begin, begin + half - 1)
            assert (np.diff(own) >= 0).all()
        first += begin == 0
    assert 8 < first < 32


def test_altered_samples_have_their_share() -> None:
    task = TaskSettings(second_head="permuted", second_probability=0.3, masking=MaskingSettings(**NOTHING))
    frames = jnp.broadcast_to(jnp.arange(16.0)[:, None], (DRAWS, 16, C * F))
    keys = jax.random.split(jax.random.key(1), DRAWS)
    batch = mask_batch(frames, keys, task, channels=C, sensors=("back", "thigh"))
    assert batch.altered_half is not None
    half = np.asarray(batch.altered_half)
    is_share(half >= 0, 0.3)
    is_share(half[half >= 0] == 1, 0.5)
    changed = (np.asarray(batch.input) != np.asarray(frames)).any((1, 2))
    np.testing.assert_array_equal(changed, half >= 0)
    np.testing.assert_array_equal(batch.target, batch.input)  # what is reconstructed is the altered sample


@pytest.mark.parametrize("valid", [None, 11])
def test_the_second_heads_loss_by_hand(valid: int | None) -> None:
    task = TaskSettings(second_head="warped", second_weight=0.7)
    statistics = Statistics(np.zeros(C * F, np.float32), np.ones(C * F, np.float32), "plain", "linear")
    settings = ModelSettings(width=8, heads=2, feedforward=8, layers=1, dropout=0, compute="float32")
    functional = make_functional(settings, C * F, C * F, second_head=True)
    objective = Objective(functional, task, statistics, ("back", "thigh"), C)
    spectrogram = jax.random.uniform(jax.random.key(0), (12, 16, C * F)).astype(jnp.float16)
    keys, parameters = jax.random.split(jax.random.key(1), 12), functional.initialize(jax.random.key(2))
    info = FrameInfo(None if valid is None else jnp.full(12, valid))
    errors = objective.errors(parameters, spectrogram, keys, info, training=False)
    plain = Objective(functional, replace(task, second_weight=0), statistics, ("back", "thigh"), C)
    difference = np.asarray(errors - plain.errors(parameters, spectrogram, keys, info, training=False)) / 0.7
    masked, _ = objective.reconstruct(parameters, spectrogram, keys, info, training=False)
    features = functional.build(parameters).encoder(masked.input, valid_B=info.valid_B)
    half = (valid or 16) // 2
    score = np.asarray(features) @ np.asarray(parameters["second_head"])
    odds = score[:, half : 2 * half].mean(1) - score[:, :half].mean(1)
    altered = np.asarray(masked.altered_half)
    expected = np.log1p(np.exp(np.where(altered == 1, -odds, odds)))
    np.testing.assert_allclose(difference, np.where(altered >= 0, expected, 0), atol=1e-5)
    assert set(altered.tolist()) == {-1, 0, 1}


def test_without_a_second_head_nothing_changes() -> None:
    settings = ModelSettings(width=8, heads=2, feedforward=8, layers=1)
    plain, more = (make_functional(settings, 6, 6, second_head=second) for second in (False, True))
    assert set(more.abstract) - set(plain.abstract) == {"second_head"}
    key = jax.random.key(0)
    before, after = plain.initialize(key), more.initialize(key)
    assert all((before[name] == after[name]).all() for name in before)
    with pytest.raises(ConfigError, match="second_head"):
        TaskSettings(kind="cross_sensor", second_head="warped")
