"""What our side of a benchmark does: each function makes a job ready and returns its turns (`timing.Turns`)."""

from collections.abc import Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from timing import Turns

from selfpab_jax.data.sources.synthetic import recordings
from selfpab_jax.features.encoder import PretrainedEncoder
from selfpab_jax.features.extract import ExtractionSettings, make_forward
from selfpab_jax.features.sensors import SensorEncoder
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model.masking import TaskSettings
from selfpab_jax.model_dir import ModelConfig
from selfpab_jax.prefetch import run_ahead
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.signal.stft import SpectrogramSettings, spectrogram
from selfpab_jax.train.optimizer import OptimizerSettings, adamw, learning_rate
from selfpab_jax.train.state import MeshSettings, create_state, make_mesh
from selfpab_jax.train.step import (
    ALL_VALID,
    Objective,
    TrainStep,
    jitted_train_step,
    stop_flags,
    to_devices,
    train_step,
)

FRAMES, FEATURES = 599, 156
CHANNELS = tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz")
RANDOM_STATISTICS = Statistics(np.full(FEATURES, 0.5, np.float32), np.full(FEATURES, 0.3, np.float32), "plain")


def product(size: int, compute: str) -> Turns:
    """Square matrix products."""
    a = jax.random.normal(jax.random.key(0), (size, size), compute)
    multiply = jax.jit(jnp.matmul)

    def turns(count: int) -> None:
        results = [multiply(a, a) for _ in range(min(count, 8))]
        for turn in range(len(results), count):
            results[turn % len(results)] = multiply(a, a)
        jax.block_until_ready(results)

    return turns


def make_step(settings: ModelSettings, batch: int, statistics: Statistics) -> tuple[TrainStep, dict]:
    """The training step, and what it and its state were made of."""
    mesh = make_mesh(MeshSettings(), jax.devices()[:1])
    optimizer = OptimizerSettings(batch_size=batch, steps=1000)
    schedule = learning_rate(optimizer, 1000, settings.width)
    objective = Objective(
        make_functional(settings, FEATURES, FEATURES), TaskSettings(), statistics, ("back", "thigh"), len(CHANNELS)
    )
    made = {"objective": objective, "optimizer": adamw(optimizer, schedule), "schedule": schedule, "mesh": mesh}
    return train_step(**made, seed=0, accumulate=1), made


def step(settings: ModelSettings, batch: int) -> Turns:
    """Whole training steps, each with its batch brought to the device, as the training loop does."""
    take, made = make_step(settings, batch, RANDOM_STATISTICS)
    mesh = made["mesh"]
    state = create_state(made["objective"].functional, made["optimizer"], mesh, jax.random.key(0))
    windows = np.random.default_rng(0).random((batch, FRAMES, FEATURES)).astype(np.float16)

    def turns(count: int) -> None:
        nonlocal state
        metrics = None
        for _ in range(count):
            state, metrics = take(state, to_devices(mesh, windows, batch), stop_flags(mesh, False))
        jax.block_until_ready((state, metrics))

    return turns


def lowered_step(settings: ModelSettings, batch: int) -> jax.stages.Lowered:
    """The training step as a program that is not compiled yet."""
    from selfpab_jax.train.state import abstract_state

    _, made = make_step(settings, batch, RANDOM_STATISTICS)
    state = abstract_state(made["objective"].functional, made["optimizer"], made["mesh"])
    windows = jax.ShapeDtypeStruct((batch, FRAMES, FEATURES), np.float16)
    with jax.set_mesh(made["mesh"]):
        step = jitted_train_step(**made, seed=0, accumulate=1)
        return step.lower(state, windows, jax.ShapeDtypeStruct((1,), bool), ALL_VALID)


def forward(settings: ModelSettings, batch: int) -> Turns:
    """Forward passes to the reconstruction, without dropout."""
    functional = make_functional(settings, FEATURES, FEATURES)
    parameters = jax.jit(functional.initialize)(jax.random.key(0))
    run = jax.jit(lambda p, x: functional.build(p)(x))
    x_BxTxX = jax.random.normal(jax.random.key(1), (batch, FRAMES, FEATURES))

    def turns(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(run(parameters, x_BxTxX))

    return turns


def random_encoder(settings: ModelSettings) -> PretrainedEncoder:
    """An encoder with fresh weights and made-up statistics."""
    config = ModelConfig(
        "selfpab", settings, FEATURES, FEATURES, CHANNELS, ("back", "thigh"), SpectrogramSettings(), FRAMES
    )
    parameters = jax.jit(make_functional(settings, FEATURES, FEATURES).initialize)(jax.random.key(0))
    return PretrainedEncoder(config, parameters, RANDOM_STATISTICS)


def embed(settings: ModelSettings, batch: int, way: str) -> Turns:
    """Batches of windows through the frozen encoder.

    Args:
        settings: of the encoder.
        batch: windows.
        way: `bare`: frames lie on the device and the mean over a window stays there, the limit of the forward pass;
            `windows`: frames come from the host and the means go back; `frames`: every frame's features go back.
    """
    branch = SensorEncoder(random_encoder(settings), tuple(range(len(CHANNELS))), ("back", "thigh"))
    run = make_forward((branch,), ExtractionSettings(compute=settings.compute), pool=way != "frames")
    parameters = [branch.encoder.parameters]
    x_BxTxX = np.random.default_rng(0).standard_normal((batch, FRAMES, FEATURES), np.float32)
    on_device = jax.device_put(x_BxTxX)

    def turns(count: int) -> None:
        if way == "bare":
            jax.block_until_ready([run(parameters, on_device) for _ in range(count)])
        else:
            for _ in run_ahead(run(parameters, x_BxTxX) for _ in range(count)):
                pass

    return turns


def curve(settings: ModelSettings, batch: int, steps: int, windows: int) -> list[float]:
    """The losses of this many steps on a synthetic cohort; the same batches, masking and dropout for any dtype."""
    take, made = make_step(settings, batch, statistics := _statistics(cohort := _cohort(windows)))
    assert statistics.mean.shape == (FEATURES,)
    state = create_state(made["objective"].functional, made["optimizer"], made["mesh"], jax.random.key(0))
    order = np.random.default_rng(0)
    losses = []
    for _ in range(steps):
        chosen = cohort[order.choice(len(cohort), batch, replace=False)]
        state, metrics = take(state, to_devices(made["mesh"], chosen, batch), stop_flags(made["mesh"], False))
        losses.append(metrics.loss)
    return [float(loss) for loss in losses]


def _cohort(windows: int) -> np.ndarray:
    return np.stack([spectrogram(signal, SpectrogramSettings()).astype(np.float16) for signal in _signals(windows)])


def _signals(windows: int) -> Iterator[np.ndarray]:
    each = 8  # files of a subject
    for subject in range(-(-windows // each)):
        for place, (_, signal) in enumerate(recordings(subject, each, 0)):
            if subject * each + place < windows:
                yield signal


def _statistics(cohort: np.ndarray) -> Statistics:
    frames = cohort.reshape(-1, FEATURES).astype(np.float32)
    return Statistics(frames.mean(0), frames.std(0), "plain")


def settings_of(**changes: object) -> ModelSettings:
    """The published size, changed."""
    return replace(ModelSettings(), **changes)
