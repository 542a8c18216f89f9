import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.data.records.describe import plot_records
from selfpab_jax.errors import DataError
from selfpab_jax.signal.normalization import Statistics


@pytest.fixture
def copy(records, tmp_path):
    folder = tmp_path / "spectrograms" / "1.0.0"
    shutil.copytree(records.folder, folder)
    return folder


def shards(folder):
    return sorted(folder.glob("*.array_record-*"))


def test_opens_both_folders(copy, records):
    for path in (copy, copy.parent, copy.parents[1], str(copy)):
        assert open_records(path).info == records.info


def test_a_missing_shard(copy):
    shards(copy)[2].unlink()
    with pytest.raises(DataError, match=f"{shards(copy)[2].name[:20]}.*missing"):
        open_records(copy)


def test_a_truncated_shard(copy):
    victim = shards(copy)[1]
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{victim.name}: truncated"):
        open_records(copy)


def test_a_foreign_shard(copy):
    """As many bytes as the right one, from the same recordings, but another shard."""
    sizes: dict[int, Path] = {}
    for path in shards(copy):
        other = sizes.setdefault(path.stat().st_size, path)
        if other != path:
            shutil.copyfile(other, path)
            with pytest.raises(DataError, match=f"{path.name}: foreign"):
                open_records(copy)
            return
    pytest.fail("no two shards of one size")


def test_statistics_that_do_not_fit(copy):
    Statistics(np.zeros(78, np.float32), np.ones(78, np.float32), "plain").save(copy / "statistics_plain.npz")
    with pytest.raises(DataError, match=r"statistics_plain.npz.*78 features.*156"):
        open_records(copy)
    (copy / "statistics_plain.npz").unlink()
    with pytest.raises(DataError, match=r"statistics_plain.npz"):
        open_records(copy)


def test_damaged_info(copy):
    info = json.loads((copy / "records.json").read_text())
    for content in ("{", json.dumps({**info, "color": 1}), json.dumps({"settings": {}})):
        (copy / "records.json").write_text(content)
        with pytest.raises(DataError, match=r"records.json cannot be read"):
            open_records(copy)


def test_no_records(tmp_path):
    with pytest.raises(DataError, match="no records here"):
        open_records(tmp_path)


def test_wrong_names_are_reported(records):
    with pytest.raises(DataError, match="no split 'dev'"):
        records.source("dev")
    with pytest.raises(DataError, match="hour_weighted, plain"):
        records.statistics("daily")


def test_a_damaged_index(copy):
    index = copy / "index_train.parquet"
    shutil.copyfile(copy / "index_test.parquet", index)
    opened = open_records(copy)
    with pytest.raises(DataError, match=r"index_train.parquet has"):
        opened.index("train")
    index.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"index_train.parquet cannot be read"):
        opened.index("train")


def test_a_source_can_be_pickled(records):
    source = records.source("train")
    first = source[0]["spectrogram"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[0]["spectrogram"], first)


def test_the_picture(records, tmp_path):
    plot_records(records, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 20_000
