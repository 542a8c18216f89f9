"""Pictures of a study: laws with their bands, residuals, isoFLOP curves."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from selfpab_jax.scaling.cells import levels
from selfpab_jax.scaling.estimate import Estimate, Refusal
from selfpab_jax.scaling.series import NAMES, Series, short
from selfpab_jax.scaling.study import FAR, Finding

STEPS = 25
SEEDS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


def draw_law(finding: Finding, path: Path) -> None:
    """The measure against one amount by seed, with law and band up to `FAR` times the largest; residuals below."""
    amounts = finding.series.values()[:, 0]
    figure, above, below = _panels()
    _by_seed(above, finding.series, amounts, finding.values)
    result = finding.result
    if isinstance(result, Estimate):
        along = np.geomspace(amounts.min(), amounts.max() * FAR, STEPS)
        foretold = [result.predict(np.array([x])) for x in along]
        above.fill_between(
            along, [p.low for p in foretold], [p.high for p in foretold], color="0.85", label="95% interval of the law"
        )
        for start, end, style, label in ((0.0, 1.0, "-", "law"), (1.0, float(FAR), "--", "law, beyond the points")):
            part = np.geomspace(amounts.max() * start or amounts.min(), amounts.max() * end, STEPS)
            above.plot(part, result.fit.curve.loss(part[:, None]), color="black", lw=1.2, ls=style, label=label)
        if result.floor_is_known and result.fit.curve.floor > 0.6 * foretold[-1].low:
            above.axhline(result.fit.curve.floor, color="0.5", lw=0.8, ls=":", label="floor E")
        _by_seed(below, finding.series, amounts, 100 * np.expm1(result.fit.residuals))
        below.axhline(0, color="black", lw=0.8)
        text = result.fit.curve.formula([NAMES[finding.series.amounts[0]]])
    else:
        _no_residuals(below)
        text = f"no law: {result.reason}"
    _finish(figure, above, below, finding, text, path)


def draw_joint(finding: Finding, path: Path) -> None:
    """The loss against hours, a line a size, with the joint law."""
    amounts = finding.series.values()
    figure, above, below = _panels()
    size = levels(amounts[:, 0])
    for i, colour in zip(
        range(size.max() + 1), plt.colormaps["viridis"](np.linspace(0, 0.9, size.max() + 1)), strict=True
    ):
        at = amounts[size == i]
        parameters = float(np.exp(np.log(at[:, 0]).mean()))
        above.plot(
            at[:, 1], finding.values[size == i], "o", color=colour, ms=4, label=f"{short(parameters)} parameters"
        )
        if isinstance(finding.result, Estimate):
            along = np.geomspace(at[:, 1].min(), at[:, 1].max(), STEPS)
            above.plot(along, finding.result.fit.curve.loss([(parameters, x) for x in along]), color=colour, lw=1.2)
            below.plot(at[:, 1], 100 * np.expm1(finding.result.fit.residuals[size == i]), "o", color=colour, ms=4)
    result = finding.result
    if isinstance(result, Refusal):
        _no_residuals(below)
        text = f"no law: {result.reason}"
    else:
        below.axhline(0, color="black", lw=0.8)
        text = result.fit.curve.formula(["N", "hours"])
    _finish(figure, above, below, finding, text, path)


def draw_iso_flop(series: Sequence[Series], path: Path) -> None:
    """Loss against parameters, a line for each compute, with the lowest mean marked."""
    figure, axis = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    for one, colour in zip(series, plt.colormaps["viridis"](np.linspace(0, 0.9, len(series))), strict=True):
        sizes, losses = one.values()[:, 0], np.array([point.loss for point in one.points])
        distinct = np.unique(sizes)
        means = np.array([losses[sizes == size].mean() for size in distinct])
        axis.plot(sizes, losses, "o", color=colour, ms=4, alpha=0.6)
        axis.plot(distinct, means, color=colour, lw=1.2, label=one.held)
        axis.plot(distinct[means.argmin()], means.min(), "*", color=colour, ms=13)
    axis.set(xscale="log", yscale="log", xlabel="parameters", ylabel="held-out loss")
    every = np.unique([point.parameters for one in series for point in one.points])
    axis.set_xticks(every, [short(size) for size in every])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_title("IsoFLOP: loss against parameters at equal compute (star: lowest mean)", fontsize=10)
    _few_labels(axis)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _panels() -> tuple[Figure, Axes, Axes]:
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.5, 6.2), height_ratios=(3, 1), sharex=True)
    figure.subplots_adjust(left=0.11, right=0.98, top=0.91, bottom=0.08, hspace=0.05)  # quicker than layout engines
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
    plt.close(figure)


def _no_residuals(axis: Axes) -> None:
    axis.text(0.5, 0.5, "no law, so no residuals", transform=axis.transAxes, ha="center", va="center")
    axis.set_yticks([])


def _by_seed(axis: Axes, series: Series, x: np.ndarray, y: np.ndarray) -> None:
    seeds = np.array([point.seed for point in series.points])
    for i, seed in enumerate(np.unique(seeds)):
        mine = seeds == seed
        axis.plot(x[mine], y[mine], "o", ms=4.5, alpha=0.8, color=SEEDS[i % len(SEEDS)], label=f"seed {seed}", zorder=3)


def _few_labels(axis: Axes) -> None:
    """Round numbers along the loss, however short its range: a log axis of less than a decade has no label else."""
    low, high = axis.get_ylim()
    ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    axis.set_yticks(ticks, [f"{tick:.4g}" for tick in ticks])
    axis.yaxis.set_minor_formatter(NullFormatter())
