"""All pictures of a result, as PNG files with what they show."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from selfpab_jax.probe.embedding_map import EmbeddingMap, draw_embedding
from selfpab_jax.probe.pictures import (
    ArmScores,
    BudgetCurve,
    Range,
    draw_arms,
    draw_budgets,
    draw_classes,
    draw_confusion,
)
from selfpab_jax.probe.results import Arm, ProbeResult
from selfpab_jax.probe.summary import Estimate
from selfpab_jax.probe.timeline import Timeline, draw_timeline

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
