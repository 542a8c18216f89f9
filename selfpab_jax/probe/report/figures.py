"""What the probe's pictures share: colors that color-blind people tell apart, and text taken as it is."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

# What the probe's pictures share: colors that color-blind people tell apart, and text taken as it is.

# Okabe and Ito's palette without its yellow, which is too pale on white; then darker and lighter relatives.
COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444",
    "#882255", "#999933", "#332288", "#AA9A80", "#117733",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
TRUTH, RIGHT, WRONG, UNKNOWN = "#222222", "#56B4E9", "#D55E00", "#BBBBBB"


@contextmanager
def picture(path: Path, width: float, height: float, *, dpi: int = 110) -> Iterator[Figure]:
    """A figure of so many inches to draw on; it is written to `path` on leaving."""
    with (
        matplotlib.rc_context(
            {"text.parse_math": False, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
        ),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in a script without glyphs: boxes
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, dpi=dpi, metadata={"Software": None})


def brief(name: str, letters: int = 28) -> str:
    """A name in one line that fits beside a picture; long ones lose their middle, which tells least."""
    name = " ".join(name.split())
    if len(name) > letters:
        head = (letters - 1) * 2 // 3
        name = f"{name[:head].rstrip()}…{name[len(name) - (letters - 1 - head) :].lstrip()}"
    return f" {name}" if name.startswith("_") else name  # matplotlib hides names with a leading underscore


def color(index: int) -> str:
    """Of the class, arm or subject with this index."""
    return COLORS[index % len(COLORS)]


def marker(index: int) -> str:
    """Changes with every index and out of step with the colors, so that pairs repeat late."""
    return MARKERS[index % len(MARKERS)]


# Pictures of scores: confusion matrix, classes, arms beside each other, and what few labels give.


@dataclass(frozen=True)
class Range:
    """A figure between 0 and 1 with the ends of its interval; NaN where there is none."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmScores:
    """What a picture needs of an arm: its name, its score, and that of each subject and class.

    `hue` is the index of its color, the same in every picture.
    """

    title: str
    hue: int
    score: Range
    subjects: dict[str, float]
    classes: tuple[Range, ...]


@dataclass(frozen=True)
class BudgetCurve:
    """Scores of one arm against its label budget.

    Attributes:
        title: of the arm.
        hue: as in `ArmScores`.
        amounts: budgets, ascending.
        scores: mean macro-F1 at each.
        spreads: standard deviation over seeds at each, NaN with one seed.
        full: score and spread with all labels, where measured.
    """

    title: str
    hue: int
    amounts: tuple[float, ...]
    scores: tuple[float, ...]
    spreads: tuple[float, ...]
    full: tuple[float, float] | None = None


def draw_confusion(
    confusion_YxY: Int[np.ndarray, "Y Y"] | Float[np.ndarray, "Y Y"],
    classes: tuple[str, ...],
    path: Path,
    *,
    title: str = "",
    counted: str = "samples",
) -> None:
    """How each true class (rows) was predicted, in per cent with counts beneath; a row without truth is empty."""
    totals_Y = np.asarray(confusion_YxY, np.float64).sum(axis=1)
    share_YxY = confusion_YxY / np.maximum(totals_Y, 1)[:, None]
    count, size = len(classes), max(0.62 * len(classes), 2.2)
    with picture(path, size + 3.0, size + 2.3) as figure:
        axis = figure.subplots()
        image = axis.imshow(100 * share_YxY, cmap="Blues", vmin=0, vmax=100)
        for y, x in np.ndindex(count, count):
            if totals_Y[y] and confusion_YxY[y, x]:
                ink = "white" if share_YxY[y, x] > 0.55 else "black"
                axis.text(x, y - 0.12, _percent(share_YxY[y, x]), ha="center", va="center", color=ink, fontsize=9)
                text = _short_count(float(confusion_YxY[y, x]))
                axis.text(x, y + 0.26, text, ha="center", va="center", color=ink, fontsize=6)
        for y in np.flatnonzero(totals_Y == 0).tolist():
            axis.text((count - 1) / 2, y, "not in the data", ha="center", va="center", color="0.5", fontsize=8)
        names = [brief(name) for name in classes]
        axis.set_yticks(range(count), names)
        axis.set_xticks(range(count), names, rotation=40, ha="right", rotation_mode="anchor")
        axis.set_xticks(np.arange(count + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(count + 1) - 0.5, minor=True)
        axis.grid(which="minor", color="0.88", lw=0.6)
        axis.tick_params(which="both", length=0)
        axis.spines[:].set_visible(False)
        axis.set(xlabel="predicted", ylabel="truth")
        axis.set_title(f"{title}\nper cent of the true class; {counted} beneath", loc="left", fontsize=9)
        bar = figure.colorbar(image, ax=axis, shrink=0.6, pad=0.02)
        bar.ax.set_title("%", fontsize=8)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def draw_classes(arms: Sequence[ArmScores], classes: tuple[str, ...], path: Path) -> None:
    """F1 of each class as bars with intervals, arms beneath each other within a class."""
    thick = 0.8 / len(arms)
    with picture(path, 9, 1.4 + len(classes) * max(0.42, 0.15 * len(arms) + 0.08)) as figure:
        axis = figure.subplots()
        rows = np.arange(len(classes))
        for i, arm in enumerate(arms):
            mean, low, high = (
                100 * np.array([getattr(score, part) for score in arm.classes]) for part in ("mean", "low", "high")
            )
            place = rows - 0.4 + thick * (i + 0.5)
            shown = np.isfinite(mean)
            axis.barh(place[shown], mean[shown], 0.86 * thick, color=color(arm.hue), label=brief(arm.title, 60), lw=0)
            whole = np.isfinite(low) & np.isfinite(high) & shown
            reach = np.maximum([(mean - low)[whole], (high - mean)[whole]], 0)
            axis.errorbar(mean[whole], place[whole], xerr=reach, fmt="none", ecolor="0.15", elinewidth=0.9)
            if i == 0:
                for y in rows[~shown]:
                    axis.text(1, y, "not in the data", va="center", fontsize=7, color="0.5")
        axis.set_yticks(rows, [brief(name) for name in classes])
        axis.set(
            xlim=(0, 100),
            ylim=(len(classes) - 0.5, -0.5),
            xlabel="F1 in per cent, all subjects together (line: 95% interval)",
        )
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="0.9", lw=0.7)
        axis.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)


def draw_arms(arms: Sequence[ArmScores], published: Sequence[tuple[str, float]], path: Path) -> None:
    """Mean macro-F1 with its interval for each arm, each subject a pale dot, published figures as lines.

    Args:
        arms: from top to bottom.
        published: (what, macro-F1 in per cent).
        path: of the PNG.
    """
    generator = np.random.default_rng(0)
    with picture(path, 9, 1.5 + 0.48 * len(arms) + 0.2 * len(published)) as figure:
        axis = figure.subplots()
        for y, arm in enumerate(arms):
            values = 100 * np.array(list(arm.subjects.values()))
            height = y + generator.uniform(-0.2, 0.2, len(values))
            axis.scatter(values, height, s=12, color=color(arm.hue), alpha=0.35, lw=0)
            score = arm.score
            if np.isfinite([score.low, score.high]).all():
                axis.plot(
                    [100 * score.low, 100 * score.high], [y, y], color=color(arm.hue), lw=3.2, solid_capstyle="butt"
                )
            axis.scatter([100 * score.mean], [y], s=70, color=color(arm.hue), edgecolor="white", lw=1, zorder=3)
            axis.annotate(
                f"{100 * score.mean:.1f}", (100 * score.mean, y), (0, 9), textcoords="offset points", ha="center",
                fontsize=9, weight="bold", bbox={"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 0.5},
            )  # fmt: skip
        for i, (what, percent) in enumerate(published):
            style = ("--", ":", "-.")[i % 3]
            axis.axvline(
                percent, color="0.3", lw=1.1, ls=style, label=f"published, {brief(what, 60)}: {percent:.1f}", zorder=0
            )
        axis.set_yticks(range(len(arms)), [brief(arm.title, 40) for arm in arms])
        axis.set(
            ylim=(len(arms) - 0.5, -0.6), xlabel="macro-F1 in per cent; dots: subjects; bar: 95% interval of their mean"
        )
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="0.92", lw=0.7)
        axis.set_axisbelow(True)
        if published:
            figure.legend(loc="outside lower left", fontsize=8, frameon=False)


def draw_budgets(curves: Sequence[BudgetCurve], path: Path, *, unit: str) -> None:
    """Macro-F1 against the label budget on a logarithmic axis, one line an arm; `all` stands apart at the right."""
    amounts = sorted({amount for curve in curves for amount in curve.amounts})
    edge = amounts[-1] * max(amounts[-1] / amounts[-2] if len(amounts) > 1 else 4.0, 2.0)
    any_full = any(curve.full for curve in curves)
    with picture(path, 9, 4.8) as figure:
        axis = figure.subplots()
        for i, curve in enumerate(curves):
            aside = 1.02 ** (i - (len(curves) - 1) / 2)  # so that error bars do not hide each other
            x, y, spread = (np.array(values, float) for values in (curve.amounts, curve.scores, curve.spreads))
            line = {"color": color(curve.hue), "marker": marker(curve.hue), "ms": 6, "capsize": 2.5, "elinewidth": 1.2}
            axis.errorbar(x * aside, 100 * y, 100 * np.nan_to_num(spread), label=brief(curve.title, 60), lw=1.6, **line)
            if curve.full is not None:
                axis.plot(
                    [x[-1] * aside, edge * aside],
                    [100 * y[-1], 100 * curve.full[0]],
                    color=color(curve.hue),
                    lw=1,
                    ls=":",
                )
                axis.errorbar([edge * aside], [100 * curve.full[0]], [100 * np.nan_to_num(curve.full[1])], **line)
        axis.set_xscale("log")
        places, labels = [*amounts, *([edge] if any_full else [])], [f"{amount:g}" for amount in amounts]
        axis.xaxis.set_major_locator(FixedLocator(places))
        axis.xaxis.set_major_formatter(FixedFormatter([*labels, *(["all"] if any_full else [])]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set(xlabel=unit, ylabel="macro-F1 in per cent, mean over subjects")
        axis.grid(color="0.92", lw=0.7)
        figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)


def _percent(share: float) -> str:
    return "<1" if share < 0.005 else f"{100 * share:.0f}"


def _short_count(count: float) -> str:
    """123456 as 123k, so that it fits a cell."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}" if count < 1 else f"{count:.0f}"
