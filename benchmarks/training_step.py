"""A training step at the published size against the same network and optimiser from torch.nn, in one run.

    python benchmarks/training_step.py [--batch 4] [--repeats 5]

float32, 599 frames, dropout 0.1, AdamW, the loss of the pretext task; both sides with all cores of this machine, taking
turns, medians. Beside them, the largest float32 matrix-product rate that either library shows here, and the share
of ours that our step reaches (model FLOP by hand count: three forward passes).
"""

import argparse
import statistics
import time
from collections.abc import Callable

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
from selfpab_jax.train.step import Objective, to_devices, train_step

FRAMES, FEATURES = 599, 156
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
    stop = np.zeros(batch, bool)

    def run() -> None:
        nonlocal state
        state, metrics = step(state, to_devices(mesh, spectrogram), to_devices(mesh, stop))
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


def product_rates(size: int = 2048, repeats: int = 9) -> tuple[float, float]:
    """Largest float32 matrix-product rates, ours and torch's, in GFLOP/s."""
    a = np.random.default_rng(0).random((size, size), np.float32)
    ours, theirs = jnp.asarray(a), torch.from_numpy(a)
    multiply = jax.jit(jnp.matmul)
    sides = (lambda: jax.block_until_ready(multiply(ours, ours)), lambda: theirs @ theirs)
    for side in sides:
        side()
    best = [min(timed(side) for _ in range(repeats)) for side in sides]
    return tuple(2 * size**3 / seconds / 1e9 for seconds in best)  # type: ignore[return-value]


def compare(ours: Callable[[], None], theirs: Callable[[], None], repeats: int) -> tuple[float, float, float]:
    """Median seconds of each and the median of the ratios, turn by turn, after a warm-up of two."""
    for _ in range(2):
        ours()
        theirs()
    pairs = [(timed(ours), timed(theirs)) for _ in range(repeats)]
    a, b = zip(*pairs, strict=True)
    return statistics.median(a), statistics.median(b), statistics.median(t / o for o, t in pairs)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    sizes = (SETTINGS, FEATURES, FEATURES, FRAMES)
    ours_rate, torch_rate = product_rates()
    versions = f"jax {jax.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    print(f"{versions}, float32, batch {options.batch}")
    print(f"matrix product       ours {ours_rate:8.1f} GFLOP/s   torch {torch_rate:8.1f} GFLOP/s")
    network = TorchNetwork()
    for name, pair, flops in (
        ("training step", (our_step(options.batch), torch_step(network, options.batch)), training_flops(*sizes)),
        ("forward", (our_forward(options.batch), torch_forward(network, options.batch)), forward_flops(*sizes)),
    ):
        ours, theirs, ratio = compare(*pair, options.repeats)
        rate = flops * options.batch / ours / 1e9
        print(
            f"{name:<20} ours {ours:8.2f} s   torch {theirs:8.2f} s   torch / ours {ratio:5.2f}   "
            f"ours {rate:6.1f} GFLOP/s, {rate / ours_rate:.0%} of the matrix product"
        )


if __name__ == "__main__":
    main()
