"""A checkpoint as a run: one further step is the step that torch would have taken, and `pretrain` continues it."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.config import parse_settings
from selfpab_jax.convert.checkpoint import read_checkpoint
from selfpab_jax.convert.run import read_training_state, write_run
from selfpab_jax.convert.table import to_ours
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model.losses import masked_errors
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train.checkpoint import Checkpoints, CheckpointSettings
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.export import read_checkpoint as read_run
from selfpab_jax.train.optimizer import adamw, learning_rate
from selfpab_jax.train.run_dir import read_settings
from selfpab_jax.train.state import MeshSettings, abstract_state, make_mesh

STATISTICS = Statistics(np.full(156, 0.5, np.float32), np.full(156, 2.0, np.float32), "given")
PEAK, STEPS, WARMUP = 1e-4, 8, 0.07


def rate_after(steps: int) -> float:
    """What `LinearWUSchedule` of the original sets after this many steps (beyond its warm-up)."""
    progress = (steps + 1) / STEPS
    assert progress >= WARMUP
    down = (progress - WARMUP) / (1 - WARMUP)
    return (1 - down) * PEAK + down * PEAK / 100


def forward(model, x, timestamps=None):
    """The network in training mode without dropout; with times of frames, the one with calendar positions."""
    h = model.emb.lin_proj_layer(x)
    if timestamps is None:
        h = h + model.emb.pos_encoder.pe[:, : x.shape[1]]
    else:
        calendar, frame = model.emb.pos_encoder.pos_encoders
        fields = zip(("month", "day", "weekday", "hour", "minute"), timestamps.unbind(-1), strict=True)
        h = h + sum(getattr(calendar, f"{name}_embed").emb(time) for name, time in fields) + frame.pe[:, : x.shape[1]]
    return model.prediction_head.mlp(model.transformer_encoder(h))


def step_of_torch(model, optimizer, x, target, mask, timestamps=None):
    optimizer.zero_grad()
    error = ((forward(model, x, timestamps) - target).abs() * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
    error.mean().backward()
    optimizer.step()


@pytest.fixture
def batches(torch, golden):
    data = np.load(golden / "three_steps.npz")
    return [
        [torch.from_numpy(data[name])[order] for name in ("x", "target", "mask")] for order in ([0, 1], [1, 2], [2, 0])
    ]


@pytest.fixture
def trained(torch, golden_network, content, batches, tmp_path):
    """`tiny_selfpab` two steps on, with torch's AdamW, and its file as Lightning would write it."""
    model = golden_network("selfpab").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=1e-5)
    for step, batch in enumerate(batches[:2]):
        step_of_torch(model, optimizer, *batch)
        for group in optimizer.param_groups:
            group["lr"] = rate_after(step + 1)
    schedule = {
        "initial_learning_rate": PEAK,
        "decay_steps": STEPS,
        "end_learning_rate": PEAK * 0.01,
        "warmup": WARMUP,
        "n_steps": 3,
    }
    path = tmp_path / "upstream_model.ckpt"
    torch.save(content(model, optimizer, schedule, dropout=0.0), path)
    return model, optimizer, path


def one_step(run: Path, batch) -> tuple[dict, dict, dict]:
    """Parameters and moments after one step from a run's checkpoint, on one device."""
    _, _, metadata = read_run(run, "latest")
    settings = parse_settings(PretrainSettings, read_settings(run))
    functional = make_functional(settings.model, metadata["features"], metadata["outputs"])
    schedule = learning_rate(settings.optimizer, settings.optimizer.total_steps(1), settings.model.width)
    update = adamw(settings.optimizer, schedule)
    mesh = make_mesh(MeshSettings(data=1), jax.devices()[:1])
    checkpoints = Checkpoints(run, CheckpointSettings())
    state, _ = checkpoints.restore(abstract_state(functional, update, mesh))
    checkpoints.close()
    assert int(state.step) == 2
    x, target, mask, *timestamps = (jnp.asarray(part.numpy()) for part in batch)
    times = [each.astype(jnp.int32) for each in timestamps]

    def loss(parameters):
        return masked_errors(functional.build(parameters)(x, *times), target, mask > 0, "masked_l1").mean()

    change, optimizer = update.update(jax.grad(loss)(state.parameters), state.optimizer, state.parameters)
    adam = next(part for part in jax.tree.leaves(optimizer, is_leaf=is_adam) if is_adam(part))
    return optax.apply_updates(state.parameters, change), adam.mu, adam.nu


def is_adam(part) -> bool:
    return isinstance(part, optax.ScaleByAdamState)


def agree(found: dict, wanted: dict, limit: float = 1e-5) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        a, b = np.asarray(found[name]), array
        if name.endswith("key_bias"):
            # Attention does not depend on it: its gradient is rounding, which AdamW scales to full steps.
            continue
        assert np.abs(a - b).max() <= limit * np.abs(b).max(), name


@pytest.fixture
def genuine(torch, shared, golden_network):
    """The original's own file, opened in torch."""
    path = shared / "golden" / "tiny_selfpab.ckpt"
    content = torch.load(path, weights_only=True)
    model = golden_network("selfpab").train()
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.load_state_dict(content["optimizer_states"][0])
    return model, optimizer, path


@pytest.fixture
def genuine_lta2v(torch, shared, network):
    """The original's own file of LTA2V, opened in torch: its calendar tables are parameters that never change."""
    path = shared / "golden" / "tiny_lta2v.ckpt"
    content = torch.load(path, weights_only=True)
    model = network(96, layers=2).train()
    calendar, frame = torch.nn.Module(), torch.nn.Module()
    for name, rows in (("minute", 60), ("hour", 24), ("weekday", 7), ("day", 32), ("month", 13)):
        table = torch.nn.Module()
        table.emb = torch.nn.Embedding(rows, 60)
        table.emb.weight.requires_grad_(False)
        calendar.add_module(f"{name}_embed", table)
    frame.register_buffer("pe", model.emb.pos_encoder.pe)
    model.emb.pos_encoder = torch.nn.Module()
    model.emb.pos_encoder.pos_encoders = torch.nn.ModuleList([calendar, frame])
    model.load_state_dict(content["state_dict"])
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.load_state_dict(content["optimizer_states"][0])
    return model, optimizer, path


@pytest.fixture
def lta2v_batch(torch, golden):
    """Frames with their times, and a mask of a fifth of the frames."""
    given = np.load(golden / "tiny_lta2v_forward.npz")
    target = given["x"]
    mask = np.zeros_like(target)
    mask[:, 7:19] = 1
    parts = (np.where(mask > 0, 0, target), target, mask, given["timestamps"].astype(np.int64))
    return [torch.from_numpy(part) for part in parts]


@pytest.mark.parametrize(
    ("source", "steps"), [("trained", STEPS), ("genuine", STEPS), ("genuine_lta2v", 4)], ids=lambda value: str(value)
)
@pytest.mark.slow
def test_one_further_step_is_torchs(source, steps, request, tmp_path):
    model, optimizer, path = request.getfixturevalue(source)
    lta2v = source == "genuine_lta2v"
    batch = request.getfixturevalue("lta2v_batch") if lta2v else request.getfixturevalue("batches")[2]
    before = {name: tensor.detach().clone().numpy() for name, tensor in model.named_parameters()}
    checkpoint = read_checkpoint(path)
    statistics = replace(STATISTICS, mean=STATISTICS.mean[:96], std=STATISTICS.std[:96]) if lta2v else STATISTICS
    training = write_run(checkpoint, tmp_path / "run", statistics)
    assert (training.step, training.optimizer.steps, training.optimizer.full_first_step) == (2, steps, True)

    step_of_torch(model, optimizer, *batch)
    parameters, mean, square = one_step(tmp_path / "run", batch)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    states = [optimizer.state[parameter] for parameter in model.parameters() if parameter.requires_grad]
    after = {name: tensor.detach().numpy() for name, tensor in model.named_parameters()}
    settings = checkpoint.settings
    agree(parameters, to_ours(after, settings))
    for found, moment in ((mean, "exp_avg"), (square, "exp_avg_sq")):
        agree(found, to_ours({n: s[moment].numpy() for n, s in zip(names, states, strict=True)}, settings))
    # The change alone agrees as far as float32 parameters can tell: so moments, rate and bias correction are right.
    start = to_ours(before, settings)
    change = {name: np.asarray(parameters[name]) - start[name] for name in start}
    agree(change, to_ours({name: after[name] - before[name] for name in names}, settings), limit=5e-3)


@pytest.mark.parametrize("family", ["selfpab", "monoselfpab", "lta2v"])
def test_genuine_files_have_the_schedules_rate(shared, family):
    checkpoint = read_checkpoint(shared / "golden" / f"tiny_{family}.ckpt")
    training = read_training_state(checkpoint)
    settings = training.optimizer
    assert training.step == 2
    rate = learning_rate(settings, settings.total_steps(1), 60)(jnp.asarray(2))
    wanted = checkpoint.file.content["optimizer_states"][0]["param_groups"][0]["lr"]
    assert np.isclose(rate, wanted, rtol=1e-6)


def test_calendar_positions_leave_numbers_out(shared):
    """LTA2V's fixed tables are parameters without moments: the optimizer's numbers have gaps there."""
    checkpoint = read_checkpoint(shared / "golden" / "tiny_lta2v.ckpt")
    training = read_training_state(checkpoint)
    states = checkpoint.file.content["optimizer_states"][0]["state"]
    assert 2 not in states
    head = checkpoint.file.array(states[32]["exp_avg"])
    assert np.array_equal(training.mean["head.bias"], head)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    assert main(["cohort", str(folder / "cohort"), "--subjects", "4", "--hours", "2"]) == 0
    build = ["records", "build", "--source", "hunt4", str(folder / "cohort"), "--out", str(folder / "records")]
    assert main([*build, "--validation", "0.25", "--test", "0"]) == 0
    return folder / "records"


@pytest.mark.slow
def test_pretrain_continues_it(trained, records, tmp_path, capsys):
    run, given = tmp_path / "run", tmp_path / "statistics.npz"
    STATISTICS.save(given)
    command = ["convert", "from-torch", str(trained[2]), "--run", str(run), "--statistics", str(given)]
    assert main(command) == 0
    assert "after step 2 of 8" in capsys.readouterr().out
    assert main(["export", str(run), str(tmp_path / "before")]) == 0
    assert main(["pretrain", "--resume", "--run", str(run), "--data.path", str(records)]) == 0
    steps = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps[0]["step"] == 2
    assert steps[-1]["ending"] == "finished"
    objective, _, metadata = read_run(run, "latest")
    assert metadata["step"] == STEPS
    assert np.array_equal(objective.statistics.mean, STATISTICS.mean)


def test_a_run_that_cannot_be_continued_is_refused(torch, trained, tmp_path, refused):
    path, given = trained[2], tmp_path / "statistics.npz"
    STATISTICS.save(given)
    whole = torch.load(path, weights_only=True)

    def said(**changes) -> str:
        torch.save({**whole, **changes}, path)
        words = refused("convert", "from-torch", path, "--run", tmp_path / "run", "--statistics", given)
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["statistics.npz", "upstream_model.ckpt"]
        return words

    state = whole["optimizer_states"][0]
    assert "no optimizer state" in said(optimizer_states=[])
    schedule = {**whole["lr_schedulers"][0]}
    assert "has taken 4 steps, its optimizer 2" in said(lr_schedulers=[{**schedule, "n_steps": 5}])
    assert "its schedule gives" in said(lr_schedulers=[{**schedule, "decay_steps": 80}])
    wrong = {**state, "state": {**state["state"], 5: {**state["state"][5], "exp_avg": torch.zeros(61)}}}
    del wrong["state"][7]
    message = said(optimizer_states=[wrong])
    assert "exp_avg of transformer_encoder.layers.0.self_attn.out_proj.bias has shape (61,)" in message
    assert "exp_avg of transformer_encoder.layers.0.linear1.bias is missing" in message
    infinite = {**state["state"][0], "exp_avg_sq": torch.full_like(state["state"][0]["exp_avg_sq"], torch.inf)}
    broken = {**state, "state": {**state["state"], 0: infinite}}
    assert "not finite in emb.lin_proj_layer.weight" in said(optimizer_states=[broken])
    group = [{**state["param_groups"][0], "amsgrad": True}]
    assert "amsgrad" in said(optimizer_states=[{**state, "param_groups": group}])


def test_an_existing_run_and_a_run_without_statistics_are_refused(trained, tmp_path, refused):
    assert "--no-statistics" in refused("convert", "from-torch", trained[2], "--run", tmp_path / "r", "--no-statistics")
    assert "--run" in refused("convert", "from-torch", trained[2])
    given = tmp_path / "statistics.npz"
    STATISTICS.save(given)
    (tmp_path / "r").mkdir()
    assert "exists" in refused("convert", "from-torch", trained[2], "--run", tmp_path / "r", "--statistics", given)


def test_nothing_is_written_unless_both_can_be(trained, tmp_path, refused, monkeypatch):
    given, model, run = tmp_path / "statistics.npz", tmp_path / "model", tmp_path / "new" / "run"
    STATISTICS.save(given)
    model.mkdir()
    (model / "notes.txt").write_text("mine")

    def said(model: Path, run: Path, *more: str) -> str:
        return refused("convert", "from-torch", trained[2], model, "--run", run, "--statistics", given, *more)

    assert "--overwrite" in said(model, run)
    assert "is kept" in said(model, run, "--overwrite")
    assert "is a file" in said(given, run)
    assert f"{given} is a file" in said(given / "model", run)
    assert "exists" in said(tmp_path / "other", model)
    assert f"{given} is a file" in said(tmp_path / "other", given / "run")
    for inside in (tmp_path / "other", tmp_path / "other" / "run"):
        assert "in the model directory" in said(tmp_path / "other", inside)
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode: False)
        assert "no permission" in said(tmp_path / "other", run)
    assert not run.parent.exists()
    assert not (tmp_path / "other").exists()
    assert [path.name for path in model.iterdir()] == ["notes.txt"]


def test_a_run_of_lta2v_without_its_optimizer_is_refused(torch, lta2v_content, tmp_path, refused):
    path, given = tmp_path / "lta2v.ckpt", tmp_path / "statistics.npz"
    torch.save(lta2v_content, path)
    Statistics(np.zeros(96, np.float32), np.ones(96, np.float32), "given").save(given)
    said = refused("convert", "from-torch", path, "--run", tmp_path / "run", "--statistics", given)
    assert "no optimizer state" in said
