"""A user's own labeled tables."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.errors import ConfigError, DataError

from ..conftest import standing, text_of, times, write_csv


@pytest.fixture
def write_hip(tmp_path):
    """Writes a table of a hip sensor in m/s^2 at 25 Hz, -y down, with text labels."""

    def write(name, labels):
        signal = standing(len(labels), (0.0, 9.81, 0.2))
        header = ["when", "ax", "ay", "az", "what"]
        write_csv(tmp_path / f"{name}.csv", header, [text_of(times(len(labels), 25)), *signal.T, labels])
        return tmp_path

    return write


OPTIONS = {
    "columns": "hip_x=ax,hip_y=ay,hip_z=az",
    "axes": {"hip": ("-y", "+x", "+z")},
    "unit": "m/s2",
    "rate": 25.0,
    "timestamp_column": "when",
    "label_column": "what",
}


def test_text_labels_are_found_in_order(write_hip):
    write_hip("anna", ["walk"] * 30 + ["sit"] * 20 + [""] * 10)
    source = open_dataset("tables", write_hip("bert", ["climb"] * 10 + ["sit"] * 10), **OPTIONS)
    assert source.card.class_names == ("climb", "sit", "walk")
    assert source.channels == ("hip_x", "hip_y", "hip_z")
    anna, bert = source.files()
    (recording,) = source.read(anna)
    assert recording.labels_N.tolist() == [2] * 30 + [1] * 20 + [-1] * 10
    assert recording.notes == ()
    np.testing.assert_allclose(recording.signal_NxC.mean(axis=0), (-1.0, 0.0, 0.02), atol=0.01)
    assert source.read(bert)[0].labels_N.tolist() == [0] * 10 + [1] * 10
    assert pickle.loads(pickle.dumps(source)).read(anna)[0].subject == "anna"


def test_given_classes_have_their_order_and_others_are_said(write_hip):
    folder = write_hip("anna", ["walk"] * 30 + ["sit"] * 20)
    source = open_dataset("tables", folder, classes="sit=seated,stand", **OPTIONS)
    assert source.card.class_names == ("seated", "stand")
    (recording,) = source.read(next(source.files()))
    assert recording.labels_N.tolist() == [-1] * 30 + [0] * 20
    (note,) = recording.notes
    assert "'walk'" in note
    assert " 30 samples" in note


def test_names_of_classes_may_have_commas_in_parentheses(write_hip):
    folder = write_hip("anna", ["walk"] * 30 + ["sit"] * 20)
    source = open_dataset("tables", folder, classes="walk,sit=sitting (still, upright), stand", **OPTIONS)
    assert source.card.classes == (("walk", "walk"), ("sit", "sitting (still, upright)"), ("stand", "stand"))


def test_what_stands_in_the_folder_beside_tables_is_said_and_no_header_is_a_class(write_hip):
    folder = write_hip("anna", ["walk"] * 30 + ["sit"] * 20)
    lines = (folder / "anna.csv").read_text().splitlines()
    (folder / "anna.csv").write_text("\n".join([*lines[:30], lines[0], *lines[30:]]) + "\n")
    (folder / "copy.csv").write_bytes((folder / "anna.csv").read_bytes())
    (folder / "notes.xlsx").touch()
    source = open_dataset("tables", folder, **OPTIONS)
    assert source.card.class_names == ("sit", "walk")
    [(first, why), (copy, other)] = [(each.what, each.reason) for each in source.passed_over()]
    assert (first, why) == ("1 files", "no recordings: 1 .xlsx")
    assert copy.endswith("copy.csv")
    assert "anna.csv" in other
    (recording,) = source.read(next(source.files()))
    assert recording.labels_N.tolist() == [1] * 30 + [0] * 20
    assert any("header is repeated in 1 rows" in note for note in recording.notes)


def test_parquet_with_harths_columns_needs_no_options(tmp_path, write_harth):
    write_harth(tmp_path / "eva.csv", np.repeat([10.0, 2.0], 100))
    table = pa.csv.read_csv(tmp_path / "eva.csv")
    pyarrow.parquet.write_table(table, tmp_path / "max.parquet")
    source = open_dataset("tables", tmp_path)
    assert source.card.classes == ((2, "2"), (10, "10"))
    first, second = (source.read(file)[0] for file in source.files())
    np.testing.assert_array_equal(first.signal_NxC, second.signal_NxC)
    assert first.labels_N.tolist() == second.labels_N.tolist() == [1] * 100 + [0] * 100
    (thigh,) = open_dataset("tables", tmp_path, sensors=("thigh",)).read(next(source.files()))
    np.testing.assert_array_equal(thigh.signal_NxC, first.signal_NxC[:, 3:])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"unit": "ft/s2"}, "unit is 'ft/s2'"),
        ({"rate": 0.0}, "rate is 0.0"),
        ({"columns": "hip_x=a,hip_y=b"}, "hip_z is missing"),
        ({"columns": "hip_x=a,hip_x=b"}, "repeated name"),
        ({"columns": "hip_x=a,hip_y=b,hip_z=c", "sensors": ("thigh",)}, "no sensor thigh; there are hip"),
        ({"axes": {"wrist": ("+x", "+y", "+z")}}, "no sensor wrist; there are back, thigh"),
        ({"axes": {"back": ("+x", "+x", "+z")}}, "once each with a sign"),
        ({"classes": "1=a,1=b"}, "empty or repeated label"),
        ({"version": "2.0"}, "no versions"),
        ({"colums": "a"}, "did you mean columns"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        open_dataset("tables", tmp_path, **options)


def test_no_table_no_label_and_no_column(tmp_path, write_harth):
    with pytest.raises(DataError, match=r"no \*\.csv"):
        open_dataset("tables", tmp_path).card  # noqa: B018
    write_harth(tmp_path / "eva.csv", left_out=("label",))
    with pytest.raises(DataError, match="no file has a label in column label"):
        open_dataset("tables", tmp_path).card  # noqa: B018
    source = open_dataset("tables", tmp_path, classes="1=walk")
    with pytest.raises(UnusableError, match="unknown column: label"):
        source.read(next(source.files()))
