"""The report of a probe as one HTML file: the headline score, tables and figures. It needs no other file."""

import base64
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from selfpab_jax.io import write_text
from selfpab_jax.probe.report.embedding_map import EmbeddingMap
from selfpab_jax.probe.report.figures import SavedFigure, draw_figures
from selfpab_jax.probe.report.results import RESULT_FILE, ProbeResult
from selfpab_jax.probe.report.tables import (
    NONE,
    ScoreTable,
    budget_table,
    class_table,
    difference_cells,
    difference_table,
    number,
    percent,
    score_table,
    subject_table,
)
from selfpab_jax.probe.report.timeline import Timeline

REPORT_FILE = "report.html"
MOST_TIMELINES = 40
"""More of them are only in the folder of figures; each takes about 60 kB."""
SECTIONS = ("Scores", "Few labels", "Classes", "Subjects", "Features", "How it was done")
WIDE = ("timeline", "embedding")
"""Groups of figures that need more width on a phone."""


def write_report(
    result: ProbeResult, folder: Path, *, timelines: Sequence[Timeline] = (), embedding: EmbeddingMap | None = None
) -> Path:
    """Draw all figures into `folder/figures` and write `folder/report.html`, in which they are embedded.

    Args:
        result: the scores.
        folder: created if it is missing.
        timelines: of the first seed of the headline method, one per subject.
        embedding: of the encoder's features.

    Returns:
        The path of the report.

    Raises:
        StorageError: the report cannot be written.
    """
    figures = draw_figures(result, folder / "figures", timelines=timelines, embedding=embedding)
    template = Template(files("selfpab_jax.probe.report").joinpath("page.html").read_text(encoding="utf-8"))
    page = template.substitute(title=escape(f"Probe: {result.title}"), body=_body(result, figures))
    write_text(folder / REPORT_FILE, page)
    return folder / REPORT_FILE


def _body(result: ProbeResult, figures: Sequence[SavedFigure]) -> str:
    def of(group: str) -> list[SavedFigure]:
        return [figure for figure in figures if figure.group == group]

    few, confusions = budget_table(result), of("confusion")
    first = [p for p in confusions if p.title == result.headline.full_title]
    others = [p for p in confusions if p.title != result.headline.full_title]
    sections = (
        [*_tables(score_table(result)), *map(_figure, of("methods"))],
        [*_tables(few, difference_table(result)), *map(_figure, of("budgets"))] if few else [],
        [
            *_tables(class_table(result)),
            *map(_figure, of("classes")),
            *(f"<h3>Confusion: {escape(p.title)}</h3>{_figure(p)}" for p in first),
            *(_details(f"Confusion: {p.title}", _figure(p)) for p in others),
        ],
        [*_tables(subject_table(result)), *_timelines(result, of("timeline"))],
        list(map(_figure, of("embedding"))),
        _method(result),
    )
    shown = {name: parts for name, parts in zip(SECTIONS, sections, strict=True) if parts}
    anchors = {name: name.lower().replace(" ", "-") for name in shown}
    nav = "".join(f'<a href="#{anchors[name]}">{name}</a>' for name in shown)
    body = [_answer(result), f"<nav>{nav}</nav>"]
    for name, parts in shown.items():
        body += [f'<section><h2 id="{anchors[name]}">{name}</h2>', *parts, "</section>"]
    return "\n".join(body)


def _answer(result: ProbeResult) -> str:
    """The headline score with its warnings, and what it is compared with."""
    method = result.headline
    of = method.summary
    seeds = f", {of.seeds} seeds" if of.seeds > 1 else ""
    ends = f" 95% interval of the mean: {percent(of.macro_f1.low)} to {percent(of.macro_f1.high)}."
    durations = (
        ""
        if method.duration_error is None
        else f"<p>Mean absolute error of the fraction of each segment that a class takes: "
        f"{percent(method.duration_error)}%.</p>"
    )
    between = "" if math.isnan(of.macro_f1.low) else ends
    rows = [
        (other.title, percent(other.summary.macro_f1.mean), *difference_cells(method, other))
        for other in result.fully_labeled
        if other is not method
    ]
    for published in result.published:
        points = number(100 * of.macro_f1.mean - published.percent, "{:+.1f}")
        rows.append((f"published: {published.what}", f"{published.percent:.1f}", points, NONE, NONE))
    header = ("compared with", "macro-F1", "difference in points", "95% interval", "subjects in favor")
    compared = _table(ScoreTable("", header, tuple(rows))) if rows else "<p>There is nothing to compare with.</p>"
    return (
        f"<h1>{escape(result.title)}</h1>"
        f'<p class="soft">{escape(result.dataset)} {escape(result.version)}, {len(method.subjects)} test subjects, '
        f"{len(result.classes)} classes, {len(result.channels)} channels</p>"
        f'<p class="answer">{percent(of.macro_f1.mean)}% '
        f"<small>macro-F1 ± {percent(of.subjects_std)} over subjects</small></p>"
        f"<p>{escape(method.full_title)}: mean over {len(method.subjects)} test subjects{seeds}.{between}</p>"
        f"{durations}{_warnings(result.warnings)}{compared}"
    )


def _timelines(result: ProbeResult, figures: Sequence[SavedFigure]) -> Iterable[str]:
    """The worst, the median and the best subject are open; the others are folded, worst first."""
    if not figures:
        return
    scores = result.headline.summary.subjects
    ranked = sorted(figures, key=lambda figure: scores.get(figure.title, 0.0))
    ranked, left = ranked[:MOST_TIMELINES], len(ranked[MOST_TIMELINES:])
    places = {0: "worst", len(ranked) // 2: "median", len(ranked) - 1: "best"} if len(ranked) > 3 else {}
    seed = result.headline.seeds[0]
    yield f"<h3>Timelines: {escape(result.headline.full_title)}, seed {seed}</h3>"
    yield f'<p class="soft">{escape(figures[0].caption)}</p>'
    rest = []
    for i, figure in enumerate(ranked):
        score = percent(scores.get(figure.title, float("nan")))
        title = f"{figure.title}: macro-F1 {score}"
        if i in places or not places:
            place = f" ({places[i]})" if places else ""
            yield f"<h3>{escape(title)}{place}</h3>{_image(figure)}"
        else:
            rest.append(f"<h3>{escape(title)}</h3>{_image(figure)}")
    if rest:
        yield _details("The other subject" if len(rest) == 1 else f"The other {len(rest)} subjects", "".join(rest))
    if left:
        yield f'<p class="soft">{left} more are in the folder `figures`.</p>'


def _method(result: ProbeResult) -> list[str]:
    rows: dict[str, Any] = {"data set": f"{result.title}, {result.dataset} {result.version}"}
    rows |= {"channels": ", ".join(result.channels), **result.protocol}
    if (encoder := result.encoder) is not None:
        hours = "unknown" if encoder.pretraining_hours is None else f"{encoder.pretraining_hours:,g}"
        rows["encoder"] = f"{encoder.family}, width {encoder.width}, {encoder.layers} layers; {encoder.directory}"
        rows["pre-training"] = f"hours of recording: {hours}; subjects {'' if encoder.subjects_known else 'not '}listed"
    rows["computed"] = f"{result.seconds:,.0f} s on {result.device}"
    cells = "".join(f"<tr><th scope=row>{escape(k)}</th><td>{escape(_text(v))}</td></tr>" for k, v in rows.items())
    parts = [f'<div class="scroll"><table class="plain">{cells}</table></div>']
    chosen = _chosen(result)
    if chosen.rows:
        parts.append(_details("Selected hyper-parameters", _table(chosen)))
    for name, lines in (("Notes", result.notes), ("Skipped", result.skipped)):
        if lines:
            items = "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
            heading = f"{name} ({len(lines)})"
            parts.append(f"<h3>{heading}</h3>{items}" if len(lines) <= 8 else _details(heading, items))
    names = f"{RESULT_FILE}, scores.csv, subjects.csv and classes.csv"
    parts.append(f'<p class="soft">All numbers of this page are in {names}.</p>')
    return parts


def _chosen(result: ProbeResult) -> ScoreTable:
    """How often each value was selected, over folds and seeds."""
    rows = []
    for method in result.methods:
        counts: dict[str, Counter[str]] = {}
        for fold in (fold for of_seed in method.chosen for fold in of_seed.values()):
            for name, value in (fold if isinstance(fold, Mapping) else {"choice": fold}).items():
                counts.setdefault(str(name), Counter())[_text(value)] += 1
        for name, counter in counts.items():
            values = "; ".join(f"{value} ({times} times)" for value, times in counter.most_common(8))
            rows.append((method.full_title, name, values + ("; …" if len(counter) > 8 else "")))
    return ScoreTable("", ("method", "setting", "values, over folds and seeds"), tuple(rows))


def _tables(*tables: ScoreTable | None) -> list[str]:
    return [_table(table) for table in tables if table is not None]


def _table(table: ScoreTable) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in table.header)
    rows = "".join(
        f"<tr><th scope=row>{escape(row[0])}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{escape(table.title)}</caption>" if table.title not in ("", *SECTIONS) else ""
    notes = "".join(f"<br>{escape(note)}" for note in table.notes).removeprefix("<br>")
    return (
        f'<div class="scroll" tabindex="0"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"</div>{_warnings(table.warnings)}" + (f'<p class="notes">{notes}</p>' if notes else "")
    )


def _warnings(lines: Iterable[str]) -> str:
    return "".join(f'<p class="warning"><strong>Warning:</strong> {escape(line)}</p>' for line in lines)


def _figure(figure: SavedFigure) -> str:
    return _image(figure, f"<figcaption>{escape(figure.caption)}</figcaption>")


def _image(figure: SavedFigure, caption: str = "") -> str:
    data = base64.b64encode(figure.path.read_bytes()).decode()
    shape = "wide" if figure.group in WIDE else "square"
    alt = escape(f"{figure.title}: {figure.caption}", quote=True)
    image = f'<img class="{shape}" alt="{alt}" src="data:image/png;base64,{data}">'
    return f'<figure><div class="scroll" tabindex="0">{image}</div>{caption}</figure>'


def _details(title: str, inside: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)
