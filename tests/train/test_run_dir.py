"""Who may write to a run, and what the command line says when something is wrong with it."""

import json
from pathlib import Path

import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.errors import RunError
from selfpab_jax.train.config import DataSettings, PretrainSettings, as_json
from selfpab_jax.train.logging import read_log, rewind_log
from selfpab_jax.train.run_dir import SETTINGS_FILE, open_run

SETTINGS = as_json(PretrainSettings(seed=1, data=DataSettings(path=Path("a"))))


def changed(**groups: dict) -> dict:
    return {**SETTINGS, **{name: {**SETTINGS[name], **fields} for name, fields in groups.items()}}


def take(run: Path, settings: dict = SETTINGS, **options: bool) -> None:
    with open_run(run, settings, **{"resume": False, "overwrite": False, **options}):
        pass


def test_an_existing_run_needs_a_word(tmp_path: Path) -> None:
    run = tmp_path / "run"
    take(run)
    with pytest.raises(RunError, match=r"--resume .* --overwrite"):
        take(run)
    take(run, resume=True)
    (run / "log.jsonl").write_text("{}\n")
    take(run, overwrite=True)
    assert not (run / "log.jsonl").exists()
    with pytest.raises(RunError, match="cannot be combined"):
        take(run, resume=True, overwrite=True)


def test_a_resumed_run_may_change_its_mesh_and_path_but_not_its_seed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    take(run)
    take(run, changed(mesh={"data": 8}, data={"path": "b"}), resume=True)
    with pytest.raises(RunError, match="seed was 1, is 2"):
        take(run, {**SETTINGS, "seed": 2}, resume=True)
    with pytest.raises(RunError, match=r"data.hours was None, is 3"):
        take(run, changed(data={"hours": 3.0}), resume=True)


def test_overwrite_leaves_other_peoples_directories_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="is kept"):
        take(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()
    (tmp_path / "settings.json").write_text('{"head": "abc", "pictures": true}')  # of another command
    with pytest.raises(RunError, match="is kept"):
        take(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_two_processes_never_train_one_run(tmp_path: Path) -> None:
    with (
        open_run(tmp_path / "run", SETTINGS, resume=False, overwrite=False),
        pytest.raises(RunError, match="another process"),
    ):
        take(tmp_path / "run", resume=True)


def test_damaged_settings_are_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    take(run)
    (run / SETTINGS_FILE).write_text('{"seed": ')
    with pytest.raises(RunError, match="cannot be read"):
        take(run, resume=True)


def test_the_log_survives_a_line_cut_short_and_is_rewound(tmp_path: Path) -> None:
    events = [{"event": "train", "step": step, "loss": 1.0} for step in range(1, 6)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"event": "tra')
    assert len(list(read_log(tmp_path))) == 5
    rewind_log(tmp_path, 3)
    assert [event["step"] for event in read_log(tmp_path)] == [1, 2, 3]


WRONG_CALLS = {
    "misspelled field": (["--model.widht", "3"], "did you mean model.width?"),
    "ill-typed field": (["--model.width", "wide"], "model.width: expected int, got wide"),
    "impossible value": (["--model.heads", "7"], "model.width 1500"),
    "no records": (["--data.path", "nowhere"], "nowhere: no records here"),
    "no data": ([], "data.path is not set"),
    "mesh": (["--mesh.tensor", "5"], "8 available devices"),
    "batch": (["--optimizer.batch_size", "12"], "multiple of 8"),
    "not a choice": (["--model.compute", "fp8"], "expected one of 'bfloat16', 'float32', got fp8"),
    "sensor": (["--task.kind", "cross_sensor", "--task.input_sensor", "hip"], "not one of back, thigh"),
    "negative": (["--data.threads", "0"], "data.threads is 0"),
    "hours": (["--data.hours", "1000"], "hours"),
    "subjects": (["--data.subjects", "1000"], "subjects"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls_get_a_line_and_no_run(
    name: str, tmp_path: Path, tiny_records: Path, capsys: pytest.CaptureFixture
) -> None:
    options, message = WRONG_CALLS[name]
    data = [] if name == "no data" else ["--data.path", str(tiny_records)]
    code = main(["pretrain", *data, "--run", str(tmp_path / "run"), *options])
    errors = capsys.readouterr().err
    assert code in (1, 2)
    assert message in errors
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) <= 2
    assert not (tmp_path / "run").exists()


def test_misspelled_field_in_a_file_is_told_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("optimizer:\n  learning_rat: 1e-3\n")
    assert main(["pretrain", "--config", str(config), "--run", str(tmp_path / "run")]) == 2
    assert "did you mean optimizer.learning_rate?" in capsys.readouterr().err


def test_status_of_a_directory_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["status", str(tmp_path)]) == 1
    assert "is not a run" in capsys.readouterr().err


def test_a_field_that_an_old_run_did_not_have_takes_its_default(tmp_path: Path) -> None:
    run = tmp_path / "run"
    take(run)
    settings = json.loads((run / SETTINGS_FILE).read_text())
    del settings["model"]["attention"]
    (run / SETTINGS_FILE).write_text(json.dumps(settings))
    with pytest.raises(RunError, match=r"model\.attention was auto, is full"):
        take(run, changed(model={"attention": "full"}), resume=True)
    take(run, resume=True)
