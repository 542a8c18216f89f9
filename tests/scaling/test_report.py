"""From a table of points to a report."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.scaling.laws.points import Point, all_series, iso_flop, points_from_csv, usable, write_points_csv
from selfpab_jax.scaling.report import fit_scaling_laws, summary
from selfpab_jax.scaling.sweep.collect import load_points

SIZES = (1_000_000, 4_000_000, 16_000_000)
HOURS = (10.0, 30.0, 100.0, 300.0, 1000.0)


def sweep() -> list[Point]:
    """Three sizes by five hours by three seeds, sizes at equal compute; subjects at equal hours; a failed run."""
    rng = np.random.default_rng(0)
    points = []
    for size in SIZES:
        for hours in HOURS:
            for seed in range(3):
                loss = (0.2 + 20 * size**-0.4 + 0.6 * hours**-0.3) * np.exp(rng.normal(0, 0.005))
                tokens = 1e14 / size
                f1 = 1 - loss if size == SIZES[1] else None
                points.append(Point(f"{len(points):02d}", hours, 40, size, tokens, 6 * size * tokens, seed, loss, f1))
    subjects = [
        Point(f"subjects{n}-{seed}", 100.0, n, SIZES[1], 2.5e7, 6e14, seed, 0.5 + 0.4 * n**-0.5 + 0.002 * seed)
        for n in (2, 4, 8, 16)
        for seed in range(3)
    ]
    return [*points, *subjects, replace(points[0], run="lost", seed=9, loss=float("nan"), status="failed")]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("points") / "points.csv"
    write_points_csv(sweep(), path)
    return path


def test_points_are_read_back_unchanged(table: Path) -> None:
    back = load_points(table)
    assert [replace(point, loss=0.0) for point in back] == [replace(point, loss=0.0) for point in sweep()]
    assert [p.loss for p in back[:-1]] == [p.loss for p in sweep()[:-1]]
    fitted, excluded = usable(back)
    assert len(fitted) == 57
    assert excluded == {"lost": "is failed"}
    assert usable([replace(back[0], loss=-1.0)])[1] == {"00": "has loss -1, which is not above 0"}
    assert usable([replace(back[0], loss=float("nan"))])[1] == {"00": "has no finite loss"}
    assert usable([replace(back[0], hours=0.0)])[1] == {"00": "has hours 0, which is not above 0"}


def test_series_vary_one_amount_and_hold_the_rest() -> None:
    points = usable(sweep())[0]
    series = {one.title: one for one in all_series(points)}
    assert {title for title in series if title.startswith("hours")} == {
        "hours, at 1 M parameters",
        "hours, at 4 M parameters",
        "hours, at 16 M parameters",
    }
    assert "subjects, at 100 hours, 4 M parameters" in series
    assert len(series["parameters and hours"].points) == 45
    hours = series["hours, at 4 M parameters"].points  # not the runs on fewer subjects
    assert len(hours) == 15
    assert {point.subjects for point in hours} == {40}
    assert len(series["subjects, at 100 hours, 4 M parameters"].points) == 15
    assert [sorted({p.parameters for p in one.points}) for one in iso_flop(points)] == [list(SIZES)]
    assert {p.hours for p in iso_flop(points)[0].points} == {1000.0}


def test_the_best_of_several_runs_of_a_seed_counts() -> None:
    points = usable(sweep())[0]
    worse = [replace(point, run=point.run + "b", loss=point.loss * 1.5) for point in points]
    title = "hours, at 1 M parameters"
    found = [next(one for one in all_series(p) if one.title == title) for p in (points, worse + points)]
    assert {p.run for p in found[0].points} == {p.run for p in found[1].points}


@pytest.mark.slow
def test_report(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    assert main(["scaling", "fit", str(table), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "held-out loss against hours, at 4 M parameters" in printed
    assert "within the interval" in printed
    fits = json.loads((out / "fits.json").read_text())
    by_name = {(fit["measure"], *fit["amounts"], fit["held"]): fit for fit in fits["fits"]}
    hours = by_name["held-out loss", "hours", "at 4 M parameters"]
    assert hours["exponents"][0]["value"] == pytest.approx(0.3, abs=0.06)
    assert {each["law"] for each in hours["comparison"]} == {"constant", "power law", "power law with a floor"}
    assert hours["largest_from_smaller"]["covered"]
    assert hours["ahead"]["amounts"] == [10_000]
    joint = by_name["held-out loss", "parameters", "hours", ""]
    assert [e["value"] for e in joint["exponents"]] == pytest.approx([0.4, 0.3], abs=0.06)
    sizes = by_name["held-out loss", "parameters", "at 10 hours"]
    assert sizes["refused"] == "3 distinct parameters; a law with a floor needs at least 4"
    assert ("1 - macro-F1", "hours", "at 4 M parameters") in by_name
    assert points_from_csv(out / "points.csv")[:-1] == sweep()[:-1]
    page = (out / "report.html").read_text()
    figures = list((out / "figures").glob("*.png"))
    assert page.count("data:image/png;base64,") == len(figures) == len(fits["fits"]) + 1
    assert "lost" in page
    assert not re.search(r"\bnan\b|\binf\b|None", re.sub(r"base64,[^\"]*", "", page))


def test_fit_scaling_laws_takes_points_or_a_file(tmp_path: Path) -> None:
    points = [point for point in sweep() if point.parameters == SIZES[0]]
    write_points_csv(points, tmp_path / "points.csv")
    one, other = fit_scaling_laws(points), fit_scaling_laws(str(tmp_path / "points.csv"))
    assert summary(one) == summary(other)
    with pytest.raises(ConfigError, match="seed"):
        fit_scaling_laws(points, seed=-1)


def test_a_sweep_too_small_is_reported_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_points_csv(sweep()[:6], tmp_path / "few.csv")  # two amounts of hours
    assert main(["scaling", "fit", str(tmp_path / "few.csv"), "--out", str(tmp_path / "few")]) == 0
    assert "No series" in capsys.readouterr().out
    page = (tmp_path / "few" / "report.html").read_text()
    assert "No series" in page
    assert "No isoFLOP curves" in page
    write_points_csv(sweep()[:9], tmp_path / "three.csv")
    assert main(["scaling", "fit", str(tmp_path / "three.csv"), "--out", str(tmp_path / "three")]) == 0
    assert "no law: 3 distinct hours" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("hours", "length"), "has no column hours"),
        (("\n01,", "\n00,"), "has the run 00 twice"),
        (("\n00,10.0", "\n00,ten"), "line 2: hours is 'ten'"),
        (("\n00,10.0,40,", "\n00,10.0,40.5,"), "subjects is 40.5"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(
    table: Path, tmp_path: Path, change: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = table.read_bytes().decode().replace("\r\n", "\n")
    (tmp_path / "bad.csv").write_text(text.replace(*change, 1))
    assert main(["scaling", "fit", str(tmp_path / "bad.csv"), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_points(tmp_path / "none")
    (tmp_path / "empty.csv").write_text("run,hours,subjects,parameters,tokens,flops,seed,loss\n")
    with pytest.raises(DataError, match="no rows"):
        points_from_csv(tmp_path / "empty.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00run")
    with pytest.raises(DataError, match="not a table"):
        points_from_csv(tmp_path / "binary.csv")


def hours_sweep() -> list[Point]:
    return [p for p in sweep() if p.parameters == SIZES[1] and p.subjects == 40]


LEFT_OUT = {
    "unknown status": (lambda p: replace(p, status="aborted"), ["Not fitted", "aborted", "status"]),
    "no loss": (lambda p: replace(p, loss=float("inf")), ["Not fitted", "finite loss"]),
    "percent": (lambda p: replace(p, macro_f1=100 * (p.macro_f1 or 0)), ["macro-F1", "percent"]),
    "negative score": (lambda p: replace(p, macro_f1=-0.5), ["macro-F1", "-0.5"]),
    "diverged": (lambda p: replace(p, loss=25.0), ["Suspicious", "loss 25"]),
    "too low": (lambda p: replace(p, loss=p.loss / 100), ["Suspicious", "times"]),
    "same amounts and seed as another": (lambda p: replace(p, seed=0, loss=1.05 * p.loss), ["In no series"]),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_runs_that_are_left_out_or_suspicious_are_named(name: str, tmp_path: Path) -> None:
    change, words = LEFT_OUT[name]
    points = hours_sweep()
    assert fit_scaling_laws(points).remarks == []
    points[7] = change(points[7])
    analysis = fit_scaling_laws(points, out=tmp_path)
    text = next(remark for remark in analysis.remarks if words[0] in remark)
    assert points[7].run in text
    for word in words:
        assert word in text
    assert text in summary(analysis)
    assert text in json.loads((tmp_path / "fits.json").read_text())["remarks"]


def test_without_replicates_a_loss_above_those_of_runs_with_less_is_suspicious() -> None:
    points = [point for point in hours_sweep() if point.seed == 0]
    assert fit_scaling_laws(points).remarks == []
    points[3] = replace(points[3], loss=25.0)
    assert any(points[3].run in remark for remark in fit_scaling_laws(points).remarks)


@pytest.mark.parametrize("status", ["Done", "FINISHED", " completed ", "Success", ""])
def test_words_for_finished_runs_count_as_done(status: str, tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text(f"run,hours,subjects,parameters,tokens,flops,seed,loss,status\na,1,2,3,4,5,6,0.5,{status}\n")
    assert usable(points_from_csv(path))[1] == {}


def test_four_columns_are_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As of runs that others have published: no names, seeds, hours or subjects, sizes with fractions."""
    rng = np.random.default_rng(1)
    sizes, tokens = (10 ** rng.uniform(low, high, 60) for low, high in ((7.5, 10), (9, 11.5)))
    losses = (1.8 + 480 / sizes**0.35 + 2000 / tokens**0.37) * np.exp(rng.normal(0, 0.003, 60))
    table = tmp_path / "runs.csv"
    rows = zip(sizes, tokens, 6 * sizes * tokens, losses, strict=True)
    table.write_text("\n".join(["parameters,tokens,flops,loss", *(",".join(map(repr, map(float, r))) for r in rows)]))
    out = tmp_path / "out"
    assert main(["scaling", "fit", str(table), "--out", str(out)]) == 0
    assert "against parameters and tokens" in capsys.readouterr().out
    (found,) = [
        f for f in json.loads((out / "fits.json").read_text())["fits"] if f["amounts"] == ["parameters", "tokens"]
    ]
    (low_n, high_n), (low_d, high_d) = (exponent["interval"] for exponent in found["exponents"])
    assert low_n < 0.35 < high_n < low_n + 0.1
    assert low_d < 0.37 < high_d < low_d + 0.1
    again = points_from_csv(out / "points.csv")
    assert [(p.run, p.seed, p.parameters, p.tokens, p.loss) for p in again] == [
        (p.run, p.seed, p.parameters, p.tokens, p.loss) for p in points_from_csv(table)
    ]
    table.write_text("parameters,tokens,flops,loss\n0,1,2,3\n")
    with pytest.raises(DataError, match="line 2"):
        points_from_csv(table)
