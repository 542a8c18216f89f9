"""Pictures of a study: laws with their bands, residuals, isoFLOP curves."""

import base64
import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np

from selfpab_jax.scaling.laws.analysis import FAR, NAMES, Finding, Study, doubts, limits, short
from selfpab_jax.scaling.laws.intervals import CONFIDENCE, Estimate, Refusal
from selfpab_jax.scaling.laws.points import write_points_csv

# Pictures of a study: laws with their bands, residuals, isoFLOP curves.

matplotlib.use("agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from selfpab_jax.scaling.laws.analysis import Series
from selfpab_jax.scaling.laws.points import levels

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
    for i, color in zip(
        range(size.max() + 1), plt.colormaps["viridis"](np.linspace(0, 0.9, size.max() + 1)), strict=True
    ):
        at = amounts[size == i]
        parameters = float(np.exp(np.log(at[:, 0]).mean()))
        above.plot(at[:, 1], finding.values[size == i], "o", color=color, ms=4, label=f"{short(parameters)} parameters")
        if isinstance(finding.result, Estimate):
            along = np.geomspace(at[:, 1].min(), at[:, 1].max(), STEPS)
            above.plot(along, finding.result.fit.curve.loss([(parameters, x) for x in along]), color=color, lw=1.2)
            below.plot(at[:, 1], 100 * np.expm1(finding.result.fit.residuals[size == i]), "o", color=color, ms=4)
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
    for one, color in zip(series, plt.colormaps["viridis"](np.linspace(0, 0.9, len(series))), strict=True):
        sizes, losses = one.values()[:, 0], np.array([point.loss for point in one.points])
        distinct = np.unique(sizes)
        means = np.array([losses[sizes == size].mean() for size in distinct])
        axis.plot(sizes, losses, "o", color=color, ms=4, alpha=0.6)
        axis.plot(distinct, means, color=color, lw=1.2, label=one.held)
        axis.plot(distinct[means.argmin()], means.min(), "*", color=color, ms=13)
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


# The report of a study: a page with pictures, the fits as JSON, the points as CSV.

STYLE = """body{font:15px/1.45 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0}td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left}
th{background:#f3f3f3}img{max-width:100%}.refused{background:#fff3e0;padding:.5em .8em}h2{margin-top:2.2em}"""
NO_ISO = (
    "No isoFLOP curves: they need at least 3 model sizes trained with the same FLOPs (within 20%), and this sweep has "
    "no such group. Give smaller models more steps, so that sizes meet at equal compute."
)
METHOD = (
    "L = E + A x^-a is fitted by Huber's loss on log residuals, over all exponents from 0.01 to 3. Intervals are of "
    "95%: all values under which the points fit hardly worse; how much worse is told by samples drawn from the fit "
    "over amounts and seeds. Laws without a floor and a constant are compared by held-out error; the interval is "
    "always that of the law with a floor, which holds the others within it. Where several runs share amount and seed, "
    "the one of the lowest loss is taken."
)


def write_report(found: Study, out: Path) -> list[str]:
    """Write report.html (with its pictures inside), fits.json, points.csv and the pictures.

    Args:
        found: the study.
        out: folder; it is made if it is not there, and what an earlier report left in it is replaced.

    Returns:
        Names of the files.
    """
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    for picture in (out / "pictures").glob("*.png"):
        picture.unlink()
    pictures = []
    for finding in found.findings:
        picture = out / "pictures" / f"{_slug(finding.title)}.png"
        (draw_law if len(finding.series.amounts) == 1 else draw_joint)(finding, picture)
        pictures.append(picture)
    if found.iso:
        draw_iso_flop(found.iso, out / "pictures" / "isoflop.png")
    write_points_csv(found.points, out / "points.csv")
    (out / "fits.json").write_text(json.dumps(as_json(found), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (out / "report.html").write_text(_page(found, pictures, out / "pictures" / "isoflop.png"), encoding="utf-8")
    return ["report.html", "fits.json", "points.csv", f"{len(pictures) + bool(found.iso)} pictures"]


def summary(found: Study) -> str:
    """The study in lines for a terminal."""
    lines = [_counts(found)]
    for finding in found.findings:
        result = finding.result
        if isinstance(result, Refusal):
            lines.append(f"{finding.title}\n  no law: {result.reason}")
            continue
        names = [NAMES[name] for name in finding.series.amounts]
        lines.append(f"{finding.title}\n  {result.fit.curve.formula(names)}; {_exponents(finding, result)}")
        lines.append(f"  {_foretold(finding)}")
        lines += [f"  {said}" for said in doubts(finding)]
    return "\n".join(lines if found.findings else [*lines, NOTHING])


NOTHING = (
    "No series: a law needs points at 3 or more amounts of hours, people, parameters or compute with the rest held "
    "(4 or more for a fit)."
)


def as_json(found: Study) -> dict[str, Any]:
    """Everything in the report as numbers; what is not finite is null."""
    return _finite({"confidence": CONFIDENCE, "left_out": found.left_out, "fits": [_fit(f) for f in found.findings]})


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
    curve, foretold, ahead = result.fit.curve, finding.foretold, finding.ahead
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
        "misfit_chance": result.misfit,
        "residuals": result.fit.residuals.tolist(),
        "choices": [
            {"law": c.law.name, "largest_left_out": c.largest, "cross_validated": c.crossed} for c in finding.choices
        ],
        "largest_from_smaller": {"refused": foretold.reason}
        if isinstance(foretold, Refusal)
        else foretold
        and {
            "amounts": foretold.amounts,
            "runs": foretold.runs,
            "foretold": foretold.prediction.loss,
            "interval": (foretold.prediction.low, foretold.prediction.high),
            "measured": foretold.measured,
            "error": foretold.error,
            "held": foretold.held,
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


def _page(found: Study, pictures: list[Path], iso: Path) -> str:
    parts = [f"<h1>Scaling report</h1><p>{escape(_counts(found))}</p>", _overview(found)]
    if not found.findings:
        parts.append(f"<p class=refused>{NOTHING}</p>")
    for finding, picture in zip(found.findings, pictures, strict=True):
        parts.append(f"<h2>{escape(finding.title)}</h2>{_section(finding)}{_image(picture)}")
    parts.append("<h2>IsoFLOP</h2>" + (_image(iso) if found.iso else f"<p class=refused>{NO_ISO}</p>"))
    if found.left_out:
        rows = [(run, reason) for run, reason in found.left_out.items()]
        parts.append(f"<h2>Runs that were not fitted</h2>{_table(('run', 'why: it'), rows)}")
    parts.append(f"<h2>Method</h2><p>{escape(METHOD)}</p>")
    head = f'<meta charset="utf-8"><title>Scaling report</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}{"".join(parts)}</html>\n'


def _overview(found: Study) -> str:
    rows = []
    for finding in found.findings:
        result = finding.result
        if isinstance(result, Refusal):
            rows.append((finding.title, f"no law: {result.reason}", "", "", ""))
        else:
            symbols = [NAMES[name] for name in finding.series.amounts]
            low, high = result.floor
            rows.append(
                (
                    finding.title,
                    result.fit.curve.formula(symbols),
                    _exponents(finding, result),
                    f"{low:.3g} to {high:.3g}",
                    _foretold(finding, brief=True),
                )
            )
    heads = ("what", "law", "exponent, 95%", "floor E, 95%", "largest amount foretold from the smaller; measured")
    return _table(heads, rows) if rows else ""


def _section(finding: Finding) -> str:
    result = finding.result
    lines = "".join(f"<li>{escape(line)}</li>" for line in limits(finding))
    if isinstance(result, Refusal):
        return f"<p class=refused>No law: {escape(result.reason)}.</p><ul>{lines}</ul>"
    rows = [(c.law.name, f"{np.expm1(c.largest):+.2%}", f"{np.expm1(c.crossed):.2%}") for c in finding.choices]
    heads = ("law, the best foreteller first", "error at the largest amount, left out", "error at any, each left out")
    told = [
        f"{_exponents(finding, result)}; runs scatter by {result.fit.noise:.2%} about the law",
        _foretold(finding),
        _ahead(finding),
    ]
    paragraph = " ".join(f"{escape(text[0].upper() + text[1:])}." for text in told if text)
    return f"<p>{paragraph}</p>{_table(heads, rows)}<ul>{lines}</ul>"


def _ahead(finding: Finding) -> str:
    if not finding.ahead:
        return ""
    largest, names = finding.series.values().max(0), [NAMES[name] for name in finding.series.amounts]
    amounts = ", ".join(f"{short(FAR * value)} {name}" for value, name in zip(largest, names, strict=True))
    p = finding.ahead
    return f"at {amounts} ({FAR} times the largest) the law says {p.loss:.4g} ({p.low:.4g} to {p.high:.4g})"


def _counts(found: Study) -> str:
    left = f", {len(found.left_out)} not (they are failed, not finished or without a loss)" if found.left_out else ""
    narrow = (
        f" {len(found.narrow)} have fewer people than others of as many hours: they are in series of people only."
        if found.narrow
        else ""
    )
    return f"{len(found.points)} runs, {len(found.points) - len(found.left_out)} of them fitted{left}.{narrow}"


def _exponents(finding: Finding, result: Estimate) -> str:
    parts = []
    for name, value, (low, high) in zip(
        finding.series.amounts, result.fit.curve.exponents, result.exponents, strict=True
    ):
        bounds = f"{low:.3g} to {high:.3g}" if math.isfinite(high) else f"{low:.3g} or more"
        parts.append(f"exponent of {NAMES[name]} {value:.3g} ({bounds})")
    return ", ".join(parts)


def _foretold(finding: Finding, brief: bool = False) -> str:
    there = finding.foretold
    if there is None or isinstance(there, Refusal):
        return "" if brief or not there else f"the largest cannot be foretold ({there.reason})"
    p = there.prediction
    if brief:
        return f"{p.loss:.4g} ({p.low:.4g} to {p.high:.4g}); {there.measured:.4g}"
    return (
        f"the largest was foretold from the smaller as {p.loss:.4g} ({p.low:.4g} to {p.high:.4g}) and is "
        f"{there.measured:.4g}: {there.error:+.1%}, {'within' if there.held else 'OUTSIDE'} the interval"
    )


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{escape(path.stem)}" src="data:image/png;base64,{data}"></p>'


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "_", title.lower()).strip("_")
