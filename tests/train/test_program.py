"""The training step as a program, checked without running it: dtypes, FLOPs, gathers, memory."""

import math
import re
from collections import Counter

import jax
import numpy as np
import pytest

from selfpab_jax.model.config import ModelSettings, forward_flops
from selfpab_jax.model.masking import MaskingSettings, TaskSettings
from selfpab_jax.planning.collectives import collectives_of
from selfpab_jax.planning.compile import LoweredStep, WindowShape, compile_step, lower
from selfpab_jax.planning.hlo import products_of
from selfpab_jax.planning.memory import memory_of
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.optimizer import OptimizerSettings
from selfpab_jax.train.state import MeshSettings

FRAMES, FEATURES = 47, 156
MODEL = ModelSettings(width=24, heads=2, feedforward=40, layers=2)
UNALTERED = TaskSettings(masking=MaskingSettings(time_share=0, frequency_share=0))  # half the time to compile


def lowered(
    model: ModelSettings, *, batch: int = 8, frames: int = FRAMES, mesh: MeshSettings | None = None
) -> LoweredStep:
    mesh = mesh or MeshSettings(1, 1, 1)
    settings = PretrainSettings(model=model, task=UNALTERED, optimizer=OptimizerSettings(batch_size=batch), mesh=mesh)
    return lower(settings, WindowShape(frames=frames), jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor])


def products(ahead: LoweredStep) -> list[tuple[list[str], list[list[int]], int]]:
    """Dtypes and sizes of operands, and FLOPs, of each matrix product in the step as JAX lowered it."""
    found = []
    for line in ahead.lowered.as_text().splitlines():
        if "dot_general" not in line:
            continue
        operands = re.findall(r"tensor<((?:\d+x)*)(\w+)>", line.split(" : ")[-1])
        sizes = [[int(size) for size in text.split("x") if size] for text, _ in operands]
        contracted = re.search(r"contracting_dims = \[([\d, ]+)\]", line)
        assert contracted is not None
        depth = math.prod(sizes[0][int(axis)] for axis in contracted[1].split(","))
        found.append(([dtype for _, dtype in operands[:2]], sizes[:2], 2 * math.prod(sizes[2]) * depth))
    return found


WAYS = {
    "exact": MODEL,
    "padded": ModelSettings(width=24, heads=2, feedforward=40, layers=2, layout="padded"),
    "blocks": ModelSettings(width=24, heads=2, feedforward=40, layers=2, attention="blocks"),
    "attention again": ModelSettings(width=24, heads=2, feedforward=40, layers=2, rematerialize="attention"),
    "layers again": ModelSettings(width=24, heads=2, feedforward=40, layers=2, rematerialize="layers"),
}


@pytest.mark.parametrize("way", WAYS)
def test_matrix_products_of_the_bf16_step_are_bf16(way: str) -> None:
    found = products(lowered(WAYS[way]))
    assert len(found) > 20
    assert {dtype for dtypes, _, _ in found for dtype in dtypes} == {"bf16"}


def test_the_float32_step_has_float32_products_alone() -> None:
    model = ModelSettings(width=24, heads=2, feedforward=40, layers=1, compute="float32")
    assert {dtype for dtypes, _, _ in products(lowered(model)) for dtype in dtypes} == {"f32"}


@pytest.mark.parametrize("layout", ["exact", "padded"])
def test_flops_of_the_published_size_are_those_counted_by_hand(layout: str) -> None:
    model = ModelSettings(layout=layout)  # type: ignore[arg-type]
    by_hand = 2 * 3 * forward_flops(model, FEATURES, FEATURES, 599)
    counted = sum(flops for _, _, flops in products(lowered(model, batch=2, frames=599)))
    # Padding is arithmetic, too: 1536 for 1500, 608 frames for 599, 160 features for 156, heads of 256 for 250.
    assert counted == pytest.approx(by_hand, rel=0.02 if layout == "exact" else 0.08)
    assert layout == "exact" or counted > by_hand


def test_a_parameter_is_gathered_once_a_pass_and_only_where_it_is_cut() -> None:
    # Layers that are computed again gather theirs again; that others do not is seen in tests/planning/test_plan.py.
    ahead = lowered(WAYS["layers again"], mesh=MeshSettings(data=2, fsdp=4))
    collectives = collectives_of(compile_step(ahead).program, ahead.mesh, ahead.outputs)
    gathers = [each for each in collectives if each.kind == "all-gather"]
    times = Counter(each.tensor for each in gathers)
    sharded = {name for name, leaf in ahead.state.parameters.items() if not leaf.sharding.is_fully_replicated}
    assert len(sharded) == 2 * 7 + 3  # of a layer six kernels and a bias
    assert set(times) == sharded
    assert all(count <= (2 if ".layers." in name else 1) for name, count in times.items())
    assert {each.axes for each in gathers} == {("fsdp",)}


@pytest.mark.slow
def test_memory_grows_linearly_with_the_batch() -> None:
    peaks, kept = [], []
    for batch in (32, 48, 64):  # XLA changes its mind about small ones, at another size in each version
        ahead = lowered(ModelSettings(width=64, heads=2, feedforward=64, layers=1), batch=batch, frames=199)
        memory = memory_of(ahead, compile_step(ahead))
        peaks.append(memory.most)
        kept.append(memory.kept)
    assert peaks[2] - peaks[1] == pytest.approx(peaks[1] - peaks[0], rel=0.05)
    assert peaks[1] - peaks[0] > 16 * 2 * 199 * 199 * 4  # at least the weights of attention
    np.testing.assert_allclose(kept, kept[0] * np.array([1, 1.5, 2]), rtol=1e-3)


def test_the_published_size_compiles_without_its_parameters() -> None:
    ahead = lowered(ModelSettings(), batch=1, frames=599)
    compiled = compile_step(ahead)
    memory = memory_of(ahead, compiled)
    assert memory.parameters == 4 * 61_107_848
    assert memory.optimizer == 2 * memory.parameters + 3 * 4  # two moments, three counts of steps
    by_hand = 3 * forward_flops(ModelSettings(), FEATURES, FEATURES, 599)
    assert products_of(compiled.program).total_flops == pytest.approx(by_hand, rel=0.01)
