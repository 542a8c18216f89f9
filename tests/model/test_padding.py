"""The padded layout is the same function, and blocks of attention are the same attention."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.encoder import EncoderTrace
from selfpab_jax.model.functional import FunctionalModel, Parameters, make_functional
from selfpab_jax.model.losses import masked_errors
from selfpab_jax.model.parameters import padded_size
from selfpab_jax.model.rng import sample_keys

SETTINGS = ModelSettings(width=60, heads=4, feedforward=90, layers=2, dropout=0.1, compute="float32")
BATCH, FRAMES, FEATURES = 2, 37, 52


def functional_of(**changes) -> FunctionalModel:
    return make_functional(replace(SETTINGS, **changes), FEATURES, FEATURES)


@pytest.fixture(scope="module")
def parameters() -> Parameters:
    functional = functional_of()
    drawn = jax.jit(functional.initialize)(jax.random.key(0))
    # Biases and scales begin at 0 and 1, where padding could not be seen to be wrong.
    return {name: x + 0.1 * jax.random.normal(jax.random.key(i), x.shape) for i, (name, x) in enumerate(drawn.items())}


@pytest.fixture(scope="module")
def batch() -> tuple[jax.Array, jax.Array]:
    x = jax.random.normal(jax.random.key(1), (BATCH, FRAMES, FEATURES))
    return x, sample_keys(jax.random.key(2), jnp.zeros((), jnp.int32), jnp.arange(BATCH))


def loss_and_gradient(functional: FunctionalModel) -> Callable[[Parameters, jax.Array, jax.Array], tuple]:
    def loss(parameters: Parameters, x: jax.Array, keys: jax.Array) -> jax.Array:
        return masked_errors(functional.build(parameters)(x, keys_B=keys), x, x > 0.5, "masked_l1").mean()

    return jax.jit(jax.value_and_grad(loss))


def relative(found: jax.Array, expected: jax.Array) -> float:
    return float(jnp.linalg.norm((found - expected).reshape(-1)) / jnp.linalg.norm(expected.reshape(-1)))


@pytest.mark.parametrize(
    "changes",
    [
        {"layout": "padded"},
        {"attention": "blocks"},
        pytest.param({"layout": "padded", "attention": "blocks", "rematerialize": "attention"}, marks=pytest.mark.slow),
        {"rematerialize": "layers"},
    ],
    ids=str,
)
def test_same_loss_and_gradients_with_dropout(
    changes: dict, parameters: Parameters, batch: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpab_jax.model.attention.QUERIES_PER_BLOCK", 16)  # several blocks, the last one not full
    expected = loss_and_gradient(functional_of())(parameters, *batch)
    found = loss_and_gradient(functional_of(**changes))(parameters, *batch)
    assert_allclose(found[0], expected[0], rtol=1e-6)
    for name in parameters:
        assert found[1][name].shape == parameters[name].shape
        # A key's bias adds the same to all scores of a query: its gradient is 0 but for rounding.
        if not name.endswith("key_bias"):
            assert relative(found[1][name], expected[1][name]) < 1e-6, name


@pytest.mark.slow
def test_padding_lanes_stay_zero_through_training(parameters: Parameters, batch: tuple) -> None:
    exact, padded = functional_of(), functional_of(layout="padded")
    update = optax.adamw(1e-2)

    def trained(functional: FunctionalModel) -> Parameters:
        step = loss_and_gradient(functional)
        now, state = parameters, update.init(parameters)
        for _ in range(5):
            _, gradient = step(now, *batch)
            with jax.numpy_dtype_promotion("standard"):  # inside optax
                change, state = update.update(gradient, state, now)
            now = optax.apply_updates(now, change)
        return now  # type: ignore[return-value]

    after, expected = trained(padded), trained(exact)
    assert {name: x.shape for name, x in after.items()} == {name: x.shape for name, x in exact.abstract.items()}
    assert max(float(jnp.abs(after[n] - parameters[n]).max()) for n in after) > 0.01
    x, keys = batch
    for given in (None, keys):
        h = np.asarray(jax.jit(lambda p, k: padded.build(p).encoder.encode_padded(x, keys_B=k))(after, given))
        assert (
            h.shape
            == (BATCH, padded_size(FRAMES, "frames", "padded"), padded_size(60, "width", "padded"))
            == (2, 48, 128)
        )
        assert not h[..., 60:].any()
        assert h[..., :60].any()
    assert max(relative(after[name], expected[name]) for name in after if not name.endswith("key_bias")) < 1e-3


def test_the_trace_has_exact_sizes(parameters: Parameters, batch: tuple) -> None:
    def trace(functional: FunctionalModel) -> EncoderTrace:
        return jax.jit(lambda p: functional.build(p).encoder.trace(batch[0]))(parameters)

    expected, found = trace(functional_of()), trace(functional_of(layout="padded"))
    jax.tree.map(lambda a, b: assert_allclose(a, b, atol=2e-6), found, expected)


@pytest.mark.slow
def test_memory_of_long_windows_grows_linearly() -> None:
    settings = ModelSettings(width=64, heads=2, feedforward=64, layers=1, dropout=0.1, compute="float32")
    functional = make_functional(settings, FEATURES, FEATURES)

    def bytes_needed(frames: int, attention: str) -> int:
        chosen = make_functional(replace(settings, attention=attention), FEATURES, FEATURES)

        def loss(parameters: Parameters, x: jax.Array, keys: jax.Array) -> jax.Array:
            return jnp.square(chosen.build(parameters)(x, keys_B=keys)).mean()

        key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
        x = jax.ShapeDtypeStruct((1, frames, FEATURES), jnp.float32)
        return jax.jit(jax.grad(loss)).lower(functional.abstract, x, key).compile().memory_analysis().temp_size_in_bytes

    blocks = [bytes_needed(frames, "blocks") for frames in (1800, 3599)]
    assert blocks[1] < 2.2 * blocks[0]
    assert blocks[1] < bytes_needed(3599, "full") / 3


def test_long_windows_go_by_blocks() -> None:
    from selfpab_jax.model.attention import attention_kind

    assert attention_kind(ModelSettings(), 599, 0.1) == "full"
    assert attention_kind(ModelSettings(), 3599, 0.1) == "blocks"
    assert attention_kind(ModelSettings(attention="full"), 3599, 0.1) == "full"


def test_cudnn_never_leaves_out_a_dropout_that_was_asked_for() -> None:
    for wrong in ({"dropout": 0.1}, {"dropout": 0.0, "compute": "float32"}):
        with pytest.raises(ValueError, match="no dropout on the weights"):
            ModelSettings(attention="cudnn", **wrong)  # type: ignore[arg-type]
    assert ModelSettings(attention="cudnn", dropout=0.0).attention == "cudnn"


@pytest.mark.parametrize(
    ("capability", "expected"), [("9.0", "cudnn"), ("8.0", "full"), ("7.5", "full"), ("gfx90a", "full")]
)
def test_cudnn_is_chosen_where_the_card_takes_the_heads(
    monkeypatch: pytest.MonkeyPatch, capability: str, expected: str
) -> None:
    from types import SimpleNamespace

    from selfpab_jax.model.attention import attention_kind

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability=capability)])
    published = ModelSettings(layout="padded", compute="bfloat16")
    assert attention_kind(published, 608, 0.0) == expected
    assert attention_kind(published, 608, 0.1) == "full"


def test_cudnn_is_the_same_attention(parameters: Parameters, batch: tuple[jax.Array, jax.Array]) -> None:
    if jax.default_backend() != "gpu":
        pytest.skip("cuDNN's attention wants a GPU: JAX_PLATFORMS=cuda pytest tests/model/test_padding.py")
    found = {}
    for way in ("full", "cudnn"):
        chosen = functional_of(attention=way, layout="padded", compute="bfloat16", dropout=0.0)
        found[way] = loss_and_gradient(chosen)(parameters, *batch)
    # Rows beyond the frames are nobody's, but a value that is not finite there would reach the next layer.
    assert float(found["cudnn"][0]) == pytest.approx(float(found["full"][0]), rel=1e-2)
    for name, gradient in found["full"][1].items():
        assert relative(found["cudnn"][1][name], gradient) < 0.1, name
