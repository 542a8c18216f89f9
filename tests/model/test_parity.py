"""The encoder against the original's own classes: forward passes layer by layer, gradients, three AdamW steps."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from selfpab_jax.convert.table import to_ours, to_torch
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import FunctionalModel, Parameters, make_functional
from selfpab_jax.model.losses import masked_loss
from selfpab_jax.train.optimizer import OptimizerSettings, adamw, learning_rate

SIZES = {
    "selfpab": (156, ModelSettings(width=60, heads=6, feedforward=96, layers=3, compute="float32")),
    "monoselfpab": (78, ModelSettings(width=60, heads=6, feedforward=96, layers=3, compute="float32")),
    "lta2v": (
        96,
        ModelSettings(width=60, heads=6, feedforward=96, layers=2, compute="float32", temporal_positions=True),
    ),
}


def relative(found: jax.Array, expected: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))


def load(family: str, golden: Path) -> tuple[FunctionalModel, Parameters]:
    features, settings = SIZES[family]
    functional = make_functional(settings, features, features)
    with np.load(golden / f"tiny_{family}_weights.npz") as tensors:
        return functional, {name: jnp.asarray(array) for name, array in to_ours(dict(tensors), settings).items()}


@pytest.mark.parametrize("family", SIZES)
def test_forward_layer_by_layer(family: str, golden: Path) -> None:
    functional, parameters = load(family, golden)
    given = np.load(golden / f"tiny_{family}_forward.npz")
    model = functional.build(parameters)
    inputs = [jnp.asarray(given["x"])]
    if "timestamps" in given:
        inputs.append(jnp.asarray(given["timestamps"], "int32"))
    trace = model.encoder.trace(*inputs)
    assert relative(trace.embedding, given["embedding"]) < 1e-5
    for depth, expected in enumerate(given["layers"]):
        assert relative(trace.layers[depth], expected) < 1e-5, f"layer {depth}"
    if "attention" in given:
        for depth, expected in enumerate(given["attention"]):
            assert relative(trace.attention[depth][: len(expected)], expected) < 1e-5, f"attention {depth}"
    assert relative(model.encoder(*inputs), given["encoder"]) < 1e-5
    assert relative(model(*inputs), given["reconstruction"]) < 1e-5


def test_gradients_and_three_steps(golden: Path) -> None:
    """AdamW on the same batch three times, at the rates of the first three steps of a run of 100."""
    functional, parameters = load("selfpab", golden)
    given = np.load(golden / "three_steps.npz")
    x, target, mask = jnp.asarray(given["x"]), jnp.asarray(given["target"]), jnp.asarray(given["mask"].astype(bool))
    settings = OptimizerSettings(full_first_step=True)
    update = adamw(settings, learning_rate(settings, total_steps=100, width=60))
    state = update.init(parameters)

    @jax.jit
    def step(parameters: Parameters, state: optax.OptState) -> tuple:
        loss, gradient = jax.value_and_grad(lambda p: masked_loss(functional.build(p)(x), target, mask, "masked_l1"))(
            parameters
        )
        change, state = update.update(gradient, state, parameters)
        return loss, gradient, optax.apply_updates(parameters, change), state

    for number, expected in enumerate(given["losses"]):
        loss, gradient, parameters, state = step(parameters, state)
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        if number == 0:
            for name, tensor in without_key_biases(to_torch(gradient, functional.settings)).items():
                assert relative(tensor, without_key_biases(given)[f"grad0/{name}"]) < 1e-5, name
    for name, tensor in without_key_biases(to_torch(parameters, functional.settings)).items():
        assert relative(tensor, without_key_biases(given)[f"params3/{name}"]) < 1e-5, name


def without_key_biases(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Softmax does not see a key bias: its gradient is rounding alone, and AdamW makes whole steps of that."""
    kept = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    for name, tensor in kept.items():
        if name.endswith("in_proj_bias"):
            third = len(tensor) // 3
            kept[name] = np.delete(tensor, np.s_[third : 2 * third])
    return kept
