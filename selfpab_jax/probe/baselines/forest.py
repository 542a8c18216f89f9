"""A random forest on hand-made features."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from sklearn.ensemble import RandomForestClassifier

from selfpab_jax.probe.baselines.handmade import handmade_features
from selfpab_jax.probe.baselines.rows import frame_of_rows, macro_f1, rows_of, training_rows
from selfpab_jax.probe.baselines.settings import BaselinePrediction, BaselineSettings, Progress
from selfpab_jax.probe.corpus import Corpus
from selfpab_jax.probe.folds import Fold


def fit_predict_forest(
    corpus: Corpus,
    fold: Fold,
    settings: BaselineSettings,
    seed: int,
    rows_mask_R: Bool[np.ndarray, " R"] | None = None,
    progress: Progress | None = None,
) -> BaselinePrediction:
    """Train a forest on a fold and predict its test subjects.

    It reads the features of every window length that is given, or (`lengths="best"`) of the one with the best macro-F1
    on held-out training subjects, and is then trained again on all training subjects.
    Features are computed once for a corpus and window length.

    Raises:
        DataError: fewer than two classes to train on, or windows shorter than a frame.
    """
    forest = settings.forest
    rows = training_rows(corpus, fold, settings.validation_share, seed, rows_mask_R)
    say = progress or (lambda line: None)
    description: dict[str, Any] = {"trees": forest.trees}
    seconds = forest.seconds
    if forest.lengths == "best" and len(seconds) > 1:
        seconds = forest.seconds[:1]
        if rows.fit_R is not None and rows.validation_R is not None:
            scores = {}
            for length in forest.seconds:
                probabilities = _fit_predict(corpus, rows.fit_R, rows.validation_R, (length,), settings, seed)
                scores[length] = macro_f1(corpus.label_R[rows.validation_R], probabilities.argmax(1))
                say(f"{fold.name}: windows of {length:g} s, validation macro-F1 {scores[length]:.3f}")
            seconds = (max(scores, key=lambda length: scores[length]),)
            description["validation_macro_f1"] = {f"{length:g}": score for length, score in scores.items()}
        description["validation"] = rows.split
    description["seconds"] = list(seconds)
    test_R = rows_of(corpus, fold.test)
    return BaselinePrediction(_fit_predict(corpus, rows.all_R, test_R, seconds, settings, seed), description)


def _fit_predict(
    corpus: Corpus,
    fit_R: Bool[np.ndarray, " R"],
    predict_R: Bool[np.ndarray, " R"],
    seconds: tuple[float, ...],
    settings: BaselineSettings,
    seed: int,
) -> Float32[np.ndarray, "R Y"]:
    features = [handmade_features(corpus, length) for length in seconds]
    frames_R = frame_of_rows(corpus)
    # Overlapping windows tell a frame several times.
    frames, rows = np.unique(frames_R[fit_R], return_index=True)
    labels = corpus.label_R[fit_R][rows]
    forest = RandomForestClassifier(
        settings.forest.trees,
        min_samples_leaf=settings.forest.min_samples_leaf,
        max_samples=min(len(frames), settings.forest.rows_per_tree),
        class_weight="balanced_subsample" if settings.class_weight else None,
        n_jobs=settings.forest.jobs,
        random_state=seed,
    ).fit(np.concatenate([features_FxK[frames] for features_FxK in features], axis=1), labels)
    wanted, back = np.unique(frames_R[predict_R], return_inverse=True)
    out_FxY = np.zeros((len(wanted), len(corpus.classes)), np.float32)
    given = np.concatenate([features_FxK[wanted] for features_FxK in features], axis=1)
    out_FxY[:, forest.classes_] = forest.predict_proba(given)
    return out_FxY[back]
