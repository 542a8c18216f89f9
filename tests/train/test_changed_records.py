"""A run continues on the records that it was trained on, or somebody says that it may not."""

import json
import shutil
from pathlib import Path

import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.errors import RunError
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train.checkpoint import newest_metadata
from selfpab_jax.train.run_dir import SETTINGS_FILE, SUBJECTS_FILE, check_records

TINY_MODEL = [
    "--model.width", "16", "--model.heads", "4", "--model.feedforward", "16", "--model.layers", "1",
    "--optimizer.batch_size", "8", "--validation.windows", "8",
]  # fmt: skip


@pytest.fixture(scope="module")
def other_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of fewer subjects, with the same settings."""
    folder = tmp_path_factory.mktemp("other")
    assert main(["cohort", str(folder / "cohort"), "--subjects", "5", "--hours", "2"]) == 0
    build = ["records", "build", "--source", "hunt4", str(folder / "cohort"), "--out", str(folder / "records")]
    assert main([*build, "--window_seconds", "20", "--workers", "1", "--validation", "0.2", "--test", "0.2"]) == 0
    return folder / "records"


def train(data: Path, run: Path, steps: int, *options: str) -> int:
    length = ["--optimizer.steps", "4", "--checkpoint.every_steps", str(steps)]
    return main(["pretrain", "--data.path", str(data), "--run", str(run), *TINY_MODEL, *length, *options])


def forget_fingerprint(run: Path) -> None:
    """As version 0.1 left a run."""
    for path in (run / "checkpoints" / "latest").glob("*/metadata/metadata"):
        stored = json.loads(path.read_text())
        for name in ("fingerprint", "splits"):
            del stored["records"][name]
        path.write_text(json.dumps(stored))


@pytest.mark.slow
def test_records_that_were_built_again_are_refused_and_may_be_allowed(
    tiny_records: Path, other_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data, run = tmp_path / "records", tmp_path / "run"
    shutil.copytree(tiny_records, data)
    assert train(data, run, 4) == 0
    subjects = (run / SUBJECTS_FILE).read_text()
    capsys.readouterr()
    assert train(data, run, 4, "--resume") == 0
    assert "warning" not in capsys.readouterr().err

    shutil.rmtree(data)
    shutil.copytree(other_records, data)
    assert train(data, run, 4, "--resume") == 1
    message = capsys.readouterr().err
    assert len(message.strip().splitlines()) <= 2
    for part in (str(run), str(data), "train: 120 records of 4 subjects, now 90", "data.allow_changed"):
        assert part in message
    assert (run / SUBJECTS_FILE).read_text() == subjects, "nothing was written"
    assert train(data, run, 4, "--resume", "--data.allow_changed", "true") == 0
    assert "90" in capsys.readouterr().err
    assert "allow_changed" not in (run / SETTINGS_FILE).read_text(), "it holds for one start"


@pytest.mark.slow
def test_of_an_old_run_only_the_statistics_are_compared(
    tiny_records: Path, other_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    assert train(tiny_records, run, 4) == 0
    forget_fingerprint(run)
    capsys.readouterr()
    check_records(run, open_records(tiny_records), allow_changed=False)
    assert "fingerprint" in capsys.readouterr().err
    with pytest.raises(RunError, match="statistics"):
        check_records(run, open_records(other_records), allow_changed=False)


def test_the_fingerprint_is_that_of_the_content_not_of_the_folder(
    tiny_records: Path, other_records: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(tiny_records, tmp_path / "moved"))
    assert open_records(moved).fingerprint == open_records(tiny_records).fingerprint
    assert open_records(other_records).fingerprint != open_records(tiny_records).fingerprint
    folder = open_records(moved).folder
    path = folder / "statistics_plain.npz"
    before = Statistics.load(path)
    Statistics(before.mean, before.std * 2, before.kind).save(path)
    assert open_records(moved).fingerprint != open_records(tiny_records).fingerprint


def test_a_run_without_a_checkpoint_has_nothing_to_compare(tiny_records: Path, tmp_path: Path) -> None:
    assert newest_metadata(tmp_path) is None
    check_records(tmp_path, open_records(tiny_records), allow_changed=False)
