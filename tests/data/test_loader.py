import numpy as np
import pytest

from selfpab_jax.data.loader import batches, in_order, rows_of_batch
from selfpab_jax.errors import ConfigError, DataError

ORDER = {"seed": 11, "batch_size": 12}


class Numbered:
    """Records that hold their own position."""

    def __init__(self, records: int) -> None:
        self.records = records

    def __len__(self) -> int:
        return self.records

    def __getitem__(self, position: int) -> dict:
        return {"spectrogram": np.full((2, 3), position, np.float16)}


ROWS = np.arange(0, 200, 2)


def joined(hosts: int, **options) -> list[np.ndarray]:
    parts = [
        list(batches(Numbered(200), ROWS, process_index=p, process_count=hosts, **ORDER, **options))
        for p in range(hosts)
    ]
    for part in parts:
        for batch in part:
            assert batch["spectrogram"].shape == (12 // hosts, 2, 3)
            assert batch["spectrogram"].dtype == np.float16
            assert batch["row"].dtype == np.int64
            np.testing.assert_array_equal(batch["spectrogram"][:, 0, 0], batch["row"])
    return [np.concatenate([part[k]["row"] for part in parts]) for k in range(len(parts[0]))]


EXPECTED = [rows_of_batch(ROWS, step=k, **ORDER) for k in range(40)]


@pytest.mark.parametrize("hosts", [1, 2, 3])
@pytest.mark.parametrize(("threads", "buffer"), [(0, 1), (1, 1), (4, 8)])
def test_batch_k_is_the_same_for_any_hosts_and_threads(hosts, threads, buffer):
    np.testing.assert_array_equal(joined(hosts, first_step=0, last_step=40, threads=threads, buffer=buffer), EXPECTED)


@pytest.mark.slow
def test_batch_k_is_the_same_for_any_workers():
    for workers, hosts in ((1, 1), (4, 1)):
        found = joined(hosts, first_step=0, last_step=40, workers=workers, buffer=1)
        np.testing.assert_array_equal(found, EXPECTED, err_msg=f"{workers} workers")


def test_any_step_can_be_the_first():
    np.testing.assert_array_equal(joined(2, first_step=17, last_step=31), EXPECTED[17:31])
    far = rows_of_batch(ROWS, step=10**9, **ORDER)
    np.testing.assert_array_equal(joined(3, first_step=10**9, last_step=10**9 + 1), [far])


def test_every_epoch_holds_every_row_once_in_another_order():
    rows = np.concatenate([rows_of_batch(ROWS, step=k, seed=0, batch_size=10) for k in range(20)])
    first, second = rows[:100], rows[100:]
    np.testing.assert_array_equal(np.sort(first), ROWS)
    np.testing.assert_array_equal(np.sort(second), ROWS)
    assert (first != second).any()
    assert (first != ROWS).any()


def test_the_seed_decides():
    assert (
        rows_of_batch(ROWS, seed=0, batch_size=50, step=0) != rows_of_batch(ROWS, seed=1, batch_size=50, step=0)
    ).any()


def test_a_batch_may_be_larger_than_the_data():
    rows = rows_of_batch(np.array([3, 5]), seed=0, batch_size=6, step=0)
    assert sorted(rows) == [3, 3, 3, 5, 5, 5]


@pytest.mark.parametrize("hosts", [1, 2])
def test_in_order_reads_every_row_once(hosts):
    parts = [
        list(in_order(Numbered(200), ROWS, batch_size=8, process_index=p, process_count=hosts)) for p in range(hosts)
    ]
    rows = np.concatenate([np.concatenate([part[k]["row"] for part in parts]) for k in range(13)])
    np.testing.assert_array_equal(rows[:100], ROWS)
    np.testing.assert_array_equal(rows[100:], ROWS[0])


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="does not divide among 5"):
        batches(Numbered(9), ROWS, first_step=0, last_step=1, process_count=5, **ORDER)
    with pytest.raises(ConfigError, match="does not divide"):
        in_order(Numbered(9), ROWS, batch_size=3, process_count=2)
    with pytest.raises(DataError, match="empty"):
        batches(Numbered(9), ROWS[:0], first_step=0, last_step=1, **ORDER)
    with pytest.raises(ConfigError, match="seed"):
        rows_of_batch(ROWS, seed=-1, batch_size=2, step=0)


def test_real_records_arrive_whole(records):
    source = records.source("train")
    rows = np.arange(len(source))
    for batch in batches(source, rows, first_step=0, last_step=8, workers=2, **ORDER):
        for spectrogram, row in zip(batch["spectrogram"], batch["row"], strict=True):
            np.testing.assert_array_equal(spectrogram, source[row]["spectrogram"])


def test_shares_draw_rows_in_proportion_for_any_hosts_and_first_step():
    shares = np.where(ROWS % 4 == 0, 3.0, 1.0)
    options = {**ORDER, "shares": shares / shares.sum()}
    expected = [rows_of_batch(ROWS, step=k, **options) for k in range(30)]
    for hosts, first in ((1, 0), (3, 0), (2, 11)):
        found = joined(hosts, first_step=first, last_step=30, shares=options["shares"])
        np.testing.assert_array_equal(found, expected[first:])
    rows = np.concatenate([rows_of_batch(ROWS, step=k, **options) for k in range(1500)])
    share = shares[ROWS % 4 == 0].sum() / shares.sum()
    assert abs((rows % 4 == 0).mean() - share) < 4 * np.sqrt(share * (1 - share) / len(rows))
    assert len(set(rows[:100].tolist())) < 100  # with replacement
    counts = np.array([(rows == row).sum() for row in ROWS])
    assert counts.min() > 0
