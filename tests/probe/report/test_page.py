import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.probe.report.embedding_map import EmbeddingMap
from selfpab_jax.probe.report.page import write_report
from selfpab_jax.probe.report.results import ProbeResult
from selfpab_jax.probe.report.timeline import Timeline

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Text, attributes that point somewhere, and whether every tag is closed in order."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.tags: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                self.links.append(value or "")
            if name == "id":
                self.ids.add(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, make_result: Callable[..., ProbeResult]) -> Path:
    generator = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2, -1], 500)
    timelines = [Timeline(f"S{i}", truth, generator.integers(0, 3, 2000), 50.0) for i in range(1, 5)]
    points = EmbeddingMap(generator.normal(size=(40, 2)), np.arange(40) % 3, ("S1", "S2") * 20, "tsne")
    result = make_result(selection="test", notes=tuple(f"note {i}" for i in range(9)))
    return write_report(result, tmp_path_factory.mktemp("report"), timelines=timelines, embedding=points)


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page(report.read_text(encoding="utf-8"))


def test_it_is_one_file_that_asks_for_nothing_else(report: Path, page: Page):
    assert not page.open
    assert len([link for link in page.links if link.startswith("data:image/png;base64,")]) == 11
    assert all(link.startswith("data:image/png;base64,") or link[1:] in page.ids for link in page.links)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    source = report.read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?://", source)
    assert str(report.parent) not in source
    assert report.stat().st_size < 3_000_000


def test_figures_in_it_are_the_files_beside_it(report: Path, page: Page):
    inside = {base64.b64decode(link.partition(",")[2]) for link in page.links if link.startswith("data:")}
    assert inside == {path.read_bytes() for path in (report.parent / "figures").glob("*.png")}


def test_names_are_shown_as_they_are_and_never_taken_for_markup(report: Path, page: Page):
    text = "".join(page.text)
    for name in ("sitting <b>still</b> & $x_1$", "HARTH & <friends>", "Linear <i>head</i>", "S9.csv: no <labels>"):
        assert name in text
    assert not {"b", "i", "friends", "labels"} & set(page.tags)
    assert "$body" not in text
    assert "$title" not in report.read_text(encoding="utf-8")


def test_it_opens_with_the_score_and_what_it_is_compared_with(page: Page, make_result: Callable[..., ProbeResult]):
    text = " ".join("".join(page.text).split())
    of = make_result().headline.summary.macro_f1
    answer, _, rest = text.partition("How it was done")
    assert f"{100 * of.mean:.1f}%" in answer
    assert f"95% interval of the mean: {100 * of.low:.1f} to {100 * of.high:.1f}" in answer
    assert f"published: SelfPAB81.3{100 * of.mean - 81.3:+.1f}" in answer
    assert answer.index("was its fold's validation subject too") < answer.index("compared with")
    assert "pre-trained on 1 of these 4 subjects" in answer
    assert "macro-F1 in percent" in rest


def test_every_table_of_scores_repeats_the_warnings(report: Path):
    tables = report.read_text(encoding="utf-8").count("<thead>")
    warned = report.read_text(encoding="utf-8").count("pre-trained on 1 of these 4 subjects: S1")
    assert (tables, warned) == (7, 6)  # the seventh lists hyper-parameters


def test_protocol_selected_values_and_notes_are_listed(page: Page):
    text = " ".join(" ".join(page.text).split())
    for part in (
        "599 frames",
        "hours of recording: unknown",
        "0.001 (6 times); 0.0003 (2 times)",
        "Notes (9)",
        "12 s on cpu",
    ):
        assert part in text


def test_the_worst_median_and_best_subject_are_open_and_the_rest_is_folded(page: Page):
    text = " ".join(" ".join(page.text).split())
    scores = {place: float(value) for value, place in re.findall(r"macro-F1 ([\d.]+) \((worst|median|best)\)", text)}
    assert scores["worst"] <= scores["median"] <= scores["best"]
    assert "The other subject S" in text


def test_a_result_with_nothing_to_show_but_scores_is_reported(make_result: Callable[..., ProbeResult], tmp_path: Path):
    bare = make_result(methods=(make_result().headline,), encoder=None, leakage=(), published=(), skipped=(), notes=())
    page = Page(write_report(bare, tmp_path).read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert "nothing to compare with" in text
    assert "Warning" not in text
    assert page.ids == {"scores", "classes", "subjects", "how-it-was-done"}
