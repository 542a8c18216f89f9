from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from matplotlib.image import imread

from selfpab_jax.probe.budgets import Budget
from selfpab_jax.probe.metrics import segment_fractions
from selfpab_jax.probe.report.embedding_map import EmbeddingMap, choose_rows, draw_embedding, project
from selfpab_jax.probe.report.figures import draw_confusion, draw_figures
from selfpab_jax.probe.report.results import MethodResult, ProbeResult
from selfpab_jax.probe.report.style import COLORS, RIGHT, WRONG, brief, color, marker
from selfpab_jax.probe.report.timeline import (
    Timeline,
    column_fractions,
    draw_timeline,
    signal_columns,
    timeline_caption,
)

AWKWARD = ("<b>&", "$x_1$ and $", "_hidden", "cycling while sitting upright, inactive, on a bench")


def pixels(path: Path, color: str) -> int:
    """How many pixels have this color, near enough."""
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return int((np.abs(imread(path)[..., :3] - rgb).max(axis=-1) < 0.02).sum())


def test_fractions_of_columns_add_up_and_keep_short_segments():
    labels = np.repeat([0, 1, 0, 2], [700, 1, 299, 1000])
    fractions = column_fractions(labels, np.ones(2000, bool), 3, 100)
    np.testing.assert_allclose(fractions.sum(axis=0), 1)
    assert fractions[1, 35] == 1 / 20
    assert np.count_nonzero(fractions[1]) == 1
    labeled = np.arange(2000) < 1000
    assert not column_fractions(labels, labeled, 3, 100)[:, 50:].any()


def test_a_timeline_marks_errors_only_where_there_are_some(tmp_path: Path):
    truth = np.repeat([0, 1, 3, -1], 3000)
    predicted = np.where(truth < 0, 0, truth)
    right = Timeline("S1 <&", truth, predicted, 50.0, (0, 4000))
    draw_timeline(right, AWKWARD, tmp_path / "right.png", columns=300)
    predicted = predicted.copy()
    predicted[3000:4000] = 2
    wrong = Timeline("S1", truth, predicted, 50.0)
    draw_timeline(wrong, AWKWARD, tmp_path / "wrong.png", columns=300)
    assert (right.wrong, wrong.wrong) == (0, pytest.approx(1000 / 9000))
    in_legend = pixels(tmp_path / "right.png", WRONG)
    assert pixels(tmp_path / "wrong.png", WRONG) > in_legend + 1000
    assert pixels(tmp_path / "wrong.png", RIGHT) < pixels(tmp_path / "right.png", RIGHT)


@settings(max_examples=50, deadline=None)
@given(samples=st.integers(1, 60), columns=st.integers(1, 60), seed=st.integers(0, 100))
def test_columns_of_a_signal_hold_its_range_and_mean(samples: int, columns: int, seed: int):
    columns = min(samples, columns)
    signal = np.random.default_rng(seed).normal(size=(samples, 2)).astype(np.float32)
    found = signal_columns(signal, ("hip_x", "hip_y"), columns)
    column_N = np.arange(samples) * columns // samples
    for column in range(columns):
        part = signal[column_N == column]
        np.testing.assert_array_equal(found.low_PxC[column], part.min(axis=0))
        np.testing.assert_array_equal(found.high_PxC[column], part.max(axis=0))
        np.testing.assert_allclose(found.mean_PxC[column], part.mean(axis=0), atol=1e-5)


def test_a_night_shows_fractions_and_the_signal_of_each_sensor(tmp_path: Path):
    generator = np.random.default_rng(0)
    truth = np.repeat([0, 1, -1, 1], 15_000)
    probabilities = generator.dirichlet(np.ones(2), len(truth))
    channels = tuple(f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz")
    signal = signal_columns(generator.normal(size=(len(truth), 6)).astype(np.float32), channels, 300)
    start_ms = 1_617_234_900_000  # 2021-03-31 23:55
    plain = Timeline("S1", truth, truth.clip(0), 50.0)
    fractions = (segment_fractions(truth, probabilities, 3000),)
    night = replace(plain, start_ms=start_ms, signal=signal, fractions=fractions)
    joined = replace(night, starts=(0, 30_000), start_ms=-1, fractions=(None, fractions[0]))
    for name, timeline in {"plain": plain, "night": night, "joined": joined}.items():
        draw_timeline(timeline, ("wake", "asleep"), tmp_path / f"{name}.png", columns=300)
    assert pixels(tmp_path / "night.png", COLORS[1]) > pixels(tmp_path / "plain.png", COLORS[1]) + 1000
    assert imread(tmp_path / "night.png").shape[0] > imread(tmp_path / "plain.png").shape[0] + 200
    assert "fraction" in timeline_caption(night)
    assert "fraction" not in timeline_caption(plain)


def test_a_timeline_of_hours_is_no_larger_than_its_columns(tmp_path: Path):
    generator = np.random.default_rng(0)
    truth = np.repeat(generator.integers(0, 4, 2000), 500)  # 5.6 h of restless bouts
    timeline = Timeline("S1", truth, generator.permutation(truth), 50.0)
    draw_timeline(timeline, AWKWARD, tmp_path / "long.png")
    assert (tmp_path / "long.png").stat().st_size < 150_000


@pytest.mark.parametrize(("truth", "predicted"), [([], []), ([0, 1], [0])])
def test_a_timeline_needs_as_many_predictions_as_samples(truth: list[int], predicted: list[int], tmp_path: Path):
    timeline = Timeline("S1", np.array(truth, int), np.array(predicted, int), 50.0)
    with pytest.raises(ValueError, match="samples and"):
        draw_timeline(timeline, AWKWARD, tmp_path / "no.png")


def test_a_timeline_without_labels_is_drawn(tmp_path: Path):
    timeline = Timeline("S1", np.full(100, -1), np.zeros(100, int), 50.0)
    draw_timeline(timeline, AWKWARD, tmp_path / "bare.png")
    assert timeline.wrong == 0
    assert (tmp_path / "bare.png").is_file()


def test_rows_for_the_map_show_every_class_of_every_subject():
    generator = np.random.default_rng(0)
    labels = generator.choice([-1, 0, 1, 2], 5000, p=[0.2, 0.78, 0.015, 0.005])
    subjects = generator.integers(0, 3, 5000)
    rows = choose_rows(labels, subjects, count=45, seed=1)
    assert len(rows) == len(set(rows.tolist())) == 45
    assert (labels[rows] >= 0).all()
    counts = [int(((labels[rows] == y) & (subjects[rows] == s)).sum()) for y in range(3) for s in range(3)]
    assert min(counts) >= 4
    np.testing.assert_array_equal(rows, choose_rows(labels, subjects, count=45, seed=1))
    assert len(choose_rows(labels, subjects, count=9999)) == (labels >= 0).sum()


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.slow
def test_classes_far_apart_are_far_apart_in_the_plane(method: str, tmp_path: Path):
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 2], 30)
    features = generator.normal(size=(60, 8)) + 20 * labels[:, None]
    points = project(features, method=method)  # pyright: ignore[reportArgumentType]
    assert points.shape == (60, 2)
    middle = (points[:30].mean(axis=0) + points[30:].mean(axis=0)) / 2
    side = (points - middle) @ (points[30:].mean(axis=0) - middle)
    assert ((side > 0) == (labels == 2)).all()
    np.testing.assert_array_equal(points, project(features, method=method))  # pyright: ignore[reportArgumentType]


def test_a_map_needs_finite_features():
    with pytest.raises(ValueError, match="at least 3 frames"):
        project(np.full((5, 3), np.nan), method="pca")
    with pytest.raises(ValueError, match="at least 3 frames"):
        project(np.zeros((2, 3)), method="pca")
    assert project(np.arange(5.0)[:, None], method="pca")[:, 1].tolist() == [0] * 5  # one feature: a line


@pytest.mark.parametrize("subjects", [3, 31])
def test_maps_name_few_subjects_and_only_count_many(subjects: int, tmp_path: Path):
    generator = np.random.default_rng(0)
    names = tuple(f"S{i % subjects:02d}" for i in range(124))
    labels = np.arange(124) % 4
    draw_embedding(EmbeddingMap(generator.normal(size=(124, 2)), labels, names, "pca"), AWKWARD, tmp_path / "map.png")
    assert pixels(tmp_path / "map.png", "#FFFFFF") < 0.99 * imread(tmp_path / "map.png")[..., 0].size


def test_confusions_with_a_missing_class_and_one_class_are_drawn(tmp_path: Path):
    matrix = np.array([[90, 10, 0, 0], [1, 12_345_678, 0, 0], [0, 0, 0, 0], [0, 1, 0, 999]])
    draw_confusion(matrix, AWKWARD, tmp_path / "four.png", title="$ <all>")
    draw_confusion(matrix[:1, :1], AWKWARD[:1], tmp_path / "one.png")
    assert imread(tmp_path / "one.png").shape[0] < imread(tmp_path / "four.png").shape[0]


def test_all_figures_of_a_result(found: ProbeResult, tmp_path: Path):
    timelines = [Timeline(name, np.zeros(100, int), np.ones(100, int), 50.0) for name in ("S1", "a/../b")]
    figures = draw_figures(found, tmp_path / "deep" / "figures", timelines=timelines)
    assert [figure.group for figure in figures] == [
        "methods", "budgets", "classes", "confusion", "confusion", "confusion", "timeline", "timeline",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "deep" / "figures").iterdir()) == sorted(
        figure.path.name for figure in figures
    )
    assert all(figure.path.parent == tmp_path / "deep" / "figures" for figure in figures)


def test_one_method_with_one_seed_and_one_subject_is_drawn(
    make_result: Callable[..., ProbeResult], make_method: Callable[..., MethodResult], tmp_path: Path
):
    few = make_method("linear", 0.8, seeds=1, budget=Budget("fraction", 0.1))
    alone = MethodResult(
        few.name, few.title, few.kind, (0,), few.classes, ({"S1": few.confusions[0]["S1"]},), few.budget
    )
    figures = draw_figures(make_result(methods=(alone,), published=()), tmp_path)
    assert [figure.path.name for figure in figures] == [
        "methods.png", "budgets_fraction.png", "classes.png", "confusion_linear_fraction_0_1.png",
    ]  # fmt: skip


def test_names_in_figures_are_brief_and_never_hidden():
    assert brief("_x") == " _x"
    assert brief("a\n  b") == "a b"
    assert len(brief(AWKWARD[3])) <= 28
    assert brief(AWKWARD[3]).startswith("cycling while")
    assert brief(AWKWARD[3]).endswith("bench")


def test_colors_and_markers_repeat_late():
    assert len(set(COLORS)) == len(COLORS) == 12
    assert len({(color(i), marker(i)) for i in range(31)}) == 31
