"""Any mesh gives the single device's curve: the same batches, masking and dropout."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from selfpab_jax.errors import ConfigError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model.masking import TaskSettings
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train.optimizer import OptimizerSettings, adamw, learning_rate
from selfpab_jax.train.state import (
    MeshSettings,
    check_batch,
    create_state,
    make_mesh,
    parameter_shardings,
    sharding_table,
)
from selfpab_jax.train.step import FrameInfo, Objective, error_step, frame_info, stop_flags, to_devices, train_step

STEPS, BATCH, FRAMES, FEATURES = 20, 16, 39, 36
MODEL = ModelSettings(width=32, heads=4, feedforward=64, layers=2, dropout=0.1, compute="float32")
MESHES = {
    "data": MeshSettings(data=8),
    "fsdp": MeshSettings(data=1, fsdp=8),
    "tensor": MeshSettings(data=2, tensor=4),
    "mixed": MeshSettings(data=2, fsdp=2, tensor=2),
}


def objective(task: TaskSettings | None = None, model: ModelSettings = MODEL) -> Objective:
    task = task or TaskSettings()
    features = FEATURES // 2 if task.kind == "cross_sensor" else FEATURES
    statistics = Statistics(np.full(FEATURES, 0.5, np.float32), np.full(FEATURES, 0.3, np.float32), "plain")
    return Objective(make_functional(model, features, features), task, statistics, ("back", "thigh"), 6)


def batch(step: int) -> np.ndarray:
    return np.random.default_rng(step).random((BATCH, FRAMES, FEATURES)).astype(np.float16)


def frames_of(mesh: Mesh, step: int, calendar: bool) -> FrameInfo:
    times = np.random.default_rng([step, 1]).integers(0, 7, (BATCH, FRAMES, 5)).astype(np.int32)
    return frame_info(mesh, {"timestamps": times} if calendar else {}, BATCH)


def curve(
    mesh_settings: MeshSettings,
    devices: int,
    task: TaskSettings | None = None,
    accumulate: int = 1,
    model: ModelSettings = MODEL,
) -> list:
    calendar = model.temporal_positions
    mesh = make_mesh(mesh_settings, jax.devices()[:devices])
    settings = OptimizerSettings(batch_size=BATCH, steps=STEPS, learning_rate=5e-3, accumulate=accumulate)
    schedule = learning_rate(settings, STEPS, MODEL.width)
    update = adamw(settings, schedule)
    what = objective(task, model)
    state = create_state(what.functional, update, mesh, jax.random.key(0))
    take_step = train_step(what, update, schedule, mesh, seed=3, accumulate=accumulate)
    losses = []
    for step in range(STEPS):
        info = frames_of(mesh, step, calendar)
        state, metrics = take_step(state, to_devices(mesh, batch(step), BATCH), stop_flags(mesh, False), info)
        losses.append(float(metrics.loss))
    errors = error_step(what, mesh, seed=3)
    rows = to_devices(mesh, np.arange(BATCH, dtype=np.int32), BATCH)
    info = frames_of(mesh, 99, calendar)
    held_out = np.asarray(errors(state.parameters, to_devices(mesh, batch(99), BATCH), rows, info))
    return [*losses, float(held_out.mean())]


@pytest.fixture(scope="module")
def single_device() -> list:
    return curve(MeshSettings(data=1), 1)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name != "fsdp" else []) for name in MESHES]
)
def test_meshes_give_the_single_device_curve(name: str, single_device: list) -> None:
    np.testing.assert_allclose(curve(MESHES[name], 8), single_device, rtol=1e-5)


def test_the_curve_falls(single_device: list) -> None:
    assert np.mean(single_device[STEPS - 4 : STEPS]) < np.mean(single_device[:4])


@pytest.mark.slow
def test_cross_sensor_task_on_a_mesh() -> None:
    task = TaskSettings(kind="cross_sensor")
    np.testing.assert_allclose(curve(MESHES["mixed"], 8, task), curve(MeshSettings(data=1), 1, task), rtol=1e-5)


@pytest.mark.slow
def test_calendar_positions_and_micro_batches_on_a_mesh() -> None:
    model = replace(MODEL, temporal_positions=True, attention="blocks")
    expected = curve(MeshSettings(data=1), 1, model=model)
    np.testing.assert_allclose(curve(MESHES["mixed"], 8, accumulate=2, model=model), expected, rtol=1e-5)


@pytest.mark.slow
def test_gradient_accumulation_gives_the_same_curve(single_device: list) -> None:
    np.testing.assert_allclose(curve(MeshSettings(data=2, fsdp=2), 4, accumulate=2), single_device, rtol=1e-5)


def test_state_is_created_sharded() -> None:
    mesh = make_mesh(MESHES["mixed"])
    update = adamw(OptimizerSettings(), lambda step: jnp.float32(1e-3))
    state = create_state(objective().functional, update, mesh, jax.random.key(0))
    kernel = "encoder.layers.0.expand.kernel"
    for array in (state.parameters[kernel], state.optimizer[0].mu[kernel]):
        assert array.addressable_shards[0].data.shape == (16, 32)


def test_initial_parameters_do_not_depend_on_the_mesh() -> None:
    update = adamw(OptimizerSettings(), lambda step: jnp.float32(1e-3))
    one, many = (
        create_state(objective().functional, update, make_mesh(settings, jax.devices()[:count]), jax.random.key(0))
        for settings, count in ((MeshSettings(), 1), (MESHES["mixed"], 8))
    )
    for name, array in one.parameters.items():
        np.testing.assert_array_equal(array, many.parameters[name], err_msg=name)


def test_table_names_every_kind_of_parameter_and_the_bytes() -> None:
    mesh = make_mesh(MESHES["mixed"])
    functional = objective().functional
    table = sharding_table(functional, parameter_shardings(functional, mesh), mesh)
    assert "encoder.layers.0.attention.query_kernel" in table
    assert "encoder.layers.1." not in table
    assert "width:fsdp, heads:tensor" in table
    assert f"{functional.parameter_count:,} parameters; each device holds" in table


@pytest.mark.parametrize("sizes", [{"data": 3}, {"data": -1, "fsdp": 3}, {"data": 4, "fsdp": 4}])
def test_a_mesh_that_is_not_the_devices_is_refused(sizes: dict) -> None:
    with pytest.raises(ConfigError, match="8 available devices"):
        make_mesh(MeshSettings(**sizes))


def test_a_mesh_that_does_not_divide_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mesh.tensor 8 does not divide the 4 heads"):
        parameter_shardings(objective().functional, make_mesh(MeshSettings(data=1, tensor=8)))


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 8"):
        check_batch(12, 1, make_mesh(MeshSettings()))
    with pytest.raises(ConfigError, match="2 micro-batches"):
        check_batch(8, 2, make_mesh(MeshSettings()))


@pytest.mark.parametrize("sizes", [{"data": 0}, {"data": -1, "fsdp": -1}, {"tensor": -2}])
def test_impossible_mesh_sizes_are_refused(sizes: dict) -> None:
    with pytest.raises(ValueError, match=r"mesh\.data"):
        MeshSettings(**sizes)
