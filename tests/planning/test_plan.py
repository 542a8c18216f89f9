"""A plan compared with real steps and with counts by hand, and mistakes of users."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.cli.plan import mesh_of
from selfpab_jax.distributed.hardware import CHIPS, peak_flops
from selfpab_jax.model.config import ModelSettings, forward_flops, training_flops
from selfpab_jax.planning.compile import WindowShape
from selfpab_jax.planning.hlo import Products
from selfpab_jax.planning.memory import Memory
from selfpab_jax.planning.report import advice
from selfpab_jax.planning.roofline import ChipPlan, Roofline, StepPlan, bandwidth, on_chip, plan_step
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.optimizer import OptimizerSettings

FRAMES, BATCH = 299, 16
MODEL = ModelSettings(width=128, heads=2, feedforward=256, layers=2)
SETTINGS = PretrainSettings(model=MODEL, optimizer=OptimizerSettings(batch_size=BATCH), mesh=mesh_of("data=2,fsdp=4"))


@pytest.fixture(scope="module")
def planned() -> StepPlan:
    return plan_step(SETTINGS, WindowShape(frames=FRAMES))


@pytest.fixture(scope="module")
def measured() -> dict:
    words = ["--model.width", 128, "--model.heads", 2, "--model.feedforward", 256, "--model.layers", 2,
             "--optimizer.batch_size", BATCH, "--mesh.data", 2, "--mesh.fsdp", 4]  # fmt: skip
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("real_step.py"), str(FRAMES), *map(str, words)],
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            "MALLOC_MMAP_THRESHOLD_": str(2**16),  # freed memory is returned to the kernel at once
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_parameters_and_optimizer_are_those_of_a_real_run_to_the_byte(planned: StepPlan, measured: dict) -> None:
    assert measured["held"]["parameters"] == [planned.memory.parameters] * 8
    assert measured["held"]["optimizer"] == [planned.memory.optimizer] * 8


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from Linux's /proc")
def test_temporaries_are_what_a_real_step_allocates(planned: StepPlan, measured: dict) -> None:
    # The first step also loads code; devices that drift apart may need less, never more.
    peak = max(measured["growth"][1:])
    assert 8 * planned.memory.temporaries == pytest.approx(peak, rel=0.1)


def test_flops_are_those_counted_by_hand(planned: StepPlan) -> None:
    by_hand = 3 * forward_flops(MODEL, 156, 156, FRAMES) - 2 * FRAMES * 156 * MODEL.width  # the input needs no gradient
    assert planned.products.total_flops * 8 == by_hand * BATCH
    assert planned.model_flops == training_flops(MODEL, 156, 156, FRAMES) * BATCH


def test_traffic_is_what_fsdp_and_data_parallel_ask_for(planned: StepPlan) -> None:
    d, m = MODEL.width, MODEL.feedforward
    matrices = 2 * 156 * d + MODEL.layers * (4 * d * d + 2 * d * m)
    sent = {}
    for each in planned.collectives:
        key = (each.kind, each.role, each.axes)
        sent[key] = sent.get(key, 0) + each.sent * each.times
    cut = (
        1 + MODEL.layers
    )  # biases of the embedding and of the contraction of each layer are sharded like their kernels
    assert sent["all-gather", "parameters", ("fsdp",)] == (matrices + cut * d) * 2 * 3 / 4
    gathered = [each.tensor for each in planned.collectives if each.kind == "all-gather" and each.role == "parameters"]
    assert len(gathered) == len(set(gathered))
    assert sent["reduce-scatter", "gradients", ("fsdp",)] == matrices * 2 * 3 / 4
    assert sent["all-reduce", "gradients", ("data",)] == matrices / 4 * 2 * 2 * 1 / 2
    assert not any(each.role == "activations" for each in planned.collectives)


def test_bounds_are_in_order(planned: StepPlan) -> None:
    memory = planned.memory
    assert memory.state < memory.least < memory.most
    # Inputs of every product of two layers, including the attention weights, in bf16: two windows per device.
    d, m, t = MODEL.width, MODEL.feedforward, FRAMES
    per_layer = 2 * (t * (d + 3 * d + d + d + m) + MODEL.heads * t * t)
    assert memory.kept == pytest.approx(2 * (MODEL.layers * per_layer + 2 * t * (156 + d)), rel=0.1)


def test_links_are_those_that_a_group_runs_over() -> None:
    h100 = CHIPS["h100"]
    in_a_server = np.arange(16).reshape(2, 8)
    assert bandwidth(h100, in_a_server) == h100.link_bandwidth
    one_of_each = np.arange(16).reshape(2, 8).T
    assert bandwidth(h100, one_of_each) == h100.network_bandwidth
    whole_servers = np.arange(16)[None]
    assert bandwidth(h100, whole_servers) == 8 * h100.network_bandwidth
    assert bandwidth(CHIPS["v5e"], np.arange(256)[None]) == CHIPS["v5e"].link_bandwidth


def test_an_epoch_at_the_bound(planned: StepPlan) -> None:
    chip = replace(CHIPS["h100"], memory=planned.memory.most)
    plan = ChipPlan(planned, chip, Roofline(compute=0.25, memory=0.5, interconnect=0.125), hours=100_000)
    assert (plan.roofline.bound, plan.roofline.without_overlap, plan.roofline.limit) == (0.5, 0.875, "memory")
    assert plan.epoch_seconds == 1_200_000 / BATCH * 0.5
    assert plan.device_hours == pytest.approx(8 * 75_000 * 0.5 / 3600)
    assert plan.loader_bytes == BATCH * FRAMES * 156 * 2 / 0.5
    assert plan.mfu_bound == pytest.approx(planned.model_flops / 0.5 / 8 / 989e12)
    assert plan.fits
    assert replace(plan, chip=replace(chip, memory=planned.memory.most - 1)).fits is None
    assert replace(plan, chip=replace(chip, memory=planned.memory.least - 1)).fits is False
    on_tpu = on_chip(planned, CHIPS["v5e"], 1.0)
    assert on_tpu.roofline.compute == planned.products.total_flops / 197e12
    assert on_tpu.loader_bytes == pytest.approx(4 / 8 * BATCH * FRAMES * 156 * 2 / on_tpu.roofline.bound)


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (Memory(40, 80, 1, 40, 1, 10), r"--mesh fsdp=16 \(it must divide width 128\)"),
        (Memory(10, 20, 1, 10, 200, 300), r"rematerialize layers .*; or --optimizer.accumulate 4 .* of 1 per device"),
    ],
)
def test_advice(memory: Memory, words: str) -> None:
    settings = replace(SETTINGS, mesh=mesh_of("fsdp=4"))
    step = StepPlan(settings, WindowShape(), 1, 1, memory, Products({"bf16": 1}, 1, 1), ())
    plan = on_chip(step, replace(CHIPS["h100"], memory=100), 1.0)
    assert plan.fits is False
    assert re.search(words, advice(plan))


def test_one_table_of_chips() -> None:
    for chip in CHIPS.values():
        assert peak_flops(chip.kind) == chip.peak_flops


def test_the_command(tiny_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model.width", "32", "--model.heads", "2", "--model.feedforward", "32", "--model.layers", "1",
             "--data.path", str(tiny_records), "--optimizer.batch_size", "16", "--hours", "10",
             "--task.masking.time_share", "0"]  # fmt: skip
    out = tmp_path / "new" / "plan.json"
    assert main(["plan", *words, "--mesh", "data=4,fsdp=2", "--chip", "h100,v5e", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "data 4 x fsdp 2 x tensor 1: 8 devices" in text
    assert "| 8 v5e | data 4, fsdp 2 | 16 |" in text
    h100, v5e = json.loads(out.read_text())
    assert h100["memory"] == v5e["memory"]
    assert h100["seconds"]["compute"] < v5e["seconds"]["compute"]
    assert h100["epoch_seconds"] == pytest.approx(np.ceil(10 * 3600 / 20 / 16) * h100["seconds"]["bound"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mesh", "data=3"], "multiple of 3"),
        (["--mesh", "fsdp=8"], r"mesh.fsdp 8 does not divide the 1500 width"),
        (["--mesh", "data=8,data=4"], "each axis once"),
        (["--mesh=rows=8"], "write it as data=32,fsdp=8"),
        (["--mesh", "data=-1"], "write it as"),
        (["--mesh", "data=4096"], "1 to 1024"),
        (["--mesh", "data=64"], "process of its own"),
        (["--chip", "h1000"], "did you mean h100"),
        (["--hours", "0"], "greater than 0"),
        (["--model.attention", "cudnn", "--model.dropout", "0"], "plan with auto"),
        (["--data.path", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_reported_in_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error)
