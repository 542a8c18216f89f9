"""A training step at the published size against the same network and optimiser from torch.nn, in one run.

    python benchmarks/training_step.py [--batch 4] [--repeats 5]

float32, 599 frames, dropout 0.1, AdamW, the loss of the pretext task; both sides with all cores of the machine, each
in a process of its own. Each takes its steps in a row, as training does, in two blocks in turn; medians. (Step
about, the operating system takes back one side's memory while the other computes, and both pay for it.)
Beside them, the best float32 matrix-product rate of each library here, and the share of ours that our step
reaches (model FLOP by hand count: three forward passes).
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import jax
import jax.numpy as jnp
import numpy as np
import torch

from selfpab_jax.model.blueprint import draw_blueprint
from selfpab_jax.model.flops import forward_flops, training_flops
from selfpab_jax.model.settings import ModelSettings
from selfpab_jax.model.task import TaskSettings
from selfpab_jax.signal.statistics import Statistics
from selfpab_jax.train.optimiser import OptimiserSettings, adamw, learning_rate
from selfpab_jax.train.sharding import MeshSettings, make_mesh
from selfpab_jax.train.state import create_state
from selfpab_jax.train.step import Objective, to_devices, train_step, wishes

FRAMES, FEATURES, PRODUCT = 599, 156, 2048
SETTINGS = ModelSettings(compute="float32")


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def our_step(batch: int) -> Callable[[], None]:
    mesh = make_mesh(MeshSettings(), jax.devices()[:1])
    optimiser = OptimiserSettings(batch_size=batch)
    schedule = learning_rate(optimiser, 1000, SETTINGS.width)
    update = adamw(optimiser, schedule)
    statistics_ = Statistics(np.full(FEATURES, 0.5, np.float32), np.full(FEATURES, 0.3, np.float32), "plain")
    blueprint = draw_blueprint(SETTINGS, FEATURES, FEATURES)
    objective = Objective(blueprint, TaskSettings(), statistics_, ("back", "thigh"), 6)
    step = train_step(objective, update, schedule, mesh, seed=0, accumulate=1)
    state = create_state(blueprint, update, mesh, jax.random.key(0))
    spectrogram = np.random.default_rng(0).random((batch, FRAMES, FEATURES)).astype(np.float16)

    def run() -> None:
        nonlocal state
        state, metrics = step(state, to_devices(mesh, spectrogram, batch), wishes(mesh, False))
        jax.block_until_ready((state, metrics))

    return run


class TorchNetwork(torch.nn.Module):
    """The network of the reference from torch.nn's own modules."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(FEATURES, SETTINGS.width)
        layer = torch.nn.TransformerEncoderLayer(
            SETTINGS.width, SETTINGS.heads, SETTINGS.feedforward, SETTINGS.dropout, batch_first=True
        )
        self.encoder = torch.nn.TransformerEncoder(layer, SETTINGS.layers, enable_nested_tensor=False)
        self.head = torch.nn.Linear(SETTINGS.width, FEATURES)
        self.positions = torch.zeros(FRAMES, SETTINGS.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x) + self.positions))


def torch_step(network: TorchNetwork, batch: int) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, (0.9, 0.98), 1e-8, 1e-5)
    x = torch.rand(batch, FRAMES, FEATURES)
    mask = (torch.rand(batch, FRAMES, FEATURES) < 0.2).float()

    def run() -> None:
        network.train()
        optimiser.zero_grad()
        error = (network(x * (1 - mask)) - x).abs() * mask
        (error.sum((1, 2)) / mask.sum((1, 2))).mean().backward()
        optimiser.step()

    return run


def our_forward(batch: int) -> Callable[[], None]:
    blueprint = draw_blueprint(SETTINGS, FEATURES, FEATURES)
    parameters = jax.jit(blueprint.initialise)(jax.random.key(0))
    forward = jax.jit(lambda p, x: blueprint.build(p)(x))
    x = jnp.asarray(np.random.default_rng(0).random((batch, FRAMES, FEATURES), np.float32))
    return lambda: jax.block_until_ready(forward(parameters, x))


def torch_forward(network: TorchNetwork, batch: int) -> Callable[[], None]:
    x = torch.rand(batch, FRAMES, FEATURES)

    def run() -> None:
        network.eval()
        with torch.no_grad():
            network(x)

    return run


def our_product() -> Callable[[], None]:
    a = jnp.asarray(np.random.default_rng(0).random((PRODUCT, PRODUCT), np.float32))
    multiply = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(multiply(a, a))


def torch_product() -> Callable[[], None]:
    a = torch.rand(PRODUCT, PRODUCT)
    return lambda: torch.matmul(a, a)


def serve(side: str, batch: int, pipe: Connection) -> None:
    """Run what is asked for by name, and say how long it took."""
    if side == "ours":
        jobs = {"step": our_step(batch), "forward": our_forward(batch), "product": our_product()}
    else:
        network = TorchNetwork()
        jobs = {
            "step": torch_step(network, batch),
            "forward": torch_forward(network, batch),
            "product": torch_product(),
        }
    while job := pipe.recv():
        pipe.send(timed(jobs[job]))


def compare(pipes: dict[str, Connection], job: str, repeats: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each side: two blocks of repeats each, every block after a warm-up of its own."""
    seconds: dict[str, list[float]] = {side: [] for side in pipes}
    for _block in range(2):
        for side, pipe in pipes.items():
            for turn in range(warm_up + repeats):
                pipe.send(job)
                taken = pipe.recv()
                if turn >= warm_up:
                    seconds[side].append(taken)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    pipes = {}
    for side in ("ours", "torch"):
        pipes[side], theirs = spawn.Pipe()
        spawn.Process(target=serve, args=(side, options.batch, theirs), daemon=True).start()
    versions = f"jax {jax.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    print(f"{versions}, float32, batch {options.batch}, medians of 2 x {options.repeats}")

    products = compare(pipes, "product", 15)
    rates = {side: 2 * PRODUCT**3 / min(seconds) / 1e9 for side, seconds in products.items()}
    print(f"matrix product       ours {rates['ours']:7.1f} GFLOP/s   torch {rates['torch']:7.1f} GFLOP/s   (the best)")
    sizes = (SETTINGS, FEATURES, FEATURES, FRAMES)
    for job, flops in (("step", training_flops(*sizes)), ("forward", forward_flops(*sizes))):
        seconds = compare(pipes, job, options.repeats)
        ours, theirs = (statistics.median(seconds[side]) for side in ("ours", "torch"))
        rate = flops * options.batch / ours / 1e9
        print(
            f"{job:<20} ours {ours:6.2f} s   torch {theirs:6.2f} s   torch / ours {theirs / ours:5.2f}   "
            f"ours {rate:6.1f} GFLOP/s, {rate / rates['ours']:.0%} of the matrix product"
        )
    for pipe in pipes.values():
        pipe.send(None)


if __name__ == "__main__":
    main()
