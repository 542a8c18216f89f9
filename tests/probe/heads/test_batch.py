import numpy as np

from selfpab_jax.probe.heads.batch import LabeledFeatures, ShuffledRows, rows_around


def test_an_epoch_reads_every_row_once_but_the_rest():
    rows = np.arange(100, 203)
    order = ShuffledRows(rows, 20, seed=1)
    epochs = [np.concatenate([order.batch(e * 5 + k) for k in range(5)]) for e in range(2)]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == 100
        assert set(epoch) <= set(rows)
    assert not np.array_equal(*epochs)
    again = ShuffledRows(rows, 20, seed=1)
    np.testing.assert_array_equal(again.batch(7), epochs[1][40:60])
    assert not np.array_equal(ShuffledRows(rows, 20, seed=2).batch(0), epochs[0][:20])


def test_few_rows_are_one_batch():
    order = ShuffledRows(np.arange(7), 20, seed=1)
    assert order.steps_per_epoch == 1
    np.testing.assert_array_equal(order.batch(3), np.arange(7))


def test_rows_around_stay_within_their_window():
    found = rows_around(np.array([3, 1, 2]), (-2, 0, 1))
    assert found.tolist() == [[0, 0, 1], [0, 1, 2], [0, 2, 2], [3, 3, 3], [4, 4, 5], [4, 5, 5]]
    features = np.arange(12, dtype=np.float16).reshape(6, 1, 2)
    rows = LabeledFeatures(features, np.zeros(6, np.int16), np.zeros(6, np.int32), around_RxW=found)
    assert rows.features_RxE.shape == (6, 6)
    assert rows.features_RxE[np.array([1])].tolist() == [[0, 1, 2, 3, 4, 5]]
