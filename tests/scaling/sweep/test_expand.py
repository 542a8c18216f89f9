"""Plans: every run with its cost, nested data, and refusals of sweeps that cannot run."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import optax
import pytest
import yaml

from selfpab_jax.cli.main import main
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.data.splits import select
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.model.config import ModelSettings, training_flops
from selfpab_jax.model.functional import Parameters, make_functional
from selfpab_jax.model.rng import sample_keys
from selfpab_jax.scaling.sweep.config import parse_sweep, read_sweep
from selfpab_jax.scaling.sweep.cost import ModelShape, memory_bytes
from selfpab_jax.scaling.sweep.expand import plan_sweep
from selfpab_jax.scaling.sweep.manifest import PlannedRun
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train.config import PretrainSettings, as_json
from selfpab_jax.train.optimizer import OptimizerSettings, adamw, learning_rate
from selfpab_jax.train.state import TrainState, abstract_state, make_mesh
from selfpab_jax.train.step import Objective

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
TINY = {"model": {"width": 16, "heads": 2, "feedforward": 16, "layers": 1, "compute": "float32"}}
Planner = Callable[..., list[PlannedRun]]


def sweep_content(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "base": "demo",
        "length": {"steps": 4},
        "models": {"a": TINY, "b": {"model": {**TINY["model"], "width": 32}, "optimizer": {"learning_rate": "5e-4"}}},
        "overrides": {"optimizer": {"batch_size": 8}},
        "grids": [{"hours": [0.1, 0.2, 0.6], "model": ["a", "b"], "seed": [0, 1]}],
    }
    return content | changes


@pytest.fixture
def plan(tiny_records: Path) -> Planner:
    def plan(**changes: Any) -> list[PlannedRun]:
        return plan_sweep(parse_sweep(sweep_content(**changes), "sweep.yaml", "small"), tiny_records).lines

    return plan


def test_a_plan_is_the_product_of_its_axes(plan: Planner, tiny_records: Path) -> None:
    lines = plan()
    assert [line.name for line in lines[:5]] == ["h0.1-a-s0", "h0.1-a-s1", "h0.1-b-s0", "h0.1-b-s1", "h0.2-a-s0"]
    assert len(lines) == 12
    line = lines[-1]
    assert line.settings["data"] | {"path": None} == as_json(PretrainSettings())["data"] | {
        "hours": 0.6,
        "subset_seed": 1,
    }
    assert line.seed == 1
    assert line.settings["optimizer"]["learning_rate"] == 5e-4
    assert line.settings["model"]["dropout"] == 0, "of the base"
    frames = open_records(tiny_records).info.frames
    assert line.tokens == 4 * 8 * frames
    model = ModelSettings(**line.settings["model"])
    assert line.flops == 4 * 8 * training_flops(model, 156, 156, frames)
    assert [line.hours for line in lines[::4]] == pytest.approx([0.1, 0.2, 0.6], abs=20 / 3600)
    assert json.loads(json.dumps(line.settings)) == line.settings


WSD = {"optimizer": {"batch_size": 8, "schedule": "wsd", "warmup_steps": 2}}


def test_several_lengths_are_branched_off_one_trunk(plan: Planner) -> None:
    length = {"steps": [10, 20, 40], "trunk": True, "cooldown": 0.2}
    lines = plan(length=length, overrides=WSD, models={}, grids=[{"hours": 0.6, "seed": [0, 1]}])
    assert [line.name for line in lines[:4]] == ["h0.6-trunk-s0", "h0.6-n10-s0", "h0.6-n20-s0", "h0.6-n40-s0"]
    trunk, branch = lines[0], lines[2]
    assert (trunk.is_trunk, trunk.steps, trunk.probe) == (True, 32, None)
    assert trunk.settings["checkpoint"]["keep_steps"] == [8, 16, 32]
    assert (branch.trunk, branch.trunk_steps, branch.steps) == ("h0.6-trunk-s0", 16, 20)
    assert branch.settings["optimizer"]["cooldown_steps"] == 4
    assert branch.settings["branch"] == {"run": "h0.6-trunk-s0", "step": 16}
    assert branch.flops == 20 * trunk.flops / 32, "of the whole path"
    total = sum(line.own_share * line.flops for line in lines[:4]) * 32 / trunk.flops
    assert total == pytest.approx(32 + 2 + 4 + 8), "the trunk counts once"
    apart = plan(length={"steps": [10, 20]}, overrides=WSD, models={}, grids=[{"hours": 0.6, "seed": 0}])
    assert [(line.name, line.trunk, line.steps) for line in apart] == [("h0.6-n10-s0", "", 10), ("h0.6-n20-s0", "", 20)]


@pytest.mark.parametrize(
    ("length", "overrides", "message"),
    [
        ({"steps": [10, 20], "trunk": True}, {}, "needs optimizer.schedule wsd, not linear_warmup"),
        (
            {"steps": [2, 20], "trunk": True},
            WSD,
            "a run of 2 steps, 1 to cool down, ends before the trunk is warmed up",
        ),
        ({"steps": 20, "trunk": True}, WSD, "trunk is for several lengths"),
        ({"steps": [20, 20]}, WSD, "steps has a value twice"),
        ({"steps": [20, 30], "trunk": "yes"}, WSD, "give true or false"),
        ({"steps": [20, 30], "cooldown": 1.5}, WSD, "cooldown is 1.5"),
    ],
)
def test_impossible_trunks_are_refused(plan: Planner, length: dict, overrides: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan(length=length, overrides=overrides, models={}, grids=[{"hours": 0.6, "seed": 0}])


def test_a_field_of_a_run_is_an_axis(plan: Planner) -> None:
    shares = {"task.masking.time_share": [0.15, 0.5], "data.scale": ["linear", "log"], "seed": [0, 1]}
    lines = plan(models={}, grids=[shares])
    names = ["scale_linear-masking.time_share_0.15-s0", "scale_linear-masking.time_share_0.15-s1"]
    assert [line.name for line in lines[:2]] == names
    assert len({line.hash for line in lines}) == len(lines) == 8
    assert lines[-1].settings["task"]["masking"]["time_share"] == 0.5
    assert lines[-1].settings["data"]["scale"] == "log"
    assert lines[-1].axes["task.masking.time_share"] == 0.5
    only = plan(models={}, grids=[{"task.masking.disjoint": [True, False]}])
    assert [line.settings["task"]["masking"]["disjoint"] for line in only] == [True, False]


@pytest.mark.parametrize(
    ("axis", "values", "message"),
    [
        ("task.masking.time_sher", [0.5], "time_share"),
        ("task.masking.time_share", [2.0], "time_share is 2.0"),
        ("task.masking", [{"time_share": 0.5}], "give text, a number"),
        ("task.masking.time_share", [], "has no values"),
        ("task.masking.time_share", [0.5, 0.5], "a value twice"),
        ("data.hours", [1.0], "is the axis hours"),
        ("optimizer.steps", [1], "is not an axis"),
        ("nothing.here", [1], "nothing"),
    ],
)
def test_an_axis_that_is_no_field_or_value_is_refused(plan: Planner, axis: str, values: list, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(models={}, grids=[{axis: values}])


def test_data_are_nested_for_one_seed(plan: Planner, tiny_records: Path) -> None:
    index = open_records(tiny_records).index("train")
    lines = plan(grids=[{"hours": [0.1, 0.2, 0.6], "seed": 7}])
    rows = [
        set(select(index, hours=line.settings["data"]["hours"], seed=line.settings["data"]["subset_seed"]).tolist())
        for line in lines
    ]
    assert rows[0] < rows[1] < rows[2]


def test_subjects_at_equal_hours_are_counted_as_drawn(tiny_records: Path) -> None:
    grids = [
        {"hours": 0.15, "subjects": [1, 2, 4], "seed": 7}
    ]  # segments of 5 minutes, two of which add up to the hours
    planned = plan_sweep(parse_sweep(sweep_content(grids=grids), "", "small"), tiny_records)
    assert [line.subjects for line in planned.lines] == [1, 2, 2]
    assert [line.hours for line in planned.lines] == pytest.approx([0.15] * 3, abs=20 / 3600)
    (remark,) = planned.remarks
    assert remark.startswith("4 subjects with seed 7: only 2 ")


def test_lengths(plan: Planner) -> None:
    grids = [{"hours": [0.2, 0.4], "model": ["a", "b"], "seed": 0}]
    by_epochs = plan(grids=grids, length={"epochs": 4})
    assert [line.steps for line in by_epochs] == [18, 18, 36, 36]
    tokens = plan(grids=grids, length={"tokens": "1e5"})
    assert {line.steps for line in tokens} == {round(1e5 / 8 / 39)}
    flops = plan(grids=grids, length={"flops": "1e11"})
    assert [line.flops for line in flops] == pytest.approx([1e11] * 4, rel=0.01)
    assert flops[0].steps > flops[1].steps


def test_runs_beyond_the_data_are_dropped_or_refused(plan: Planner, tiny_records: Path) -> None:
    grids = [{"hours": [0.5, 10, 100], "seed": [0, 1]}]
    with pytest.raises(DataError, match=r"h10-s0: 10 hours .*beyond_data: drop"):
        plan(grids=grids)
    planned = plan_sweep(parse_sweep(sweep_content(grids=grids, beyond_data="drop"), "", "small"), tiny_records)
    assert [line.name for line in planned.lines] == ["h0.5-s0", "h0.5-s1"]
    assert [remark.split(" hours")[0] for remark in planned.remarks] == ["dropped 2 runs: 10", "dropped 2 runs: 100"]
    with pytest.raises(DataError, match="9 subjects"):
        plan(grids=[{"subjects": 9, "seed": 0}])
    with pytest.raises(DataError, match="1 subjects"):
        plan(grids=[{"subjects": 1, "hours": 0.3, "seed": 0}])
    with pytest.raises(ConfigError, match="no runs left"):
        plan(grids=[{"hours": 1000, "seed": 0}], beyond_data="drop")


def test_runs_of_two_grids_are_made_once(tiny_records: Path) -> None:
    grids = [{"hours": [0.2, 0.4], "seed": 0}, {"hours": 0.4, "learning_rate": [1e-3, 2e-3], "seed": 0}]
    planned = plan_sweep(parse_sweep(sweep_content(grids=grids), "", "small"), tiny_records)
    assert [line.name for line in planned.lines] == ["h0.2-s0", "h0.4-s0", "h0.4-lr0.002-s0"]  # the demo's rate is 1e-3
    (remark,) = planned.remarks
    assert remark.startswith("1 runs")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grids": [{"hour": 3}]}, "grid 1: no axis hour; did you mean hours?"),
        ({"grids": [{"zzz": 3}]}, "no axis zzz; .* hours, subjects, model, seed, learning_rate"),
        ({"grids": [{"hours": []}]}, "hours has no values"),
        ({"grids": [{"hours": [1, 1.0]}]}, "hours has a value twice"),
        ({"grids": [{"hours": [0, 1]}]}, "hours has 0; .* greater than 0"),
        ({"grids": [{"seed": [0.5]}]}, "seed is 0.5"),
        ({"grids": [{"hours": ["many"]}]}, "hours is 'many'"),
        ({"grids": {"hours": [1]}}, "grids must be a list"),
        ({"grid": []}, "no field grid; did you mean grids?"),
        ({"base": None}, "base is missing"),
        ({"base": "nowhere.yaml"}, "base nowhere.yaml"),
        ({"length": {"steps": 3, "epochs": 2}}, "exactly one .* not epochs, steps"),
        ({"length": {"stepps": 3}}, "length: no field stepps; did you mean steps?"),
        ({"beyond_data": "skip"}, "beyond_data is skip"),
        ({"overrides": {"model": {"widht": 3}}}, "did you mean model.width?"),
        ({"overrides": {"run": "x"}}, "run is not a field"),
        ({"overrides": {"model": {"heads": 3}}}, "run with hours 0.1, model a, seed 0: model.width 16"),
        ({"grids": [{"model": ["c"]}]}, "model c .* 1m, .* a, b"),
        ({"models": {"a/b": TINY}}, "models: a/b"),
        ({"devices": {"count": 3}}, "cannot fit: optimizer.batch_size"),
        ({"devices": {"count": 2}, "overrides": {"mesh": {"data": 4}}}, "mesh: data 4 .* 2 devices"),
        ({"devices": {"memory_gib": 0.0001}}, "cannot fit: .* GiB .* mesh.fsdp"),
        ({"devices": {"kind": "NVIDIA Z9"}}, "devices.kind NVIDIA Z9"),
        ({"final": {"windows": 0}}, "final: windows and batch_size"),
        ({"probe": {"config": "x"}}, "probe needs config, .* data"),
        (
            {"probe": {"config": "nosuch.yaml", "data": "x"}},
            "probe.config nosuch.yaml",
        ),
        ({"grids": [{"seed": [-1]}]}, "seeds .* 2147483647"),
        ({"grids": [{"seed": [10**20]}]}, "seeds"),
        ({"overrides": {"optimizer": 3}}, "optimizer is 3"),
        ({"length": {"tokens": float("inf")}}, "length.tokens is inf"),
    ],
)
def test_mistakes_are_refused_in_one_line(plan: Planner, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        plan(**changes)
    assert "\n" not in str(refusal.value)


def test_device_time_is_from_a_peak_or_a_measured_rate(plan: Planner) -> None:
    grids = [{"model": "a", "seed": 0}]
    (line,) = plan(grids=grids, devices={"kind": "NVIDIA H100", "utilization": 0.5})
    assert line.device_seconds == line.flops / (989e12 * 0.5)
    assert plan(grids=grids, devices={"kind": "NVIDIA H100", "utilisation": 0.5}) == [line], "of version 0.1"
    (line,) = plan(grids=grids, rate={"gflops": 2, "start_seconds": 30})
    assert line.device_seconds == line.flops / 2e9 + 30
    (line,) = plan(grids=grids)
    assert line.device_seconds is None


@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (ModelSettings(width=128, heads=4, feedforward=256, layers=3, dropout=0.0, compute="float32"), 16),
        (ModelSettings(width=256, heads=4, feedforward=1024, layers=2, dropout=0.1, compute="float32"), 8),
    ],
)
def test_memory_is_about_that_of_the_compiled_step(model: ModelSettings, batch: int) -> None:
    """Within a factor of two: a formula does not know what the compiler keeps."""
    settings = PretrainSettings(model=model, optimizer=OptimizerSettings(batch_size=batch))
    schedule = learning_rate(settings.optimizer, 10, model.width)
    update = adamw(settings.optimizer, schedule)
    functional = make_functional(model, 156, 156)
    statistics = Statistics(np.zeros(156, np.float32), np.ones(156, np.float32), "plain")
    objective = Objective(functional, settings.task, statistics, ("back", "thigh"), 6)
    mesh = make_mesh(settings.mesh, jax.devices()[:1])

    def step(state: TrainState, spectrogram: jax.Array, keys_B: jax.Array) -> TrainState:
        loss = lambda parameters: objective.errors(parameters, spectrogram, keys_B, training=True).mean()  # noqa: E731
        change, moments = update.update(jax.grad(loss)(state.parameters), state.optimizer, state.parameters)
        return TrainState(state.step + 1, cast(Parameters, optax.apply_updates(state.parameters, change)), moments)

    with jax.set_mesh(mesh):
        keys_B = jax.eval_shape(lambda: sample_keys(jax.random.key(0), jax.numpy.int32(0), jax.numpy.arange(batch)))
        given = (jax.ShapeDtypeStruct((batch, 199, 156), np.float16), keys_B)
        compiled = jax.jit(step, donate_argnums=0).lower(abstract_state(functional, update, mesh), *given).compile()
    found = compiled.memory_analysis()
    assert found is not None
    real = found.argument_size_in_bytes + found.temp_size_in_bytes
    estimate = memory_bytes(settings, ModelShape(156, 156, 199), {"data": 1, "fsdp": 1, "tensor": 1})
    print(f"estimated {estimate / 2**20:.1f} MiB, compiled {real / 2**20:.1f} MiB")
    assert 0.5 < estimate / real < 2


def test_memory_falls_where_it_should() -> None:
    def of(data: int = 1, fsdp: int = 1, accumulate: int = 1, **model: Any) -> int:
        settings = PretrainSettings(model=ModelSettings(**model))
        settings = PretrainSettings(
            model=settings.model, optimizer=type(settings.optimizer)(batch_size=64, accumulate=accumulate)
        )
        return memory_bytes(settings, ModelShape(156, 156, 599), {"data": data, "fsdp": fsdp, "tensor": 1})

    state = 61_107_848 * 16
    assert of(data=8) == pytest.approx((of() - state) / 8 + state)
    assert of(fsdp=8) == pytest.approx(of() / 8)
    assert of(accumulate=8) == of(data=8)
    assert of() > of(rematerialize="attention") > of(rematerialize="layers") > state


def test_shipped_sweeps_can_be_read_and_planned(
    tiny_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in sorted((CONFIGS / "sweeps").glob("*.yaml")):
        assert read_sweep(path).name == path.stem
    content = yaml.safe_load((CONFIGS / "sweeps" / "data_scaling.yaml").read_text())
    content["grids"] = [{**grid, "hours": [0.5, 1e6]} for grid in content["grids"]]
    (tmp_path / "data_scaling.yaml").write_text(yaml.safe_dump(content))
    words = ["sweep", "plan", str(tmp_path / "data_scaling.yaml"), "--out", str(tmp_path / "sweep")]
    assert main([*words, "--data.path", str(tiny_records)]) == 0
    content = capsys.readouterr().out
    words = ["sweep", "plan", str(CONFIGS / "sweeps" / "model_size.yaml"), "--out", str(tmp_path / "sizes")]
    assert main([*words, "--data.path", str(tiny_records)]) == 0
    assert "27 runs: " in capsys.readouterr().out
    assert "device-hours" in content
    assert "1e+06 hours" in content
    assert len((tmp_path / "sweep" / "plan.jsonl").read_text().splitlines()) == content.count("h0.5-")


def test_no_records_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["sweep", "plan", "configs/sweeps/nothing.yaml", "--out", str(tmp_path / "s")]) == 2
    assert main(["sweep", "plan", "configs/sweeps/data_scaling.yaml", "--out", str(tmp_path / "s")]) == 2
    assert main(["sweep", "run", str(tmp_path / "s"), "--all"]) == 1
    first, second, third = capsys.readouterr().err.splitlines()
    assert "configs/sweeps/nothing.yaml" in first
    assert "--data.path" in second
    assert "plan.jsonl" in third
