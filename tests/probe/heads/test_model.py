import jax
import jax.numpy as jnp
import numpy as np
import pytest

from selfpab_jax.errors import ConfigError
from selfpab_jax.probe.heads.model import HeadSettings, cross_entropy, head_logits, init_head, one_hot

LAYERS, WIDTH, CLASSES, ROWS = 3, 5, 4, 7


@pytest.mark.parametrize("kind", ["linear", "mlp", "temporal"])
def test_folded_logits_are_those_of_standardized_rows(kind):
    draw = np.random.default_rng(0)
    settings = HeadSettings(kind=kind, hidden=6, taps=3)
    taps = 3 if kind == "temporal" else 1
    head = {name: np.asarray(a) for name, a in init_head(jax.random.key(0), settings, LAYERS, WIDTH, CLASSES).items()}
    head["mix_L"] = draw.standard_normal(LAYERS).astype(np.float32)
    x, mean = draw.standard_normal((2, ROWS, taps, LAYERS, WIDTH)).astype(np.float32)
    mean, std = mean[0], np.exp(draw.standard_normal((taps, LAYERS, WIDTH))).astype(np.float32)

    mix = np.exp(head["mix_L"]) / np.exp(head["mix_L"]).sum()
    mixed = np.einsum("l,bwld->bwd", mix, (x - mean) / std)
    weights_WxH = head.get("tap_WxH", np.ones((1, 1)))
    expected = np.einsum("bwd,dh,wh->bh", mixed, head["weight_DxH"], weights_WxH) + head["bias_H"]
    if kind != "linear":
        expected = np.maximum(expected, 0) @ head["out_HxY"] + head["out_bias_Y"]
    got = head_logits(*jax.tree.map(jnp.asarray, (head, mean.ravel(), std.ravel(), x.reshape(ROWS, -1))))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert sum(a.size for a in head.values()) == settings.parameter_count(LAYERS, WIDTH, CLASSES)


def test_initial_parameters_are_uniform_as_torch_draws_them():
    head = init_head(jax.random.key(3), HeadSettings(kind="mlp", hidden=200), 2, 400, 5)
    for name, inputs in (("weight_DxH", 400), ("bias_H", 400), ("out_HxY", 200), ("out_bias_Y", 200)):
        bound = inputs**-0.5
        assert np.abs(head[name]).max() <= bound
    assert np.std(head["weight_DxH"]) == pytest.approx(400**-0.5 / 3**0.5, rel=0.02)
    assert not np.any(head["mix_L"])
    assert not np.array_equal(head["bias_H"][:5], init_head(jax.random.key(4), HeadSettings(), 2, 400, 5)["bias_H"])


def test_a_temporal_head_starts_with_weighted_means_and_sees_frames_evenly_spaced():
    settings = HeadSettings(kind="temporal", hidden=500, taps=5, reach_seconds=5)
    taps_WxH = np.asarray(init_head(jax.random.key(0), settings, 1, 8, 4)["tap_WxH"])
    assert taps_WxH.shape == (5, 500)
    assert 0 <= taps_WxH.min() < taps_WxH.max() <= 2 / 5
    assert taps_WxH.sum(0).mean() == pytest.approx(1, abs=0.05)
    assert settings.offsets(2) == (-10, -5, 0, 5, 10)
    assert HeadSettings(kind="mlp").offsets(2) == ()
    with pytest.raises(ConfigError, match=r"5 taps need 1 s or more"):
        HeadSettings(kind="temporal", taps=5, reach_seconds=0.5).offsets(2)


def test_cross_entropy_is_the_mean_over_the_rows_that_count():
    logits = np.random.default_rng(0).standard_normal((6, CLASSES)).astype(np.float32)
    labels, weights = np.array([0, 1, 2, 3, 0, -1]), np.array([1, 2, 0.5, 0, 1, 0], np.float32)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -(weights * log_p[np.arange(6), labels]).sum() / weights.sum()
    targets = one_hot(jnp.asarray(labels), CLASSES)
    found = cross_entropy(jnp.asarray(logits), targets, jnp.asarray(weights))
    assert found == pytest.approx(expected, rel=1e-5)
    nothing = cross_entropy(jnp.asarray(logits), targets, jnp.zeros(6, jnp.float32))
    assert nothing == 0
    shares = np.random.default_rng(1).dirichlet(np.ones(CLASSES), 6).astype(np.float32)
    soft = cross_entropy(jnp.asarray(logits), jnp.asarray(shares), jnp.asarray(weights))
    assert soft == pytest.approx(-(weights * (log_p * shares).sum(1)).sum() / weights.sum(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "tree"),
        ("optimizer", "sgd"),
        ("epochs", 0),
        ("beta2", 1.0),
        ("decay", 0.0),
        ("memory_gib", 0),
        ("taps", 4),
    ],
)
def test_impossible_settings_are_refused(name, value):
    settings = HeadSettings()
    object.__setattr__(settings, name, value)  # past the type check of the test run, which knows the choices
    with pytest.raises(ConfigError, match=name):
        settings.__post_init__()
