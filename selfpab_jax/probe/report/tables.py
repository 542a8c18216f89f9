"""Tables of scores, the same for the terminal, Markdown and the report; what must be known stands under each."""

import math
import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfpab_jax.probe.report.results import Arm, Budget, ProbeResult
from selfpab_jax.probe.report.summary import Estimate, compare

NONE = "-"


@dataclass(frozen=True)
class Table:
    """Text in cells.

    Attributes:
        title: of the table.
        header: one text a column; the first column names the rows.
        rows: as wide as the header.
        notes: how to read it.
        warnings: what has to be known before a score is believed.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def all_tables(result: ProbeResult) -> tuple[Table, ...]:
    """Every table that has something to say of this result."""
    makers: Sequence[Callable[[ProbeResult], Table | None]] = (
        score_table, difference_table, budget_table, class_table, subject_table,
    )  # fmt: skip
    return tuple(table for make in makers if (table := make(result)) is not None)


def score_table(result: ProbeResult) -> Table:
    """Arms with all labels, a row each: all summary figures in per cent (kappa as it is); then published ones."""
    seeds = max(len(arm.seeds) for arm in result.full)
    most = max((arm.subjects for arm in result.full), key=len)
    with_errors = any(arm.share_errors for arm in result.full)
    header = ["arm", "macro-F1 ± subjects", "95% interval", *(["± seeds"] if seeds > 1 else [])]
    header += ["pooled macro-F1", "balanced accuracy", "accuracy", "kappa", *(["share error"] if with_errors else [])]
    rows = []
    for arm in result.full:
        of = arm.summary
        fewer = "" if arm.subjects == most else f" ({len(arm.subjects)} subjects)"
        cells = [
            arm.full_title + fewer,
            f"{percent(of.macro_f1.mean)} ± {percent(of.subjects_std)}",
            interval(of.macro_f1),
        ]
        cells += [percent(of.macro_f1.seeds_std)] if seeds > 1 else []
        cells += [percent(figure.mean) for figure in (of.pooled_macro_f1, of.balanced_accuracy, of.accuracy)]
        cells += [number(of.kappa.mean, "{:.3f}"), *([_share_error(arm)] if with_errors else [])]
        rows.append(tuple(cells))
    for published in result.published:
        cells = (f"published: {published.what}", f"{published.percent:.1f}")
        rows.append(cells + (NONE,) * (len(header) - 2))
    notes = [
        f"macro-F1 in per cent: mean over the {len(most)} test subjects ± standard deviation over "
        "subjects; the interval is of the mean, by bootstrap over subjects",
        "a class that a subject has in neither truth nor prediction is left out of its mean; pooled figures are of all "
        "subjects' samples together",
    ]
    if seeds > 1:
        notes.append(
            f"figures are means over {_seed_counts(result)} seeds; ± seeds is the standard deviation over seeds alone"
        )
    if with_errors:
        notes.append("share error: mean absolute error of the class shares per minute, in per cent of the minute")
    notes += [f"published: {published.what}: {published.source}" for published in result.published if published.source]
    return Table("Scores", tuple(header), tuple(rows), tuple(notes), result.warnings)


def difference_table(result: ProbeResult) -> Table | None:
    """The headline arm less each other one at the same budget, subject by subject; None with nothing beside it."""
    name, columns = result.headline.name, budgets(result)
    here = {(arm.name, arm.budget): arm for arm in result.arms}
    rows = []
    for other in dict.fromkeys(arm.name for arm in result.arms if arm.name != name):
        cells = [NONE] * len(columns)
        for i, budget in enumerate(columns):
            if (name, budget) in here and (other, budget) in here:
                points, ends, better = difference_cells(here[name, budget], here[other, budget])
                between = "" if ends == NONE else f" [{ends.replace(' to', ',')}]"
                cells[i] = f"{points}{between} {better.replace(' of ', '/')}"
        rows.append((next(arm.title for arm in result.arms if arm.name == other), *cells))
    if not rows:
        return None
    return Table(
        f"{result.headline.title}: how much better, subject by subject",
        ("better than", *map(_budget_name, columns)),
        tuple(rows),
        ("macro-F1 points: mean over subjects [95% interval by bootstrap over them], subjects in favor of all",),
        result.warnings,
    )


def difference_cells(one: Arm, other: Arm) -> tuple[str, str, str]:
    """Points, their interval, and the subjects in which the one is better."""
    difference = compare(one.summary.subjects, other.summary.subjects)
    ends = (difference.low, difference.high)
    between = NONE if any(map(math.isnan, ends)) else "{:+.1f} to {:+.1f}".format(*(100 * end for end in ends))
    better = f"{difference.better} of {difference.subjects}"
    return number(100 * difference.mean, "{:+.1f}"), between, better


def budget_table(result: ProbeResult) -> Table | None:
    """Macro-F1 of every arm at every label budget; None where no arm has one."""
    columns = budgets(result)
    if columns == (None,):
        return None
    rows = []
    for name in dict.fromkeys(arm.name for arm in result.arms):
        here = {arm.budget: arm for arm in result.arms if arm.name == name}
        cells = [_with_seeds(here[budget].summary.macro_f1) if budget in here else NONE for budget in columns]
        rows.append((next(iter(here.values())).title, *cells))
    header = ("arm", *map(_budget_name, columns))
    notes = (
        "macro-F1 in per cent, mean over subjects; ± is the standard deviation over seeds, where there are several",
    )
    return Table("Few labels", header, tuple(rows), notes, result.warnings)


def class_table(result: ProbeResult) -> Table:
    """F1 of each class under each arm that trains on all labels."""
    rows = []
    for y, name in enumerate(result.classes):
        samples = result.headline.summary.samples[y]
        rows.append((name, f"{samples:,}", *(_with_interval(arm.summary.f1[y]) for arm in result.full)))
    notes = ("F1 in per cent over all subjects' samples together, with 95% intervals by bootstrap over subjects",)
    header = ("class", "samples", *(arm.full_title for arm in result.full))
    return Table("Classes", header, tuple(rows), notes, result.warnings)


def subject_table(result: ProbeResult) -> Table:
    """Macro-F1 of each subject under each arm that trains on all labels."""
    names = sorted({name for arm in result.full for name in arm.subjects})
    rows = [(name, *(percent(arm.summary.subjects.get(name, math.nan)) for arm in result.full)) for name in names]
    notes = ("macro-F1 in per cent" + (", mean over seeds" if result.headline.summary.seeds > 1 else ""),)
    header = ("subject", *(arm.full_title for arm in result.full))
    return Table("Subjects", header, tuple(rows), notes, result.warnings)


def budgets(result: ProbeResult) -> tuple[Budget | None, ...]:
    """Label budgets of any arm, ascending within their kind, all labels last."""
    found = {arm.budget for arm in result.arms}
    limited = sorted((b for b in found if b is not None), key=lambda b: (b.kind, b.amount))
    return (*limited, *((None,) if None in found else ()))


def as_text(table: Table, *, header_width: int = 16) -> str:
    """For the terminal: columns aligned, long headers broken into lines."""
    heads = [textwrap.wrap(name, header_width) or [""] for name in table.header]
    height = max(map(len, heads))
    lines = [[""] * len(heads) for _ in range(height)]
    for column, parts in enumerate(heads):
        for i, part in enumerate(parts):
            lines[height - len(parts) + i][column] = part
    rows = [[" ".join(cell.split()) for cell in row] for row in table.rows]
    widths = [max(map(_width, column)) for column in zip(*lines, *rows, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    text = [table.title, *(_line(row, widths) for row in lines), rule, *(_line(row, widths) for row in rows)]
    for mark, remarks in (("", table.notes), ("WARNING: ", table.warnings)):
        for remark in remarks:
            text += textwrap.wrap(f"{mark}{remark}", 118, subsequent_indent="  ")
    return "\n".join(text) + "\n"


def as_markdown(table: Table) -> str:
    """For a README: a pipe table with its notes beneath."""

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    lines = [f"**{table.title}**", "", row(table.header), "| --- |" + " ---: |" * (len(table.header) - 1)]
    lines += [row(cells) for cells in table.rows]
    remarks = [*(f"**Warning:** {warning}" for warning in table.warnings), *table.notes]
    return "\n".join([*lines, *(f"\n{remark}" for remark in remarks)]) + "\n"


def percent(share: float) -> str:
    """Of a share from 0 to 1, with one decimal; a dash for NaN."""
    return number(100 * share, "{:.1f}")


def number(value: float, pattern: str) -> str:
    """Formatted, or a dash for NaN."""
    return NONE if math.isnan(value) else pattern.format(value)


def interval(estimate: Estimate) -> str:
    """`[79.2, 83.4]` in per cent, or a dash where there is none."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return NONE
    return f"[{percent(estimate.low)}, {percent(estimate.high)}]"


def _with_seeds(estimate: Estimate) -> str:
    spread = "" if math.isnan(estimate.seeds_std) else f" ± {percent(estimate.seeds_std)}"
    return percent(estimate.mean) + spread


def _with_interval(estimate: Estimate) -> str:
    ends = interval(estimate)
    return percent(estimate.mean) + ("" if ends == NONE else f" {ends}")


def _budget_name(budget: Budget | None) -> str:
    return "all labels" if budget is None else str(budget)


def _seed_counts(result: ProbeResult) -> str:
    """`3`, or `1 to 3` where arms differ."""
    counts = sorted({len(arm.seeds) for arm in result.full})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _share_error(arm: Arm) -> str:
    values = [value for errors in arm.share_errors for value in errors.values()]
    return percent(sum(values) / len(values)) if values else NONE


def _width(text: str) -> int:
    """Columns in a terminal: East Asian letters take two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = cells
    left = first + " " * (widths[0] - _width(first))
    right = (" " * (width - _width(cell)) + cell for cell, width in zip(others, widths[1:], strict=True))
    return "  ".join((left, *right)).rstrip()
