"""All folds of a head in one program against one fold after another, on a synthetic set of HARTH's size, in one run.

    python benchmarks/probe_heads.py [--rows 256000] [--epochs 15] [--mlp_steps 5] [--json probe_heads.json]

256,000 rows are 6.4 million samples at 50 Hz in frames every 25 samples; 22 subjects, 12 classes, 1500 features in
float16 in a file: class clusters, shifted by subject, in correlated noise. Both sides read the same batches through the
same code, with all cores, both compiled beforehand. The linear head trains for all of its epochs, standardization
included; the program of all folds runs before and after the single folds, and the mean counts. The MLP trains for a few
steps, from which the time of a full training is multiplied (the time of some steps less the time of fewer).
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from selfpab_jax.probe.heads.batch import HeadBatch, LabeledFeatures, make_head_batch
from selfpab_jax.probe.heads.model import HeadSettings, TrainedHeads, predict_rows
from selfpab_jax.probe.heads.training import train_heads

SUBJECTS, CLASSES, WIDTH, CHUNK = 22, 12, 1500, 8000


def synthetic_rows(path: Path, count: int, seed: int = 0) -> LabeledFeatures:
    """Class clusters of unequal size, each subject's shifted, in correlated noise; one label in 20 is wrong."""
    draw = np.random.default_rng(seed)
    share_Y = draw.dirichlet(np.full(CLASSES, 1.5))
    subject_R = np.sort(draw.integers(0, SUBJECTS, count)).astype(np.int32)
    activity_R = np.repeat(draw.choice(CLASSES, -(-count // 20), p=share_Y), 20)[:count]  # bouts of 10 s
    wrong_R = draw.random(count) < 0.05
    label_R = np.where(wrong_R, draw.integers(0, CLASSES, count), activity_R).astype(np.int16)
    centers_YxD = 0.06 * draw.standard_normal((CLASSES, WIDTH), np.float32)
    shifts_SxYxD = 0.06 * draw.standard_normal((SUBJECTS, CLASSES, WIDTH), np.float32)
    mixing_KxD = 0.1 * draw.standard_normal((100, WIDTH), np.float32)
    features = np.lib.format.open_memmap(path, "w+", np.float16, (count, 1, WIDTH))
    for first in range(0, count, CHUNK):
        part = slice(first, min(first + CHUNK, count))
        rows = part.stop - part.start
        noise = draw.standard_normal((rows, 100), np.float32) @ mixing_KxD
        noise += 1.0 * draw.standard_normal((rows, WIDTH), np.float32)
        features[part, 0] = centers_YxD[activity_R[part]] + shifts_SxYxD[subject_R[part], activity_R[part]] + noise
    features.flush()
    return LabeledFeatures(np.load(path, mmap_mode="r"), label_R, subject_R)


def timed(run: Callable[[], TrainedHeads]) -> tuple[float, TrainedHeads]:
    start = time.perf_counter()
    trained = run()
    return time.perf_counter() - start, trained


def fold_accuracies(rows: LabeledFeatures, trained: TrainedHeads) -> list[float]:
    """Of each fold's head on its own test subject."""
    accuracies = []
    for fold in range(SUBJECTS):
        chosen = np.flatnonzero(rows.subject_R == fold)
        predicted = predict_rows(rows, trained, np.array([fold]), chosen)[0].argmax(-1)
        accuracies.append(float((predicted == rows.label_R[chosen]).mean()))
    return accuracies


def compare_linear(rows: LabeledFeatures, heads: HeadBatch, epochs: int) -> dict[str, Any]:
    """Full training, before and after and one fold at a time."""
    settings = HeadSettings(epochs=epochs, min_steps=1)
    short = replace(settings, epochs=1)
    train_heads(rows, heads, short, CLASSES)
    train_heads(rows, heads.take(np.arange(1)), short, CLASSES, sequential=True)
    before, together = timed(lambda: train_heads(rows, heads, settings, CLASSES))
    print(f"linear, 22 folds in one program          {before:8.1f} s", flush=True)
    alone, apart = timed(lambda: train_heads(rows, heads, settings, CLASSES, sequential=True))
    print(f"linear, one fold after another           {alone:8.1f} s", flush=True)
    after, _ = timed(lambda: train_heads(rows, heads, settings, CLASSES))
    print(f"linear, 22 folds in one program again    {after:8.1f} s", flush=True)
    accuracies = fold_accuracies(rows, together)
    weights = (together.head["weight_DxH"], apart.head["weight_DxH"])
    return {
        "steps": float(together.steps_P[-1]),
        "together_s": (before + after) / 2,
        "together_before_and_after_s": [before, after],
        "one_after_another_s": alone,
        "times_as_fast": alone / ((before + after) / 2),
        "relative_difference": float(np.linalg.norm(weights[0] - weights[1]) / np.linalg.norm(weights[1])),
        "mean_accuracy": float(np.mean(accuracies)),
        "least_accuracy": float(np.min(accuracies)),
    }


def compare_mlp(rows: LabeledFeatures, heads: HeadBatch, epochs: int, steps: int) -> dict[str, float]:
    """Seconds a step from a few steps, multiplied to a full training."""
    few = HeadSettings(kind="mlp", min_steps=1)
    # As many rows as the steps want, of all subjects: a budget keeps everything but the number of steps as it is.
    some = np.sort(np.random.default_rng(1).permutation(len(rows.label_R))[: few.batch_size * steps])
    budget = LabeledFeatures(np.asarray(rows.features_RxLxD[some]), rows.label_R[some], rows.subject_R[some])
    kept = make_head_batch(heads.train_JxS, budget, learning_rate_J=heads.learning_rate_J)
    per_step = {}
    for sequential in (False, True):
        seconds = []
        for passes in (1, 1, 3):  # the first compiles
            settings = replace(few, epochs=passes)
            taken, _ = timed(lambda s=settings, q=sequential: train_heads(budget, kept, s, CLASSES, sequential=q))
            seconds.append(taken)
        per_step[sequential] = (seconds[2] - seconds[1]) / (2 * steps)
        way = "one fold after another" if sequential else "22 folds in one program"
        print(f"mlp, {way}: {per_step[sequential]:.2f} s a step of all folds", flush=True)
    full = epochs * (len(rows.label_R) // few.batch_size)
    return {
        "steps_measured": 2.0 * steps,
        "steps_of_full_training": float(full),
        "together_s": per_step[False] * full,
        "one_after_another_s": per_step[True] * full,
        "times_as_fast": per_step[True] / per_step[False],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=256_000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--mlp_steps", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"jax {jax.__version__}, {os.cpu_count()} cores, {options.rows} rows of {WIDTH} float16 features")
    with tempfile.TemporaryDirectory() as folder:
        rows = synthetic_rows(Path(folder) / "features.npy", options.rows)
        heads = make_head_batch(~np.eye(SUBJECTS, dtype=bool), rows, learning_rate_J=1e-3)
        results = {"linear": compare_linear(rows, heads, options.epochs)}
        if options.mlp_steps:
            results["mlp"] = compare_mlp(rows, heads, options.epochs, options.mlp_steps)
    for name, result in results.items():
        how = "measured" if name == "linear" else f"multiplied from {result['steps_measured']:.0f} steps"
        print(
            f"{name:<8} {result['together_s']:8.1f} s together, {result['one_after_another_s']:8.1f} s one after "
            f"another: {result['times_as_fast']:.2f} times as fast ({how})"
        )
    linear = results["linear"]
    print(
        f"accuracy on the left-out subject {linear['mean_accuracy']:.3f}, least {linear['least_accuracy']:.3f}; the "
        f"weights of both ways differ by {linear['relative_difference']:.1e} of their norm"
    )
    if options.json:
        options.json.write_text(json.dumps({"rows": options.rows, "epochs": options.epochs, **results}, indent=1))


if __name__ == "__main__":
    main()
