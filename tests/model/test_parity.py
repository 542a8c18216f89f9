"""The encoder against the original's own classes: forward passes layer by layer, gradients, three AdamW steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from selfpab_jax.convert.table import to_ours, to_torch
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import FunctionalModel, Parameters, make_functional
from selfpab_jax.model.masking import MaskedBatch, TaskSettings
from selfpab_jax.model.rng import sample_keys
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train.optimizer import OptimizerSettings, adamw, learning_rate
from selfpab_jax.train.state import MeshSettings, TrainState, make_mesh
from selfpab_jax.train.step import Objective, stop_flags, to_devices, train_step

SIZES = {
    "selfpab": (156, ModelSettings(width=60, heads=6, feedforward=96, layers=3, dropout=0.0, compute="float32")),
    "monoselfpab": (78, ModelSettings(width=60, heads=6, feedforward=96, layers=3, dropout=0.0, compute="float32")),
    "lta2v": (
        96,
        ModelSettings(
            width=60, heads=6, feedforward=96, layers=2, dropout=0.0, compute="float32", temporal_positions=True
        ),
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


@dataclass(frozen=True)
class GivenMasks(Objective):
    """The production objective with the golden file's masks in place of drawn ones."""

    given: MaskedBatch

    def mask(self, spectrogram: jax.Array, keys_B: jax.Array, valid_B: jax.Array | None = None) -> MaskedBatch:
        return self.given


def test_gradients_and_three_steps(golden: Path) -> None:
    """The production step on the same batch three times, at the rates of the first three steps of a run of 100."""
    functional, parameters = load("selfpab", golden)
    given = np.load(golden / "three_steps.npz")
    masked = MaskedBatch(jnp.asarray(given["x"]), jnp.asarray(given["target"]), jnp.asarray(given["mask"].astype(bool)))
    statistics = Statistics(np.zeros(156, np.float32), np.ones(156, np.float32), "plain")
    objective = GivenMasks(functional, TaskSettings(), statistics, ("back", "thigh"), 6, masked)
    settings = OptimizerSettings(full_first_step=True)
    schedule = learning_rate(settings, total_steps=100, width=60)
    optimizer = adamw(settings, schedule)
    mesh = make_mesh(MeshSettings(), jax.devices()[:1])
    take_step = train_step(objective, optimizer, schedule, mesh, seed=0, accumulate=1)
    state = TrainState(jnp.zeros((), "int32"), parameters, optimizer.init(parameters))
    spectrogram = to_devices(mesh, np.zeros(given["x"].shape, np.float16), len(given["x"]))

    keys = sample_keys(jax.random.key(0), jnp.zeros((), "int32"), jnp.arange(len(given["x"])))
    gradient = jax.grad(lambda p: objective.errors(p, spectrogram, keys, training=True).mean())(parameters)
    for name, tensor in without_key_biases(to_torch(gradient, functional.settings)).items():
        assert relative(tensor, without_key_biases(given)[f"grad0/{name}"]) < 1e-5, name
    for expected in given["losses"]:
        state, metrics = take_step(state, spectrogram, stop_flags(mesh, False))
        assert float(metrics.loss) == pytest.approx(expected, rel=1e-5)
    for name, tensor in without_key_biases(to_torch(state.parameters, functional.settings)).items():
        assert relative(tensor, without_key_biases(given)[f"params3/{name}"]) < 1e-5, name


def without_key_biases(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Softmax does not see a key bias: its gradient is rounding alone, and AdamW makes whole steps of that."""
    kept = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    for name, tensor in kept.items():
        if name.endswith("in_proj_bias"):
            third = len(tensor) // 3
            kept[name] = np.delete(tensor, np.s_[third : 2 * third])
    return kept
