"""Figures of a scaling analysis: laws with their intervals and residuals, and isoFLOP curves."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from selfpab_jax.scaling.laws.analysis import FAR, Finding
from selfpab_jax.scaling.laws.intervals import LawEstimate, Refusal
from selfpab_jax.scaling.laws.points import NAMES, PointSeries, levels, short

STEPS = 25
"""Points along a curve."""
SEEDS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


def draw_law(finding: Finding, path: Path) -> None:
    """Draw the measure against one amount by seed, with law and interval up to `FAR` times the largest, and residuals.

    Args:
        finding: of a series with one amount.
        path: PNG file.
    """
    amounts = finding.series.values()[:, 0]
    figure, above, below = _panels()
    _scatter_by_seed(above, finding.series, amounts, finding.values)
    result = finding.result
    if isinstance(result, LawEstimate):
        along = np.geomspace(amounts.min(), amounts.max() * FAR, STEPS)
        predicted = [result.predict(np.array([x])) for x in along]
        above.fill_between(
            along,
            [p.low for p in predicted],
            [p.high for p in predicted],
            color="0.85",
            label="95% interval of the law",
        )
        for start, end, style, label in ((0.0, 1.0, "-", "law"), (1.0, float(FAR), "--", "law, extrapolated")):
            part = np.geomspace(amounts.max() * start or amounts.min(), amounts.max() * end, STEPS)
            above.plot(part, result.fit.curve.loss(part[:, None]), color="black", lw=1.2, ls=style, label=label)
        if result.floor_is_known and result.fit.curve.floor > 0.6 * predicted[-1].low:
            above.axhline(result.fit.curve.floor, color="0.5", lw=0.8, ls=":", label="floor E")
        _scatter_by_seed(below, finding.series, amounts, 100 * np.expm1(result.fit.residuals))
        below.axhline(0, color="black", lw=0.8)
        text = result.fit.curve.formula([NAMES[finding.series.amounts[0]]])
    else:
        _without_residuals(below)
        text = f"no law: {result.reason}"
    _finish(figure, above, below, finding, text, path)


def draw_joint(finding: Finding, path: Path) -> None:
    """Draw the loss against hours (or tokens) with the joint law, one curve per model size."""
    amounts = finding.series.values()
    figure, above, below = _panels()
    size = levels(amounts[:, 0])
    for i, color in zip(range(size.max() + 1), colormaps["viridis"](np.linspace(0, 0.9, size.max() + 1)), strict=True):
        at = amounts[size == i]
        parameters = float(np.exp(np.log(at[:, 0]).mean()))
        above.plot(at[:, 1], finding.values[size == i], "o", color=color, ms=4, label=f"{short(parameters)} parameters")
        if isinstance(finding.result, LawEstimate):
            along = np.geomspace(at[:, 1].min(), at[:, 1].max(), STEPS)
            above.plot(along, finding.result.fit.curve.loss([(parameters, x) for x in along]), color=color, lw=1.2)
            below.plot(at[:, 1], 100 * np.expm1(finding.result.fit.residuals[size == i]), "o", color=color, ms=4)
    result = finding.result
    if isinstance(result, Refusal):
        _without_residuals(below)
        text = f"no law: {result.reason}"
    else:
        below.axhline(0, color="black", lw=0.8)
        text = result.fit.curve.formula(["N", NAMES[finding.series.amounts[1]]])
    _finish(figure, above, below, finding, text, path)


def draw_iso_flop(series: Sequence[PointSeries], path: Path) -> None:
    """Draw the loss against parameters, one curve per compute, with the lowest mean marked."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axis = figure.subplots()
    for one, color in zip(series, colormaps["viridis"](np.linspace(0, 0.9, len(series))), strict=True):
        sizes, losses = one.values()[:, 0], np.array([point.loss for point in one.points])
        distinct = np.unique(sizes)
        means = np.array([losses[sizes == size].mean() for size in distinct])
        axis.plot(sizes, losses, "o", color=color, ms=4, alpha=0.6)
        axis.plot(distinct, means, color=color, lw=1.2, label=one.held)
        axis.plot(distinct[means.argmin()], means.min(), "*", color=color, ms=13)
    axis.set(xscale="log", yscale="log", xlabel="parameters", ylabel="held-out loss")
    every = np.unique([point.parameters for one in series for point in one.points])
    axis.set_xticks(every, [short(size) for size in every.tolist()])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_title("IsoFLOP: loss against parameters at equal compute (star: lowest mean)", fontsize=10)
    _few_labels(axis)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def _panels() -> tuple[Figure, Axes, Axes]:
    figure = Figure(figsize=(7.5, 6.2))
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    figure.subplots_adjust(left=0.11, right=0.98, top=0.91, bottom=0.08, hspace=0.05)  # faster than a layout engine
    return figure, above, below


def _finish(figure: Figure, above: Axes, below: Axes, finding: Finding, text: str, path: Path) -> None:
    above.set_title("\n".join(wrap(finding.title, 105) + wrap(text, 105)), fontsize=9.5)
    above.set(xscale="log", yscale="log", ylabel=finding.measure)
    below.set(xscale="log", xlabel=NAMES[finding.series.amounts[-1]], ylabel="residual, %")
    _few_labels(above)
    low, high = below.get_xlim()
    below.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 200 else (1,)))
    below.xaxis.set_major_formatter(FuncFormatter(lambda amount, _: f"{amount:g}" if amount < 1e4 else short(amount)))
    below.xaxis.set_minor_formatter(NullFormatter())
    above.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def _without_residuals(axis: Axes) -> None:
    axis.text(0.5, 0.5, "no law", transform=axis.transAxes, ha="center", va="center")
    axis.set_yticks([])


def _scatter_by_seed(axis: Axes, series: PointSeries, x: np.ndarray, y: np.ndarray) -> None:
    seeds = np.array([point.seed for point in series.points])
    for i, seed in enumerate(np.unique(seeds)):
        of_seed = seeds == seed
        axis.plot(
            x[of_seed], y[of_seed], "o", ms=4.5, alpha=0.8, color=SEEDS[i % len(SEEDS)], label=f"seed {seed}", zorder=3
        )


def _few_labels(axis: Axes) -> None:
    """Label round losses, however short their range: a log axis of less than a decade has no labels by default."""
    low, high = axis.get_ylim()
    ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    axis.set_yticks(ticks, [f"{tick:.4g}" for tick in ticks])
    axis.yaxis.set_minor_formatter(NullFormatter())
