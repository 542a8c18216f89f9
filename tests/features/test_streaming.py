"""From files of recordings to a file of features, and the command that does it."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.data.sources.streaming import SignalBlock, find_files, read_signal
from selfpab_jax.data.tables.format import TableFormat, sensor_columns
from selfpab_jax.errors import ConfigError, DataError, ModelError
from selfpab_jax.features import streaming
from selfpab_jax.features.cutting import cut_windows
from selfpab_jax.features.encoder import PretrainedEncoder, load_encoder
from selfpab_jax.features.extract import ExtractionSettings
from selfpab_jax.features.files import read_features
from selfpab_jax.features.sensors import sensor_encoders
from selfpab_jax.features.streaming import embed
from selfpab_jax.model_dir import ModelConfig
from selfpab_jax.signal.calendar import frame_timestamps
from selfpab_jax.signal.stft import spectrogram

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
COLUMNS = [column for _, column in sensor_columns(("back", "thigh"))]
EXACT = ExtractionSettings(dtype="float32", batch_size=4)
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
    files = find_files([recordings / "a.csv", recordings / "P01"], lambda *_: None)
    done = embed(files, encoder, out, extraction=EXACT, readers=2)
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
    in_memory = [
        encoder.encode_signal(piece, 50).reshape(-1, encoder.width)[: len(frames)]
        for piece, frames in zip(pieces, expected, strict=True)
    ]
    np.testing.assert_allclose(frame.filter(regex="^f[0-9]"), np.concatenate(in_memory), **CLOSE)
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
    segments = TableFormat(segment_column="segment")
    out = tmp_path / "features.npz"
    both = ExtractionSettings(dtype="float32", layers=(0, -1), batch_size=4)
    embed(recordings / "b.parquet", encoder, out, table_format=segments, extraction=both, level="window")
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
    done = embed(short, encoder, tmp_path / "short.parquet", table_format=segments, extraction=EXACT)
    frame, _ = read_features(tmp_path / "short.parquet")
    assert frame.groupby("recording").size().to_dict() == {"short:0": 6, "short:210": 6}
    signal, found = signal_of(8.0), frame.filter(regex="^f[0-9]").to_numpy()
    np.testing.assert_allclose(found[:5], encoder.encode_signal(signal[:150], 50)[0], **CLOSE)
    np.testing.assert_allclose(found[5], encoder.encode_signal(signal[25:175], 50)[0][4], **CLOSE)
    np.testing.assert_allclose(found[:6], encoder.encode_signal(signal[:180], 50)[0], **CLOSE)
    np.testing.assert_allclose(found[6:], encoder.encode_signal(signal[210:], 50)[0], **CLOSE)
    assert done.short_seconds == (0.6,)


def refuse(what: str, reason: str) -> None:
    raise AssertionError(f"{what}: {reason}")


def blocks_of(signal: np.ndarray, edges: list[int], rate_hz: float = 50.0) -> list[SignalBlock]:
    pieces = np.split(signal, edges)
    return [SignalBlock("r", None, place == 0, rate_hz, piece) for place, piece in enumerate(pieces)]


def test_windows_do_not_depend_on_the_blocks(encoder: PretrainedEncoder) -> None:
    signal, encoders = signal_of(47.3), sensor_encoders(encoder, encoder.channels)
    rng = np.random.default_rng(0)
    whole = list(cut_windows("f", iter(blocks_of(signal, [])), encoders, refuse))
    assert [window.first for window in whole] == [0, 20, 40, 60, 73]
    assert [window.skip for window in whole] == [0, 0, 0, 0, 7]
    for _ in range(5):
        edges = np.sort(rng.integers(0, len(signal), 8)).tolist()
        found = list(cut_windows("f", iter(blocks_of(signal, edges)), encoders, refuse))
        for one, other in zip(found, whole, strict=True):
            assert (one.first, one.skip) == (other.first, other.skip)
            np.testing.assert_array_equal(one.x_TxX, other.x_TxX)


def test_unusable_blocks_are_skipped(
    recordings: Path, encoder: PretrainedEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(signal_of(60.0))
    table.loc[1500, "thigh_y"] = np.nan
    table.loc[2000:2099, "back_x"] = np.nan
    table.to_parquet(tmp_path / "holes.parquet")
    (tmp_path / "broken.parquet").write_bytes((tmp_path / "holes.parquet").read_bytes()[:5000])
    table.drop(columns="back_z").to_csv(tmp_path / "less.csv")
    (tmp_path / "notes.txt").write_text("what is this")
    np.savez(tmp_path / "2020-01-01_01.npz", other=np.zeros(3))
    monkeypatch.setattr(streaming, "read_signal", partial(read_signal, rows=1000))
    names = ["holes.parquet", "broken.parquet", "less.csv", "notes.txt", "2020-01-01_01.npz"]
    files, out = [tmp_path / name for name in names], tmp_path / "features.parquet"
    done = embed(files, encoder, out, extraction=EXACT)
    frame, _ = read_features(out)
    assert frame["recording"].unique().tolist() == ["holes:0", "holes:0+2100"]
    reasons = {entry.what.removeprefix(f"{tmp_path}/"): entry.reason for entry in done.skipped}
    assert reasons["holes.parquet"].startswith("cut NaN 2.02 s; bridged 0.02 s")
    assert reasons["broken.parquet"].startswith("unreadable Parquet")
    assert reasons["less.csv"].startswith("unknown column: back_z")
    assert reasons["notes.txt"].startswith("unknown kind of file")
    assert reasons["2020-01-01_01.npz"].startswith("wrong key")
    assert len(reasons) == 5
    listed = (tmp_path / "features.parquet.skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["what"] for line in listed] == [entry.what for entry in done.skipped]
    before = sorted(tmp_path.iterdir())
    for strict, usable in ((True, files), (False, files[1:])):
        with pytest.raises(DataError, match=r"NaN.*back_x" if strict else "none of 4 files.*unreadable"):
            embed(usable, encoder, tmp_path / "other.parquet", extraction=EXACT, strict=strict)
    assert sorted(tmp_path.iterdir()) == before, "an unfinished file was left"


def test_features_of_another_encoder_are_refused(recordings: Path, model_directory: Path, write_tiny, tmp_path) -> None:
    out = tmp_path / "features.parquet"
    call = ["embed", str(recordings / "P01"), "--model", str(model_directory), "--out", str(out)]
    assert main(call) == 0
    frame, _ = read_features(out, model_directory)
    assert len(frame) == 21
    with pytest.raises(ModelError, match="another encoder"):
        read_features(out, write_tiny(tmp_path / "other", seed=4))
    pq.write_table(pq.read_table(out).replace_schema_metadata({}), tmp_path / "plain.parquet")
    with pytest.raises(DataError, match="not a file of features"):
        read_features(tmp_path / "plain.parquet")


def test_the_command_reports_what_it_did(recordings: Path, mono_directory: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "features.parquet"
    call = ["embed", str(recordings), "--model", str(mono_directory), "--out", str(out)]
    assert main([*call, "--merge", "concatenate", "--layers", "0,-1"]) == 0
    printed = capsys.readouterr()
    assert "3 files" in printed.err
    assert "64 features" in printed.out
    assert f'pandas.read_parquet("{out}")' in printed.out
    assert pq.read_schema(out).names[5:7] == ["l0_f0000", "l0_f0001"]
    for more, message in (
        ([], "--overwrite"),
        (["--overwrite"], "merge"),
        (["--overwrite", "--sensors", "hip"], "back, thigh"),
        (["--overwrite", "--sensors", "hip", "--sensor_roles", "hip"], "sensor=role"),
        (["--overwrite", "--layers", "first"], "layers"),
        (["--overwrite", "--merge", "mean", "--layers", "7"], "layers"),
        (["--overwrite", "--rate", "0"], "rate"),
    ):
        assert main([*call, *more]) == 2
        assert message in capsys.readouterr().err
    assert (
        main(["embed", str(tmp_path / "none"), "--model", str(mono_directory), "--out", str(tmp_path / "x.npz")]) != 0
    )
    with pytest.raises(ConfigError, match=r"\.npz"):
        embed(recordings, mono_directory, tmp_path / "features.txt")


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


def test_calendar_positions_are_used_on_request_and_need_a_start(
    tmp_path: Path, write_tiny: Callable[..., Path], tiny_config: ModelConfig
) -> None:
    config = replace(tiny_config, family="lta2v", model=replace(tiny_config.model, temporal_positions=True))
    model = write_tiny(tmp_path / "lta2v", config)
    signal = signal_of(15.0)
    found = {}
    for hour in (3, 15):
        table_of(signal, datetime(2021, 3, 31, hour)).to_csv(tmp_path / "a.csv", index=False)
        for calendar in (False, True):
            out = tmp_path / f"{hour}_{calendar}.parquet"
            embed(tmp_path / "a.csv", model, out, extraction=EXACT, calendar=calendar)
            frame, _ = read_features(out, model)
            assert frame["timestamp"].iloc[0] == pd.Timestamp(2021, 3, 31, hour)
            found[hour, calendar] = frame.filter(regex="^f[0-9]").to_numpy()
    np.testing.assert_array_equal(found[3, False], found[15, False])
    assert not np.allclose(found[3, True], found[15, True], atol=1e-3)
    encoder = load_encoder(model)
    frames = spectrogram(signal, config.spectrogram)[None, :20]
    times = frame_timestamps(np.array([1_617_202_800_000]), 20, config.spectrogram)
    np.testing.assert_allclose(found[15, True][:20], encoder.encode(frames, times)[0], **CLOSE)
    with pytest.raises(DataError, match="timestamp_column"):
        embed(
            tmp_path / "a.csv", model, tmp_path / "no.parquet", calendar=True,
            table_format=TableFormat(timestamp_column=None),
        )  # fmt: skip


def test_a_model_without_calendar_positions_cannot_use_them(
    recordings: Path, encoder: PretrainedEncoder, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="calendar"):
        embed(recordings / "a.csv", encoder, tmp_path / "f.parquet", calendar=True)


def test_reports_of_other_features_and_foreign_folders_are_kept(
    recordings: Path, encoder: PretrainedEncoder, tmp_path: Path
) -> None:
    first = embed(recordings / "a.csv", encoder, tmp_path / "f.parquet", extraction=EXACT)
    second = embed(recordings / "P01", encoder, tmp_path / "f.npz", extraction=EXACT)
    assert "a.csv" in first.quality.read_text()
    assert "a.csv" not in second.quality.read_text()
    foreign = tmp_path / "g.parquet.quality" / "report.doc"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    with pytest.raises(ConfigError, match=r"report\.doc"):
        embed(recordings / "a.csv", encoder, tmp_path / "g.parquet", extraction=EXACT)
    assert not (tmp_path / "g.parquet").exists()
    assert [path.name for path in foreign.parent.iterdir()] == ["report.doc"]
