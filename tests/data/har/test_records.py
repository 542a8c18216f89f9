"""Labeled data sets as sources of spectrogram records."""

import json

import numpy as np

from selfpab_jax.cli.main import main
from selfpab_jax.data.har.base import LabeledRecordsSource
from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.data.records.dataset import open_records


def test_records_of_a_data_set_carry_class_indices(tmp_path, write_harth, capsys):
    for number in range(3):
        signal = np.random.default_rng(number).normal((-1, 0, 0, -1, 0, 0), 0.01, (1500, 6))
        write_harth(tmp_path / "harth" / f"S{number:03d}.csv", np.full(1500, 13), signal=signal)
    write_harth(tmp_path / "harth" / "S009.csv", left_out=("label",))
    build = ["records", "build", "--source", "harth", str(tmp_path / "harth"), "--out", str(tmp_path / "records")]
    options = ["--sensors=thigh", "--window_seconds=10", "--workers=1", "--test=0", "--validation_subjects=S002"]
    assert main([*build, *options]) == 0
    assert "1 of 4 files skipped" in capsys.readouterr().out
    records = open_records(tmp_path / "records")
    assert records.info.source == "harth"
    assert records.info.channels == ("thigh_x", "thigh_y", "thigh_z")
    assert records.info.options["source"]["dataset"]["path"].endswith("harth")
    record = records.source("train")[0]
    assert record["spectrogram"].shape == (19, 78)
    assert set(record["labels"].tolist()) == {8}
    (skipped,) = (tmp_path / "records" / "spectrograms" / "1.0.0" / "skipped.jsonl").read_text().splitlines()
    assert "unknown column: label" in json.loads(skipped)["reason"]


def test_options_of_others_are_refused(tmp_path, capsys):
    for source, option, keyword in (
        ("harth", "--rate=100", "rate: only"),
        ("harth", "--first_seconds=60", "first_seconds: only"),
        ("harth", "--dataset_version=3.0", "1.2.0, 2.0.0"),
        ("recordings", "--dataset_version=1.2", "dataset_version"),
    ):
        assert main(["records", "build", "--source", source, str(tmp_path), "--out", str(tmp_path / "o"), option]) == 2
        assert keyword in capsys.readouterr().err


def test_missing_samples_end_a_recording(tmp_path, write_harth):
    signal = np.random.default_rng(0).normal((-1, 0, 0, -1, 0, 0), 0.01, (400, 6))
    signal[40:43, 4] = np.nan  # bridged
    signal[100:120, 4] = np.nan
    write_harth(tmp_path / "S006.csv", signal=signal)
    source = LabeledRecordsSource(open_dataset("harth", tmp_path))
    first, second = source.read(next(iter(source.files())))
    assert (len(first.signal_NxC), len(second.signal_NxC), second.name) == (100, 280, "S006+120")
    assert first.start is not None
    assert second.start is not None
    assert (second.start - first.start).total_seconds() == 2.4
