"""All pictures of a result, as PNG files with what they show."""

import base64
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from jaxtyping import Float64

from selfpab_jax.probe.report.embedding_map import EmbeddingMap, draw_embedding
from selfpab_jax.probe.report.figures import (
    ArmScores,
    BudgetCurve,
    Range,
    draw_arms,
    draw_budgets,
    draw_classes,
    draw_confusion,
)
from selfpab_jax.probe.report.results import Arm, ProbeResult
from selfpab_jax.probe.report.summary import Estimate
from selfpab_jax.probe.report.tables import (
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
from selfpab_jax.probe.report.timeline import Timeline, draw_timeline

# All pictures of a result, as PNG files with what they show.

AXES = {
    "windows": "windows per activity",
    "share": "per cent of the windows of each activity",
    "subjects": "training subjects",
}


@dataclass(frozen=True)
class Picture:
    """A drawn file.

    Attributes:
        group: `arms`, `budgets`, `classes`, `confusion`, `timeline` or `embedding`.
        path: of the PNG.
        title: short; of a timeline the subject.
        caption: what is shown and how to read it.
    """

    group: str
    path: Path
    title: str
    caption: str


def draw_all(
    result: ProbeResult, folder: Path, *, timelines: Sequence[Timeline] = (), embedding: EmbeddingMap | None = None
) -> list[Picture]:
    """Draw everything that this result has to show into a folder, which is made where it is missing.

    Args:
        result: the scores.
        folder: of the PNG files.
        timelines: of the headline arm's first seed.
        embedding: of the encoder's features.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arms, pictures = [_arm_scores(arm, _hue(result, arm)) for arm in result.full], []

    def add(group: str, name: str, title: str, caption: str) -> Path:
        pictures.append(Picture(group, folder / f"{name}.png", title, caption))
        return pictures[-1].path

    how = "Mean macro-F1 of each arm with its 95% interval; every pale dot is a test subject."
    draw_arms(arms, [(p.what, p.percent) for p in result.published], add("arms", "arms", "Arms", how))
    for kind in sorted({arm.budget.kind for arm in result.arms if arm.budget is not None}):
        how = f"Macro-F1 against {AXES[kind]} to train on; bars: standard deviation over seeds (none with one seed)."
        draw_budgets(_curves(result, kind), add("budgets", f"budgets_{kind}", "Few labels", how), unit=AXES[kind])
    how = "F1 of each class over all subjects' samples together, with 95% intervals by bootstrap over subjects."
    draw_classes(arms, result.classes, add("classes", "classes", "Classes", how))
    for arm, scores in zip(result.full, arms, strict=True):
        several = len(arm.seeds) > 1
        how = f"All test subjects{f', mean of {len(arm.seeds)} seeds' if several else ''}; rows are the truth."
        path = add("confusion", f"confusion_{_file_name(arm)}", scores.title, how)
        draw_confusion(_mean_confusion(arm), result.classes, path, title=scores.title)
    for i, timeline in enumerate(timelines):
        how = "Each class has two lanes: truth above, prediction below, errors in orange; the strip sums them up."
        path = add("timeline", f"timeline_{i:03d}_{_safe(timeline.subject)}", timeline.subject, how)
        draw_timeline(timeline, result.classes, path)
    if embedding is not None:
        how = "Frames with similar features lie close. Classes should part (left); subjects should mix (right)."
        draw_embedding(embedding, result.classes, add("embedding", "embedding", "Features", how))
    return pictures


def _arm_scores(arm: Arm, hue: int) -> ArmScores:
    of = arm.summary
    known = {name: value for name, value in of.subjects.items() if np.isfinite(value)}
    return ArmScores(arm.full_title, hue, _range(of.macro_f1), known, tuple(map(_range, of.f1)))


def _hue(result: ProbeResult, arm: Arm) -> int:
    return list(dict.fromkeys(other.name for other in result.arms)).index(arm.name)


def _range(estimate: Estimate) -> Range:
    return Range(estimate.mean, estimate.low, estimate.high)


def _curves(result: ProbeResult, kind: str) -> list[BudgetCurve]:
    curves, scale = [], 100 if kind == "share" else 1
    for name in dict.fromkeys(arm.name for arm in result.arms):
        same = [arm for arm in result.arms if arm.name == name]
        points = [(arm.budget.amount, arm) for arm in same if arm.budget is not None and arm.budget.kind == kind]
        points.sort(key=lambda point: point[0])
        if points:
            full = [arm.summary.macro_f1 for arm in same if arm.budget is None]
            figures = [arm.summary.macro_f1 for _, arm in points]
            curves.append(
                BudgetCurve(
                    title=same[0].title,
                    hue=_hue(result, same[0]),
                    amounts=tuple(scale * amount for amount, _ in points),
                    scores=tuple(figure.mean for figure in figures),
                    spreads=tuple(figure.seeds_std for figure in figures),
                    full=(full[0].mean, full[0].seeds_std) if full else None,
                )
            )
    return curves


def _mean_confusion(arm: Arm) -> Float64[np.ndarray, "Y Y"]:
    return np.mean([np.sum([c[subject] for subject in arm.subjects], axis=0) for c in arm.confusions], axis=0)


def _file_name(arm: Arm) -> str:
    return _safe(arm.name if arm.budget is None else f"{arm.name}_{arm.budget.kind}_{arm.budget.amount:g}")


def _safe(name: str) -> str:
    """For a file name: letters and digits of any script, no separators."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)[:60]


# One HTML file with the answer, tables and pictures of a probe; it needs nothing beside itself.

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
    template = Template(files("selfpab_jax.probe.report").joinpath("page.html").read_text(encoding="utf-8"))
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
    header = ("compared with", "macro-F1", "difference in points", "95% interval", "subjects in favor")
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
