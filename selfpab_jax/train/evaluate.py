"""Evaluation of a run on held-out windows: its loss beside two baselines, and figures of reconstructions."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure

from selfpab_jax.data.loader import in_order
from selfpab_jax.data.records.dataset import Records, open_records
from selfpab_jax.data.splits import evenly
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.io import write_json
from selfpab_jax.model.functional import Parameters
from selfpab_jax.train.export import read_checkpoint
from selfpab_jax.train.logging import read_log
from selfpab_jax.train.state import MeshSettings, make_mesh, replicated
from selfpab_jax.train.step import FrameInfo, Objective, frame_info, held_out_keys, to_devices

VALUE_SCALE = {"cmap": "viridis", "vmin": -1.5, "vmax": 3}
ERROR_SCALE = {"cmap": "magma", "vmin": 0, "vmax": 2}


@dataclass(frozen=True)
class HeldOutLosses:
    """Mean loss over held-out windows; windows with nothing masked count as 0, as in training.

    Args:
        windows: how many.
        model: loss of the model.
        feature_mean: loss of predicting each feature's mean.
        interpolation: loss of interpolating linearly between the nearest visible frames or bins.
    """

    windows: int
    model: float
    feature_mean: float
    interpolation: float


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Args:
        losses: of the model and the baselines.
        loss: its name, `masked_l1`, `masked_l2` or `log_spectral`.
        split: that was measured on.
        checkpoint: `best`, `latest` or a step.
        step: of the checkpoint.
        out: folder with scores.json and the figures.
        figures: their file names.
    """

    losses: HeldOutLosses
    loss: str
    split: str
    checkpoint: str
    step: int
    out: Path
    figures: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """One held-out window, for a figure."""

    name: str
    target: Float[np.ndarray, "T X"]
    masked: Float[np.ndarray, "T X"]
    output: Float[np.ndarray, "T X"]
    mask: Bool[np.ndarray, "T X"]


def evaluate(
    run: str | Path,
    data: str | Path,
    *,
    checkpoint: str = "best",
    split: str = "validation",
    windows: int | None = None,
    batch_size: int = 32,
    examples: int = 3,
    out: str | Path | None = None,
) -> Evaluation:
    """Measure a run's checkpoint on held-out records, and write scores.json and figures.

    Args:
        run: directory of the run.
        data: directory that `build_records` wrote.
        checkpoint: `best`, `latest`, or the step of a kept state.
        split: split to measure on.
        windows: this many windows, evenly spaced; all where not given.
        batch_size: windows at a time.
        examples: windows in the figure.
        out: folder for the results; `RUN/evaluation` where not given.

    Raises:
        ConfigError: a number is out of range.
        DataError: the records have no such split or do not fit the model.
        RunError: the run has no such checkpoint.
    """
    for name, value, least in (("windows", windows, 1), ("batch_size", batch_size, 1), ("examples", examples, 0)):
        if value is not None and value < least:
            raise ConfigError(f"--{name} is {value}; it must be at least {least}")
    run, out = Path(run), Path(out) if out else Path(run) / "evaluation"
    records = open_records(Path(data))
    objective, parameters, metadata = read_checkpoint(run, checkpoint)
    records.info.check_fits(metadata["records"], records.folder)
    available = records.info.splits[split].records if split in records.info.splits else 0
    losses, kept = evaluate_model(
        objective,
        parameters,
        records,
        split=split,
        seed=metadata["settings"]["seed"],
        rows=evenly(available, windows),
        batch_size=batch_size,
        examples=examples,
    )
    out.mkdir(parents=True, exist_ok=True)
    scores = {"split": split, "checkpoint": checkpoint, "step": metadata["step"], **asdict(losses)}
    write_json(out / "scores.json", scores)
    baselines = {"feature mean": losses.feature_mean, "linear interpolation": losses.interpolation}
    draw_loss_curve(read_log(run), out / "loss_curve.png", baselines)
    figures = ["loss_curve.png"]
    if examples:
        draw_reconstructions(kept, out / "reconstructions.png", metadata["records"])
        figures.append("reconstructions.png")
    name = metadata["settings"]["task"]["loss"]
    return Evaluation(losses, name, split, checkpoint, metadata["step"], out, tuple(figures))


def evaluate_model(
    objective: Objective,
    parameters: Parameters,
    records: Records,
    *,
    split: str,
    seed: int,
    rows: Int[np.ndarray, " n"] | None = None,
    batch_size: int = 32,
    examples: int = 3,
) -> tuple[HeldOutLosses, list[Example]]:
    """Measure a model on a split, each record masked in the fixed way that validation masks it.

    Args:
        objective: model, task and the statistics it was trained with.
        parameters: of the model.
        records: of the same features as the model's.
        split: `validation`, `test` or `train`.
        seed: the run's, so that the validation loss is the one in its log.
        rows: windows of the split, all where not given.
        batch_size: windows at a time, rounded up to a multiple of the devices.
        examples: how many windows to keep for figures, of different subjects, with frames and bins masked.

    Raises:
        DataError: the split is missing or its records do not fit the model.
    """
    if split not in records.info.splits:
        raise DataError(f"the records have no split {split!r}; there are {', '.join(records.info.splits)}")
    mesh = make_mesh(MeshSettings())
    parameters = jax.device_put(parameters, replicated(mesh))
    batch_size = -(-batch_size // mesh.size) * mesh.size
    rows = np.arange(len(records.source(split))) if rows is None else rows
    index = records.index(split)

    @jax.jit
    def reconstruct(parameters: Parameters, spectrogram: jax.Array, rows: jax.Array, info: FrameInfo) -> tuple:
        return objective.reconstruct(parameters, spectrogram, held_out_keys(seed, rows), info, training=False)

    power = 2 if objective.task.loss == "masked_l2" else 1
    channels = objective.channels * objective.functional.outputs // records.info.features
    totals = np.zeros(3)
    kept: list[Example] = []
    seen = 0
    source = records.source(split, calendar=objective.functional.settings.temporal_positions)
    for batch in in_order(source, rows, batch_size=batch_size):
        with jax.set_mesh(mesh):
            masked, output = reconstruct(
                parameters,
                to_devices(mesh, batch["spectrogram"], batch_size),
                to_devices(mesh, batch["row"].astype(np.int32), batch_size),
                frame_info(mesh, batch, batch_size),
            )
        arrays = [np.asarray(x) for x in (masked.target, masked.input, output, masked.mask)]
        for i in range(min(batch_size, len(rows) - seen)):
            row = int(batch["row"][i])
            target, masked_frames, reconstructed, mask = (array[i, : index.frames[row]] for array in arrays)
            guesses = (reconstructed, np.zeros_like(target), interpolate(target, mask, channels))
            hidden = max(int(mask.sum()), 1)
            compared, *guessed = (objective.compared(frames) for frames in (target, *guesses))
            totals += [float((np.abs(guess - compared)[mask] ** power).sum()) / hidden for guess in guessed]
            subject = str(index.subject[row])
            shows_both = mask.all(axis=1).any() and mask.all(axis=0).any()
            if len(kept) < examples and shows_both and subject not in {example.name for example in kept}:
                kept.append(Example(subject, target, masked_frames, reconstructed, mask))
        seen += batch_size
    return HeldOutLosses(len(rows), *(totals / len(rows)).tolist()), kept


def interpolate(
    target: Float[np.ndarray, "T X"], mask: Bool[np.ndarray, "T X"], channels: int
) -> Float[np.ndarray, "T X"]:
    """Fill masked frames along time, then masked bins along frequency, linearly between the nearest visible ones.

    At an edge the nearest visible value is repeated; a channel that is masked as a whole gets its mean. This baseline
    knows which entries are masked, swapped frames included, which the model does not; in the cross-sensor task it even
    sees the rest of the target.

    Args:
        target: unmasked frames, channel-major features.
        mask: entries to be filled: whole frames, whole channels, and bins that are the same in all other channels.
        channels: channels C.
    """
    frames_hidden = np.asarray(mask.all(axis=1))
    hidden_CxF = np.asarray(mask.all(axis=0)).reshape(channels, -1)
    hidden_C = np.asarray(hidden_CxF.all(axis=1))
    bins_hidden = hidden_CxF[0] if hidden_C.all() else hidden_CxF[~hidden_C][0]
    filled = _fill(target, frames_hidden, axis=0)
    by_channel = _fill(filled.reshape(len(target), channels, -1), bins_hidden, axis=2)
    if hidden_C.any() and not hidden_C.all():
        by_channel = np.where(hidden_C[:, None], 0, by_channel)
    return by_channel.reshape(target.shape)


def _fill(values: np.ndarray, hidden: np.ndarray, axis: int) -> np.ndarray:
    visible = np.flatnonzero(~hidden)
    if not hidden.any() or not len(visible):
        return values
    at = np.flatnonzero(hidden)
    after = np.searchsorted(visible, at)
    left = visible[np.maximum(after - 1, 0)]
    right = visible[np.minimum(after, len(visible) - 1)]
    left, right = np.where(after == 0, right, left), np.where(after == len(visible), left, right)
    share = np.where(right > left, (at - left) / np.maximum(right - left, 1), 0.0).astype(values.dtype)
    share = share.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    filled = values.copy()
    guess = np.take(values, left, axis) * (1 - share) + np.take(values, right, axis) * share
    filled[(slice(None),) * axis + (at,)] = guess
    return filled


def draw_reconstructions(examples: list[Example], path: Path, records: dict[str, Any]) -> None:
    """One row per window: spectrogram, masked input, reconstruction, and the error where it counts.

    Args:
        examples: the windows.
        path: of the PNG.
        records: the `records` part of a checkpoint's metadata: spectrogram settings and channel names.
    """
    settings, bins = records["settings"], records["settings"]["fft_window"] // 2 + 1
    shown = examples[0].target.shape[1] // bins
    names = records["channels"] if shown == len(records["channels"]) else [f"channel {i + 1}" for i in range(shown)]
    figure = Figure(figsize=(17, 1.2 + 3.6 * len(examples)), layout="constrained")
    axes = figure.subplots(len(examples), 4, squeeze=False, sharex=True, sharey=True)
    for row, example in zip(axes, examples, strict=True):
        extent = (0, len(example.target) * settings["fft_hop"] / settings["rate_hz"], 0, example.target.shape[1])
        for axis, (title, picture) in zip(row, _panels(example).items(), strict=True):
            scale = ERROR_SCALE if "error" in title else VALUE_SCALE
            image = axis.imshow(
                picture.T, aspect="auto", origin="lower", extent=extent, interpolation="nearest", **scale
            )
            axis.set_title(title, fontsize=10)
            if title in ("reconstruction", "error where masked"):
                figure.colorbar(image, ax=axis, pad=0.01)
        row[0].set_yticks([bins * (i + 0.5) for i in range(shown)], names)
        row[0].set_ylabel(f"{example.name}\n(each channel 0 to {settings['rate_hz'] / 2:g} Hz)", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    figure.suptitle("Held-out windows, in standard deviations from each feature's mean", fontsize=11)
    figure.savefig(path, dpi=100)


def _panels(example: Example) -> dict[str, np.ndarray]:
    return {
        "spectrogram": example.target,
        "masked input": example.masked,
        "reconstruction": np.where(example.mask, example.output, example.target),
        "error where masked": np.where(example.mask, np.abs(example.output - example.target), np.nan),
    }


def draw_loss_curve(events: Iterable[dict[str, Any]], path: Path, baselines: dict[str, float]) -> None:
    """Training and held-out loss against steps and hours of recording seen, with the baselines as lines.

    Args:
        events: of the run's log.
        path: of the PNG.
        baselines: loss of each by name.
    """
    train, held_out = [], []
    for event in events:
        if event["event"] == "train":
            train.append((event["step"], event["mean_loss"], event["hours_seen"]))
        elif event["event"] == "validation":
            held_out.append((event["step"], event["loss"]))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
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
