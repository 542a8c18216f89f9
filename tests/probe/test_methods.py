"""Finished folds of a long probe on disk."""

from dataclasses import replace

import numpy as np
import pytest

from selfpab_jax.probe.baselines.config import BaselinePrediction
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.methods import cached_prediction, labeled_digest

FOUND = BaselinePrediction(np.full((3, 2), 0.5, np.float32), {"steps": 7})


def refuse() -> BaselinePrediction:
    raise AssertionError("computed again")


@pytest.mark.parametrize("size", [0, 3, 100, -30])
def test_a_file_that_was_cut_off_is_computed_again(tmp_path, size):
    cached_prediction(tmp_path, {"fold": "a"}, lambda: FOUND)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:size])
    again = cached_prediction(tmp_path, {"fold": "a"}, lambda: FOUND)
    np.testing.assert_array_equal(again.probabilities_RxY, FOUND.probabilities_RxY)
    assert cached_prediction(tmp_path, {"fold": "a"}, refuse).description == FOUND.description


def test_other_keys_are_other_predictions(tmp_path, corpus: Corpus):
    cached_prediction(tmp_path, {"fold": "a"}, lambda: FOUND)
    with pytest.raises(AssertionError, match="computed again"):
        cached_prediction(tmp_path, {"fold": "b"}, refuse)
    assert labeled_digest(corpus) == labeled_digest(replace(corpus))
    assert labeled_digest(corpus) != labeled_digest(replace(corpus, classes=(*corpus.classes, "one more")))
