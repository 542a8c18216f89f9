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
from selfpab_jax.signal.calendar import UNKNOWN_START, frame_timestamps
from selfpab_jax.train.export import read_checkpoint
from selfpab_jax.train.logging import read_log
from selfpab_jax.train.state import MeshSettings, make_mesh, replicated
from selfpab_jax.train.step import FrameInfo, Objective, frame_info, held_out_keys, to_devices

VALUE_SCALE = {"cmap": "viridis", "vmin": -1.5, "vmax": 3}
BY_HOUR = ("model", "feature_mean", "linear_interpolation")
BASELINES = ("feature mean", "linear interpolation")
ERROR_SCALE = {"cmap": "magma", "vmin": 0, "vmax": 2}


@dataclass(frozen=True)
class HeldOutLosses:
    """Mean loss over held-out windows; windows with nothing masked count as 0, as in training.

    Args:
        windows: how many.
        model: loss of the model.
        feature_mean: loss of predicting each feature's mean.
        interpolation: loss of interpolating linearly between the nearest visible frames or bins.
        by_hour: of windows that know when they began, for every hour of the day (0 to 23) of the masked frames: how
            many values were `masked`, and the mean errors of all of them, None where nothing was masked. None if no
            window knows it.
    """

    windows: int
    model: float
    feature_mean: float
    interpolation: float
    by_hour: dict[str, list] | None = None


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Args:
        losses: of the model and the baselines.
        loss: its name, `masked_l1`, `masked_l2` or `log_spectral`.
        split: that was measured on.
        checkpoint: `best`, `latest` or a step.
        step: of the checkpoint.
        out: folder with the scores and the figures.
        scores: file name of the scores.
        figures: their file names.
    """

    losses: HeldOutLosses
    loss: str
    split: str
    checkpoint: str
    step: int
    out: Path
    scores: str
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
    """Measure a run's checkpoint on held-out records, and write scores and figures.

    They are `scores.json`, `loss_curve.png` and so on for validation, `scores_test.json` and so on for the test split.

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
    ending = "" if split == "validation" else f"_{split}"
    scores_file = f"scores{ending}.json"
    write_json(out / scores_file, scores)
    baselines = {"feature mean": losses.feature_mean, "linear interpolation": losses.interpolation}
    figures = [f"loss_curve{ending}.png"]
    draw_loss_curve(read_log(run), out / figures[0], baselines)
    if kept:
        figures.append(f"reconstructions{ending}.png")
        draw_reconstructions(kept, out / figures[-1], metadata["records"])
    if losses.by_hour is not None and sum(masked > 0 for masked in losses.by_hour["masked"]) > 1:
        figures.append(f"by_hour{ending}.png")
        draw_by_hour({"model": losses.by_hour["model"], **_baselines_by_hour(losses.by_hour)}, out / figures[-1])
    name = metadata["settings"]["task"]["loss"]
    return Evaluation(losses, name, split, checkpoint, metadata["step"], out, scores_file, tuple(figures))


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
        examples: how many windows to keep for figures, of different subjects; with frames and bins masked where the
            task masks both.

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
    totals, by_hour = np.zeros(3), np.zeros((24, 4))
    kept: list[Example] = []
    others: list[Example] = []
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
            errors_T = [(np.abs(guess - compared) ** power * mask).sum(axis=1, dtype=float) for guess in guessed]
            totals += [error_T.sum() / hidden for error_T in errors_T]
            if index.start_ms[row] != UNKNOWN_START:
                times = frame_timestamps(index.start_ms[row : row + 1], len(target), records.info.settings)
                np.add.at(by_hour, times[0, :, 3], np.stack([mask.sum(axis=1), *errors_T], axis=1))
            subject = str(index.subject[row])
            shows_both = mask.all(axis=1).any() and mask.all(axis=0).any()
            chosen = kept if shows_both else others
            if len(chosen) < examples and mask.any() and subject not in {example.name for example in chosen}:
                chosen.append(Example(subject, target, masked_frames, reconstructed, mask))
        seen += batch_size
    losses = (totals / len(rows)).tolist()
    return HeldOutLosses(len(rows), *losses, by_hour=_by_hour(by_hour)), kept or others


def _by_hour(sums_24x4: Float[np.ndarray, "24 4"]) -> dict[str, list] | None:
    masked_24 = sums_24x4[:, 0]
    if not masked_24.any():
        return None
    means = [[s / n if n else None for s, n in zip(sums, masked_24, strict=True)] for sums in sums_24x4.T[1:].tolist()]
    return {"masked": masked_24.astype(int).tolist(), **dict(zip(BY_HOUR, means, strict=True))}


def _baselines_by_hour(by_hour: dict[str, list]) -> dict[str, list]:
    return {name.replace("_", " "): by_hour[name] for name in BY_HOUR[1:]}


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


def draw_by_hour(losses: dict[str, list], path: Path) -> None:
    """Mean error of masked values against the hour of the day.

    Args:
        losses: for each line of the figure, a value for each of 24 hours; None leaves a gap.
        path: of the PNG.
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    for name, values in losses.items():
        drawn = np.array([np.nan if value is None else value for value in values])
        line, marker = ("--", "") if name in BASELINES else ("-", "o")
        label = f"{name}: {np.nanmean(drawn):.3f} on average"
        axis.plot(np.arange(24) + 0.5, drawn, ls=line, marker=marker, ms=4, label=label)
    axis.set_xticks(range(0, 25, 3))
    axis.set_xlabel("hour of the day of the masked frames")
    axis.set_ylabel("mean error of masked values")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=100)


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
