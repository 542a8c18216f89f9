"""A text and a picture that describe records."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfpab_jax.data.records.dataset import Records
from selfpab_jax.data.records.usage import usage_text
from selfpab_jax.errors import StorageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REASONS_SHOWN = 10


def describe_text(records: Records) -> str:
    """Sizes, settings, statistics, and why files were skipped, as lines of text."""
    info = records.info
    settings = info.settings
    lines = [
        f"{records.folder}",
        f"source {info.source}: {', '.join(info.channels)}",
        f"windows of {info.window_seconds:g} s every {info.shift_samples / settings.rate_hz:g} s at "
        f"{settings.rate_hz:g} Hz: {info.frames} frames of {info.features} features "
        f"(Hann window {settings.fft_window}, hop {settings.fft_hop})" + (", labeled" if info.labels else ""),
        "",
        f"{'split':<12}{'hours':>10}{'subjects':>10}{'windows':>10}{'shards':>8}{'MB':>10}",
    ]
    for split, size in info.splits.items():
        shards = info.shard_files(split)
        megabytes = sum(shard.bytes for shard in shards) / 1e6
        lines.append(
            f"{split:<12}{size.hours:>10.1f}{size.subjects:>10}{size.records:>10}{len(shards):>8}{megabytes:>10.1f}"
        )
    for split, size in info.splits.items():
        if size.padded:
            lines.append(
                f"{split}: {size.padded} windows are padded; they hold {size.padded_hours:.2f} h; "
                f"{size.padding:.1%} of all frames are padding"
            )
    if info.usage is not None:
        lines += ["", *usage_text(info.usage, info.skipped_hours)]
    lines += ["", "statistics of the training split, mean over features: mean, std"]
    for kind in ("hour_weighted", "plain"):
        statistics = records.statistics(kind)
        lines.append(f"  {kind:<14}{statistics.mean.mean():>10.4g}{statistics.std.mean():>10.4g}")
    lines += ["", f"{info.skipped} of {info.files} files skipped"]
    reasons = skip_reasons(records)
    shown = sorted(reasons.values(), key=len, reverse=True)[:REASONS_SHOWN]
    for entries in shown:
        first, example = entries[0], "" if len(entries) == 1 else "e.g. "
        lines.append(f"  {len(entries):>6}  {example}{first['file']}: {first['reason']}")
    if len(reasons) > REASONS_SHOWN:
        lines.append(f"  ... and {len(reasons) - REASONS_SHOWN} more reasons")
    if reasons:
        lines.append(f"every file that was skipped: {records.skipped_file}")
    return "\n".join(lines)


def skip_reasons(records: Records) -> dict[str, list[dict[str, str]]]:
    """The files that were skipped for each kind of reason (the words before its colon)."""
    kinds: dict[str, list[dict[str, str]]] = {}
    with open(records.skipped_file, encoding="utf-8") as lines:
        for entry in map(json.loads, lines):
            kinds.setdefault(entry["reason"].partition(":")[0], []).append(entry)
    return kinds


def plot_records(records: Records, path: Path) -> None:
    """Write a PNG: two windows, hours by hour of the day and by subject, and mean and std per frequency bin.

    Raises:
        StorageError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic([["quiet", "quiet", "active", "active"], ["hours", "subjects", "mean", "std"]])
    index = records.index("train")
    _plot_examples(records, axes)
    _plot_hours(axes["hours"], index.start_ms, index.seconds)
    _plot_subjects(axes["subjects"], index.subject, index.seconds)
    _plot_statistics(records, axes["mean"], axes["std"])
    figure.suptitle(f"{records.info.source}: {', '.join(records.info.sensors)}")
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: the picture cannot be written ({error})") from None


def _plot_examples(records: Records, axes: "dict[str, Axes]") -> None:
    source = records.source("train")
    examples = [source[i]["spectrogram"].astype(np.float32) for i in np.linspace(0, len(source) - 1, 40).astype(int)]
    examples.sort(key=lambda spectrogram_TxX: float(spectrogram_TxX.std(axis=0).mean()))
    channels, settings = records.info.channels, records.info.settings
    for name, spectrogram_TxX in (("quiet", examples[len(examples) // 4]), ("active", examples[-1])):
        axes[name].imshow(
            np.log10(spectrogram_TxX.T + 1e-3),
            aspect="auto",
            origin="lower",
            extent=(0, records.info.window_seconds, 0, records.info.features),
            vmin=-2,
            vmax=1.5,
        )
        axes[name].set_yticks((np.arange(len(channels)) + 0.5) * settings.bins, channels)
        axes[name].set_xlabel("seconds")
        axes[name].set_title(
            f"a {name} window (log magnitude; bins 0 to {settings.rate_hz / 2:g} Hz per channel)", fontsize=9
        )


def _plot_hours(axis: "Axes", start_ms: np.ndarray, seconds: np.ndarray) -> None:
    known = start_ms >= 0
    hours_H = np.bincount(start_ms[known] // 3_600_000 % 24, seconds[known] / 3600, minlength=24)
    axis.bar(np.arange(24), hours_H)
    axis.set(xlabel="hour of the day", ylabel="hours of recording", title="training split")


def _plot_subjects(axis: "Axes", subject: np.ndarray, seconds: np.ndarray) -> None:
    _, codes = np.unique(subject, return_inverse=True)
    axis.plot(np.sort(np.bincount(codes, seconds / 3600))[::-1], drawstyle="steps-mid")
    axis.set(xlabel="subjects, by hours", ylabel="hours of recording", ylim=(0, None))


def _plot_statistics(records: Records, mean_axis: "Axes", std_axis: "Axes") -> None:
    frequency_F = (
        np.arange(records.info.settings.bins) * records.info.settings.rate_hz / records.info.settings.fft_window
    )
    statistics = records.statistics("plain")
    for axis, values_X, title in ((mean_axis, statistics.mean, "mean"), (std_axis, statistics.std, "std")):
        for channel, values_F in zip(records.info.channels, values_X.reshape(-1, len(frequency_F)), strict=True):
            axis.semilogy(frequency_F, np.maximum(values_F, 1e-4), label=channel)
        axis.set(xlabel="Hz", title=f"{title} per bin (plain)")
    mean_axis.legend(fontsize=7)
