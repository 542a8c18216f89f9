"""Label budgets: what a head would have to learn from if less had been labelled."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from selfpab_jax.data.splits import draw
from selfpab_jax.errors import ConfigError
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.order import number_keys, shuffled


def choose_windows(
    corpus: Corpus, subjects: Iterable[str], per_class: int | None, share: float | None, seed: int
) -> tuple[Bool[np.ndarray, " R"], tuple[str, ...]]:
    """The training rows of so many windows an activity, out of some subjects' windows.

    A window's activity is the most frequent label of its training rows (labelled, in the unpadded signal), ties to the
    smallest index; all of its training rows are chosen with it. For one seed a larger budget holds the smaller ones'
    windows, and a subject's windows keep their order whoever else is there.

    Args:
        corpus: whose rows they are.
        subjects: out of whose windows is chosen.
        per_class: windows of each activity, or None.
        share: of each activity's windows (rounded up), or None. With neither, all are chosen.
        seed: of the order.

    Returns:
        Which rows; a line for each activity that has fewer windows than asked for (all of them are taken).

    Raises:
        ConfigError: both a number and a share, one that cannot be, or a subject who is not there.
    """
    _check(corpus, subjects := tuple(subjects), per_class, share)
    wanted_S = np.isin(corpus.subjects, subjects)
    trainable_R = (corpus.label_R >= 0) & corpus.whole_R & wanted_S[corpus.subject_R]
    if per_class is None and share is None:
        return trainable_R, ()
    activity_W = _activities(corpus, trainable_R)
    order_W = np.argsort(_window_keys(corpus, seed), kind="stable")
    chosen_W, notes = np.zeros(len(activity_W), bool), []
    for label, name in enumerate(corpus.classes):
        windows_w = order_W[activity_W[order_W] == label]
        count = per_class if share is None else int(np.ceil(share * len(windows_w) - 1e-9))
        assert count is not None
        if len(windows_w) < count:
            notes.append(
                f"{name}: {len(windows_w)} window(s) in the training subjects, {count} asked for; all are taken"
            )
        chosen_W[windows_w[:count]] = True
    return trainable_R & chosen_W[corpus.window_R], tuple(notes)


def choose_subjects(subjects: Iterable[str], count: int, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """So many of the subjects, sorted, and a line where there are fewer (all of them are taken).

    For one seed more subjects hold the fewer, and leaving one out changes no other's place in the order.

    Raises:
        ConfigError: a count below 1.
    """
    if count < 1:
        raise ConfigError(f"a budget of {count} subjects: give 1 at least")
    order = shuffled(subjects, seed, "subjects")
    notes = (f"{len(order)} training subject(s), {count} asked for; all are taken",) if len(order) < count else ()
    return tuple(sorted(order[:count])), notes


def _check(corpus: Corpus, subjects: tuple[str, ...], per_class: int | None, share: float | None) -> None:
    if unknown := sorted(set(subjects) - set(corpus.subjects)):
        raise ConfigError(f"{corpus.name} has no subject {', '.join(unknown)}")
    if per_class is not None and share is not None:
        raise ConfigError("a label budget is windows per activity or a share of them, not both")
    if per_class is not None and per_class < 1:
        raise ConfigError(f"a label budget of {per_class} windows per activity: give 1 at least")
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"a label budget of the share {share}: give a number above 0, up to 1")


def _activities(corpus: Corpus, trainable_R: Bool[np.ndarray, " R"]) -> Int64[np.ndarray, " W"]:
    """The most frequent label of each window's trainable rows, -1 where it has none."""
    classes, windows = len(corpus.classes), len(corpus.rows_of_windows)
    cell_r = corpus.window_R[trainable_R].astype(np.int64) * classes + corpus.label_R[trainable_R]
    counts_WxY = np.bincount(cell_r, minlength=windows * classes).reshape(windows, classes)
    return np.where(counts_WxY.any(axis=1), counts_WxY.argmax(axis=1), -1)


def _window_keys(corpus: Corpus, seed: int) -> UInt64[np.ndarray, " W"]:
    """By seed, subject, recording and first frame, and nothing else."""
    of_recording = [draw(seed, f"windows/{recording.subject}/{recording.name}") for recording in corpus.recordings]
    keys_W = np.array(of_recording, np.uint64)[corpus.windows.recording_W]
    return number_keys(keys_W, corpus.windows.first_W)
