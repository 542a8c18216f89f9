"""Figures of a run: reconstructions of held-out windows, and the loss curve."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

from selfpab_jax.train.evaluate import Example

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np

VALUE_SCALE = {"cmap": "viridis", "vmin": -1.5, "vmax": 3}
ERROR_SCALE = {"cmap": "magma", "vmin": 0, "vmax": 2}


def draw_reconstructions(examples: list[Example], path: Path, records: dict[str, Any]) -> None:
    """One row a window: spectrogram, what the model was given, what it made of it, and the error where it counts.

    Args:
        examples: the windows.
        path: of the PNG.
        records: the `records` part of a checkpoint's facts: spectrogram settings and channel names.
    """
    settings, bins = records["settings"], records["settings"]["fft_window"] // 2 + 1
    shown = examples[0].target.shape[1] // bins
    names = records["channels"] if shown == len(records["channels"]) else [f"channel {i + 1}" for i in range(shown)]
    figure, axes = plt.subplots(
        len(examples), 4, figsize=(17, 1.2 + 3.6 * len(examples)), squeeze=False, sharex=True, sharey=True,
        layout="constrained",
    )  # fmt: skip
    for row, example in zip(axes, examples, strict=True):
        extent = (0, len(example.target) * settings["fft_hop"] / settings["rate_hz"], 0, example.target.shape[1])
        for axis, (title, picture) in zip(row, _panels(example).items(), strict=True):
            scale = ERROR_SCALE if "error" in title else VALUE_SCALE
            image = axis.imshow(
                picture.T, aspect="auto", origin="lower", extent=extent, interpolation="nearest", **scale
            )
            axis.set_title(title, fontsize=10)
            if title in ("reconstruction", "error where hidden"):
                figure.colorbar(image, ax=axis, pad=0.01)
        row[0].set_yticks([bins * (i + 0.5) for i in range(shown)], names)
        row[0].set_ylabel(f"{example.name}\n(each channel 0 to {settings['rate_hz'] / 2:g} Hz)", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    figure.suptitle("Held-out windows, in standard deviations from each feature's mean", fontsize=11)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _panels(example: Example) -> dict[str, np.ndarray]:
    return {
        "spectrogram": example.target,
        "altered input": example.altered,
        "reconstruction": np.where(example.mask, example.output, example.target),
        "error where hidden": np.where(example.mask, np.abs(example.output - example.target), np.nan),
    }


def draw_loss_curve(events: Iterable[dict[str, Any]], path: Path, baselines: dict[str, float]) -> None:
    """Training and held-out loss against steps and hours of recording seen, with the baselines as lines."""
    train, held_out = [], []
    for event in events:
        if event["event"] == "train":
            train.append((event["step"], event["mean_loss"], event["hours_seen"]))
        elif event["event"] == "validation":
            held_out.append((event["step"], event["loss"]))
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    if train:
        steps, losses, hours = np.array(train).T
        axis.plot(steps, losses, color="tab:blue", alpha=0.6, lw=1, label="training (with dropout)")
        hours_per_step = hours[-1] / steps[-1]
        top = axis.secondary_xaxis("top", functions=(lambda s: s * hours_per_step, lambda h: h / hours_per_step))
        top.set_xlabel("hours of recording seen")
    if held_out:
        axis.plot(*np.array(held_out).T, "o-", color="tab:orange", ms=3, label="held-out windows")
    for style, (name, value) in zip((":", "--", "-."), baselines.items(), strict=False):
        axis.axhline(value, ls=style, color="0.4", label=f"{name}: {value:.3f}")
    axis.set_xlabel("step")
    axis.set_ylabel("masked loss")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)
