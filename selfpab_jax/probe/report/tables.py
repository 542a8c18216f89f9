"""Tables of scores, the same for the terminal, Markdown and the report; warnings are repeated under each."""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from selfpab_jax.probe.budgets import Budget
from selfpab_jax.probe.report.results import MethodResult, ProbeResult
from selfpab_jax.probe.report.summary import MeanWithInterval, compare

NONE = "-"


@dataclass(frozen=True)
class ScoreTable:
    """A table of text.

    Attributes:
        title: of the table.
        header: one text per column; the first column names the rows.
        rows: as many texts as the header.
        notes: how to read it.
        warnings: what must be known before a score is believed.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def all_tables(result: ProbeResult) -> tuple[ScoreTable, ...]:
    """Every table that is not empty for this result."""
    makers: Sequence[Callable[[ProbeResult], ScoreTable | None]] = (
        score_table, difference_table, budget_table, class_table, subject_table,
    )  # fmt: skip
    return tuple(table for make in makers if (table := make(result)) is not None)


def score_table(result: ProbeResult) -> ScoreTable:
    """One row per method with all labels: all figures in percent (kappa as it is); then the published scores."""
    methods = result.fully_labeled
    seeds = max(len(method.seeds) for method in methods)
    most = max((method.subjects for method in methods), key=len)
    with_durations = any(method.duration_errors for method in methods)
    header = ["method", "macro-F1 ± subjects", "95% interval", *(["± seeds"] if seeds > 1 else [])]
    header += ["pooled macro-F1", "balanced accuracy", "accuracy", "kappa"]
    header += ["duration error"] if with_durations else []
    rows = []
    for method in methods:
        of = method.summary
        fewer = "" if method.subjects == most else f" ({len(method.subjects)} subjects)"
        cells = [
            method.full_title + fewer,
            f"{percent(of.macro_f1.mean)} ± {percent(of.subjects_std)}",
            interval(of.macro_f1),
        ]
        cells += [percent(of.macro_f1.seeds_std)] if seeds > 1 else []
        cells += [percent(figure.mean) for figure in (of.pooled_macro_f1, of.balanced_accuracy, of.accuracy)]
        cells += [number(of.kappa.mean, "{:.3f}"), *([_duration_error(method)] if with_durations else [])]
        rows.append(tuple(cells))
    for published in result.published:
        cells = (f"published: {published.what}", f"{published.percent:.1f}")
        rows.append(cells + (NONE,) * (len(header) - 2))
    notes = [
        f"macro-F1 in percent: mean over the {len(most)} test subjects ± standard deviation over "
        "subjects; the interval is that of the mean, by bootstrap over subjects",
        "a class that a subject has in neither truth nor prediction is left out of its mean; pooled figures are over "
        "all subjects' samples together",
    ]
    if seeds > 1:
        notes.append(
            f"figures are means over {_seed_counts(result)} seeds; ± seeds is the standard deviation over seeds alone"
        )
    if with_durations:
        notes.append("duration error: mean absolute error of the fraction of each segment that a class takes, percent")
    notes += [f"published: {published.what}: {published.source}" for published in result.published if published.source]
    return ScoreTable("Scores", tuple(header), tuple(rows), tuple(notes), result.warnings)


def difference_table(result: ProbeResult) -> ScoreTable | None:
    """The headline method minus each other one with the same budget, by subject; None with nothing to compare."""
    name, columns = result.headline.name, budgets(result)
    by_key = {(method.name, method.budget): method for method in result.methods}
    rows = []
    for other in dict.fromkeys(method.name for method in result.methods if method.name != name):
        cells = [NONE] * len(columns)
        for i, budget in enumerate(columns):
            if (name, budget) in by_key and (other, budget) in by_key:
                points, ends, better = difference_cells(by_key[name, budget], by_key[other, budget])
                between = "" if ends == NONE else f" [{ends.replace(' to', ',')}]"
                cells[i] = f"{points}{between} {better.replace(' of ', '/')}"
        rows.append((next(method.title for method in result.methods if method.name == other), *cells))
    if not rows:
        return None
    return ScoreTable(
        f"{result.headline.title}: difference from the other methods, by subject",
        ("compared with", *map(_budget_name, columns)),
        tuple(rows),
        ("macro-F1 points: mean over subjects [95% interval by bootstrap over subjects], subjects in favor / all",),
        result.warnings,
    )


def difference_cells(first: MethodResult, second: MethodResult) -> tuple[str, str, str]:
    """Points, their interval, and for how many subjects the first method is better."""
    difference = compare(first.summary.subjects, second.summary.subjects)
    ends = (difference.low, difference.high)
    between = NONE if any(map(math.isnan, ends)) else "{:+.1f} to {:+.1f}".format(*(100 * end for end in ends))
    better = f"{difference.better} of {difference.subjects}"
    return number(100 * difference.mean, "{:+.1f}"), between, better


def budget_table(result: ProbeResult) -> ScoreTable | None:
    """Macro-F1 of every method with every label budget; None if no method has one."""
    columns = budgets(result)
    if columns == (None,):
        return None
    rows = []
    for name in dict.fromkeys(method.name for method in result.methods):
        by_budget = {method.budget: method for method in result.methods if method.name == name}
        cells = [_with_seeds(by_budget[b].summary.macro_f1) if b in by_budget else NONE for b in columns]
        rows.append((next(iter(by_budget.values())).title, *cells))
    header = ("method", *map(_budget_name, columns))
    notes = ("macro-F1 in percent, mean over subjects; ± is the standard deviation over seeds, if there are several",)
    return ScoreTable("Few labels", header, tuple(rows), notes, result.warnings)


def class_table(result: ProbeResult) -> ScoreTable:
    """F1 of each class under each method that trains on all labels."""
    methods, rows = result.fully_labeled, []
    for y, name in enumerate(result.classes):
        samples = result.headline.summary.samples[y]
        rows.append((name, f"{samples:,}", *(_with_interval(method.summary.f1[y]) for method in methods)))
    notes = ("F1 in percent over all subjects' samples together, with 95% intervals by bootstrap over subjects",)
    header = ("class", "samples", *(method.full_title for method in methods))
    return ScoreTable("Classes", header, tuple(rows), notes, result.warnings)


def subject_table(result: ProbeResult) -> ScoreTable:
    """Macro-F1 of each subject under each method that trains on all labels."""
    methods = result.fully_labeled
    names = sorted({name for method in methods for name in method.subjects})
    rows = [(name, *(percent(method.summary.subjects.get(name, math.nan)) for method in methods)) for name in names]
    notes = ("macro-F1 in percent" + (", mean over seeds" if result.headline.summary.seeds > 1 else ""),)
    header = ("subject", *(method.full_title for method in methods))
    return ScoreTable("Subjects", header, tuple(rows), notes, result.warnings)


def budgets(result: ProbeResult) -> tuple[Budget | None, ...]:
    """Label budgets of all methods, ascending within their kind; all labels (None) last."""
    found = {method.budget for method in result.methods}
    limited = sorted((b for b in found if b is not None), key=lambda b: (b.kind, b.amount))
    return (*limited, *((None,) if None in found else ()))


def as_text(table: ScoreTable, *, header_width: int = 16) -> str:
    """For the terminal: aligned columns, with long headers broken into lines."""
    heads = [textwrap.wrap(name, header_width) or [""] for name in table.header]
    height = max(map(len, heads))
    lines = [[""] * len(heads) for _ in range(height)]
    for column, parts in enumerate(heads):
        for i, part in enumerate(parts):
            lines[height - len(parts) + i][column] = part
    rows = [[" ".join(cell.split()) for cell in row] for row in table.rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, *rows, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    text = [table.title, *(_line(row, widths) for row in lines), rule, *(_line(row, widths) for row in rows)]
    for mark, remarks in (("", table.notes), ("WARNING: ", table.warnings)):
        for remark in remarks:
            text += textwrap.wrap(f"{mark}{remark}", 118, subsequent_indent="  ")
    return "\n".join(text) + "\n"


def as_markdown(table: ScoreTable) -> str:
    """A pipe table with its notes below."""

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    lines = [f"**{table.title}**", "", row(table.header), "| --- |" + " ---: |" * (len(table.header) - 1)]
    lines += [row(cells) for cells in table.rows]
    remarks = [*(f"**Warning:** {warning}" for warning in table.warnings), *table.notes]
    return "\n".join([*lines, *(f"\n{remark}" for remark in remarks)]) + "\n"


def percent(fraction: float) -> str:
    """A fraction from 0 to 1 in percent with one decimal; a dash for NaN."""
    return number(100 * fraction, "{:.1f}")


def number(value: float, pattern: str) -> str:
    """Formatted; a dash for NaN."""
    return NONE if math.isnan(value) else pattern.format(value)


def interval(figure: MeanWithInterval) -> str:
    """`[79.2, 83.4]` in percent; a dash if there is none."""
    if math.isnan(figure.low) or math.isnan(figure.high):
        return NONE
    return f"[{percent(figure.low)}, {percent(figure.high)}]"


def _with_seeds(figure: MeanWithInterval) -> str:
    return percent(figure.mean) + ("" if math.isnan(figure.seeds_std) else f" ± {percent(figure.seeds_std)}")


def _with_interval(figure: MeanWithInterval) -> str:
    ends = interval(figure)
    return percent(figure.mean) + ("" if ends == NONE else f" {ends}")


def _budget_name(budget: Budget | None) -> str:
    return "all labels" if budget is None else str(budget)


def _seed_counts(result: ProbeResult) -> str:
    """`3`, or `1 to 3` if methods differ."""
    counts = sorted({len(method.seeds) for method in result.fully_labeled})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _duration_error(method: MethodResult) -> str:
    return NONE if method.duration_error is None else percent(method.duration_error)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = cells
    left = first + " " * (widths[0] - cell_len(first))
    right = (" " * (width - cell_len(cell)) + cell for cell, width in zip(others, widths[1:], strict=True))
    return "  ".join((left, *right)).rstrip()
