"""The pretext task against the original's measured shares and its exact primitives."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfpab_jax.model.masking import (
    MaskingSettings,
    TaskSettings,
    covered,
    draw_segments,
    features_of,
    mask_batch,
    mask_sample,
    segment_count,
    swap_frames,
)

DRAWS = 20_000
REFERENCE_DRAWS = 4000
T, C, F = 599, 6, 26


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    """What 20,000 alterations did to frames that are never 0 and tell frame and feature."""
    frames = jnp.asarray(np.arange(1, T + 1)[:, None] + np.arange(C * F)[None, :] / 1000, jnp.float32)

    @jax.jit
    def facts(key: jax.Array) -> dict[str, jax.Array]:
        masked = mask_sample(frames, key, C, MaskingSettings())
        bins = masked.mask.all(0).reshape(C, F)
        # a frame masked in time is masked in every bin
        times = masked.mask.all(1)
        zero = masked.frames == 0
        swapped = ((masked.frames != frames) & ~zero).any()
        return {
            "mask": masked.mask.mean(),
            "zero": zero.mean(),
            "times": times,
            "bins": bins.all(0),
            "same_bins": (bins.all(0) == bins.any(0)).all(),
            "swap": swapped,
        }

    keys = jax.random.split(jax.random.key(11), DRAWS)
    return {name: np.asarray(x) for name, x in jax.lax.map(facts, keys, batch_size=50).items()}


def share(hits: np.ndarray, expected: float, reference_draws: int = REFERENCE_DRAWS) -> None:
    """Within 3 standard errors of a share that was itself measured over `reference_draws` draws."""
    error = np.sqrt(expected * (1 - expected) * (1 / len(hits) + 1 / reference_draws))
    assert abs(hits.mean() - expected) < 3 * error + 1e-12, (hits.mean(), expected, error)


def mean(values: np.ndarray, expected: tuple[float, float]) -> None:
    value, deviation = expected
    assert abs(values.mean() - value) < 3 * deviation * np.sqrt(1 / len(values) + 1 / REFERENCE_DRAWS) + 1e-7


def test_shares_are_the_originals(drawn: dict[str, np.ndarray], golden: Path) -> None:
    expected = json.loads((golden / "alteration_statistics.json").read_text())
    times = drawn["times"].any(1)
    kinds = expected["time_kind_share"]
    share(~times, kinds["none"])
    share(times & drawn["swap"], kinds["swap"])
    share(times & ~drawn["swap"], kinds["mask"])
    mean(drawn["times"][times].mean(1), expected["time_altered_share_given_altered"])
    bins = drawn["bins"].any(1)
    share(bins, expected["freq_masked_probability"])
    mean(drawn["bins"][bins].mean(1), expected["freq_masked_share_given_masked"])
    mean(drawn["mask"], expected["loss_mask_share"])
    mean(drawn["zero"], expected["zeroed_share"])


def many_masks(frames: int, channels: int, bins: int, draws: int) -> np.ndarray:
    """Masks of this many draws that their own error does not count."""
    ones = jnp.ones((frames, channels * bins))
    keys = jax.random.split(jax.random.key(12), draws)
    masks = jax.jit(
        lambda keys: jax.lax.map(
            lambda key: mask_sample(ones, key, channels, MaskingSettings()).mask, keys, batch_size=1000
        )
    )
    return np.asarray(masks(keys))


def test_bins_at_the_edges_are_the_originals(golden: Path) -> None:
    expected = json.loads((golden / "alteration_statistics.json").read_text())
    hits = many_masks(frames=4, channels=1, bins=F, draws=200_000)[:, -1]  # the last frame: masked by bands alone
    given_masked = hits[hits.any(1)]
    reference = round(REFERENCE_DRAWS * expected["freq_masked_probability"])
    for bin_hits, probability in zip(
        given_masked.T, expected["freq_bin_masked_probability_per_bin_given_masked"], strict=True
    ):
        share(bin_hits, probability, reference)
    assert not hits[:, -1].any(), "the last bin is never masked"


def test_frames_at_the_edges_are_the_originals(drawn: dict[str, np.ndarray], golden: Path) -> None:
    expected = json.loads((golden / "alteration_statistics.json").read_text())
    times = many_masks(frames=T, channels=1, bins=2, draws=50_000)[:, :, 0]  # two bins: too few for a band
    given_altered = times[times.any(1)]
    reference = round(REFERENCE_DRAWS * (1 - expected["time_kind_share"]["none"]))
    first, last = expected["time_frame_altered_probability_first_last_5_given_altered"]
    for hits, probability in zip(np.c_[given_altered[:, :5], given_altered[:, -5:]].T, first + last, strict=True):
        share(hits, probability, reference)
    assert not times[:, -1].any(), "the last frame is never masked"
    assert not drawn["times"][:, -1].any()
    assert drawn["same_bins"].all(), "a band covers the same bins in all channels"


def test_numbers_of_stretches(golden: Path) -> None:
    expected = json.loads((golden / "alteration_statistics.json").read_text())
    assert segment_count(T, 0.15, 3) == expected["num_time_starts"] == 29
    assert segment_count(F, 0.2, 3) == expected["num_freq_starts"] == 1
    assert segment_count(T, 0.0, 3) == segment_count(T, 0.15, 0) == 0


def test_swap_is_the_originals(golden: Path) -> None:
    given = np.load(golden / "alteration_primitives.npz")
    frames = jnp.asarray(given["swap_in"], jnp.float32)
    swapped, targets = swap_frames(
        frames, jnp.asarray(given["swap_src"], "int32"), jnp.asarray(given["swap_dst"], "int32")
    )
    np.testing.assert_array_equal(swapped, given["swap_out"])
    np.testing.assert_array_equal(~np.asarray(targets), given["swap_mask"].astype(bool))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_swap_reads_the_unaltered_source_and_the_last_target_wins(data: st.DataObject) -> None:
    length = 12
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, length - 1), st.integers(0, length - 1)), min_size=6, max_size=6)
    )
    source, target = (jnp.asarray(side, "int32") for side in zip(*pairs, strict=True))
    frames = jnp.arange(length, dtype=jnp.float32)[:, None]
    expected = np.arange(length, dtype=np.float32)
    for read, write in pairs:
        expected[write] = read
    swapped, targets = swap_frames(frames, source, target)
    np.testing.assert_array_equal(swapped[:, 0], expected)
    assert set(np.flatnonzero(targets)) == {write for _, write in pairs}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([(59, 3, 4), (119, 5, 2), (40, 1, 30)]))
def test_starts_are_distinct_and_stay_inside(seed: int, sizes: tuple[int, int, int]) -> None:
    length, width, count = sizes
    positions = np.asarray(draw_segments(jax.random.key(seed), length, count, width))
    assert len(set(positions[:, 0])) == count
    assert positions.min() >= 0
    assert positions.max() <= length - 2
    assert np.asarray(covered(jnp.asarray(positions), length)).sum() <= count * width


def test_reversed_mask_covers_the_last_frame_and_not_the_first() -> None:
    lta2v = MaskingSettings(
        time_share=0.1, time_width=5, mask_probability=1.0, swap_probability=0.0, reverse_probability=1.0,
        frequency_share=0.0,
    )  # fmt: skip
    frames = jnp.ones((59, 12))
    masks = jax.vmap(lambda key: mask_sample(frames, key, 2, lta2v).mask)(jax.random.split(jax.random.key(0), 300))
    assert not masks[:, 0].any()
    assert masks[:, -2].any()


def test_same_key_same_alteration_whatever_the_batch() -> None:
    frames = jax.random.normal(jax.random.key(0), (4, 119, 156))
    keys = jax.random.split(jax.random.key(1), 4)
    arguments = {"task": TaskSettings(), "channels": 6, "sensors": ("back", "thigh")}
    whole = mask_batch(frames, keys, **arguments)
    alone = mask_batch(frames[2:3], keys[2:3], **arguments)
    np.testing.assert_array_equal(whole.input[2], alone.input[0])
    np.testing.assert_array_equal(whole.mask[2], alone.mask[0])


def test_cross_sensor_takes_one_sensor_and_asks_for_the_other() -> None:
    count = 2000
    frames = jnp.broadcast_to(jnp.where(jnp.arange(12) < 6, 1.0, 2.0), (count, 20, 12))
    keys = jax.random.split(jax.random.key(5), count)
    task = TaskSettings(kind="cross_sensor", input_sensor="back", switch_probability=0.3)
    masked = mask_batch(frames, keys, task, channels=6, sensors=("back", "thigh"))
    assert masked.input.shape == masked.target.shape == masked.mask.shape == (count, 20, 6)
    entering = np.asarray(masked.input.max((1, 2)))
    asked = np.asarray(masked.target[:, 0, 0])
    np.testing.assert_array_equal(entering + asked, 3.0)
    share(entering == 2.0, 0.3, 10**9)
    task = TaskSettings(kind="cross_sensor", input_sensor="thigh", switch_probability=0.0)
    never = mask_batch(frames, keys, task, channels=6, sensors=("back", "thigh"))
    assert (never.target == 1.0).all()


def test_cross_sensor_needs_two_sensors_one_after_the_other() -> None:
    task, two = TaskSettings(kind="cross_sensor"), ("back", "thigh")
    assert features_of(task, 104, two, ("back_x", "back_y", "thigh_x", "thigh_y")) == 52
    with pytest.raises(ValueError, match="two sensors"):
        features_of(task, 78, ("hip",), ("hip_x", "hip_y", "hip_z"))
    with pytest.raises(ValueError, match="not one of back, thigh"):
        features_of(TaskSettings(kind="cross_sensor", input_sensor="hip"), 104, two, ("back_x", "thigh_x"))
    for mixed in (("back_x", "thigh_x", "back_y", "thigh_y"), ("back_x", "back_y", "thigh_x")):
        with pytest.raises(ValueError, match="as many of thigh"):
            features_of(task, 104, two, mixed)


@pytest.mark.parametrize("wrong", [{"time_share": 1.5}, {"mask_probability": 0.95}, {"frequency_width": -1}])
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"task\.masking\."):
        MaskingSettings(**wrong)


@pytest.mark.parametrize(
    "masking",
    [
        MaskingSettings(mask_probability=1.0, swap_probability=0.0, reverse_probability=0.5),
        MaskingSettings(mask_probability=0.0, swap_probability=1.0, time_share=0.6, time_width=4),
        MaskingSettings(time_width=0, frequency_share=0.5),
        MaskingSettings(time_share=1.0, frequency_share=0.0),
    ],
    ids=str,
)
@pytest.mark.slow
def test_a_padded_sample_is_masked_as_its_valid_frames_alone(masking: MaskingSettings) -> None:
    length, bins = 47, 13
    frames = jax.random.normal(jax.random.key(1), (length, 2 * bins))
    keys = jax.random.split(jax.random.key(2), 8)
    padded = jax.jit(jax.vmap(lambda key, valid: mask_sample(frames, key, 2, masking, valid), (0, None)))
    hidden = 0
    for valid in (1, 4, 19, 20, 46, 47):
        found = padded(keys, jnp.int32(valid))
        expected = jax.vmap(lambda key, cut: mask_sample(cut, key, 2, masking), (0, None))(keys, frames[:valid])
        np.testing.assert_array_equal(found.frames[:, :valid], expected.frames)
        np.testing.assert_array_equal(found.mask[:, :valid], expected.mask)
        assert not found.mask[:, valid:].any()
        hidden += int(expected.mask.sum())
    assert hidden > 0
