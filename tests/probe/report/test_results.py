import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.errors import DataError
from selfpab_jax.probe.budgets import Budget
from selfpab_jax.probe.metrics import score_subjects
from selfpab_jax.probe.report.results import (
    SELECTED_ON_TEST,
    MethodResult,
    ProbeResult,
    as_dict,
    load_result,
    save_result,
)
from selfpab_jax.probe.report.summary import compare, summarize


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_saved_result_is_read_back_whole(found: ProbeResult, tmp_path: Path):
    save_result(found, tmp_path / "deep" / "out")
    for path in (tmp_path / "deep" / "out", tmp_path / "deep" / "out" / "probe.json"):
        again = load_result(path)
        assert json.dumps(as_dict(again)) == json.dumps(as_dict(found))
    assert again.methods[2].budget == Budget("windows", 5)
    assert again.headline.name == found.headline.name
    for ours, theirs in zip(found.methods, again.methods, strict=True):
        assert ours.scores[0].as_dict() == theirs.scores[0].as_dict()
        np.testing.assert_array_equal(ours.confusions[0]["S2"], theirs.confusions[0]["S2"])
    assert {path.name for path in (tmp_path / "deep" / "out").iterdir()} == {
        "probe.json", "scores.csv", "subjects.csv", "classes.csv",
    }  # fmt: skip


def test_a_result_of_version_0_1_is_read(
    make_method: Callable[..., MethodResult], make_result: Callable[..., ProbeResult], tmp_path: Path
):
    errors = ({"S1": 0.1}, {"S1": 0.3})
    few = make_method("mlp", 0.6, budget=Budget("fraction", 0.1), duration_errors=errors)
    result = make_result(methods=(make_method("linear", 0.8), few))
    save_result(result, tmp_path)
    content = json.loads((tmp_path / "probe.json").read_text(encoding="utf-8"))
    content |= {"format": 1, "arms": content.pop("methods"), "set_aside": content.pop("skipped")}
    for arm in content["arms"]:
        arm["share_errors"] = arm.pop("duration_errors")
    content["arms"][1]["budget"]["kind"] = "share"
    (tmp_path / "probe.json").write_text(json.dumps(content), encoding="utf-8")
    assert json.dumps(as_dict(load_result(tmp_path))) == json.dumps(as_dict(result))


def test_text_with_brackets_and_digits_survives_the_compact_matrices(
    make_result: Callable[..., ProbeResult], tmp_path: Path
):
    lines = ("[\n1,  2\n]", "[1,  2]", '"quoted", [3,   4', "æøå 漢")
    save_result(make_result(notes=lines), tmp_path)
    assert load_result(tmp_path).notes == lines
    matrix_rows = [
        line for line in (tmp_path / "probe.json").read_text(encoding="utf-8").splitlines() if ", 0]" in line
    ]
    assert len(matrix_rows) >= 9 * 4 * 4  # one row of a matrix per line


def test_csv_rows_are_the_scores_of_each_arm_budget_and_seed(found: ProbeResult, tmp_path: Path):
    save_result(found, tmp_path)
    table = rows(tmp_path / "scores.csv")
    assert len(table) == sum(len(method.seeds) for method in found.methods) == 9
    row = next(r for r in table if (r["method"], r["budget"], r["seed"]) == ("linear", "5 windows per activity", "1"))
    scores = score_subjects(found.methods[2].confusions[1], found.classes)
    assert float(row["macro_f1_mean"]) == scores.macro_f1_mean
    assert float(row["pooled_macro_f1_high"]) == scores.pooled_macro_f1_interval[1]
    assert all(r["selection"] == "inner" and "pre-trained on 1 of these" in r["leakage"] for r in table)
    subjects, classes = rows(tmp_path / "subjects.csv"), rows(tmp_path / "classes.csv")
    assert len(subjects) == len(classes) == 9 * 4
    assert float(subjects[1]["macro_f1"]) == found.methods[0].scores[0].subjects["S2"].macro_f1
    never = [r for r in classes if r["class"] == "never done"]
    assert {(r["samples"], r["f1"]) for r in never} == {("0", "")}
    assert {r["class"] for r in classes} == set(found.classes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace('"format": 2', '"format": 7'), "newer version"),
        (lambda text: text.replace('"published":', '"publisht":'), "'published'"),
        (lambda text: text.replace('"amount":', '"amuont":'), "damaged"),
        (lambda text: "[]", "damaged"),
    ],
)
def test_a_damaged_file_is_refused_in_a_line(found: ProbeResult, tmp_path: Path, damage: Callable, message: str):
    save_result(found, tmp_path)
    path = tmp_path / "probe.json"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(DataError, match=message) as refusal:
        load_result(tmp_path)
    assert str(path) in str(refusal.value)


def test_a_missing_file_is_refused_in_a_line(tmp_path: Path):
    with pytest.raises(DataError, match="No such file"):
        load_result(tmp_path / "nothing")


def test_saving_over_an_older_result_leaves_it_whole_when_the_new_one_cannot_be_written(
    found: ProbeResult, make_result: Callable[..., ProbeResult], tmp_path: Path
):
    save_result(found, tmp_path)
    with pytest.raises(TypeError):
        save_result(make_result(protocol={"window": object()}), tmp_path)
    assert load_result(tmp_path).protocol == {"window": "599 frames", "shift": 12}


def test_parts_that_do_not_fit_are_refused(
    make_method: Callable[..., MethodResult], make_result: Callable[..., ProbeResult]
):
    method = make_method("linear", 0.8)
    with pytest.raises(DataError, match="3 seeds"):
        replace(method, seeds=(0, 1, 2))
    with pytest.raises(DataError, match="same test subjects"):
        replace(method, confusions=(method.confusions[0], {"S1": method.confusions[1]["S1"]}))
    with pytest.raises(DataError, match="2 classes"):
        replace(method, classes=("a", "b"))
    with pytest.raises(DataError, match="choices"):
        replace(method, chosen=({},))
    with pytest.raises(DataError, match="twice"):
        make_result(methods=(method, method))
    with pytest.raises(DataError, match="no method"):
        make_result(methods=())


def test_the_headline_is_the_first_full_probe_not_the_best(make_result: Callable[..., ProbeResult]):
    result = make_result()
    best = max(result.fully_labeled, key=lambda method: method.summary.macro_f1.mean)
    assert (result.headline.name, best.name) == ("linear", "mlp")
    assert [method.name for method in result.fully_labeled] == ["forest", "linear", "mlp"]
    assert result.warnings == result.leakage
    assert make_result(selection="test").warnings == (SELECTED_ON_TEST, *result.leakage)


def test_one_seed_is_summed_up_to_its_own_scores(make_method: Callable[..., MethodResult]):
    method = make_method("mlp", 0.8, seeds=1)
    of, scores = method.summary, method.scores[0]
    assert of.macro_f1.mean == pytest.approx(scores.macro_f1_mean, rel=1e-12)
    assert of.subjects_std == pytest.approx(scores.macro_f1_std, rel=1e-12)
    assert (of.macro_f1.low, of.macro_f1.high) == pytest.approx(scores.macro_f1_interval, rel=1e-12)
    pooled = of.pooled_macro_f1
    assert (pooled.low, pooled.high) == pytest.approx(scores.pooled_macro_f1_interval, rel=1e-12)
    assert (of.kappa.mean, of.accuracy.mean) == pytest.approx((scores.kappa, scores.accuracy), rel=1e-12)
    for mine, theirs in ((of.f1, scores.f1), (of.precision, scores.precision), (of.recall, scores.recall)):
        assert [estimate.mean for estimate in mine] == pytest.approx(list(theirs), rel=1e-12, nan_ok=True)
    assert np.isnan(of.macro_f1.seeds_std)
    assert np.isnan(of.f1[3].mean)


def test_spread_over_seeds_and_over_subjects_are_different_things(make_method: Callable[..., MethodResult]):
    method = make_method("linear", 0.8, seeds=3)
    means = [scores.macro_f1_mean for scores in method.scores]
    of = method.summary
    assert of.macro_f1.mean == pytest.approx(np.mean(means))
    assert of.macro_f1.seeds_std == pytest.approx(np.std(means, ddof=1))
    by_subject = [np.mean([scores.subjects[name].macro_f1 for scores in method.scores]) for name in method.subjects]
    assert of.subjects_std == pytest.approx(np.std(by_subject))
    same = summarize([method.confusions[0]] * 3)
    assert same.macro_f1.seeds_std == pytest.approx(0, abs=1e-12)
    assert same.subjects_std > 0.001


def test_one_subject_has_no_interval_and_one_without_labels_counts_in_no_mean(make_method: Callable[..., MethodResult]):
    first = make_method("linear", 0.8).confusions[0]
    alone = summarize([{"S1": first["S1"]}])
    assert np.isnan([alone.macro_f1.low, alone.macro_f1.high, alone.pooled_macro_f1.low]).all()
    mute = summarize([{**first, "S9": np.zeros((4, 4), int)}])
    assert mute.macro_f1.mean == pytest.approx(summarize([first]).macro_f1.mean)
    assert mute.macro_f1.low == pytest.approx(summarize([first]).macro_f1.low)
    assert np.isnan(mute.subjects["S9"])
    nobody = summarize([{"S9": np.zeros((4, 4), int)}])
    assert np.isnan([nobody.macro_f1.mean, nobody.kappa.mean, nobody.subjects_std]).all()


def test_differences_are_taken_subject_by_subject():
    one = {"a": 0.9, "b": 0.5, "c": float("nan"), "d": 0.7}
    other = {"a": 0.8, "b": 0.4, "c": 0.1, "e": 0.0}
    difference = compare(one, other)
    assert difference.mean == pytest.approx(0.1)
    assert (difference.low, difference.high) == pytest.approx((0.1, 0.1))  # the same in both: no doubt is left
    assert (difference.better, difference.subjects) == (2, 2)
    assert compare(one, {"z": 1.0}).subjects == 0
