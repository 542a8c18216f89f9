"""One HTML file with the answer, tables and pictures of a probe; it needs nothing beside itself."""

import base64
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from selfpab_jax.probe.embedding_map import EmbeddingMap
from selfpab_jax.probe.gallery import Picture, draw_all
from selfpab_jax.probe.results import ProbeResult
from selfpab_jax.probe.score_tables import (
    NONE,
    Table,
    budget_table,
    class_table,
    difference_cells,
    difference_table,
    number,
    percent,
    score_table,
    subject_table,
)
from selfpab_jax.probe.timeline import Timeline

REPORT_FILE = "report.html"
MOST_TIMELINES = 40  # in the report; about 60 kB each
SECTIONS = ("Scores", "Few labels", "Classes", "Subjects", "Features", "How it was done")
WIDE = ("timeline", "embedding")  # on a phone these scroll further than the others


def write_report(
    result: ProbeResult, folder: Path, *, timelines: Sequence[Timeline] = (), embedding: EmbeddingMap | None = None
) -> Path:
    """Draw all pictures into `folder/pictures` and write `folder/report.html`, in which they are embedded.

    Args:
        result: the scores.
        folder: made where it is missing.
        timelines: of the headline arm's first seed, a subject each.
        embedding: of the encoder's features.

    Returns:
        The path of the report.
    """
    pictures = draw_all(result, folder / "pictures", timelines=timelines, embedding=embedding)
    template = Template(files("selfpab_jax.probe").joinpath(REPORT_FILE).read_text(encoding="utf-8"))
    page = template.substitute(title=escape(f"Probe: {result.title}"), body=_body(result, pictures))
    path = folder / REPORT_FILE
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)
    return path


def _body(result: ProbeResult, pictures: Sequence[Picture]) -> str:
    def of(group: str) -> list[Picture]:
        return [picture for picture in pictures if picture.group == group]

    few, confusions = budget_table(result), of("confusion")
    first = [p for p in confusions if p.title == result.headline.full_title]
    others = [p for p in confusions if p.title != result.headline.full_title]
    sections = (
        [*_tables(score_table(result)), *map(_figure, of("arms"))],
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
    """The headline score, what must be known of it, and what it is compared with."""
    arm = result.headline
    of = arm.summary
    seeds = f", {of.seeds} seeds" if of.seeds > 1 else ""
    ends = f" 95% interval of the mean: {percent(of.macro_f1.low)} to {percent(of.macro_f1.high)}."
    between = "" if math.isnan(of.macro_f1.low) else ends
    rows = [
        (other.title, percent(other.summary.macro_f1.mean), *difference_cells(arm, other))
        for other in result.full
        if other is not arm
    ]
    for published in result.published:
        points = number(100 * of.macro_f1.mean - published.percent, "{:+.1f}")
        rows.append((f"published: {published.what}", f"{published.percent:.1f}", points, NONE, NONE))
    header = ("compared with", "macro-F1", "difference in points", "95% interval", "subjects in favour")
    compared = _table(Table("", header, tuple(rows))) if rows else "<p>Nothing to compare with was measured.</p>"
    return (
        f"<h1>{escape(result.title)}</h1>"
        f'<p class="soft">{escape(result.dataset)} {escape(result.version)}, {len(arm.subjects)} test subjects, '
        f"{len(result.classes)} classes, {len(result.channels)} channels</p>"
        f'<p class="answer">{percent(of.macro_f1.mean)}% <small>macro-F1 ± {percent(of.subjects_std)} over subjects'
        f"</small></p><p>{escape(arm.full_title)}: mean over {len(arm.subjects)} test subjects{seeds}.{between}</p>"
        f"{_warnings(result.warnings)}{compared}"
    )


def _timelines(result: ProbeResult, pictures: Sequence[Picture]) -> Iterable[str]:
    """The worst, the median and the best subject open; the others folded away, worst first."""
    if not pictures:
        return
    scores = result.headline.summary.subjects
    ranked = sorted(pictures, key=lambda picture: scores.get(picture.title, 0.0))
    ranked, left = ranked[:MOST_TIMELINES], len(ranked[MOST_TIMELINES:])
    places = {0: "worst", len(ranked) // 2: "middle", len(ranked) - 1: "best"} if len(ranked) > 3 else {}
    seed = result.headline.seeds[0]
    yield f"<h3>Timelines: {escape(result.headline.full_title)}, seed {seed}</h3>"
    yield f'<p class="soft">{escape(pictures[0].caption)}</p>'
    rest = []
    for i, picture in enumerate(ranked):
        score = percent(scores.get(picture.title, float("nan")))
        title = f"{picture.title}: macro-F1 {score}"
        if i in places or not places:
            place = f" ({places[i]})" if places else ""
            yield f"<h3>{escape(title)}{place}</h3>{_image(picture)}"
        else:
            rest.append(f"<h3>{escape(title)}</h3>{_image(picture)}")
    if rest:
        yield _details("The other subject" if len(rest) == 1 else f"The other {len(rest)} subjects", "".join(rest))
    if left:
        yield f'<p class="soft">{left} more lie in the folder pictures.</p>'


def _method(result: ProbeResult) -> list[str]:
    facts: dict[str, Any] = {"data set": f"{result.title}, {result.dataset} {result.version}"}
    facts |= {"channels": ", ".join(result.channels), **result.protocol}
    if (encoder := result.encoder) is not None:
        hours = "unknown" if encoder.pretraining_hours is None else f"{encoder.pretraining_hours:,g}"
        facts["encoder"] = f"{encoder.family}, width {encoder.width}, {encoder.layers} layers; {encoder.directory}"
        facts["pre-training"] = (
            f"hours of recording: {hours}; subjects {'' if encoder.subjects_known else 'not '}listed"
        )
    facts["computed"] = f"{result.seconds:,.0f} s on {result.device}"
    rows = "".join(f"<tr><th scope=row>{escape(k)}</th><td>{escape(_text(v))}</td></tr>" for k, v in facts.items())
    parts = [f'<div class="scroll"><table class="plain">{rows}</table></div>']
    chosen = _chosen(result)
    if chosen.rows:
        parts.append(_details("Hyper-parameters that selection chose", _table(chosen)))
    for name, lines in (("Notes", result.notes), ("Set aside", result.set_aside)):
        if lines:
            items = "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
            heading = f"{name} ({len(lines)})"
            parts.append(f"<h3>{heading}</h3>{items}" if len(lines) <= 8 else _details(heading, items))
    files_beside = "probe.json, scores.csv, subjects.csv and classes.csv"
    parts.append(f'<p class="soft">The figures behind this page are in {files_beside} beside it.</p>')
    return parts


def _chosen(result: ProbeResult) -> Table:
    """How often each value was chosen, over folds and seeds."""
    rows = []
    for arm in result.arms:
        counts: dict[str, Counter[str]] = {}
        for fold in (fold for of_seed in arm.chosen for fold in of_seed.values()):
            for name, value in (fold if isinstance(fold, Mapping) else {"choice": fold}).items():
                counts.setdefault(str(name), Counter())[_text(value)] += 1
        for name, counter in counts.items():
            values = "; ".join(f"{value} ({times} times)" for value, times in counter.most_common(8))
            rows.append((arm.full_title, name, values + ("; …" if len(counter) > 8 else "")))
    return Table("", ("arm", "what", "values, over folds and seeds"), tuple(rows))


def _tables(*tables: Table | None) -> list[str]:
    return [_table(table) for table in tables if table is not None]


def _table(table: Table) -> str:
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


def _figure(picture: Picture) -> str:
    return _image(picture, f"<figcaption>{escape(picture.caption)}</figcaption>")


def _image(picture: Picture, caption: str = "") -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    shape = "wide" if picture.group in WIDE else "square"
    alt = escape(f"{picture.title}: {picture.caption}", quote=True)
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
