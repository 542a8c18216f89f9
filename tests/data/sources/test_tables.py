import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from selfpab_jax.data.records.usage import Windowing
from selfpab_jax.data.records.windows import signal_windows
from selfpab_jax.data.sources.base import UnusableError, sensors_of
from selfpab_jax.data.sources.blocks import SignalBlock
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.segments import continuous_segments
from selfpab_jax.data.tables.columns import labels, numbers, read_blocks, read_table, seconds
from selfpab_jax.data.tables.format import TableFormat, parse_columns, sensor_columns
from selfpab_jax.data.tables.recordings import Tables
from selfpab_jax.errors import ConfigError


@pytest.fixture
def frame(moving):
    frame = pd.DataFrame(moving, columns=[column for _, column in sensor_columns(("back", "thigh"))])
    frame.insert(0, "timestamp", pd.date_range("2019-01-12 10:00:00", periods=len(frame), freq="20ms"))
    frame["label"] = np.where(np.arange(len(frame)) < 1000, 7, 130)
    return frame


def read(frame, path, ending="parquet", **options):
    for other in path.glob("S01.*"):
        other.unlink()
    path = path / f"S01.{ending}"
    frame.to_csv(path) if ending == "csv" else frame.to_parquet(path)
    source = Tables((str(path.parent),), **options)
    (file,) = source.files()
    assert file.subject == "S01"
    return source.read(file)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_harth_columns_are_the_default(frame, moving, tmp_path, ending):
    (recording,) = read(frame, tmp_path, ending, label_column="label")
    np.testing.assert_allclose(recording.signal_NxC, moving, rtol=1e-6)
    assert recording.labels_N.tolist() == frame["label"].tolist()
    assert recording.start == pd.Timestamp("2019-01-12 10:00:00")


def test_own_columns_units_and_clocks(frame, tmp_path):
    own = pd.DataFrame({f"acc {axis}": frame[f"back_{axis}"] * 9.80665 for axis in "xyz"})
    own["clock"] = (frame["timestamp"] - pd.Timestamp(0)).dt.total_seconds() * 1000
    columns = parse_columns("hip_x=acc x, hip_y=acc y,hip_z = acc z")
    (recording,) = read(own, tmp_path, columns=columns, unit="m/s2", timestamp_column="clock", timestamp_unit="ms")
    np.testing.assert_allclose(recording.signal_NxC, frame[["back_x", "back_y", "back_z"]], atol=1e-6)
    assert recording.start == pd.Timestamp("2019-01-12 10:00:00")
    with pytest.raises(UnusableError, match="--timestamp_unit"):
        read(own, tmp_path, columns=columns, unit="m/s2", timestamp_column="clock")
    own["clock"] -= own["clock"].iloc[0]
    (recording,) = read(own, tmp_path, columns=columns, unit="m/s2", timestamp_column="clock", timestamp_unit="ms")
    assert recording.start is None
    (recording,) = read(own, tmp_path, columns=columns, unit="m/s2", timestamp_column=None)
    assert recording.start is None


def test_segments_and_gaps_end_a_recording(frame, tmp_path):
    frame["segment"] = np.where(np.arange(len(frame)) < 1200, "walk", "sit")
    later = frame["timestamp"] + pd.Timedelta(seconds=5)
    frame["timestamp"] = frame["timestamp"].where(np.arange(len(frame)) < 2000, later)
    pieces = read(frame, tmp_path, segment_column="segment", gap_limit=2.0)
    assert [len(piece.signal_NxC) for piece in pieces] == [1200, 800, 1000]
    assert [piece.name for piece in pieces] == ["S01:0", "S01:1200", "S01:2000"]
    assert len(read(frame, tmp_path, gap_limit=10.0)) == 1


def test_every_fault_has_a_reason(frame, tmp_path):
    def reason_of(change, ending="parquet", **options):
        changed = frame.copy()
        with pytest.raises(UnusableError) as caught:
            read(changed.pipe(change), tmp_path, ending, **options)
        return str(caught.value)

    assert reason_of(lambda f: f.drop(columns="back_y")).startswith("unknown column: back_y; the table has timestamp")
    assert "unknown column: mark" in reason_of(lambda f: f, label_column="mark")
    assert "wrong type: column thigh_z" in reason_of(lambda f: f.assign(thigh_z="x"), "csv")
    assert "label column" in reason_of(lambda f: f.assign(label=0.5), label_column="label")
    assert "holds text such as 'walk'" in reason_of(
        lambda f: f.assign(label=f["label"].astype(str).where(f.index != 9, "walk")), "csv", label_column="label"
    )
    assert "NaN" in reason_of(lambda f: f.assign(back_x=np.nan))
    assert "no rows" in reason_of(lambda f: f.iloc[:0])
    assert "not a date and time" in reason_of(lambda f: f.assign(timestamp="noon"), "csv")
    assert "show 50 Hz, not 100 Hz" in reason_of(lambda f: f, rate_hz=100.0)
    assert "wrong unit" in reason_of(lambda f: f.assign(back_x=f["back_x"] * 9.80665))


def test_impossible_times_are_refused(frame, tmp_path):
    milliseconds = (frame["timestamp"] - pd.Timestamp(0)).dt.total_seconds() * 1000
    for times in (milliseconds, milliseconds.astype("int64")):
        with pytest.raises(UnusableError, match=r"timestamps: row 0 of column timestamp .* --timestamp_unit s"):
            read(frame.assign(timestamp=times), tmp_path, timestamp_unit="s")
    for wrong in (np.nan, np.inf, -np.inf):
        times = milliseconds.to_numpy().copy()
        times[9] = wrong
        table = pa.Table.from_pandas(frame.drop(columns="timestamp")).append_column("timestamp", pa.array(times))
        pq.write_table(table, tmp_path / "S02.parquet")
        source = Tables((str(tmp_path),), timestamp_unit="ms")
        report = FileReport("S02")
        [recording] = source.read(list(source.files())[-1], report)
        assert "no timestamp" in report.notes[0]
        assert len(recording.signal_NxC) == len(frame)


@pytest.mark.parametrize(("name", "kind"), [("S01.parquet", "Parquet"), ("S01.csv", "CSV")])
def test_an_unreadable_file_is_refused(tmp_path, name, kind):
    for content in (b"", b"\x00\xff\x00\n" * 9):
        (tmp_path / name).write_bytes(content)
        source = Tables((str(tmp_path),))
        (file,) = source.files()
        with pytest.raises(UnusableError, match=f"unreadable {kind}|unknown column"):
            source.read(file)


def test_segments_may_be_in_any_order_in_time(frame, tmp_path):
    frame["segment"] = np.arange(len(frame)) // 1500
    turned = pd.concat([frame.iloc[1500:], frame.iloc[:1500]])
    assert len(read(turned, tmp_path, segment_column="segment")) == 2
    assert len(read(turned, tmp_path)) == 2, "time that runs backwards begins another recording"


STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.02, 0.5, 1.5, 100.0]), st.booleans()), max_size=60)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, window=st.integers(1, 10), shift=st.integers(1, 10))
def test_windows_never_cross_a_segment_or_a_gap(steps, window, shift):
    times = np.cumsum([0.0, *(step for step, _ in steps)])
    segments = np.cumsum([0, *(changes for _, changes in steps)])
    pieces = continuous_segments(len(times), times, segments, gap_limit=1.0)
    assert [row for first, last in pieces for row in range(first, last)] == list(range(len(times)))
    for first, last in pieces:
        rows = np.arange(first, last, dtype=np.float32)[:, None]
        block = SignalBlock("r", None, True, 50.0, rows)
        for piece in signal_windows(iter([block]), Windowing(window, shift, shortest_samples=1)):
            inside = piece.signal_NxC[:, 0].astype(int)
            assert len(set(segments[inside])) == 1
            assert (np.diff(times[inside]) <= 1.0).all()


def test_columns_as_text():
    assert parse_columns("a=b,c") == (("a", "b"), ("c", "c"))
    for wrong in ("", "a,,b", "a=x,a=y"):
        with pytest.raises(ConfigError, match="columns"):
            parse_columns(wrong)
    assert sensors_of(("back_x", "back_y", "left_hip_x", "temperature")) == ("back", "left_hip", "temperature")


def test_real_recordings_are_all_plausible(shared):
    """Both AX3 of selfBACK, jogging at up to 8 g included."""
    source = Tables(
        (str(shared / "real" / "selfback"),),
        columns=sensor_columns(("wrist", "thigh")),
        segment_column="segment",
        label_column="label",
    )
    files = list(source.files())
    assert len(files) == 26
    seconds = [len(piece.signal_NxC) / 50 for file in files for piece in source.read(file)]
    assert sum(seconds) / 3600 == pytest.approx(10.6, abs=0.1)
    assert 150 < np.median(seconds) < 200


def as_csv(path, header, rows):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_late_text_makes_a_whole_column_text(tmp_path):
    """As if all rows had been read before their types were decided; reading in blocks ends at such a row."""
    rows = [f"{number / 50},{number % 7}" for number in range(150_000)]
    path = as_csv(tmp_path / "a.csv", "x,label", [*rows, "1.5,walk", "2.5,"])
    table = read_table(path, ["label", "x"])
    assert table.num_rows == 150_002
    assert table.column("label").to_pylist()[-3:] == [str(149_999 % 7), "walk", None]
    assert numbers(table, "x")[-2:].tolist() == [1.5, 2.5]
    assert sum(block.num_rows for block in read_blocks(path, ["x", "label"], 1000)) == 150_002
    with pytest.raises(UnusableError, match="wrong type: column label holds string"):
        numbers(table, "label")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_blocks_are_the_whole_table(frame, tmp_path, ending):
    path = tmp_path / f"S01.{ending}"
    frame["segment"] = np.arange(len(frame)) // 700
    frame.to_csv(path) if ending == "csv" else frame.to_parquet(path, row_group_size=400)
    layout = TableFormat(segment_column="segment", label_column="label")
    whole, blocks = layout.load(path), list(layout.load_blocks(path, 500))
    assert len(blocks) > 2
    np.testing.assert_array_equal(np.concatenate([layout.values(block) for block in blocks]), layout.values(whole))
    np.testing.assert_array_equal(np.concatenate([layout.times(block) for block in blocks]), layout.times(whole))
    assert np.flatnonzero(np.diff(layout.codes(whole))).tolist() == [699, 1399, 2099, 2799]
    assert [label for block in blocks for label in labels(block, "label")] == frame["label"].tolist()


def test_milli_g(frame, moving, tmp_path):
    frame[frame.columns[1:7]] *= 1000
    (recording,) = read(frame, tmp_path, unit="mg")
    np.testing.assert_allclose(recording.signal_NxC, moving, rtol=1e-6)


@pytest.mark.parametrize("clock", ["2019-01-12T10:00:00.{:03d}Z", "2019-01-12 10:00:00.{:03d}"])
def test_times_with_and_without_a_zone(tmp_path, clock):
    rows = [clock.format(number * 20) + ",1" for number in range(20)]
    path = as_csv(tmp_path / "a.csv", "time,x", rows)
    times = seconds(read_table(path, ["time"]), "time", "text")
    np.testing.assert_allclose(times - times[0], np.arange(20) / 50, atol=1e-6)
