"""Data sets by name: what every one declares."""

import pickle
import re
import subprocess
import sys
from typing import get_args

import pytest

from selfpab_jax.cli.records import SourceName
from selfpab_jax.data.har.card import card_fields, card_of_fields
from selfpab_jax.data.har.registry import DATASETS, dataset_class, open_dataset
from selfpab_jax.errors import ConfigError
from selfpab_jax.signal.resample import UNITS_PER_G

PUBLISHED = [name for name in DATASETS if name != "tables"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_cards_are_complete(name):
    for card in dataset_class(name).CARDS:
        assert card.name == name
        assert re.fullmatch(r"\d+\.\d+\.\d+", card.version)
        for text in (card.title, card.description, card.citation, card.license, card.homepage, card.manual):
            assert text.strip()
        assert card.citation.lstrip().startswith("@")
        assert card.homepage.startswith("http")
        assert card.rate_hz > 0
        assert card.unit in UNITS_PER_G
        assert len(set(card.class_names)) == len(dict(card.classes)) == len(card.classes) >= 2
        names = [sensor.name for sensor in card.sensors]
        assert len(set(names)) == len(names)
        assert 1 <= len(card.default_sensors) <= 2
        assert set(card.default_sensors) <= set(names)
        assert card_of_fields(card_fields(card)) == card


@pytest.mark.parametrize("name", PUBLISHED)
def test_opening_touches_no_file_and_sources_travel_to_workers(name):
    source = open_dataset(name, "/nowhere")
    assert pickle.loads(pickle.dumps(source)) == source
    assert len(source.channels) == 3 * len(source.card.default_sensors)
    one = source.card.sensors[0].name
    assert open_dataset(name, "/nowhere", sensors=(one,)).channels == (f"{one}_x", f"{one}_y", f"{one}_z")
    with pytest.raises(ConfigError, match="no sensor tail; there are"):
        open_dataset(name, "/nowhere", sensors=("tail",))


def test_unknown_names_and_options():
    with pytest.raises(ConfigError, match=r"no data set 'Hart' \(did you mean harth\?\); there are harth, "):
        open_dataset("Hart", "/nowhere")
    with pytest.raises(ConfigError, match=r"harth has no option .color.; there are gap_limit"):
        open_dataset("harth", "/nowhere", color="red")


def test_records_build_knows_every_data_set():
    assert set(get_args(SourceName)) == {"hunt4", "recordings", *PUBLISHED}


def test_reading_published_files_imports_no_tfds():
    code = (
        "import sys; from selfpab_jax.data.har.registry import DATASETS, open_dataset\n"
        "[open_dataset(name, '/nowhere') for name in DATASETS]\n"
        "assert not {'tensorflow_datasets', 'jax', 'grain'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
