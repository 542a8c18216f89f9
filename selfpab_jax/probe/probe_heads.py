"""From a table of features to every head's probabilities for every test row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from selfpab_jax.errors import ConfigError
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.folds import Folds
from selfpab_jax.probe.head_training import Progress, train_jobs
from selfpab_jax.probe.heads import HeadSettings
from selfpab_jax.probe.jobs import Rows
from selfpab_jax.probe.selection import Choice, RowMasks, SelectionSettings, choose, final_jobs, make_tasks
from selfpab_jax.probe.table import FeatureTable
from selfpab_jax.probe.trained_heads import predict_rows


@dataclass(frozen=True)
class HeadPredictions:
    """What a head says of every row that a fold tests.

    Attributes:
        seeds: of the first axis.
        probabilities_NxRxY: for each seed; NaN for rows that no trained fold tests.
        choices: hyper-parameters of each fold and seed.
        notes: lines about folds that were left out, and about where the test subjects were chosen on.
    """

    seeds: tuple[int, ...]
    probabilities_NxRxY: Float32[np.ndarray, "N R Y"]
    choices: tuple[Choice, ...]
    notes: tuple[str, ...]


def probe_heads(
    table: FeatureTable,
    corpus: Corpus,
    folds: Folds,
    heads: Mapping[str, HeadSettings],
    seeds: Sequence[int],
    *,
    selection: SelectionSettings | None = None,
    row_masks: RowMasks | None = None,
    progress: Progress | None = None,
) -> dict[str, HeadPredictions]:
    """Choose, train and apply each head in every fold and seed; a fold's test rows meet that fold's heads only.

    Trained on are rows with a label whose frame lies in the unpadded signal; predicted are all rows of the test
    subjects. A label budget (`row_masks`) holds for training and for choosing.

    Raises:
        ConfigError: no seed, or one twice.
        DataError: features of other rows than the corpus', or no fold with a row to train on.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds are {list(seeds)}; give one or more, each once")
    label_R = np.where(corpus.whole_R, corpus.label_R, -1)
    rows = Rows(table.features_RxLxD, label_R, corpus.subject_R)
    tasks, notes = make_tasks(folds.folds, seeds, corpus.subjects, rows, row_masks)
    selection = selection or SelectionSettings()
    if selection.choose == "test":
        notes += ("hyper-parameters and stopping were chosen on the test subjects themselves, which flatters",)
    classes, results = len(corpus.classes), {}
    for name, settings in heads.items():
        choices = choose(rows, tasks, corpus.subjects, settings, selection, classes, progress)
        trained = train_jobs(rows, final_jobs(rows, tasks, choices), settings, classes, progress=progress)
        probabilities_NxRxY = np.full((len(seeds), len(label_R), classes), np.nan, np.float32)
        for fold in dict.fromkeys(tasks.folds):
            mine = np.array([job for job, of_job in enumerate(tasks.folds) if of_job == fold])
            chosen = np.flatnonzero(np.isin(corpus.subjects, fold.test)[corpus.subject_R])
            of_seed = [list(seeds).index(tasks.seeds[job]) for job in mine]
            probabilities_NxRxY[np.array(of_seed)[:, None], chosen] = predict_rows(rows, trained, mine, chosen)
        results[name] = HeadPredictions(tuple(seeds), probabilities_NxRxY, tuple(choices), notes)
    return results
