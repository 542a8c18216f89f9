"""What is finished of a long probe, fold by fold, so that a killed one goes on where it was."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from selfpab_jax.probe.baselines.settings import BaselinePrediction
from selfpab_jax.probe.code_version import TRAINING, code_version
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.feature_cache import corpus_digest


def labelled_digest(corpus: Corpus) -> str:
    """A hash of signals, windows, labels and classes."""
    digest = hashlib.sha256(json.dumps([corpus_digest(corpus), corpus.classes]).encode())
    for recording in corpus.recordings:
        digest.update(f"{recording.subject}/{recording.name}".encode())
        digest.update(np.ascontiguousarray(recording.labels_N, "<i2").data)
    return digest.hexdigest()


def kept(folder: Path, facts: Mapping[str, Any], compute: Callable[[], BaselinePrediction]) -> BaselinePrediction:
    """The prediction that `facts` decide: read from the folder if it was finished there, else computed into it."""
    decides = json.dumps([code_version(TRAINING), facts], sort_keys=True, default=str)
    key = hashlib.sha256(decides.encode()).hexdigest()[:32]
    path = folder / f"{key}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return BaselinePrediction(_probabilities(found["probabilities"]), json.loads(str(found["description"])))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # not there, or cut off
        pass
    prediction = compute()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        description = json.dumps(prediction.description, default=str)
        np.savez(file, probabilities=prediction.probabilities_RxY, description=description)
    temporary.replace(path)
    return prediction


def _probabilities(array: np.ndarray) -> Float32[np.ndarray, "R Y"]:
    return array.astype(np.float32, copy=False)
