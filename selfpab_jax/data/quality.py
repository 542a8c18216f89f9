"""The quality report of a build or an embedding: what of each file was used, cut and doubted, as a page."""

import html
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from selfpab_jax.data.sources.base import EPOCH
from selfpab_jax.errors import ConfigError
from selfpab_jax.io import write_text
from selfpab_jax.progress import duration

QUALITY_FILE = "quality.jsonl"
PAGE_FILE = "report.html"
PICTURES_FOLDER = "pictures"
DAY = 86_400.0
MOST_PICTURES = 200
"""Subjects with a picture; the table has all."""
MOST_DAYS = 21
COLORS = {
    "used": "#009E73",
    "gap": "#DDDDDD",
    "cut": "#D55E00",
    "non-wear": "#E69F00",
}
OTHER_COLOR = "#0072B2"
STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right;vertical-align:top}"
    "td:first-child,td:nth-child(2),td:last-child{text-align:left}img{max-width:100%}"
)


def write_quality(reports: Sequence[dict[str, Any]], folder: Path, title: str) -> Path:
    """Write `quality.jsonl`, `report.html` and a picture of each subject.

    Args:
        reports: of every file, from `FileReport.as_json`, with `spans`.
        folder: to write into.
        title: of the page.

    Returns:
        The page.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / QUALITY_FILE, "".join(json.dumps(report) + "\n" for report in reports))
    by_subject: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for report in reports:
        by_subject[report["subject"] or Path(report["file"]).stem].append(report)
    pictures = []
    (folder / PICTURES_FOLDER).mkdir(exist_ok=True)
    for number, (subject, of_subject) in enumerate(sorted(by_subject.items())):
        spans = [span for report in of_subject for span in report["spans"]]
        if spans and number < MOST_PICTURES:
            name = f"{PICTURES_FOLDER}/{number:04d}.png"
            draw_days(spans, folder / name, subject)
            pictures.append((subject, name))
    write_text(folder / PAGE_FILE, _page(reports, pictures, title, len(by_subject)))
    return folder / PAGE_FILE


def require_quality_folder(folder: Path) -> None:
    """Check that a folder is new, or holds a quality report and nothing else.

    Raises:
        ConfigError: it is a file, or somebody else's files are in it.
    """
    if not folder.exists():
        return
    ours = {QUALITY_FILE, PAGE_FILE, PICTURES_FOLDER}
    foreign = [] if not folder.is_dir() else sorted({path.name for path in folder.iterdir()} - ours)
    if foreign or not folder.is_dir():
        what = f"it holds {foreign[0]}" if foreign else "it is a file"
        raise ConfigError(f"{folder}: the quality report would be written there, but {what}; choose another --out")


def quality_summary(folder: Path) -> list[str]:
    """What was cut and bridged in all files of a report, and where the page is; nothing where there is no report.

    Args:
        folder: that `write_quality` wrote into.
    """
    if not (folder / QUALITY_FILE).exists():
        return []
    cut: dict[str, float] = defaultdict(float)
    bridged = gaps = flagged = 0.0
    for line in (folder / QUALITY_FILE).read_text(encoding="utf-8").splitlines():
        report = json.loads(line)
        bridged, gaps = bridged + report["bridged_s"], gaps + report["gap_s"]
        flagged += sum(report["flagged_s"].values())
        for reason, seconds in report["cut_s"].items():
            cut[reason] += seconds
    parts = [f"{reason} {_amount(seconds)}" for reason, seconds in cut.items()]
    lines = [f"cut while reading: {', '.join(parts)}"] if parts else []
    if bridged or gaps:
        lines.append(f"{_amount(bridged)} of short gaps bridged; {_amount(gaps)} in longer gaps")
    if flagged:
        lines.append(f"{_amount(flagged)} of non-wear by a sensor kept (--non_wear cut leaves it out)")
    return [*lines, f"what became of each file: {folder / PAGE_FILE}"]


def _amount(seconds: float) -> str:
    return duration(seconds) if seconds >= 60 else f"{seconds:.3g} s"


def draw_days(spans: Sequence[Sequence[Any]], path: Path, title: str) -> None:
    """A row per day, colored by what became of each moment.

    Args:
        spans: (start, end, kind) in seconds since 1970, or since a start of their own.
        path: of the PNG.
        title: above the picture.
    """
    days: dict[int, list[tuple[float, float, str]]] = defaultdict(list)
    for start, end, kind in spans:
        day = int(start // DAY)
        while start < end:
            until = min(end, (day + 1) * DAY)
            days[day].append((start - day * DAY, until - start, kind))
            start, day = until, day + 1
    shown = sorted(days)[:MOST_DAYS]
    figure = Figure(figsize=(11, 1.2 + 0.35 * len(shown)), layout="constrained")
    axis = figure.subplots()
    kinds = list(dict.fromkeys(kind for day in shown for _, _, kind in days[day]))
    for row, day in enumerate(shown):
        for kind in kinds:
            parts = [(begin / 3600, length / 3600) for begin, length, each in days[day] if each == kind]
            axis.broken_barh(parts, (row - 0.4, 0.8), facecolors=COLORS.get(kind, OTHER_COLOR))
    first, last = min(begin for day in shown for begin, _, _ in days[day]), 24.0
    if len(shown) == 1:
        last = max(begin + length for begin, length, _ in days[shown[0]]) / 3600
        axis.set_xlim(first / 3600 - 0.02, last + 0.02)
    else:
        axis.set_xlim(0, 24)
    names = [_date(day) for day in shown]
    axis.set_yticks(range(len(shown)), names)
    axis.invert_yaxis()
    axis.set_xlabel("hour of the recorder's clock")
    more = f" (the first {MOST_DAYS} of {len(days)} days)" if len(days) > MOST_DAYS else ""
    axis.set_title(f"{title}{more}", fontsize=10)
    handles = [Patch(color=COLORS.get(kind, OTHER_COLOR), label=kind) for kind in kinds]
    figure.legend(handles=handles, frameon=False, fontsize=8, ncols=min(6, len(kinds)), loc="outside lower center")
    figure.savefig(path, dpi=90)


def _date(day: int) -> str:
    return f"day {day + 1}" if day < 3650 else (EPOCH + timedelta(days=day)).strftime("%a %Y-%m-%d")


def _page(reports: Sequence[dict[str, Any]], pictures: list[tuple[str, str]], title: str, subjects: int) -> str:
    total_in, total_used = (sum(report[name] for report in reports) for name in ("hours_in", "hours_used"))
    cut: dict[str, float] = defaultdict(float)
    for report in reports:
        for reason, seconds in report["cut_s"].items():
            cut[reason] += seconds
    cut_text = ", ".join(f"{reason} {seconds / 3600:.2f} h" for reason, seconds in cut.items()) or "nothing"
    rows = "".join(_row(report) for report in reports)
    shown = "".join(
        f'<h3>{html.escape(name)}</h3><img src="{path}" alt="days of {html.escape(name)}">' for name, path in pictures
    )
    omitted = f"<p>{subjects - len(pictures)} subjects have no picture.</p>" if subjects > len(pictures) else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1>"
        f"<p>{len(reports)} files of {subjects} subjects: {total_in:.2f} h of samples, {total_used:.2f} h of "
        f"continuous signal, gaps that were bridged included. Cut: {html.escape(cut_text)}.</p>"
        "<table><tr><th>file<th>subject<th>hours in<th>hours used<th>cut, s<th>non-wear, s<th>bridged, s<th>gaps, s"
        f"<th>rate, Hz<th>drift, ppm<th>remarks</tr>{rows}</table><h2>Days</h2>{omitted}{shown}</html>"
    )


def _row(report: dict[str, Any]) -> str:
    cut = "<br>".join(f"{html.escape(reason)} {seconds:,.1f}" for reason, seconds in report["cut_s"].items())
    measured = "" if report["measured_hz"] is None else f"{report['measured_hz']:.4f}"
    cells = [
        html.escape(Path(report["file"]).name),
        html.escape(report["subject"]),
        f"{report['hours_in']:.3f}",
        f"{report['hours_used']:.3f}",
        cut,
        "<br>".join(f"{html.escape(reason)} {seconds:,.0f}" for reason, seconds in report["flagged_s"].items()),
        f"{report['bridged_s']:.2f}",
        f"{report['gap_s']:.1f}",
        measured,
        "" if report["drift_ppm"] is None else f"{report['drift_ppm']:.0f}",
        "<br>".join(html.escape(note) for note in report["notes"]),
    ]
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>"
