"""From recordings to seconds and minutes: what is predicted, that nothing is lost, and that a killed call continues."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import device_writers
import numpy as np
import pandas as pd
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.data.tables.format import TableFormat
from selfpab_jax.errors import ConfigError, DataError, ModelError
from selfpab_jax.features.encoder import PretrainedEncoder, load_encoder
from selfpab_jax.features.extract import with_temporal_context
from selfpab_jax.probe.heads.saved import SavedHead, load_head, write_head
from selfpab_jax.probe.predict.files import SecondsWriter
from selfpab_jax.probe.predict.minutes import NO_DATA
from selfpab_jax.probe.predict.run import predict

COLUMNS = [f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz"]
START = datetime(2026, 3, 28, 23, 59, 40, 360_000)
FORMATS = {"rate": 50, "window": 50, "hop": 25}


def table_of(seconds: float, start: datetime = START, seed: int = 0) -> pd.DataFrame:
    """Bouts of rest and movement."""
    rng = np.random.default_rng(seed)
    count = round(seconds * 50)
    swing = np.repeat(rng.uniform(0, 0.8, count // 300 + 1), 300)[:count, None]
    signal = np.array([-1, 0, 0] * 2) + rng.normal(0, 0.02, (count, 6)) + swing * rng.normal(0, 1, (count, 6))
    table = pd.DataFrame(signal.astype(np.float32), columns=COLUMNS)
    table.insert(0, "timestamp", pd.date_range(start, periods=count, freq="20ms"))
    return table


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a` runs over midnight and has a gap (and a recording of 0.6 s), `b` has three windows and a rest."""
    folder = tmp_path_factory.mktemp("recordings")
    table = table_of(61.42)
    table.loc[1500:, "timestamp"] += pd.Timedelta(seconds=90)
    table.loc[1530:, "timestamp"] += pd.Timedelta(seconds=10)
    table.to_csv(folder / "a.csv", index=False)
    (folder / "more").mkdir()
    table_of(33.3, datetime(2026, 4, 1, 12), seed=1).to_parquet(folder / "more" / "b.parquet")
    return folder


def expected_seconds(
    signal: np.ndarray, start: datetime, encoder: PretrainedEncoder, head: SavedHead
) -> Iterator[tuple[datetime, float, np.ndarray]]:
    """Frame by frame and sample by sample: start, length and probabilities of each second of the clock."""
    count, length, rows = (len(signal) - 50) // 25 + 1, head.window_frames, []
    for first in range(0, count, length):
        moved = max(0, min(first, count - length))
        window = signal[moved * 25 : (moved + length - 1) * 25 + 50]
        features = encoder.with_frames(length).encode_signal(window, 50)[0]
        if lengths := head.context_lengths:
            features = np.asarray(with_temporal_context(features[None, :, None], lengths))[0, :, 0]
        rows.append(head.probabilities(features)[first - moved :])
    frames = np.concatenate(rows)
    assert len(frames) == count
    of_second: dict[datetime, list[np.ndarray]] = {}
    for sample in range(len(signal)):
        covering = [t for t in (sample // 25 - 1, sample // 25) if 0 <= t < count] or [count - 1]
        time = start + timedelta(milliseconds=20 * sample)
        of_second.setdefault(time.replace(microsecond=0), []).append(frames[covering].mean(axis=0))
    for second, samples in of_second.items():
        yield second, len(samples) / 50, np.mean(samples, axis=0)


@pytest.mark.parametrize("context", [True, False])
def test_seconds_are_those_of_the_head_on_the_encoders_features(
    context: bool, recordings: Path, model: Path, head: SavedHead, plain_head: SavedHead, tmp_path: Path
) -> None:
    used = head if context else plain_head
    predict(recordings / "a.csv", model, used, tmp_path / "out", pictures=False, batch_size=2)
    found = pd.read_parquet(tmp_path / "out" / "a" / "seconds.parquet")
    encoder, table = load_encoder(model), pd.read_csv(recordings / "a.csv", parse_dates=["timestamp"])
    expected = [
        row
        for piece in (table[:1500], table[1530:])
        for row in expected_seconds(
            piece[COLUMNS].to_numpy(np.float32), piece["timestamp"].iloc[0].to_pydatetime(), encoder, used
        )
    ]
    assert found["time"].tolist() == [time for time, _, _ in expected]
    np.testing.assert_allclose(found["length_s"], [length for _, length, _ in expected], atol=1e-6)
    np.testing.assert_allclose(found["probability"], [of.max() for _, _, of in expected], atol=1e-5)
    assert found["class"].tolist() == [used.classes[of.argmax()] for _, _, of in expected]
    assert found["class"].nunique() > 1
    text = pd.read_csv(tmp_path / "out" / "a" / "seconds.csv", parse_dates=["time"])
    assert text["time"].tolist() == found["time"].tolist()
    assert text["class"].tolist() == found["class"].tolist()


def test_minutes_add_up_to_the_recordings(recordings: Path, model: Path, head: SavedHead, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = predict(recordings, model, head, out, zone="Europe/Oslo")
    used = (1500 + 3071 - 1530 + 1665) / 50  # without the recording that is shorter than a frame
    assert result.hours_used * 3600 == pytest.approx(used, abs=0.01)
    assert sum(result.minutes.values()) * 60 == pytest.approx(used, abs=0.01)
    for name in ("minutes_by_day.csv", "minutes_by_hour.csv"):
        table = pd.read_csv(out / name)
        recorded = table[table["class"] != NO_DATA]
        assert recorded["minutes"].sum() * 60 == pytest.approx(used, abs=0.05)
        assert set(table["file"]) == {"a", "more__b"}
    days = pd.read_csv(out / "minutes_by_day.csv").groupby(["file", "date"])["minutes"].sum().round(2).to_dict()
    assert days == {("a", "2026-03-28"): 1440, ("a", "2026-03-29"): 1380, ("more__b", "2026-04-01"): 1440}
    assert sorted(path.name for path in (out / "a").glob("*.png")) == ["2026-03-28.png", "2026-03-29.png"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["shorter_than_a_frame"] == {"recordings": 1, "seconds": 0.6}
    assert summary["head"]["scores"] == {"macro_f1": 0.5}


def test_an_interrupted_call_continues(
    recordings: Path, model: Path, head: SavedHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second file is cut off before its summary: the same call again does only that one, with the same result."""

    def results(out: Path) -> dict[str, bytes]:
        tables = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.csv")}
        return tables | {"summary": (out / "summary.json").read_bytes()}

    predict(recordings, model, head, tmp_path / "whole", pictures=False)
    out, finish = tmp_path / "out", SecondsWriter.finish

    def killed(writer: SecondsWriter, *arguments: object) -> dict:
        if writer.name == "more__b":
            raise KeyboardInterrupt
        return finish(writer, *arguments)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(SecondsWriter, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            predict(recordings, model, head, out, pictures=False)
    assert (out / "a" / "summary.json").exists()
    assert not (out / "more__b" / "summary.json").exists()
    kept = (out / "a" / "seconds.parquet").stat().st_mtime_ns
    assert predict(recordings, model, head, out, pictures=False).finished_before == 1
    assert (out / "a" / "seconds.parquet").stat().st_mtime_ns == kept
    assert results(out) == results(tmp_path / "whole")
    with pytest.raises(ConfigError, match="zone"):
        predict(recordings, model, head, out, pictures=False, zone="Europe/Oslo")


def test_a_file_without_a_start_counts_from_0(model: Path, head: SavedHead, tmp_path: Path) -> None:
    table_of(30).drop(columns="timestamp").to_csv(tmp_path / "a.csv", index=False)
    write_head(tmp_path / "head", head)
    call = ["predict", str(tmp_path / "a.csv"), "--model", str(model), "--head", str(tmp_path / "head")]
    assert main([*call, "--out", str(tmp_path / "out"), "--timestamp_column", "null"]) == 0
    assert pd.read_csv(tmp_path / "out" / "a" / "seconds.csv")["second"].tolist() == list(range(30))
    assert (tmp_path / "out" / "a" / "day_0.png").exists()


def test_mistakes_are_reported_in_one_line(
    recordings: Path, model: Path, other_model: Path, head: SavedHead, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_head(tmp_path / "head", head)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine")
    call = {"--model": model, "--head": tmp_path / "head", "--out": tmp_path / "out"}
    for changed, keyword in (
        ({"--model": other_model}, "another encoder"),
        ({"--head": model}, "not a head"),
        ({"--zone": "Mars/Base"}, "Mars/Base"),
        ({"--clock": "utc"}, "zone"),
        ({"--out": tmp_path / "other"}, "not empty"),
        ({"--sensors": "hip"}, "back"),
    ):
        words = [str(word) for pair in {**call, **changed}.items() for word in pair]
        assert main(["predict", str(recordings), *words]) in (1, 2)
        printed = capsys.readouterr().err.strip().splitlines()
        assert len(printed) == 1
        assert keyword in printed[0]
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_used_is_named(model: Path, head: SavedHead, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    table_of(20).drop(columns="thigh_z").to_csv(tmp_path / "in" / "bad.csv", index=False)
    with pytest.raises(DataError, match="thigh_z"):
        predict(tmp_path / "in", model, head, tmp_path / "out")
    table_of(20).to_csv(tmp_path / "in" / "good.csv", index=False)
    result = predict(tmp_path / "in", model, head, tmp_path / "out")
    assert [entry.what for entry in result.skipped] == [str(tmp_path / "in" / "bad.csv")]
    (tmp_path / "in" / "good_copy.csv").write_bytes((tmp_path / "in" / "good.csv").read_bytes())
    again = predict(tmp_path / "in", model, head, tmp_path / "out")
    assert (again.files, again.minutes) == (result.files, result.minutes)
    assert any(entry.what.endswith("good_copy.csv") and "same content" in entry.reason for entry in again.skipped)
    (tmp_path / "in" / "good_copy.csv").unlink()
    with pytest.raises(DataError, match="thigh_z"):
        predict(tmp_path / "in", model, head, tmp_path / "strict", strict=True)


def test_a_damaged_head_is_refused(head: SavedHead, tmp_path: Path) -> None:
    write_head(tmp_path / "head", head)
    again = load_head(tmp_path / "head")
    assert again.digest == head.digest
    rows = np.random.default_rng(0).normal(size=(7, 48)).astype(np.float32)
    np.testing.assert_array_equal(again.probabilities(rows), head.probabilities(rows))
    file = tmp_path / "head" / "head.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelError, match="damaged"):
        load_head(tmp_path / "head")


def test_a_device_file_per_sensor(model: Path, head: SavedHead, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_head(tmp_path / "head", head)
    (tmp_path / "in").mkdir()
    rng, start = np.random.default_rng(0), device_writers.seconds(device_writers.START)
    for sensor in ("back", "thigh"):
        counts = rng.normal(0, 30, (60 * 120, 3)).round().astype(int) - [256, 0, 0]
        times = [start + 1.2 * block for block in range(60)]
        device_writers.write_cwa(tmp_path / "in" / f"P1_{sensor}.cwa", counts, times)
    call = ["predict", str(tmp_path / "in"), "--model", str(model), "--head", str(tmp_path / "head")]
    call += ["--out", str(tmp_path / "out"), "--sensor_files", "{subject}_{sensor}.cwa"]
    assert main(call) == 0
    assert "report.html" in capsys.readouterr().out
    (quality,) = (tmp_path / "out" / "quality" / "quality.jsonl").read_text().splitlines()
    assert json.loads(quality)["hours_used"] * 3600 == pytest.approx(72, abs=0.5)
    minutes = pd.read_csv(tmp_path / "out" / "P1" / "minutes_by_hour.csv")
    assert minutes.loc[minutes["class"] != NO_DATA, "minutes"].sum() * 60 == pytest.approx(72, abs=0.5)
    assert main(call) == 0
    assert "finished by earlier calls" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_of_one_sensor_each(ending: str, model: Path, head: SavedHead, tmp_path: Path) -> None:
    """`predict` and `embed` give what they give for one table with all columns."""
    write_head(tmp_path / "head", head)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    table = table_of(40)
    for place, names in enumerate((COLUMNS, COLUMNS[:3], COLUMNS[3:])):
        target = (whole / "P1", parts / "P1_back", parts / "P1_thigh")[place].with_suffix(f".{ending}")
        part = table[["timestamp", *names]]
        part = part.rename(columns={name: name[-1] for name in names}) if place else part
        part.to_csv(target, index=False) if ending == "csv" else part.to_parquet(target)
    one_each = ["--sensor_files", "{subject}_{sensor}." + ending, "--columns", "x,y,z"]
    for folder, more in ((whole, []), (parts, one_each)):
        call = [str(folder), "--model", str(model), *more]
        assert main(["predict", *call, "--head", str(tmp_path / "head"), "--out", f"{folder}_out"]) == 0
        assert main(["embed", *call, "--out", f"{folder}.npz"]) == 0
    found, expected = (pd.read_csv(f"{folder}_out/P1/seconds.csv") for folder in (parts, whole))
    pd.testing.assert_frame_equal(found, expected, atol=1e-3)
    with np.load(f"{parts}.npz") as found_npz, np.load(f"{whole}.npz") as expected_npz:
        np.testing.assert_allclose(found_npz["features"], expected_npz["features"], atol=1e-4)


def test_a_file_that_can_no_longer_be_used_leaves_no_minutes(model: Path, head: SavedHead, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in "ab":
        table_of(20.0).to_csv(data / f"{name}.csv", index=False)
    predict(data, model, head, out, pictures=False)
    table_of(20.0)[:20].to_csv(data / "a.csv", index=False)
    predict(data, model, head, out, pictures=False)
    assert set(pd.read_csv(out / "minutes_by_day.csv")["file"]) == {"b"}
    assert sorted(path.name for path in (out / "a").iterdir()) == ["summary.json"]


def test_another_file_of_the_same_name_is_refused(model: Path, head: SavedHead, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        table_of(20.0).to_csv(tmp_path / folder / "a.csv", index=False)
    out = tmp_path / "out"
    predict(tmp_path / "one" / "a.csv", model, head, out, pictures=False)
    before = (out / "a" / "seconds.csv").read_bytes()
    with pytest.raises(ConfigError, match="same name"):
        predict(tmp_path / "two" / "a.csv", model, head, out, pictures=False)
    assert (out / "a" / "seconds.csv").read_bytes() == before
    (tmp_path / "one" / "a.csv").rename(tmp_path / "elsewhere.csv")  # the file has moved: it is done again
    predict(tmp_path / "two" / "a.csv", model, head, out, pictures=False)


def test_calls_with_one_folder_are_summed_up_together(
    model: Path, head: SavedHead, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_head(tmp_path / "head", head)
    out = tmp_path / "out"
    for name in "ab":
        table_of(20.0, seed=ord(name)).to_csv(tmp_path / f"{name}.csv", index=False)
        call = [str(tmp_path / f"{name}.csv"), "--model", str(model), "--head", str(tmp_path / "head")]
        assert main(["predict", *call, "--out", str(out), "--pictures", "false"]) == 0
    assert "2 files, 1 of them finished by earlier calls; 40 s of 40 s" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert [each["file"] for each in summary["files"]] == ["a", "b"]
    assert summary["hours_used"] * 3600 == pytest.approx(40, abs=0.1)
    minutes = pd.read_csv(out / "minutes_by_day.csv").query("`class` != @NO_DATA")
    assert minutes["minutes"].sum() == pytest.approx(sum(summary["minutes"].values()), abs=0.01)
    assert len((out / "quality" / "quality.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("strict", [False, True])
def test_a_call_that_used_nothing_does_not_block_its_folder(
    strict: bool, model: Path, head: SavedHead, tmp_path: Path
) -> None:
    table = table_of(20.0)
    table[COLUMNS] *= 9.81
    table.to_csv(tmp_path / "a.csv", index=False)
    out, columns = tmp_path / "out", tuple((name, name) for name in COLUMNS)
    with pytest.raises(DataError, match="unit"):
        predict(tmp_path / "a.csv", model, head, out, pictures=False, strict=strict)
    right = TableFormat(columns=columns, unit="m/s2")
    assert predict(tmp_path / "a.csv", model, head, out, table_format=right, pictures=False).files == 1
    with pytest.raises(ConfigError, match="another"):  # now there is something to lose
        predict(tmp_path / "a.csv", model, head, out, pictures=False)
