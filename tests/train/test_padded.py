"""A padded window trains as the same window cut to its valid frames, on any mesh, and through a resumed run."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.data.loader import batches
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model.masking import MaskingSettings, TaskSettings
from selfpab_jax.model.rng import sample_keys
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train.export import read_checkpoint
from selfpab_jax.train.optimizer import OptimizerSettings, adamw, learning_rate
from selfpab_jax.train.state import MeshSettings, create_state, make_mesh
from selfpab_jax.train.step import ALL_VALID, FrameInfo, Objective, error_step, stop_flags, to_devices, train_step

FRAMES, FEATURES = 39, 36
VALID = np.array([39, 25, 12, 39, 7, 25, 39, 12], np.int32)
BATCH = len(VALID)
MODEL = ModelSettings(width=32, heads=4, feedforward=48, layers=2, dropout=0.0, compute="float32")
MASKING = MaskingSettings(time_share=0.4, reverse_probability=0.5, mask_probability=0.5, swap_probability=0.5)

CROSS_SENSOR = TaskSettings(kind="cross_sensor", masking=MASKING, loss="masked_l2")


def objective(task: TaskSettings | None = None, model: ModelSettings = MODEL) -> Objective:
    task = task or TaskSettings(masking=MASKING)
    features = FEATURES // 2 if task.kind == "cross_sensor" else FEATURES
    statistics = Statistics(np.full(FEATURES, 0.5, np.float32), np.full(FEATURES, 0.3, np.float32), "plain")
    return Objective(make_functional(model, features, features), task, statistics, ("back", "thigh"), 6)


def batch(seed: int) -> np.ndarray:
    """Padding is not even a number here: nothing may depend on it."""
    spectrogram = np.random.default_rng(seed).random((BATCH, FRAMES, FEATURES)).astype(np.float16)
    spectrogram[np.arange(FRAMES) >= VALID[:, None]] = np.nan
    return spectrogram


@pytest.mark.parametrize(
    ("changes", "task"),
    [
        pytest.param({}, None, marks=pytest.mark.slow),
        pytest.param({"attention": "blocks", "rematerialize": "attention"}, None, marks=pytest.mark.slow),
        pytest.param({"layout": "padded", "rematerialize": "layers"}, CROSS_SENSOR, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_loss_and_gradient_are_those_of_the_window_without_padding(
    changes: dict, task: TaskSettings | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpab_jax.model.attention.QUERIES_PER_BLOCK", 16)
    what = objective(task, replace(MODEL, **changes))
    parameters = jax.jit(what.functional.initialize)(jax.random.key(0))
    keys = sample_keys(jax.random.key(2), jnp.zeros((), jnp.int32), jnp.arange(BATCH))
    spectrogram = batch(1)

    @jax.jit
    def each(spectrogram: jax.Array, keys: jax.Array, info: FrameInfo = ALL_VALID) -> tuple:
        """The loss of each sample, and the gradient of their sum."""

        def total(parameters: dict) -> tuple[jax.Array, jax.Array]:
            errors = what.errors(parameters, spectrogram, keys, info, training=True)
            return errors.sum(), errors

        gradient, errors = jax.grad(total, has_aux=True)(parameters)
        return errors, gradient

    chosen = VALID > 7  # that one has a test of its masks: each length costs a compilation here
    found, gradient = each(spectrogram[chosen], keys[chosen], FrameInfo(jnp.asarray(VALID[chosen])))
    summed = jax.tree.map(jnp.zeros_like, gradient)
    for valid in set(VALID[chosen].tolist()):
        alike = valid == VALID
        expected, part = each(spectrogram[alike, :valid], keys[alike])
        np.testing.assert_allclose(found[alike[chosen]], expected, rtol=1e-6)
        assert (np.asarray(expected) > 0).any()
        summed = jax.tree.map(jnp.add, summed, part)
    for name, array in summed.items():
        if not name.endswith("key_bias"):  # 0 but for rounding
            assert np.linalg.norm(gradient[name] - array) < 1e-6 * np.linalg.norm(array), name


def test_full_windows_among_padded_ones_are_masked_as_ever() -> None:
    what, spectrogram = objective(), jnp.asarray(batch(1))
    keys = sample_keys(jax.random.key(5), jnp.zeros((), jnp.int32), jnp.arange(BATCH))
    padded, plain = what.mask(spectrogram, keys, jnp.asarray(VALID)), what.mask(spectrogram, keys)
    whole = VALID == FRAMES
    assert padded.altered_half is plain.altered_half is None
    for found, expected in zip(padded[:3], plain[:3], strict=True):
        np.testing.assert_array_equal(np.asarray(found)[whole], np.asarray(expected)[whole])


def curve(mesh_settings: MeshSettings, devices: int, accumulate: int = 1) -> list[float]:
    steps = 4
    mesh = make_mesh(mesh_settings, jax.devices()[:devices])
    settings = OptimizerSettings(batch_size=BATCH, steps=steps, learning_rate=5e-3, accumulate=accumulate)
    schedule = learning_rate(settings, steps, MODEL.width)
    update = adamw(settings, schedule)
    what = objective(model=replace(MODEL, dropout=0.1))
    state = create_state(what.functional, update, mesh, jax.random.key(0))
    take_step = train_step(what, update, schedule, mesh, seed=3, accumulate=accumulate)
    info = FrameInfo(to_devices(mesh, VALID, BATCH))
    losses = []
    for step in range(steps):
        state, metrics = take_step(state, to_devices(mesh, batch(step), BATCH), stop_flags(mesh, False), info)
        losses.append(float(metrics.loss))
    rows = to_devices(mesh, np.arange(BATCH, dtype=np.int32), BATCH)
    errors = error_step(what, mesh, seed=3)
    held_out = np.asarray(errors(state.parameters, to_devices(mesh, batch(99), BATCH), rows, info))
    return [*losses, float(held_out.mean())]


@pytest.mark.slow
def test_a_mesh_with_micro_batches_gives_the_single_device_curve() -> None:
    found = curve(MeshSettings(data=2, fsdp=2, tensor=2), 8, accumulate=2)
    np.testing.assert_allclose(found, curve(MeshSettings(data=1), 1), rtol=1e-5)


def test_batches_carry_valid_frames_where_some_are_padded(padded_records: Path, tiny_records: Path) -> None:
    for folder, padded in ((padded_records, True), (tiny_records, False)):
        records = open_records(folder)
        index, source = records.index("train"), records.source("train")
        assert source.padded == padded
        rows = np.arange(len(source))
        read = batches(source, rows, seed=1, batch_size=8, first_step=0, last_step=3, process_index=1, process_count=2)
        for found in read:
            assert found["row"].shape == (4,)
            if padded:
                np.testing.assert_array_equal(found["frames"], index.frames[found["row"]])
            assert ("frames" in found) == padded


@pytest.fixture(scope="module")
def run_of(padded_records: Path) -> Callable[..., int]:
    def run(folder: Path, *options: str) -> int:
        model = ["--model.width", "16", "--model.heads", "2", "--model.feedforward", "16", "--model.layers", "1"]
        steps = ["--optimizer.batch_size", "8", "--optimizer.steps", "6", "--optimizer.learning_rate", "1e-2"]
        often = ["--checkpoint.every_steps", "3", "--validation.every_steps", "3", "--log.every_steps", "1"]
        words = ["pretrain", "--data.path", str(padded_records), "--run", str(folder), *model, *steps, *often]
        return main([*words, "--model.compute", "float32", *options])

    return run


def logged(run: Path) -> dict[tuple[str, int], float]:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {(e["event"], e["step"]): e["loss"] for e in events if e["event"] in ("train", "validation")}


@pytest.mark.slow
def test_a_resumed_run_ends_the_same_and_its_evaluation_is_its_validation(
    run_of: Callable[..., int], padded_records: Path, tmp_path: Path
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert run_of(whole) == 0
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "latest" / "6")
    assert run_of(resumed, "--resume") == 0
    assert logged(resumed) == logged(whole)
    hours = json.loads((whole / "log.jsonl").read_text().splitlines()[1])["hours_seen"]
    assert hours == pytest.approx(8 * (4 * 39 + 25 + 13) / 6 / 39 * 20 / 3600)  # without padding
    (_, found, _), (_, expected, _) = (read_checkpoint(run, "latest") for run in (resumed, whole))
    for name, array in expected.items():
        np.testing.assert_array_equal(jax.device_get(found[name]), jax.device_get(array), err_msg=name)

    assert main(["evaluate", str(whole), "--data", str(padded_records), "--checkpoint", "latest"]) == 0
    scores = json.loads((whole / "evaluation" / "scores.json").read_text())
    assert scores["windows"] == open_records(padded_records).info.splits["validation"].records
    assert scores["model"] == pytest.approx(logged(whole)["validation", 6], rel=1e-5)
    assert 0 < scores["interpolation"] < 10
    assert 0 < scores["feature_mean"] < 10
    before = {path.name: path.read_bytes() for path in (whole / "evaluation").iterdir()}
    assert main(["evaluate", str(whole), "--data", str(padded_records), "--split", "test"]) == 0
    assert {name: (whole / "evaluation" / name).read_bytes() for name in before} == before
    assert json.loads((whole / "evaluation" / "scores_test.json").read_text())["split"] == "test"
    assert {path.name for path in (whole / "evaluation").glob("*_test.*")} >= {"loss_curve_test.png"}
