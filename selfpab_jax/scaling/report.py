"""Fitting scaling laws, and the report of it: a page with figures, the fits as JSON and the points as CSV."""

import base64
import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from selfpab_jax.errors import ConfigError
from selfpab_jax.io import require_parent, write_text
from selfpab_jax.scaling.figures import draw_iso_flop, draw_joint, draw_law
from selfpab_jax.scaling.laws.analysis import FAR, Finding, ScalingAnalysis, analyze, caveats, limits
from selfpab_jax.scaling.laws.intervals import CONFIDENCE, LawEstimate, Refusal
from selfpab_jax.scaling.laws.points import NAMES, Point, short, write_points_csv
from selfpab_jax.scaling.sweep.collect import load_points

STYLE = """body{font:15px/1.45 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0}td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left}
th{background:#f3f3f3}img{max-width:100%}.refused{background:#fff3e0;padding:.5em .8em}h2{margin-top:2.2em}"""
NO_SERIES = (
    "No series: a law needs points at 3 or more amounts of hours, subjects, parameters or compute with the others held "
    "fixed (4 or more for a fit)."
)
NO_ISO_FLOP = (
    "No isoFLOP curves: they need at least 3 model sizes trained with the same FLOPs (within 20%), and this sweep has "
    "none. Train smaller models for more steps, so that sizes have equal compute."
)
METHOD = (
    "L = E + A x^-a is fitted with Huber's loss on log residuals, over all exponents from 0.01 to 3. Intervals are 95% "
    "confidence intervals: all values under which the points fit hardly worse, where a bootstrap over amounts and "
    "seeds sets how much worse. Laws without a floor and a constant are compared by held-out error; the interval is "
    "always that of the law with a floor, which includes the others. Where several runs share amount and seed, the one "
    "with the lowest loss is used."
)


def write_report(analysis: ScalingAnalysis, out: Path) -> None:
    """Write report.html (which includes its figures), fits.json, points.csv and the figures.

    Args:
        analysis: of a sweep.
        out: folder; it is created if it is missing, and an earlier report in it is replaced.

    Raises:
        StorageError: the folder cannot be written.
    """
    figures = out / "figures"
    require_parent(figures)
    figures.mkdir(parents=True, exist_ok=True)
    for figure in figures.glob("*.png"):
        figure.unlink()
    paths = []
    for finding in analysis.findings:
        path = figures / f"{_slug(finding.title)}.png"
        (draw_law if len(finding.series.amounts) == 1 else draw_joint)(finding, path)
        paths.append(path)
    iso_flop = figures / "isoflop.png" if analysis.iso_flop else None
    if iso_flop:
        draw_iso_flop(analysis.iso_flop, iso_flop)
    write_points_csv(analysis.points, out / "points.csv")
    write_text(out / "fits.json", json.dumps(as_json(analysis), indent=2, allow_nan=False) + "\n")
    write_text(out / "report.html", _page(analysis, paths, iso_flop))


def summary(analysis: ScalingAnalysis) -> str:
    """The analysis as lines for a terminal."""
    lines = [_counts(analysis), *analysis.remarks]
    for finding in analysis.findings:
        result = finding.result
        if isinstance(result, Refusal):
            lines.append(f"{finding.title}\n  no law: {result.reason}")
            continue
        names = [NAMES[name] for name in finding.series.amounts]
        lines.append(f"{finding.title}\n  {result.fit.curve.formula(names)}; {_exponents(finding, result)}")
        lines.append(f"  {_check(finding)}")
        lines += [f"  {sentence}" for sentence in caveats(finding)]
    return "\n".join(lines if analysis.findings else [*lines, NO_SERIES])


def as_json(analysis: ScalingAnalysis) -> dict[str, Any]:
    """All numbers of the report; those that are not finite are null."""
    return _finite(
        {
            "confidence": CONFIDENCE,
            "excluded": analysis.excluded,
            "remarks": analysis.remarks,
            "fits": [_fit(f) for f in analysis.findings],
        }
    )


def _fit(finding: Finding) -> dict[str, Any]:
    result = finding.result
    base = {
        "measure": finding.measure,
        "amounts": finding.series.amounts,
        "held": finding.series.held,
        "runs": [point.run for point in finding.series.points],
        "limits": limits(finding),
    }
    if isinstance(result, Refusal):
        return {**base, "refused": result.reason}
    curve, check, ahead = result.fit.curve, finding.check, finding.ahead
    return {
        **base,
        "law": curve.law.name,
        "floor": {"value": curve.floor, "interval": result.floor, "identified": result.floor_is_known},
        "coefficients": curve.coefficients[int(curve.law.floor) :],
        "exponents": [
            {"value": value, "interval": interval}
            for value, interval in zip(curve.exponents, result.exponents, strict=True)
        ],
        "noise": result.fit.noise,
        "lack_of_fit_p": result.lack_of_fit_p,
        "residuals": result.fit.residuals.tolist(),
        "comparison": [
            {"law": each.law.name, "largest_held_out": each.largest, "cross_validated": each.rms}
            for each in finding.comparison
        ],
        "largest_from_smaller": {"refused": check.reason}
        if isinstance(check, Refusal)
        else check
        and {
            "amounts": check.amounts,
            "runs": check.runs,
            "predicted": check.prediction.loss,
            "interval": (check.prediction.low, check.prediction.high),
            "measured": check.measured,
            "error": check.error,
            "covered": check.is_covered,
        },
        "ahead": ahead
        and {
            "amounts": (FAR * finding.series.values().max(0)).tolist(),
            "loss": ahead.loss,
            "interval": (ahead.low, ahead.high),
        },
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def _page(analysis: ScalingAnalysis, figures: list[Path], iso_flop: Path | None) -> str:
    parts = [f"<h1>Scaling report</h1><p>{escape(_counts(analysis))}</p>", _remarks(analysis), _overview(analysis)]
    if not analysis.findings:
        parts.append(f"<p class=refused>{NO_SERIES}</p>")
    for finding, figure in zip(analysis.findings, figures, strict=True):
        parts.append(f"<h2>{escape(finding.title)}</h2>{_section(finding)}{_image(figure)}")
    parts.append("<h2>IsoFLOP</h2>" + (_image(iso_flop) if iso_flop else f"<p class=refused>{NO_ISO_FLOP}</p>"))
    if analysis.excluded:
        parts.append(f"<h2>Runs that were not fitted</h2>{_table(('run', 'why: it'), list(analysis.excluded.items()))}")
    parts.append(f"<h2>Method</h2><p>{escape(METHOD)}</p>")
    head = f'<meta charset="utf-8"><title>Scaling report</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}{"".join(parts)}</html>\n'


def _remarks(analysis: ScalingAnalysis) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in analysis.remarks)}</ul>" if analysis.remarks else ""


def _counts(analysis: ScalingAnalysis) -> str:
    runs, excluded, few = len(analysis.points), len(analysis.excluded), len(analysis.few_subjects)
    text = f"{runs} runs, {runs - excluded} of them fitted"
    text += f", {excluded} not." if excluded else "."
    if few:
        text += f" {few} have fewer subjects than others with as many hours: they are in series of subjects only."
    return text


def _overview(analysis: ScalingAnalysis) -> str:
    rows = []
    for finding in analysis.findings:
        result = finding.result
        if isinstance(result, Refusal):
            rows.append((finding.title, f"no law: {result.reason}", "", "", ""))
            continue
        symbols = [NAMES[name] for name in finding.series.amounts]
        low, high = result.floor
        rows.append(
            (
                finding.title,
                result.fit.curve.formula(symbols),
                _exponents(finding, result),
                f"{low:.3g} to {high:.3g}",
                _check(finding, brief=True),
            )
        )
    heads = ("series", "law", "exponent, 95%", "floor E, 95%", "largest amount predicted from the smaller; measured")
    return _table(heads, rows) if rows else ""


def _section(finding: Finding) -> str:
    result = finding.result
    lines = "".join(f"<li>{escape(line)}</li>" for line in limits(finding))
    if isinstance(result, Refusal):
        return f"<p class=refused>No law: {escape(result.reason)}.</p><ul>{lines}</ul>"
    rows = [(c.law.name, f"{np.expm1(c.largest):+.2%}", f"{np.expm1(c.rms):.2%}") for c in finding.comparison]
    heads = (
        "law, the best predictor first",
        "error at the held-out largest amount",
        "error at each held-out amount, RMS",
    )
    sentences = [
        f"{_exponents(finding, result)}; runs scatter by {result.fit.noise:.2%} about the law",
        _check(finding),
        _ahead(finding),
    ]
    paragraph = " ".join(f"{escape(text[0].upper() + text[1:])}." for text in sentences if text)
    return f"<p>{paragraph}</p>{_table(heads, rows)}<ul>{lines}</ul>"


def _exponents(finding: Finding, result: LawEstimate) -> str:
    parts = []
    for name, value, (low, high) in zip(
        finding.series.amounts, result.fit.curve.exponents, result.exponents, strict=True
    ):
        bounds = f"{low:.3g} to {high:.3g}" if math.isfinite(high) else f"{low:.3g} or more"
        parts.append(f"exponent of {NAMES[name]} {value:.3g} ({bounds})")
    return ", ".join(parts)


def _check(finding: Finding, brief: bool = False) -> str:
    check = finding.check
    if check is None or isinstance(check, Refusal):
        return "" if brief or not check else f"the largest amount cannot be predicted ({check.reason})"
    predicted = f"{check.prediction.loss:.4g} ({check.prediction.low:.4g} to {check.prediction.high:.4g})"
    if brief:
        return f"{predicted}; {check.measured:.4g}"
    return (
        f"the loss at the largest amount was predicted from the smaller ones as {predicted} and is "
        f"{check.measured:.4g}: {check.error:+.1%}, {'within' if check.is_covered else 'OUTSIDE'} the interval"
    )


def _ahead(finding: Finding) -> str:
    ahead = finding.ahead
    if not ahead:
        return ""
    largest, names = finding.series.values().max(0), [NAMES[name] for name in finding.series.amounts]
    amounts = ", ".join(f"{short(FAR * value)} {name}" for value, name in zip(largest, names, strict=True))
    loss = f"{ahead.loss:.4g} ({ahead.low:.4g} to {ahead.high:.4g})"
    return f"at {amounts} ({FAR} times the largest) the law predicts {loss}"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{escape(path.stem)}" src="data:image/png;base64,{data}"></p>'


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "_", title.lower()).strip("_")


def fit_scaling_laws(
    points: Sequence[Point] | str | Path, *, out: str | Path | None = None, seed: int = 0
) -> ScalingAnalysis:
    """Fit scaling laws to the runs of a sweep.

    Args:
        points: one per run, or a sweep folder or CSV file to read them from.
        out: folder for report.html, fits.json, points.csv and figures; nothing is written where not given.
        seed: of the bootstrap that sets the confidence intervals.

    Returns:
        Every law with its intervals in `findings`; `selfpab_jax.scaling.report.summary` prints them.

    Raises:
        ConfigError: the seed is negative.
        DataError: the points cannot be read.
        RunError: the folder is not a sweep, or its plan is damaged.
        StorageError: the report cannot be written.
    """
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be at least 0")
    given = load_points(Path(points)) if isinstance(points, str | Path) else list(points)
    analysis = analyze(given, seed)
    if out is not None:
        write_report(analysis, Path(out))
    return analysis
