from collections.abc import Callable
from dataclasses import replace

import pytest

from selfpab_jax.probe.report.results import MethodResult, ProbeResult
from selfpab_jax.probe.report.tables import (
    ScoreTable,
    all_tables,
    as_markdown,
    as_text,
    budget_table,
    budgets,
    class_table,
    difference_table,
    score_table,
    subject_table,
)


def cells(table: ScoreTable, row: str) -> dict[str, str]:
    return dict(zip(table.header, next(r for r in table.rows if r[0].startswith(row)), strict=True))


def test_scores_stand_in_percent_with_both_spreads_and_published_figures(found: ProbeResult):
    table = score_table(found)
    of = found.headline.summary
    row = cells(table, "Linear <i>head</i>")
    assert row["macro-F1 ± subjects"] == f"{100 * of.macro_f1.mean:.1f} ± {100 * of.subjects_std:.1f}"
    assert row["95% interval"] == f"[{100 * of.macro_f1.low:.1f}, {100 * of.macro_f1.high:.1f}]"
    assert row["± seeds"] == f"{100 * of.macro_f1.seeds_std:.1f}"
    assert row["kappa"] == f"{of.kappa.mean:.3f}"
    assert cells(table, "Mlp")["± seeds"] == "-"
    assert cells(table, "published: SelfPAB")["macro-F1 ± subjects"] == "81.3"
    assert len(table.rows) == 4  # methods with a budget have a table of their own
    assert any("1 to 2 seeds" in note for note in table.notes)
    assert "published: SelfPAB: the paper" in table.notes


def test_every_table_warns_of_leakage_and_of_selection_on_the_test_subject(make_result: Callable[..., ProbeResult]):
    for table in all_tables(make_result(selection="test")):
        for text in (as_text(table), as_markdown(table)):
            flat = " ".join(text.split())
            assert "pre-trained on 1 of these 4 subjects: S1" in flat
            assert "was its fold's validation subject too" in flat
    clean = make_result(leakage=())
    assert not any("WARNING" in as_text(table) for table in all_tables(clean))


def test_few_labels_ascend_to_all_and_compare_like_with_like(found: ProbeResult):
    table = budget_table(found)
    assert table is not None
    assert table.header == ("method", "5 windows per activity", "all labels")
    of = found.methods[2].summary.macro_f1
    row = cells(table, "Linear")
    assert row["5 windows per activity"] == f"{100 * of.mean:.1f} ± {100 * of.seeds_std:.1f}"
    assert cells(table, "Mlp")["5 windows per activity"] == "-"
    differences = difference_table(found)
    assert differences is not None
    linear, forest = found.methods[2].summary.subjects, found.methods[3].summary.subjects
    points = 100 * sum(linear[name] - forest[name] for name in linear) / 4
    assert cells(differences, "Forest")["5 windows per activity"].startswith(f"{points:+.1f} [")
    assert cells(differences, "Forest")["all labels"].endswith(" 4/4")
    assert cells(differences, "Mlp")["5 windows per activity"] == "-"


def test_nothing_beside_the_headline_gives_no_comparison(make_result: Callable[..., ProbeResult], found: ProbeResult):
    alone = make_result(methods=(found.headline,))
    assert difference_table(alone) is None
    assert budget_table(alone) is None
    assert budgets(alone) == (None,)
    assert [table.title for table in all_tables(alone)] == ["Scores", "Classes", "Subjects"]


def test_classes_and_subjects_without_a_score_have_a_dash(
    make_result: Callable[..., ProbeResult], make_method: Callable[..., MethodResult], found: ProbeResult
):
    table = class_table(found)
    assert set(cells(table, "never done").values()) == {"never done", "0", "-"}
    assert cells(table, "walking")["samples"] == "2,000"
    linear, forest = make_method("linear", 0.8), make_method("forest", 0.6, kind="baseline")
    fewer = replace(forest, confusions=tuple({s: c[s] for s in ("S1", "S2")} for c in forest.confusions))
    result = make_result(methods=(linear, fewer))
    assert cells(subject_table(result), "S3")["Forest <i>head</i>"] == "-"
    assert "(2 subjects)" in score_table(result).rows[1][0]


def test_duration_errors_are_a_column_if_there_are_any(
    make_result: Callable[..., ProbeResult], make_method: Callable[..., MethodResult]
):
    method = make_method("linear", 0.8, duration_errors=({"S1": 0.1, "S2": 0.2}, {"S1": 0.3, "S2": 0.2}))
    row = cells(score_table(make_result(methods=(method, make_method("forest", 0.6)))), "Linear")
    assert row["duration error"] == "20.0"
    assert "duration error" not in score_table(make_result()).header


def test_text_is_aligned_whatever_the_letters():
    table = ScoreTable("T", ("name", "a rather long header"), (("漢字", "1"), ("a\nb", "22")), ("note",), ("mind",))
    assert as_text(table, header_width=8).splitlines() == [
        "T",
        "      a rather",
        "          long",
        "name    header",
        "--------------",
        "漢字         1",  # two letters that are four columns wide
        "a b         22",
        "note",
        "WARNING: mind",
    ]


@pytest.mark.parametrize("name", ["a|b", "line\nbreak"])
def test_markdown_keeps_its_columns(name: str):
    text = as_markdown(ScoreTable("T", (name, "x"), ((name, "1"),)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {3}
