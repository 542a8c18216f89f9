"""TFDS builders: files downloaded or supplied by hand, prepared without TensorFlow, and read again."""

import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

import selfpab_jax.data.har.tfds  # noqa: F401 (registers the builders)
from selfpab_jax.data.har.card import Download
from selfpab_jax.data.har.datasets.har70plus import Har70Plus
from selfpab_jax.data.har.datasets.harth import Harth
from selfpab_jax.data.har.datasets.uschad import UscHad
from selfpab_jax.data.har.prepared import METADATA_FILE
from selfpab_jax.data.har.registry import open_dataset, public_dataset_names
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.errors import ConfigError, DataError

from .conftest import standing, times


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def address(tmp_path):
    """URL of the files in `tmp_path / "web"`."""
    (tmp_path / "web").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def replace_downloads(monkeypatch, source, *downloads):
    """Give the data set's card other downloads."""
    monkeypatch.setattr(source, "CARDS", (replace(source.CARDS[0], downloads=downloads),))


def same(a, b):
    """Whether two lists of recordings are equal in every sample."""
    assert [(r.subject, r.name, r.start, r.rate_hz, r.notes) for r in a] == [
        (r.subject, r.name, r.start, r.rate_hz, r.notes) for r in b
    ]
    for ours, theirs in zip(a, b, strict=True):
        np.testing.assert_array_equal(ours.signal_NxC, theirs.signal_NxC)
        np.testing.assert_array_equal(ours.labels_N, theirs.labels_N)
        assert ours.signal_NxC.dtype == theirs.signal_NxC.dtype
        assert ours.labels_N.dtype == theirs.labels_N.dtype
    return True


def read_all(source):
    recordings = []
    for file in source.files():
        recordings += source.read(file)
    return recordings


def test_a_downloaded_zip_reads_as_the_published_files(tmp_path, address, monkeypatch, write_trial):
    for subject, activity, number in ((1, 1, None), (1, 9, None), (2, 9, "13")):
        write_trial(tmp_path / "USC-HAD", subject, activity, number=number)
    write_trial(tmp_path / "USC-HAD", 2, 10, spelling="nothing")
    archive = shutil.make_archive(str(tmp_path / "web" / "USC-HAD"), "zip", tmp_path, "USC-HAD")
    content = Path(archive).read_bytes()
    checksum = hashlib.sha256(content).hexdigest()
    replace_downloads(monkeypatch, UscHad, Download(f"{address}/USC-HAD.zip", checksum, len(content)))
    builder = tfds.builder("uschad", data_dir=str(tmp_path / "tfds"))
    builder.download_and_prepare()

    examples = builder.as_data_source(split="train")
    assert len(examples) == 3
    assert builder.info.metadata["classes"][8] == "standing"
    assert examples[1]["signal"].shape == (700, 3)
    assert set(examples[1]["label"].tolist()) == {8}
    assert builder.info.citation.startswith("@inproceedings{zhang")
    assert "sipi.usc.edu" in builder.info.homepage
    assert "tensorflow" not in sys.modules

    published = open_dataset("uschad", tmp_path / "USC-HAD")
    for path in (tmp_path / "tfds", builder.data_dir):
        prepared = open_dataset("uschad", path, sensors=("hip",))
        assert prepared.card == published.card
        assert prepared.channels == published.channels
        good = [file for file in prepared.files() if file.name != "a10t1"]
        assert same(
            [prepared.read(file)[0] for file in good],
            [published.read(file)[0] for file in published.files() if file.name != "a10t1"],
        )
    (skipped,) = (file for file in prepared.files() if file.name == "a10t1")
    with pytest.raises(UnusableError, match="labels missing"):
        prepared.read(skipped)
    with pytest.raises(ConfigError, match="no sensor wrist"):
        open_dataset("uschad", builder.data_dir, sensors=("wrist",))
    with pytest.raises(DataError, match="holds uschad"):
        open_dataset("harth", builder.data_dir)


def test_a_wrong_checksum_stops(tmp_path, address, monkeypatch, write_trial):
    write_trial(tmp_path / "USC-HAD", 1, 1)
    shutil.make_archive(str(tmp_path / "web" / "USC-HAD"), "zip", tmp_path, "USC-HAD")
    replace_downloads(monkeypatch, UscHad, Download(f"{address}/USC-HAD.zip", "0" * 64, 10))
    builder = tfds.builder("uschad", data_dir=str(tmp_path / "tfds"))
    with pytest.raises(NonMatchingChecksumError, match="checksum"):
        builder.download_and_prepare()
    assert open_dataset("uschad", tmp_path / "tfds").card.downloads  # not prepared: read as a published folder


def test_single_files_keep_their_published_names(tmp_path, address, monkeypatch, write_harth):
    for number in (501, 502):
        write_harth(tmp_path / "web" / str(number))
    named = [Download(f"{address}/{number}", None, name=f"{number}.csv") for number in (501, 502)]
    replace_downloads(monkeypatch, Har70Plus, *named)
    builder = tfds.builder("har70plus/thigh", data_dir=str(tmp_path / "tfds"))
    builder.download_and_prepare()
    prepared = open_dataset("har70plus", tmp_path / "tfds", sensors=("thigh",))
    for number in (501, 502):
        (tmp_path / "web" / str(number)).rename(tmp_path / "web" / f"{number}.csv")
    assert same(read_all(prepared), read_all(open_dataset("har70plus", tmp_path / "web", sensors=("thigh",))))
    with pytest.raises(DataError, match="HAR70"):  # both sensors were not prepared
        list(open_dataset("har70plus", tmp_path / "tfds").files())


def test_a_folder_deep_in_an_archive(tmp_path, address, monkeypatch, write_harth):
    write_harth(tmp_path / "repository-2.0" / "harth" / "S006.csv")
    write_harth(tmp_path / "repository-2.0" / "other" / "S007.csv")
    shutil.make_archive(str(tmp_path / "web" / "v2.0"), "zip", tmp_path, "repository-2.0")
    replace_downloads(monkeypatch, Harth, Download(f"{address}/v2.0.zip", None, inner="harth"))
    tfds.builder("harth", data_dir=str(tmp_path / "tfds")).download_and_prepare()
    assert [recording.subject for recording in read_all(open_dataset("harth", tmp_path / "tfds"))] == ["S006"]


def test_files_supplied_by_hand(tmp_path):
    def prepare():
        builder = tfds.builder("selfback", data_dir=str(tmp_path / "tfds"), version="1.1.0")
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(tmp_path / "by_hand")))

    with pytest.raises(AssertionError, match="One table per subject"):
        prepare()
    names = [f"{sensor}_{axis}" for sensor in ("wrist", "thigh") for axis in "xyz"]
    columns = {"timestamp": times(200, 50), "label": np.repeat([7, 77], 100), "segment": np.zeros(200, np.int64)}
    signal = standing(200, (-0.4, -0.9, 0.05, -0.99, -0.08, 0.09))
    (tmp_path / "by_hand").mkdir()
    table = pa.table(columns | dict(zip(names, signal.T, strict=True)))
    pyarrow.parquet.write_table(table, tmp_path / "by_hand" / "subject_026.parquet")
    prepare()
    prepared = open_dataset("selfback", tmp_path / "tfds", version="1.1")
    assert prepared.card.version == "1.1.0"
    assert same(read_all(prepared), read_all(open_dataset("selfback", tmp_path / "by_hand")))
    assert "label 77" in read_all(prepared)[0].notes[0]


def test_data_sets_prepared_by_version_0_1_are_read(tmp_path, monkeypatch, write_trial):
    write_trial(tmp_path / "manual", 1, 9)
    write_trial(tmp_path / "manual", 2, 10, spelling="nothing")
    replace_downloads(monkeypatch, UscHad)
    builder = tfds.builder("uschad", data_dir=str(tmp_path / "tfds"))
    builder.MANUAL_DOWNLOAD_INSTRUCTIONS = "by hand"
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(tmp_path / "manual")))
    new = open_dataset("uschad", tmp_path / "tfds")
    old_folder = tmp_path / "old" / "1.0.0"
    shutil.copytree(builder.data_dir, old_folder)
    metadata = json.loads((old_folder / METADATA_FILE).read_text())
    metadata["card"]["licence"] = metadata["card"].pop("license")
    metadata["set_aside"] = metadata.pop("skipped")
    (old_folder / METADATA_FILE).write_text(json.dumps(metadata))
    old = open_dataset("uschad", old_folder)
    assert old.card == new.card
    assert [(file.name, file.path) for file in old.files()] == [(file.name, file.path) for file in new.files()]
    good, skipped = old.files()
    assert same(old.read(good), new.read(good))
    with pytest.raises(UnusableError, match="labels missing"):
        old.read(skipped)
    (old_folder / METADATA_FILE).write_text("{}")
    with pytest.raises(DataError, match="not a labeled data set"):
        open_dataset("uschad", shutil.copytree(old_folder, tmp_path / "damaged"))


def test_importing_the_module_registers_the_builders_and_importing_the_package_imports_no_tfds():
    code = (
        "import sys, selfpab_jax.data.har\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "import selfpab_jax.data.har.tfds, tensorflow_datasets as tfds\n"
        f"for name in {public_dataset_names()}:\n"
        "    assert tfds.builder(name, data_dir='nowhere').name == name\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
