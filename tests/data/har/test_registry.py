"""Data sets by name: what every one declares."""

import pickle
import re
import subprocess
import sys

import pytest

from selfpab_jax.data.har.card import card_from_json, card_to_json
from selfpab_jax.data.har.registry import dataset_class, open_dataset, public_dataset_names
from selfpab_jax.errors import ConfigError
from selfpab_jax.signal.resample import UNITS_PER_G


@pytest.mark.parametrize("name", public_dataset_names())
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
        assert card_from_json(card_to_json(card)) == card


@pytest.mark.parametrize("name", public_dataset_names())
def test_opening_touches_no_file_and_sources_can_be_pickled(name):
    source = open_dataset(name, "/nowhere")
    assert pickle.loads(pickle.dumps(source)) == source
    assert len(source.channels) == 3 * len(source.card.default_sensors)
    one = source.card.sensors[0].name
    assert open_dataset(name, "/nowhere", sensors=(one,)).channels == (f"{one}_x", f"{one}_y", f"{one}_z")
    with pytest.raises(ConfigError, match="no sensor tail"):
        open_dataset(name, "/nowhere", sensors=("tail",))


def test_unknown_names_and_options():
    with pytest.raises(ConfigError, match="did you mean harth"):
        open_dataset("Hart", "/nowhere")
    with pytest.raises(ConfigError, match=r"no option .color.*gap_limit"):
        open_dataset("harth", "/nowhere", color="red")


def test_reading_published_files_imports_no_tfds():
    code = (
        "import sys; from selfpab_jax.data.har.registry import dataset_names, open_dataset\n"
        "[open_dataset(name, '/nowhere') for name in dataset_names()]\n"
        "assert not {'tensorflow_datasets', 'jax', 'grain'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
