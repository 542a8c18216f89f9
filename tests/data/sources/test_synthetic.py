from datetime import datetime

import numpy as np
import pandas as pd

from selfpab_jax.cli.main import main
from selfpab_jax.data.sources.hunt4 import Hunt4
from selfpab_jax.data.sources.synthetic import draw_traits, make_signal, recordings, write_cohort, write_days


def test_it_reads_as_hunt4_and_is_plausible(tmp_path):
    assert write_cohort(tmp_path, subjects=3, hours=5, seed=0) == 15
    source = Hunt4((str(tmp_path),))
    files = list(source.files())
    assert [file.subject for file in files] == ["S001"] * 5 + ["S002"] * 5 + ["S003"] * 5
    for file in files:
        (recording,) = source.read(file)
        assert recording.signal_NxC.shape == (15000, 6)
    assert source.read(files[0])[0].start == datetime(2024, 3, 4, 7)


def test_the_seed_decides():
    first, again, other = (next(recordings(0, 1, seed))[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_gravity_is_there_and_follows_posture():
    rng = np.random.default_rng(0)
    cohort = [draw_traits(rng) for _ in range(4)]
    signals = np.concatenate([make_signal(traits, hour, rng) for traits in cohort for hour in (3, 9, 12, 15)])
    frames = signals[: len(signals) // 50 * 50].reshape(-1, 50, 6).mean(axis=1)
    norm = np.linalg.norm(frames.reshape(-1, 2, 3), axis=2)
    assert 0.95 < np.median(norm) < 1.05
    upright = (frames[:, 0] < -0.8) & (frames[:, 3] < -0.8)
    seated = (frames[:, 0] < -0.8) & (frames[:, 5] < -0.8)
    lying = np.abs(frames[:, 0]) < 0.4
    assert min(upright.mean(), seated.mean(), lying.mean()) > 0.05


def test_days_have_nights_work_and_weekends(tmp_path):
    write_days(tmp_path, subjects=3, days=7, seed=0)
    tables = [pd.read_parquet(path) for path in sorted(tmp_path.iterdir())]
    assert [len(table) for table in tables] == [7 * 17280] * 3
    moved = []
    for table in tables:
        hour, lying = table.timestamp.dt.hour, table.back_x.abs() < 0.5
        assert lying[hour == 3].mean() > 0.95
        assert lying[hour.between(9, 20)].mean() < 0.2
        assert table.timestamp.diff().dropna().eq(pd.Timedelta(seconds=5)).all()
        moved.append(table.thigh_x.groupby([table.timestamp.dt.day_of_week >= 5, hour]).std())
    mean = sum(moved) / len(moved)
    assert mean[False, 12] > 1.2 * mean[False, 14]  # the walk at noon of a working day
    assert mean[True, 11] > 1.2 * mean[False, 14]  # the walk or ride of a weekend


def test_a_cohort_of_days_is_written_by_the_command(tmp_path, capsys):
    assert main(["cohort", str(tmp_path / "c"), "--subjects", "2", "--days", "1"]) == 0
    assert "48 h" in capsys.readouterr().out
    assert main(["cohort", str(tmp_path / "d"), "--days", "0"]) == 2
