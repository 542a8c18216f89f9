"""`selfpab-jax probe` from a user's own files to scores, tables, figures and the report."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.errors import DataError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import ModelConfig, write_model
from selfpab_jax.probe.heads.saved import load_head
from selfpab_jax.probe.predict.run import predict
from selfpab_jax.probe.report.results import load_result
from selfpab_jax.probe.run import leakage_warnings, seen_subjects
from selfpab_jax.probe.splits import Fold
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.signal.stft import SpectrogramSettings

CONFIG = ModelConfig(
    family="selfpab",
    model=ModelSettings(width=16, heads=2, feedforward=24, layers=2, compute="float32"),
    features=156,
    outputs=156,
    channels=tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz"),
    sensors=("back", "thigh"),
    spectrogram=SpectrogramSettings(),
    frames=20,
    provenance={"source": "recordings", "subjects": ["ann", "somebody"], "hours": 3.0},
)
SUBJECTS = ("ann", "ben", "cleo", "dora")
QUICK = ["--linear.epochs", "4", "--linear.min_steps", "60", "--linear.batch_size", "256"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    rng = np.random.default_rng(1)
    shapes = make_functional(CONFIG.model, 156, 156).abstract
    arrays = {name: rng.normal(0, 0.2, shape.shape).astype(np.float32) for name, shape in shapes.items()}
    statistics = Statistics(np.zeros(156, np.float32), np.full(156, 0.5, np.float32), "plain")
    write_model(directory, CONFIG, arrays, statistics)
    return directory


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four subjects who stand, walk and lie for 12 s each, twice; dora's thigh sensor is missing."""
    folder = tmp_path_factory.mktemp("own")
    for number, subject in enumerate(SUBJECTS):
        rng = np.random.default_rng(number)
        parts = []
        for _ in range(2):
            for label, (axis, swing) in {"stand": (0, 0.01), "walk": (0, 0.5), "lie": (2, 0.01)}.items():
                signal = rng.normal(0, 0.02, (600, 6))
                signal[:, [axis, 3 + axis]] -= 1
                signal += swing * np.sin(np.arange(600) * (0.2 + 0.01 * number))[:, None]
                table = pd.DataFrame(signal, columns=list(CONFIG.channels))
                table["label"] = label
                parts.append(table)
        whole = pd.concat(parts)
        whole.insert(0, "timestamp", pd.date_range("2026-01-01", periods=len(whole), freq="20ms"))
        if subject == "dora":
            whole = whole.drop(columns=["thigh_x", "thigh_y", "thigh_z"])
        whole.to_csv(folder / f"{subject}.csv", index=False)
    return folder


def run(model: Path, tables: Path, out: Path, *more: str) -> int:
    call = ["probe", "--dataset.name", "tables", "--model", str(model), "--data", str(tables), "--out", str(out)]
    return main([*call, *QUICK, *more])


@pytest.mark.slow
def test_from_own_tables_to_a_report(
    model: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "probe"
    forest = ["--baselines", '["forest"]', "--baseline.forest.trees", "10", "--budgets.windows", "[1]"]
    forest += ["--spectrogram", "true"]
    assert (
        run(model, tables, out, "--heads", '["linear"]', "--seeds", "[0,1]", "--random_encoder", "true", *forest) == 0
    )
    printed = capsys.readouterr()
    result = load_result(out)
    assert [(method.name, method.budget and method.budget.amount) for method in result.methods] == [
        ("linear", None),
        ("linear", 1),
        ("random_linear", None),
        ("random_linear", 1),
        ("spectrogram_linear", None),
        ("spectrogram_linear", 1),
        ("forest", None),
        ("forest", 1),
    ]
    assert result.classes == ("lie", "stand", "walk")
    assert result.headline.subjects == ("ann", "ben", "cleo")
    assert result.headline.summary.macro_f1.mean > 0.8
    assert any("dora" in line for line in result.skipped)
    assert "leakage: the encoder was pre-trained on recordings of 1 of these 3 subjects (ann)" in printed.out
    assert printed.out.count("leakage:") >= 4  # in every table
    assert {path.name for path in out.iterdir()} >= {
        "probe.json",
        "scores.csv",
        "subjects.csv",
        "classes.csv",
        "report.html",
    }
    assert (out / "report.html").read_text().count("data:image/png") >= 5
    assert json.loads((out / "probe.json").read_text())["protocol"]["folds"] == "leave one subject out"


@pytest.mark.slow
def test_tables_of_one_sensor_each(model: Path, tables: Path, tmp_path: Path) -> None:
    """The scores of tables with all columns; who has no file of a sensor is named."""
    (tmp_path / "in").mkdir()
    for subject in SUBJECTS:
        whole = pd.read_csv(tables / f"{subject}.csv")
        for sensor, more in (("back", ["label"]), ("thigh", [])):
            if f"{sensor}_x" in whole:
                columns = {f"{sensor}_{axis}": axis for axis in "xyz"}
                part = whole[["timestamp", *columns, *more]].rename(columns=columns)
                part.to_csv(tmp_path / "in" / f"{subject}_{sensor}.csv", index=False)
    heads = ["--heads", '["linear"]', "--baselines", "[]"]
    given = '{sensor_files: "{subject}_{sensor}.csv", columns: "x,y,z"}'
    assert run(model, tables, tmp_path / "whole", *heads) == 0
    assert run(model, tmp_path / "in", tmp_path / "parts", *heads, "--dataset.options", given) == 0
    expected, found = load_result(tmp_path / "whole"), load_result(tmp_path / "parts")
    assert found.headline.subjects == expected.headline.subjects == ("ann", "ben", "cleo")
    assert found.headline.summary.macro_f1.mean == pytest.approx(expected.headline.summary.macro_f1.mean, abs=0.02)
    assert any("dora: no file of thigh" in line for line in found.skipped)


@pytest.mark.slow
def test_what_is_cached_is_not_computed_again(
    model: Path, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, cache = tmp_path / "probe", tmp_path / "cache"
    forest = ["--heads", '["linear"]', "--baselines", '["forest"]', "--baseline.forest.trees", "5"]
    assert run(model, tables, out, *forest, "--cache", str(cache)) == 0
    first = load_result(out)
    assert run(model, tables, out, *forest, "--cache", str(cache)) == 2
    assert "--overwrite" in capsys.readouterr().err

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("selfpab_jax.features.cache._compute", refuse)
    monkeypatch.setattr("selfpab_jax.probe.methods.BASELINES", {"forest": refuse})
    assert run(model, tables, out, *forest, "--cache", str(cache), "--overwrite") == 0
    again = load_result(out)
    for one, other in zip(first.methods, again.methods, strict=True):
        assert one.summary.macro_f1.mean == pytest.approx(other.summary.macro_f1.mean, abs=1e-12)


def test_unseen_subjects_only_and_a_head_of_them(
    model: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "probe"
    assert (
        run(
            model,
            tables,
            out,
            "--heads",
            '["linear"]',
            "--dataset.unseen_only",
            "true",
            "--dataset.without",
            '["dora"]',
            "--save_head",
            str(tmp_path / "head"),
        )
        == 0
    )
    result = load_result(out)
    assert result.headline.subjects == ("ben", "cleo")
    assert not result.leakage
    head = load_head(tmp_path / "head")
    assert (head.kind, head.trained["subjects"], head.classes) == ("linear", 2, ("lie", "stand", "walk"))
    assert predict(tables / "ann.csv", model, head, tmp_path / "activity").minutes.keys() == set(head.classes)
    assert "1 of 4 subjects were seen in pre-training" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dataset.name", "hart"], "did you mean harth?"),
        (["--dataset.only", '["zoe"]'], "no subject zoe"),
        (["--baselines", '["forrest"]'], "forrest is not known"),
        (["--heads", "[]"], "nothing to do"),
        (["--heads", '["linear","linear"]'], "give each once"),
        (["--budgets.windows", "[5,5]"], "one is named twice"),
        (["--seeds", "[-1]"], "from 0 to"),
        (["--protocol.shift_seconds", "0"], "must be above 0"),
        (["--dataset.options", '{"sensors": "hip"}'], "give dataset.sensors"),
        (["--protocol.folds", "1"], "protocol.folds is 1"),
        (["--protocol.windo_seconds", "3"], "did you mean protocol.window_seconds?"),
        (["--dataset.options", "{labl_column: label}"], "did you mean label_column?"),
        (["--dataset.options", "{columns: hip_x=a,hip_y=b}"], "a value with commas"),
        (["--dataset.roles", '{"hip": "thigh"}'], "sensor roles: hip=thigh"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    more: list[str], message: str, model: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, tables, tmp_path / "probe", *more) in (1, 2)
    printed = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in printed


def test_a_method_that_cannot_be_scored_does_not_stop_the_others(
    model: Path, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(corpus: object, fold: Fold, *_: object) -> None:
        raise DataError(f"fold {fold.name}: no")

    monkeypatch.setattr("selfpab_jax.probe.methods.BASELINES", {"forest": refuse})
    assert run(model, tables, tmp_path, "--heads", '["linear"]', "--baselines", '["forest"]') == 0
    result = load_result(tmp_path)
    assert [method.name for method in result.methods] == ["linear"]
    assert any("random forest" in note and "not scored" in note for note in result.notes)
    assert any("random forest, ann: fold ann: no" in note for note in result.notes)
    assert "note: hand-made features, random forest, ann: fold ann: no" in capsys.readouterr().out


def test_unseen_only_needs_a_card_that_lists_subjects(
    model: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = tmp_path / "silent"
    shutil.copytree(model, silent)
    config = json.loads((silent / "config.json").read_text())
    del config["provenance"]["subjects"]
    (silent / "config.json").write_text(json.dumps(config))
    assert run(silent, tables, tmp_path / "probe", "--dataset.unseen_only", "true") == 2
    assert "does not list" in capsys.readouterr().err


@pytest.mark.slow
def test_a_class_without_training_rows_is_never_predicted(
    model: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelled label of one subject is listed at once, and no head of that subject's fold predicts it."""
    folder = tmp_path / "data"
    folder.mkdir()
    for subject in ("ann", "ben", "cleo"):
        table = pd.read_csv(tables / f"{subject}.csv")
        if subject == "ben":
            table.loc[:300, "label"] = "stnad"
        table.to_csv(folder / f"{subject}.csv", index=False)
    quick = ["--heads", '["linear"]', "--linear.min_steps", "2", "--linear.epochs", "1"]
    assert run(model, folder, tmp_path / "out", *quick) == 0
    printed = capsys.readouterr().err
    assert "stnad (1 subject, 0.1 min)" in printed
    assert "ben: stnad of the test subjects is in no training row" in printed
    result = load_result(tmp_path / "out")
    of_ben = result.headline.confusions[0]["ben"]
    column = result.classes.index("stnad")
    assert of_ben[column].sum() > 0
    assert of_ben[:, column].sum() == 0


def test_seen_subjects_are_those_of_the_card() -> None:
    card = CONFIG.provenance
    assert seen_subjects(card, "tables", SUBJECTS) == ("ann",)
    assert seen_subjects({**card, "source": "harth"}, "tables", SUBJECTS) == ("ann",)  # their own copy of HARTH
    assert not seen_subjects({**card, "source": "hunt4"}, "harth", SUBJECTS)
    assert "does not list" in leakage_warnings({}, "tables", SUBJECTS)[0]
    assert not leakage_warnings({**card, "subjects": ["somebody"]}, "tables", SUBJECTS)
