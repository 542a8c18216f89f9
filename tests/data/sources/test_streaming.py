"""Recordings in blocks: the same samples as whole files, whatever the size of the blocks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfpab_jax.data.sources.blocks import SignalBlock
from selfpab_jax.data.sources.streaming import estimated_hours, read_signal, resample_blocks
from selfpab_jax.data.tables.format import TableFormat, sensor_columns
from selfpab_jax.signal.resample import resample

COLUMNS = [column for _, column in sensor_columns(("back", "thigh"))]


def signal_of(seconds: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (np.array([-1, 0, 0] * 2) + rng.normal(0, 0.2, (round(seconds * 50), 6))).astype(np.float32)


SIGNALS = {
    "gap.csv": np.split(signal_of(41.0, 0), [1300]),
    "segments.parquet": np.split(signal_of(26.4, 1), [750]),
    "2020-02-03_14.npz": [signal_of(11.0, 2)],
}
"""Files and their recordings."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV with a gap in time, a Parquet with two segments, an npz."""
    folder = tmp_path_factory.mktemp("recordings")
    for name, pieces in SIGNALS.items():
        table = pd.DataFrame(np.concatenate(pieces), columns=pd.Index(COLUMNS))
        table.insert(0, "timestamp", pd.date_range("2019-01-12 10:00", periods=len(table), freq="20ms"))
        if name == "gap.csv":
            table.loc[1300:, "timestamp"] += pd.Timedelta(seconds=7)
            table.to_csv(folder / name, index=False)
        elif name == "segments.parquet":
            table["segment"] = np.repeat(["walk", "sit"], [750, 570])
            table.to_parquet(folder / name, row_group_size=150)
        else:
            np.savez(folder / name, arr_0=pieces[0].astype(np.float64))
    return folder


def refuse(what: str, reason: str) -> None:
    raise AssertionError(f"{what}: {reason}")


@pytest.mark.parametrize("rows", [100, 333, 5000])
@pytest.mark.parametrize("name", SIGNALS)
def test_blocks_join_to_whole_recordings(files: Path, name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfpab_jax.data.tables.text.BYTES_PER_ROW", 90)
    table_format = TableFormat(segment_column="segment" if name == "segments.parquet" else None)
    joined: dict[str, list[np.ndarray]] = {}
    for block in read_signal(files / name, table_format, refuse, rows):
        assert block.begins == (block.recording not in joined)
        joined.setdefault(block.recording, []).append(block.signal_NxC)
    for blocks, expected in zip(joined.values(), SIGNALS[name], strict=True):
        np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-6)


@pytest.mark.parametrize("rate", [100.0, 30.0, 102.4])
def test_blocks_are_resampled_as_if_they_were_whole(rate: float) -> None:
    time = np.arange(round(60 * rate)) / rate
    signal = np.stack([np.sin(2 * np.pi * time * hz) - 1 for hz in (0.7, 2.0, 9.0)], axis=1).astype(np.float32)
    whole = resample(signal, rate, 50.0)
    pieces = np.split(signal, [1, 17, 700, 701, 1500])
    given = (SignalBlock("r", None, place == 0, rate, piece) for place, piece in enumerate(pieces))
    blocks = list(resample_blocks(given, 50.0))
    found = np.concatenate([block.signal_NxC for block in blocks])
    assert [block.begins for block in blocks] == [True] + [False] * (len(blocks) - 1)
    assert len(blocks) > 3
    assert len(found) == len(whole)
    error = np.abs(found - whole).max(axis=1)
    assert error[:-20].max() < 3e-3
    assert error[-20:].max() < 3e-2, "the signal is extended along a line at its end, which differs for a block"


@pytest.mark.parametrize("digits", [1, 9])
def test_hours_are_estimated_from_the_rows_of_a_table(tmp_path: Path, digits: int) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y,z\n" + f"{0.123456789:.{digits}f},1,2\n" * 36_000)
    assert estimated_hours(path, 10) == pytest.approx(1, rel=0.01)
    assert estimated_hours(tmp_path / "missing.csv", 10) == 0
