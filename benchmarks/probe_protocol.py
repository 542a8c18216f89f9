"""Cached features and 22 linear heads against the original's way through cross-validation, in one run.

    python benchmarks/probe_protocol.py [--windows 8] [--repeats 3] [--rows 256000] [--json probe_protocol.json]

A set of HARTH's size: 6.4 million samples of 22 subjects at 50 Hz, an encoder of the published size, float32, 12
classes. Ours: every window of 599 frames goes through the encoder once, then all folds' linear heads train for 15
epochs. The original's: each of 22 folds and 15 epochs takes the training subjects' windows, shifted by 300 samples,
through the frozen encoder again, and trains its head a batch at a time; built from torch.nn. Its validation passes and
its later unfreezing are left out, which spares it time.

Measured are: our features from signals of some windows (spectrogram, normalization, encoder, writing float16), our
heads in full (on synthetic features of the same size), and some batches of the original's. Both encoders take turns.
Features and batches are multiplied to the whole by their windows.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import torch
from probe_heads import CLASSES, SUBJECTS, synthetic_rows

from selfpab_jax.features.encoder import PretrainedEncoder
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import ModelConfig
from selfpab_jax.probe.heads.batch import make_head_batch
from selfpab_jax.probe.heads.model import HeadSettings
from selfpab_jax.probe.heads.training import train_heads
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.signal.stft import SpectrogramSettings

FRAMES, FEATURES, SHIFT, EPOCHS = 599, 156, 12, 15
SETTINGS = ModelSettings(compute="float32")


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def training_window_count(frames_of_recording: int, frames: int, shift: int) -> int:
    """Windows of a recording that the original trains on; none is padded."""
    return max(1, -(-(frames_of_recording + 1 - frames) // shift))


def our_features(windows: int, folder: Path) -> Callable[[], None]:
    """From the signal of this many windows to a file of float16 features."""
    channels = tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz")
    config = ModelConfig(
        "selfpab", SETTINGS, FEATURES, FEATURES, channels, ("back", "thigh"), SpectrogramSettings(), FRAMES
    )
    parameters = jax.jit(make_functional(SETTINGS, FEATURES, FEATURES).initialize)(jax.random.key(0))
    moments = Statistics(np.full(FEATURES, 0.5, np.float32), np.full(FEATURES, 0.3, np.float32), "plain")
    encoder = PretrainedEncoder(config, parameters, moments)
    samples = (windows * FRAMES - 1) * 25 + 50
    signal = np.random.default_rng(0).standard_normal((samples, 6)).astype(np.float32)

    def run() -> None:
        features = encoder.encode_signal(signal, 50.0, batch_size=8)
        np.save(folder / "some.npy", features.astype(np.float16))

    return run


class TorchEncoder(torch.nn.Module):
    """The original's encoder from torch.nn's own modules."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(FEATURES, SETTINGS.width)
        layer = torch.nn.TransformerEncoderLayer(
            SETTINGS.width, SETTINGS.heads, SETTINGS.feedforward, SETTINGS.dropout, batch_first=True
        )
        self.layers = torch.nn.TransformerEncoder(layer, SETTINGS.layers, enable_nested_tensor=False)
        self.positions = torch.zeros(FRAMES, SETTINGS.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(self.embed(x) + self.positions)


def original_batch(windows: int) -> Callable[[], None]:
    """This many windows through the frozen encoder, and a step of the linear head."""
    encoder, head = TorchEncoder().eval(), torch.nn.Linear(SETTINGS.width, CLASSES)
    optimizer = torch.optim.Adam(head.parameters(), 1e-4, (0.9, 0.98))
    x, labels = torch.rand(windows, FRAMES, FEATURES), torch.randint(0, CLASSES, (windows, FRAMES))

    def run() -> None:
        with torch.no_grad():
            features = encoder(x)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(features).flatten(0, 1), labels.flatten()).backward()
        optimizer.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--windows", type=int, default=8, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=256_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"jax {jax.__version__}, torch {torch.__version__}, {os.cpu_count()} cores, {options.rows} frames")

    with tempfile.TemporaryDirectory() as folder:
        sides = {"ours": our_features(options.windows, Path(folder)), "original": original_batch(options.windows)}
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(1 + options.repeats):
            for side, run in sides.items():
                taken = timed(run)
                if turn:  # the first of each warms up
                    seconds[side].append(taken)
        per_window = {side: statistics.median(taken) / options.windows for side, taken in seconds.items()}

        rows = synthetic_rows(Path(folder) / "features.npy", options.rows)
        heads = make_head_batch(~np.eye(SUBJECTS, dtype=bool), rows, learning_rate_J=1e-3)
        heads_s = timed(lambda: train_heads(rows, heads, HeadSettings(epochs=EPOCHS, min_steps=1), CLASSES))

    frames_of_subject = options.rows // SUBJECTS
    once = SUBJECTS * -(-frames_of_subject // FRAMES)
    fold_epoch = (SUBJECTS - 1) * training_window_count(frames_of_subject, FRAMES, SHIFT)
    features_s = per_window["ours"] * once
    ours_s, original_s = features_s + heads_s, per_window["original"] * fold_epoch * EPOCHS * SUBJECTS
    print(f"ours      {per_window['ours']:.3f} s a window x {once} windows = {features_s:.0f} s; heads {heads_s:.0f} s")
    print(
        f"original  {per_window['original']:.3f} s a window x {fold_epoch} windows of a fold's epoch x {EPOCHS} epochs "
        f"x {SUBJECTS} folds = {original_s:.3g} s, {original_s / 86400:.1f} days"
    )
    print(f"ours takes 1/{original_s / ours_s:.0f} of the original's time")
    if options.json:
        figures = {
            "seconds_a_window": per_window,
            "windows": {"ours": once, "original": fold_epoch * EPOCHS * SUBJECTS},
            "heads_s": heads_s,
            "ours_s": ours_s,
            "original_s": original_s,
            "ratio": original_s / ours_s,
        }
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
