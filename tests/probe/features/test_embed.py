"""From files of recordings to a file of features, and the command that does it."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.data.sources.streaming import Part, at_rate, estimated_hours, find_files, read_parts
from selfpab_jax.data.sources.tables import Tables, sensor_columns
from selfpab_jax.errors import ConfigError, DataError, ModelError
from selfpab_jax.features import streaming as embed_module
from selfpab_jax.features.encoder import PretrainedEncoder
from selfpab_jax.features.extract import Extraction
from selfpab_jax.features.files import open_feature_file, read_features
from selfpab_jax.features.sensors import branches_of
from selfpab_jax.features.streaming import Ledger, embed
from selfpab_jax.features.windows import cut_windows
from selfpab_jax.signal.resample import resample

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
COLUMNS = [column for _, column in sensor_columns(("back", "thigh"))]
HOW = Tables(())
EXACT = Extraction(dtype="float32", batch_size=4)
START = datetime(2019, 1, 12, 10)


def signal_of(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (np.array([-1, 0, 0] * 2) + rng.normal(0, 0.2, (round(seconds * 50), 6))).astype(np.float32)


def table_of(signal: np.ndarray, start: datetime = START) -> pd.DataFrame:
    table = pd.DataFrame(signal, columns=COLUMNS)
    table.insert(0, "timestamp", pd.date_range(start, periods=len(table), freq="20ms"))
    return table


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV with a gap, a Parquet with segments, an npz; 26, 15 and 11 s of frames in windows of 20 frames (10.5 s)."""
    folder = tmp_path_factory.mktemp("recordings")
    late = table_of(signal_of(41.0))
    late.loc[1300:, "timestamp"] += pd.Timedelta(seconds=7)
    late.to_csv(folder / "a.csv", index=False)
    parts = table_of(signal_of(26.4, seed=1))
    parts["segment"] = np.repeat(["walk", "sit"], [750, 570])
    parts.to_parquet(folder / "b.parquet", row_group_size=150)
    (folder / "P01").mkdir()
    np.savez(folder / "P01" / "2020-02-03_14.npz", arr_0=signal_of(11.0, seed=2).astype(np.float64))
    return folder


@pytest.fixture(scope="module")
def embedded(recordings: Path, encoder: PretrainedEncoder, tmp_path_factory) -> tuple[pd.DataFrame, dict]:
    out = tmp_path_factory.mktemp("out") / "features.parquet"
    files = find_files([recordings / "a.csv", recordings / "P01"])
    done = embed(files, HOW, branches_of(encoder, HOW.channels), EXACT, out, readers=2)
    frame, description = read_features(out)
    assert done.rows == len(frame)
    assert done.hours == pytest.approx(len(frame) * 0.5 / 3600)
    return frame, description


def expected_frames(signal: np.ndarray, encoder: PretrainedEncoder) -> np.ndarray:
    """Windows of 10.5 s side by side, the last one moved back to the end."""
    count, found = (len(signal) - 50) // 25 + 1, []
    for first in range(0, count, 20):
        moved = max(0, min(first, count - 20))
        features = encoder.encode_signal(signal[moved * 25 : (moved + 19) * 25 + 50], rate_hz=50)[0]
        found.append(features[first - moved :])
    return np.concatenate(found)


def test_rows_are_the_recordings_frames(embedded: tuple, encoder: PretrainedEncoder, recordings: Path) -> None:
    frame, _ = embedded
    signal = signal_of(41.0)
    pieces = [signal[:1300], signal[1300:], signal_of(11.0, seed=2)]
    expected = [expected_frames(piece, encoder) for piece in pieces]
    assert [len(piece) for piece in expected] == [51, 29, 21]
    np.testing.assert_allclose(frame.filter(regex="^f[0-9]"), np.concatenate(expected), **CLOSE)
    assert frame["recording"].drop_duplicates().tolist() == ["a:0", "a:1300", "2020-02-03_14:0"]
    assert frame["file"].nunique() == 2
    firsts = frame.drop_duplicates("recording")
    assert firsts["timestamp"].tolist() == [
        pd.Timestamp("2019-01-12 10:00:00"), pd.Timestamp("2019-01-12 10:00:33"), pd.Timestamp("2020-02-03 14:00:00")
    ]  # fmt: skip
    assert (
        frame["timestamp"] - frame.groupby("recording")["timestamp"].transform("first")
    ).dt.total_seconds().tolist() == (frame["start_s"].tolist())
    assert frame["start_s"].iloc[:3].tolist() == [0.0, 0.5, 1.0]


def test_windows_npz_layers_and_short_recordings(recordings: Path, encoder: PretrainedEncoder, tmp_path: Path) -> None:
    how = Tables((), segment_column="segment")
    out = tmp_path / "features.npz"
    both = Extraction(dtype="float32", layers=(0, -1), batch_size=4)
    ledger = Ledger()
    embed([recordings / "b.parquet"], how, branches_of(encoder, how.channels), both, out, level="window", ledger=ledger)
    frame, description = read_features(out)
    assert description["depths"] == [0, 2]
    assert frame["frames"].tolist() == [20, 20, 20, 20]
    assert frame["start_s"].tolist() == [0.0, 4.5, 0.0, 0.5]
    segment = signal_of(26.4, seed=1)[750:]
    last = encoder.encode_signal(segment[25:550], rate_hz=50)[0].mean(axis=0)
    np.testing.assert_allclose(frame.filter(regex="^l2_f").iloc[3], last, **CLOSE)
    with np.load(out) as archive:
        assert archive["features"].shape == (4, 32)
        assert archive["timestamp"].dtype.kind == "M"
    short = tmp_path / "short.csv"
    table = table_of(signal_of(8.0))
    table["segment"] = np.repeat([0, 1, 2], [180, 30, 190])
    table.to_csv(short, index=False)
    embed([short], how, branches_of(encoder, how.channels), EXACT, tmp_path / "short.parquet", ledger=ledger)
    frame, _ = read_features(tmp_path / "short.parquet")
    assert frame.groupby("recording").size().to_dict() == {"short:0": 6, "short:210": 6}
    signal, found = signal_of(8.0), frame.filter(regex="^f[0-9]").to_numpy()
    np.testing.assert_allclose(found[:5], encoder.encode_signal(signal[:150], 50)[0], **CLOSE)
    np.testing.assert_allclose(found[5], encoder.encode_signal(signal[25:175], 50)[0][4], **CLOSE)
    assert ledger.short_seconds == [0.6]


@pytest.mark.parametrize("rows", [100, 333, 5000])
@pytest.mark.parametrize("name", ["a.csv", "b.parquet", "P01/2020-02-03_14.npz"])
def test_parts_join_to_whole_recordings(recordings: Path, name: str, rows: int, monkeypatch) -> None:
    monkeypatch.setattr("selfpab_jax.data.sources.streaming.CSV_BYTES_A_ROW", 90)
    how = Tables((), segment_column="segment" if name.startswith("b") else None)
    parts = list(read_parts(recordings / name, how, refuse, rows))
    joined = {part.recording: [] for part in parts}
    for part in parts:
        joined[part.recording].append(part.signal_NxC)
        assert part.begins == (len(joined[part.recording]) == 1)
        assert len(part.signal_NxC) <= rows * 1.2
    found = [np.concatenate(pieces) for pieces in joined.values()]
    signals = {"a": [signal_of(41.0)[:1300], signal_of(41.0)[1300:]], "2": [signal_of(11.0, 2)]}
    signals["b"] = [signal_of(26.4, 1)[:750], signal_of(26.4, 1)[750:]]
    assert len(found) == len(signals[name.removeprefix("P01/")[0]])
    for piece, expected in zip(found, signals[name.removeprefix("P01/")[0]], strict=True):
        np.testing.assert_allclose(piece, expected, atol=1e-6)


def refuse(what: str, reason: str) -> None:
    raise AssertionError(f"{what}: {reason}")


def parts_of(signal: np.ndarray, edges: list[int], rate_hz: float = 50.0) -> list[Part]:
    pieces = np.split(signal, edges)
    return [Part("r", None, place == 0, rate_hz, piece) for place, piece in enumerate(pieces)]


def test_windows_do_not_depend_on_the_parts(encoder: PretrainedEncoder) -> None:
    signal, branches = signal_of(47.3), branches_of(encoder, HOW.channels)
    rng = np.random.default_rng(0)
    whole = list(cut_windows("f", iter(parts_of(signal, [])), branches, refuse))
    assert [window.first for window in whole] == [0, 20, 40, 60, 73]
    assert [window.skip for window in whole] == [0, 0, 0, 0, 7]
    for _ in range(5):
        edges = np.sort(rng.integers(0, len(signal), 8)).tolist()
        found = list(cut_windows("f", iter(parts_of(signal, edges)), branches, refuse))
        for one, other in zip(found, whole, strict=True):
            assert (one.first, one.skip) == (other.first, other.skip)
            np.testing.assert_array_equal(one.x_TxX, other.x_TxX)


@pytest.mark.parametrize("rate", [100.0, 30.0, 102.4])
def test_parts_are_resampled_as_if_they_were_whole(rate: float) -> None:
    time = np.arange(round(60 * rate)) / rate
    signal = np.stack([np.sin(2 * np.pi * time * hz) - 1 for hz in (0.7, 2.0, 9.0)], axis=1).astype(np.float32)
    whole = resample(signal, rate, 50.0)
    edges = [1, 17, 700, 701, 1500]
    parts = list(at_rate(iter(parts_of(signal, edges, rate)), 50.0))
    found = np.concatenate([part.signal_NxC for part in parts])
    assert [part.begins for part in parts] == [True] + [False] * (len(parts) - 1)
    assert len(parts) > 3
    assert len(found) == len(whole)
    error = np.abs(found - whole).max(axis=1)
    assert error[:-20].max() < 3e-3
    assert error[-20:].max() < 3e-2, "beyond the end the signal goes on along a line, which is another one for a part"


def test_bad_parts_are_set_aside_and_the_rest_goes_on(
    recordings: Path, encoder: PretrainedEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(signal_of(60.0))
    table.loc[1500, "thigh_y"] = np.nan
    table.to_parquet(tmp_path / "holes.parquet")
    (tmp_path / "broken.parquet").write_bytes((tmp_path / "holes.parquet").read_bytes()[:5000])
    table.drop(columns="back_z").to_csv(tmp_path / "less.csv")
    (tmp_path / "notes.txt").write_text("what is this")
    np.savez(tmp_path / "2020-01-01_01.npz", other=np.zeros(3))
    monkeypatch.setattr(embed_module, "read_parts", lambda path, how, aside: read_parts(path, how, aside, 1000))
    names = ["holes.parquet", "broken.parquet", "less.csv", "notes.txt", "2020-01-01_01.npz"]
    files, out = [tmp_path / name for name in names], tmp_path / "features.parquet"
    ledger, branches = Ledger(), branches_of(encoder, HOW.channels)
    embed(files, HOW, branches, EXACT, out, ledger=ledger)
    frame, _ = read_features(out)
    assert frame["recording"].unique().tolist() == ["holes:0", "holes:2000"]
    told = {entry.what.removeprefix(f"{tmp_path}/"): entry.reason for entry in ledger.entries}
    assert told["holes.parquet, rows 1000 to 1999"].startswith("NaN or infinity: 1 of 1000 samples of thigh_y")
    assert told["broken.parquet"].startswith("unreadable Parquet")
    assert told["less.csv"].startswith("unknown column: back_z")
    assert told["notes.txt"].startswith("unknown kind of file")
    assert told["2020-01-01_01.npz"].startswith("wrong key")
    assert len(told) == 5
    listed = (tmp_path / "features.set_aside.jsonl").read_text().splitlines()
    assert [json.loads(line)["what"] for line in listed] == [entry.what for entry in ledger.entries]
    before = sorted(tmp_path.iterdir())
    for strict, usable in ((True, files), (False, files[1:])):
        with pytest.raises(DataError, match=r"thigh_y" if strict else r"none of 4 files could be used.*unreadable"):
            embed(usable, HOW, branches, EXACT, tmp_path / "other.parquet", ledger=Ledger(strict))
    assert sorted(tmp_path.iterdir()) == before, "an unfinished file was left"


def test_features_of_another_encoder_are_refused(recordings: Path, model_directory: Path, write_tiny, tmp_path) -> None:
    out = tmp_path / "features.parquet"
    call = ["embed", str(recordings / "P01"), "--model", str(model_directory), "--out", str(out)]
    assert main(call) == 0
    frame, _ = read_features(out, model_directory)
    assert len(frame) == 21
    with pytest.raises(ModelError, match="features from another encoder"):
        read_features(out, write_tiny(tmp_path / "other", seed=4))
    pq.write_table(pq.read_table(out).replace_schema_metadata({}), tmp_path / "plain.parquet")
    with pytest.raises(DataError, match="no features of"):
        read_features(tmp_path / "plain.parquet")


def test_the_command_tells_what_it_did(recordings: Path, mono_directory: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "features.parquet"
    call = ["embed", str(recordings), "--model", str(mono_directory), "--out", str(out)]
    assert main([*call, "--merge", "concatenate", "--layers", "0,-1"]) == 0
    said = capsys.readouterr().out
    assert "3 files" in said
    assert "64 features" in said
    assert f'pandas.read_parquet("{out}")' in said
    assert pq.read_schema(out).names[5:7] == ["l0_f0000", "l0_f0001"]
    for more, message in (
        ([], "exists; choose another --out, or add --overwrite"),
        (["--overwrite"], "merge is mean, max or concatenate"),
        (["--overwrite", "--sensors", "hip"], "the model knows back, thigh"),
        (["--overwrite", "--sensors", "hip", "--sensor_roles", "hip"], "no sensor=role"),
        (["--overwrite", "--layers", "first"], "it must be last, all, or depths"),
        (["--overwrite", "--merge", "mean", "--layers", "7"], "this encoder has 0"),
        (["--overwrite", "--rate", "0"], "must be above 0"),
    ):
        assert main([*call, *more]) == 2
        assert message in capsys.readouterr().err
    assert (
        main(["embed", str(tmp_path / "none"), "--model", str(mono_directory), "--out", str(tmp_path / "x.npz")]) != 0
    )
    with pytest.raises(ConfigError, match=r"parquet or \.npz"):
        open_feature_file(tmp_path / "features.txt", (), {})


def test_it_runs_without_grain_tfds_and_wandb(recordings: Path, model_directory: Path, tmp_path: Path) -> None:
    """On a machine that only embeds: what training and building records need is not there."""
    blocked = ["grain", "tensorflow_datasets", "tensorflow", "wandb", "array_record", "torch"]
    call = ["embed", str(recordings / "a.csv"), "--model", str(model_directory), "--out", str(tmp_path / "f.parquet")]
    script = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
from selfpab_jax.cli.main import main
sys.exit(main({call!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(read_features(tmp_path / "f.parquet")[0]) == 80


@pytest.mark.parametrize("digits", [1, 9])
def test_hours_of_tables_are_told_from_their_own_rows(tmp_path: Path, digits: int) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y,z\n" + f"{0.123456789:.{digits}f},1,2\n" * 36_000)
    assert estimated_hours(path, 10) == pytest.approx(1, rel=0.01)
    assert estimated_hours(tmp_path / "missing.csv", 10) == 0
