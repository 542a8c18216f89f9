"""The encoder: sizes, dtypes, dropout, timestamps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from selfpab_jax.model.config import ModelSettings, forward_flops, training_flops
from selfpab_jax.model.functional import make_functional, packed_shapes, split_packed
from selfpab_jax.model.rng import dropout, random_bits

SMALL = ModelSettings(width=16, heads=4, feedforward=24, layers=2, dropout=0.1, compute="float32")


def small(**changes: object) -> tuple:
    settings = ModelSettings(**{**vars(SMALL), **changes})
    functional = make_functional(settings, 12, 12)
    return functional, functional.initialize(jax.random.key(0))


def test_published_size_has_the_published_number_of_parameters() -> None:
    assert make_functional(ModelSettings(), 156, 156).parameter_count == 61_107_848


def test_published_size_has_the_published_cost() -> None:
    assert forward_flops(ModelSettings(), 156, 156, 599) == pytest.approx(81.8e9, rel=0.002)
    assert training_flops(ModelSettings(), 156, 156, 599) == pytest.approx(245e9, rel=0.002)


def test_hand_count_is_what_the_compiler_counts() -> None:
    functional, parameters = small(layers=3)
    forward = jax.jit(lambda p, x: functional.build(p)(x)).lower(parameters, jnp.ones((1, 40, 12)))
    hlo = forward.as_text()
    counted = sum(_dot_flops(line) for line in hlo.splitlines() if "dot_general" in line)
    assert counted == forward_flops(functional.settings, 12, 12, 40)


def _dot_flops(line: str) -> int:
    """2 * (elements of the result) * (contracted length) of one stablehlo.dot_general line."""
    import math
    import re

    left, _, result = (
        [int(n) for n in shape.split("x")] for shape in re.findall(r"tensor<([\dx]+)x(?:f32|bf16)>", line)[-3:]
    )
    contracted = re.search(r"contracting_dims = \[([\d, ]+)\]", line)
    assert contracted
    return 2 * math.prod(result) * math.prod(left[int(i)] for i in contracted.group(1).split(","))


def test_published_size_forward_in_its_real_shapes_is_abstractly_right() -> None:
    functional = make_functional(ModelSettings(), 156, 156)
    out = jax.eval_shape(
        lambda p, x: functional.build(p)(x), functional.abstract, jax.ShapeDtypeStruct((4, 599, 156), jnp.float32)
    )
    assert out.shape == (4, 599, 156)
    assert out.dtype == jnp.float32


def test_parameters_stay_float32_and_products_run_in_bf16() -> None:
    functional, parameters = small(compute="bfloat16")
    assert {array.dtype for array in parameters.values()} == {jnp.dtype("float32")}
    lowered = jax.jit(lambda p, x: functional.build(p)(x)).lower(parameters, jnp.ones((2, 9, 12))).as_text()
    products = [line for line in lowered.splitlines() if "dot_general" in line]
    assert products
    assert all(line.split(":")[-1].count("bf16") >= 2 for line in products), "an operand is not bf16"


def test_bf16_is_near_float32() -> None:
    exact, parameters = small()
    coarse, _ = small(compute="bfloat16")
    x = jax.random.normal(jax.random.key(1), (2, 30, 12))
    a, b = exact.build(parameters)(x), coarse.build(parameters)(x)
    assert np.linalg.norm(a - b) / np.linalg.norm(a) < 0.02


def test_trace_agrees_with_the_plain_call_and_attention_sums_to_one() -> None:
    functional, parameters = small()
    model = functional.build(parameters)
    x = jax.random.normal(jax.random.key(1), (2, 30, 12))
    trace = model.encoder.trace(x)
    np.testing.assert_allclose(trace.layers[-1], model.encoder(x), rtol=1e-5, atol=1e-6)
    assert len(trace.layers) == len(trace.attention) == 2
    np.testing.assert_allclose(trace.attention[0].sum(-1), 1, rtol=1e-5)


@pytest.mark.slow
def test_rematerialization_changes_nothing_but_memory() -> None:
    functional, parameters = small()
    remat, _ = small(rematerialize="layers")
    x, keys = jax.random.normal(jax.random.key(1), (2, 30, 12)), jax.random.split(jax.random.key(2), 2)

    def gradient(which: object) -> dict:
        return jax.grad(lambda p: jnp.square(which.build(p)(x, keys_B=keys)).mean())(parameters)

    for name, expected in gradient(functional).items():
        np.testing.assert_allclose(gradient(remat)[name], expected, rtol=1e-4, atol=1e-7, err_msg=name)
        break


def test_dropout_belongs_to_the_sample() -> None:
    keys = jax.random.split(jax.random.key(3), 4)
    x = jnp.ones((4, 50, 8))
    whole = dropout(x, 0.1, keys)
    np.testing.assert_array_equal(whole[3:], dropout(x[3:], 0.1, keys[3:]))
    assert not np.array_equal(whole[0], whole[1])
    np.testing.assert_array_equal(dropout(x, 0.1, None), x)
    many = dropout(jnp.ones((4, 200, 500)), 0.1, keys)
    kept = np.asarray(many > 0)
    assert abs(kept.mean() - 0.9) < 3 * np.sqrt(0.09 / kept.size)
    assert float(many.mean()) == pytest.approx(1.0, abs=2e-3)


def test_random_words_are_uniform_and_independent() -> None:
    """Of neighbors in every direction, of samples, and of keys that differ by one bit."""
    keys = jax.vmap(jax.random.wrap_key_data)(jnp.asarray([[0, 0], [0, 1], [1, 0], [2**31, 0]], jnp.uint32))
    words = np.asarray(random_bits(keys, (256, 1024)))
    unit = words / 2**32 - 0.5
    error = 1 / np.sqrt(unit[0].size)
    for sample in unit:
        assert abs(sample.mean()) < 4 * error * np.sqrt(1 / 12)
        assert abs((sample**2).mean() * 12 - 1) < 4 * error * np.sqrt(0.8)
        counts = np.bincount((sample * 1024 + 512).astype(int).ravel(), minlength=1024)
        assert abs(((counts - 256) ** 2 / 256).sum() - 1023) < 4 * np.sqrt(2 * 1023)
        for shift in ((0, 1), (1, 0), (0, 2), (0, 64), (1, 1)):
            assert abs(12 * (sample * np.roll(sample, shift, (0, 1))).mean()) < 4.5 * error
    for i in range(4):
        for j in range(i):
            assert abs(12 * (unit[i] * unit[j]).mean()) < 4.5 * error
    bits = (words[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    assert (abs(bits.mean((0, 1, 2)) - 0.5) < 4.5 * 0.5 / np.sqrt(words.size)).all()


def test_dropout_is_off_without_keys_and_on_with_them() -> None:
    functional, parameters = small(dropout=0.5)
    model = functional.build(parameters)
    x = jax.random.normal(jax.random.key(1), (2, 30, 12))
    keys = jax.random.split(jax.random.key(2), 2)
    assert not np.allclose(model(x), model(x, keys_B=keys))
    off, _ = small(dropout=0.0)
    np.testing.assert_array_equal(off.build(parameters)(x), off.build(parameters)(x, keys_B=keys))


def test_timestamps_are_asked_for_and_only_then_taken() -> None:
    functional, parameters = small()
    x = jnp.ones((1, 5, 12))
    times = jnp.ones((1, 5, 5), jnp.int32)
    with pytest.raises(ValueError, match="takes no timestamps"):
        functional.build(parameters)(x, times)
    calendar, _ = small(temporal_positions=True)
    with pytest.raises(ValueError, match="needs timestamps"):
        calendar.build(parameters)(x)
    assert calendar.build(parameters)(x, times).shape == (1, 5, 12)


@pytest.mark.parametrize("wrong", [{"width": 10}, {"heads": 0}, {"dropout": 1.0}, {"width": 5, "heads": 5}])
def test_impossible_sizes_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"model\."):
        ModelSettings(**{**vars(SMALL), **wrong})


def test_kernels_are_drawn_within_the_bound_of_torchs_packed_weight() -> None:
    _, parameters = small()
    width = SMALL.width
    for part in ("query", "key", "value"):
        kernel = np.asarray(parameters[f"encoder.layers.0.attention.{part}_kernel"])
        assert kernel.shape == (width, SMALL.heads, width // SMALL.heads)
        assert 0.8 < np.abs(kernel).max() / np.sqrt(6 / (4 * width)) <= 1


def test_split_packed_takes_version_01s_arrays_apart() -> None:
    functional, parameters = small()
    packed = {name: np.asarray(array) for name, array in parameters.items()}
    for name in [name for name in packed if name.endswith("query_kernel")]:
        layer = name.removesuffix("query_kernel")
        for kind, axis in (("kernel", 1), ("bias", 0)):
            parts = [packed.pop(f"{layer}{part}_{kind}") for part in ("query", "key", "value")]
            packed[f"{layer}qkv_{kind}"] = np.stack(parts, axis)
    shapes = packed_shapes(functional.abstract)
    assert {name: array.shape for name, array in packed.items()} == {name: s.shape for name, s in shapes.items()}
    split = split_packed(packed)
    assert split.keys() == parameters.keys()
    for name, array in parameters.items():
        np.testing.assert_array_equal(split[name], array)
