"""All figures of a result as PNG files: methods, label budgets, classes, confusion matrices, timelines, features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from selfpab_jax.probe.report.embedding_map import EmbeddingMap, draw_embedding
from selfpab_jax.probe.report.results import MethodResult, ProbeResult
from selfpab_jax.probe.report.style import brief, color, marker, new_figure
from selfpab_jax.probe.report.timeline import Timeline, draw_timeline, timeline_caption

BUDGET_AXES = {
    "windows": "windows per activity",
    "fraction": "percent of the windows of each activity",
    "subjects": "training subjects",
}


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk.

    Attributes:
        group: `methods`, `budgets`, `classes`, `confusion`, `timeline` or `embedding`.
        path: of the PNG file.
        title: short; the subject's name for a timeline.
        caption: what is shown, and how to read it.
    """

    group: str
    path: Path
    title: str
    caption: str


def draw_figures(
    result: ProbeResult, folder: Path, *, timelines: Sequence[Timeline] = (), embedding: EmbeddingMap | None = None
) -> list[SavedFigure]:
    """Draw everything that a result has to show into a folder, which is created if it is missing.

    Args:
        result: the scores.
        folder: of the PNG files.
        timelines: of the first seed of the headline method, one per subject.
        embedding: of the encoder's features.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: list[SavedFigure] = []

    def add(group: str, name: str, title: str, caption: str) -> Path:
        figures.append(SavedFigure(group, folder / f"{name}.png", title, caption))
        return figures[-1].path

    caption = "Mean macro-F1 of each method with its 95% interval; every pale dot is a test subject."
    draw_methods(result, add("methods", "methods", "Methods", caption))
    for kind in sorted({method.budget.kind for method in result.methods if method.budget is not None}):
        caption = f"Macro-F1 against {BUDGET_AXES[kind]} to train on; bars: standard deviation over seeds."
        draw_budgets(result, kind, add("budgets", f"budgets_{kind}", "Few labels", caption))
    caption = "F1 of each class over all subjects' samples together, with 95% intervals by bootstrap over subjects."
    draw_classes(result, add("classes", "classes", "Classes", caption))
    for method in result.fully_labeled:
        seeds = f", mean of {len(method.seeds)} seeds" if len(method.seeds) > 1 else ""
        caption = f"All test subjects{seeds}; rows are true classes, columns predicted ones."
        path = add("confusion", f"confusion_{_file_name(method)}", method.full_title, caption)
        draw_confusion(_mean_confusion(method), result.classes, path, title=method.full_title)
    for i, timeline in enumerate(timelines):
        caption = timeline_caption(timeline)
        path = add("timeline", f"timeline_{i:03d}_{_safe(timeline.subject)}", timeline.subject, caption)
        draw_timeline(timeline, result.classes, path)
    if embedding is not None:
        caption = "Frames with similar features are close. Classes should separate (left), subjects mix (right)."
        draw_embedding(embedding, result.classes, add("embedding", "embedding", "Features", caption))
    return figures


def draw_confusion(
    confusion_YxY: Int[np.ndarray, "Y Y"] | Float[np.ndarray, "Y Y"],
    classes: tuple[str, ...],
    path: Path,
    *,
    title: str = "",
    counted: str = "samples",
) -> None:
    """How each true class (rows) was predicted, in percent with counts below; the row of an absent class is empty.

    Args:
        confusion_YxY: rows are true classes.
        classes: names by index.
        path: of the PNG file.
        title: above the matrix.
        counted: what the counts count.
    """
    totals_Y = np.asarray(confusion_YxY, np.float64).sum(axis=1)
    fraction_YxY = confusion_YxY / np.maximum(totals_Y, 1)[:, None]
    count, size = len(classes), max(0.62 * len(classes), 2.2)
    with new_figure(path, size + 3.0, size + 2.3) as figure:
        axis = figure.subplots()
        image = axis.imshow(100 * fraction_YxY, cmap="Blues", vmin=0, vmax=100)
        for y, x in np.ndindex(count, count):
            if totals_Y[y] and confusion_YxY[y, x]:
                ink = "white" if fraction_YxY[y, x] > 0.55 else "black"
                axis.text(x, y - 0.12, _percent(fraction_YxY[y, x]), ha="center", va="center", color=ink, fontsize=9)
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
        axis.set(xlabel="predicted class", ylabel="true class")
        figure.suptitle(
            f"{brief(title, 60)}\npercent of the true class; {counted} below".lstrip(), x=0.01, ha="left", fontsize=9
        )
        bar = figure.colorbar(image, ax=axis, shrink=0.6, pad=0.02)
        bar.ax.set_title("%", fontsize=8)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def draw_classes(result: ProbeResult, path: Path) -> None:
    """F1 of each class as bars with intervals, one per method that trains on all labels."""
    methods, classes = result.fully_labeled, result.classes
    thick = 0.8 / len(methods)
    with new_figure(path, 9, 1.4 + len(classes) * max(0.42, 0.15 * len(methods) + 0.08)) as figure:
        axis = figure.subplots()
        rows = np.arange(len(classes))
        for i, method in enumerate(methods):
            mean, low, high = (
                100 * np.array([getattr(score, part) for score in method.summary.f1])
                for part in ("mean", "low", "high")
            )
            place, shade = rows - 0.4 + thick * (i + 0.5), color(_index(result, method))
            shown = np.isfinite(mean)
            axis.barh(place[shown], mean[shown], 0.86 * thick, color=shade, label=brief(method.full_title, 60), lw=0)
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
            xlabel="F1 in percent, all subjects together (line: 95% interval)",
        )
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="0.9", lw=0.7)
        axis.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)


def draw_methods(result: ProbeResult, path: Path) -> None:
    """Mean macro-F1 with its interval per method; pale dots are subjects, vertical lines published scores."""
    methods, generator = result.fully_labeled, np.random.default_rng(0)
    with new_figure(path, 9, 1.5 + 0.48 * len(methods) + 0.2 * len(result.published)) as figure:
        axis = figure.subplots()
        for y, method in enumerate(methods):
            score, shade = method.summary.macro_f1, color(_index(result, method))
            values = 100 * np.array([value for value in method.summary.subjects.values() if np.isfinite(value)])
            height = y + generator.uniform(-0.2, 0.2, len(values))
            axis.scatter(values, height, s=12, color=shade, alpha=0.35, lw=0)
            if np.isfinite([score.low, score.high]).all():
                axis.plot([100 * score.low, 100 * score.high], [y, y], color=shade, lw=3.2, solid_capstyle="butt")
            axis.scatter([100 * score.mean], [y], s=70, color=shade, edgecolor="white", lw=1, zorder=3)
            axis.annotate(
                f"{100 * score.mean:.1f}", (100 * score.mean, y), (0, 9), textcoords="offset points", ha="center",
                fontsize=9, weight="bold", bbox={"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 0.5},
            )  # fmt: skip
        for i, published in enumerate(result.published):
            style = ("--", ":", "-.")[i % 3]
            label = f"published, {brief(published.what, 60)}: {published.percent:.1f}"
            axis.axvline(published.percent, color="0.3", lw=1.1, ls=style, label=label, zorder=0)
        axis.set_yticks(range(len(methods)), [brief(method.full_title, 40) for method in methods])
        axis.set(
            ylim=(len(methods) - 0.5, -0.6),
            xlabel="macro-F1 in percent; dots: subjects; bar: 95% interval of their mean",
        )
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="0.92", lw=0.7)
        axis.set_axisbelow(True)
        if result.published:
            figure.legend(loc="outside lower left", fontsize=8, frameon=False)


def draw_budgets(result: ProbeResult, kind: str, path: Path) -> None:
    """Macro-F1 against the label budget on a logarithmic axis, one line per method; `all` is separate at the right.

    Args:
        result: with methods under budgets of this kind.
        kind: of the budgets.
        path: of the PNG file.
    """
    curves: dict[str, list[tuple[float, MethodResult]]] = {}
    for method in result.methods:
        if method.budget is not None and method.budget.kind == kind:
            amount = (100 if kind == "fraction" else 1) * method.budget.amount
            curves.setdefault(method.name, []).append((amount, method))
    full = {method.name: method.summary.macro_f1 for method in result.methods if method.budget is None}
    amounts = sorted({amount for curve in curves.values() for amount, _ in curve})
    edge = amounts[-1] * max(amounts[-1] / amounts[-2] if len(amounts) > 1 else 4.0, 2.0)
    with new_figure(path, 9, 4.8) as figure:
        axis = figure.subplots()
        for i, (name, curve) in enumerate(curves.items()):
            curve.sort(key=lambda point: point[0])
            aside = 1.02 ** (i - (len(curves) - 1) / 2)  # so that error bars do not hide each other
            scores = [method.summary.macro_f1 for _, method in curve]
            x = np.array([amount for amount, _ in curve], float)
            y, spread = (np.array([getattr(score, part) for score in scores]) for part in ("mean", "seeds_std"))
            index = _index(result, curve[0][1])
            line = {"color": color(index), "marker": marker(index), "ms": 6, "capsize": 2.5, "elinewidth": 1.2}
            title = brief(curve[0][1].title, 60)
            axis.errorbar(x * aside, 100 * y, 100 * np.nan_to_num(spread), label=title, lw=1.6, **line)
            if name in full:
                end = full[name]
                ends_x, ends_y = [x[-1] * aside, edge * aside], [100 * y[-1], 100 * end.mean]
                axis.plot(ends_x, ends_y, color=color(index), lw=1, ls=":")
                axis.errorbar([edge * aside], [100 * end.mean], [100 * np.nan_to_num(end.seeds_std)], **line)
        axis.set_xscale("log")
        with_all = any(name in full for name in curves)
        places, labels = [*amounts, *([edge] if with_all else [])], [f"{amount:g}" for amount in amounts]
        axis.xaxis.set_major_locator(FixedLocator(places))
        axis.xaxis.set_major_formatter(FixedFormatter([*labels, *(["all"] if with_all else [])]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set(xlabel=BUDGET_AXES[kind], ylabel="macro-F1 in percent, mean over subjects")
        axis.grid(color="0.92", lw=0.7)
        figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)


def _index(result: ProbeResult, method: MethodResult) -> int:
    """Index of the method's color, the same in every figure and under every budget."""
    return list(dict.fromkeys(other.name for other in result.methods)).index(method.name)


def _mean_confusion(method: MethodResult) -> Float64[np.ndarray, "Y Y"]:
    return np.mean([np.sum([c[subject] for subject in method.subjects], axis=0) for c in method.confusions], axis=0)


def _file_name(method: MethodResult) -> str:
    budget = method.budget
    return _safe(method.name if budget is None else f"{method.name}_{budget.kind}_{budget.amount:g}")


def _safe(name: str) -> str:
    """Letters and digits of any script, without separators."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)[:60]


def _percent(fraction: float) -> str:
    return "<1" if fraction < 0.005 else f"{100 * fraction:.0f}"


def _short_count(count: float) -> str:
    """123456 as 123k, so that it fits."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}" if count < 1 else f"{count:.0f}"
