"""Real HARTH and HAR70+ recordings as published files, through every command: hours and labels are the files' own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import ModelConfig, write_model
from selfpab_jax.probe.report.results import load_result
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.signal.stft import SpectrogramSettings

pytestmark = pytest.mark.slow  # reads hours of text

SUBJECTS = {"harth": ("S009", "S023", "S034"), "har70plus": ("501", "510", "518")}
RATE = 50
NAMES = tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz")


@pytest.fixture(scope="module", params=SUBJECTS)
def published(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects' files in the published layout: CSV, timestamps with milliseconds, a label a row."""
    folder = tmp_path_factory.mktemp("published") / request.param
    folder.mkdir()
    for subject in SUBJECTS[request.param]:
        table = pd.read_parquet(shared / "real" / request.param / f"{subject}.parquet")
        times = pd.to_datetime(table["timestamp"], unit="ms").dt.strftime("%Y-%m-%d %H:%M:%S.%f").str[:-3]
        table.assign(timestamp=times)[["timestamp", *NAMES, "label"]].to_csv(folder / f"{subject}.csv", index=False)
    return folder


def own_hours(folder: Path) -> float:
    """Rows of the files at 50 Hz, in hours."""
    return sum(path.read_bytes().count(b"\n") - 1 for path in folder.glob("*.csv")) / RATE / 3600


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    settings = ModelSettings(width=16, heads=2, feedforward=24, layers=1, compute="float32")
    config = ModelConfig(
        family="selfpab",
        model=settings,
        features=156,
        outputs=156,
        channels=NAMES,
        sensors=("back", "thigh"),
        spectrogram=SpectrogramSettings(),
        frames=119,
        provenance={},
    )
    rng = np.random.default_rng(1)
    shapes = make_functional(settings, 156, 156).abstract
    arrays = {name: rng.normal(0, 0.2, shape.shape).astype(np.float32) for name, shape in shapes.items()}
    write_model(directory, config, arrays, Statistics(np.zeros(156, np.float32), np.ones(156, np.float32), "plain"))
    return directory


def test_records_keep_the_hours(published: Path, tmp_path: Path) -> None:
    kept = {}
    for source in (published.name, "recordings"):
        build = ["records", "build", "--source", source, str(published), "--out", str(tmp_path / source)]
        options = ["--window_seconds", "60", "--shortest_seconds", "5", "--workers", "1"]
        assert main([*build, *options, "--validation", "0", "--test", "0"]) == 0
        kept[source] = open_records(tmp_path / source).info.splits["train"]
        assert kept[source].subjects == 3
        assert kept[source].hours >= 0.95 * own_hours(published)
        assert kept[source].hours <= 1.005 * own_hours(published)
    assert kept[published.name].hours == pytest.approx(kept["recordings"].hours, rel=0.01)


def test_features_cover_the_recordings(published: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.parquet"
    assert main(["embed", str(published), "--model", str(model), "--out", str(out), "--readers", "1"]) == 0
    metadata = pq.read_metadata(out)
    assert metadata.num_rows * 0.5 / 3600 == pytest.approx(own_hours(published), rel=0.02)
    times = pq.read_table(out, columns=["timestamp"]).to_pandas()["timestamp"]
    tables = [pd.read_csv(path, parse_dates=["timestamp"])["timestamp"] for path in published.glob("*.csv")]
    assert times.notna().all()
    assert abs(times.min() - min(table.min() for table in tables)) <= pd.Timedelta(seconds=1)
    assert abs(times.max() - max(table.max() for table in tables)) <= pd.Timedelta(seconds=1.5)


def test_the_probe_scores_what_is_labeled(published: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "probe"
    call = ["probe", "--dataset.name", published.name, "--model", str(model), "--data", str(published)]
    quick = [
        "--linear.epochs",
        "2",
        "--linear.min_steps",
        "30",
        "--heads",
        '["linear"]',
        "--protocol.window_seconds",
        "60",
    ]
    assert main([*call, "--out", str(out), *quick]) == 0
    result = load_result(out)
    assert set(result.headline.subjects) == set(SUBJECTS[published.name])
    tables = [pd.read_csv(path) for path in sorted(published.glob("*.csv"))]
    labeled = pd.concat(tables)["label"].value_counts()
    scored = np.sum(list(result.headline.confusions[0].values()), axis=0)
    assert scored.sum() == pytest.approx(labeled.sum(), rel=0.02)
    assert sorted(scored.sum(axis=1)[scored.sum(axis=1) > 0]) == pytest.approx(sorted(labeled), rel=0.05, abs=500)
