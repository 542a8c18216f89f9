"""A day in one picture: a row for each hour, colored by class, with the movement below each row's colors."""

from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from selfpab_jax.probe.predict.clock import offset_text
from selfpab_jax.probe.predict.minutes import BINS_PER_HOUR, NO_DATA, ActivityTotals, MovementByMinute
from selfpab_jax.probe.report.style import brief, color, new_figure

CLASS_LINES, MOVEMENT_LINES, GAP_LINES = 8, 3, 2
FULL_MOVEMENT = 0.5
"""Mean distance from 1 g that is drawn black: that of running."""
NOTHING = (0.93, 0.93, 0.93)


def draw_day(totals: ActivityTotals, movement: MovementByMinute | None, day: int, title: str, path: Path) -> None:
    """Draw one day, from the first to the last hour of it that was recorded.

    Each bin has the color of the class that takes most of it, paler where a part of the bin was not recorded. The gray
    strip below is the movement: white at rest, black from `FULL_MOVEMENT` on.

    Args:
        totals: of the file.
        movement: of one sensor, or None for no strip.
        day: see `Hour`.
        title: of the picture.
        path: of the PNG file.
    """
    day_hours = totals.clock.hours_of(day)
    recorded = [number for number, hour in enumerate(day_hours) if np.any(totals.seconds.get(hour, 0))]
    hours = list(day_hours)[recorded[0] : recorded[-1] + 1] if recorded else list(day_hours)
    moved = movement.of_hours(totals.clock, day) if movement else {}
    palette = np.array([to_rgb(color(index)) for index in range(len(totals.classes))])
    lines = []
    for hour in hours:
        counts_PxY = totals.seconds.get(hour, np.zeros((BINS_PER_HOUR, len(totals.classes))))
        share_Px1 = np.clip(counts_PxY.sum(axis=1, keepdims=True) * BINS_PER_HOUR / 3600, 0, 1)
        strength_Px1 = np.where(share_Px1 > 0, 0.3 + 0.7 * share_Px1, 0)
        rgb_Px3 = strength_Px1 * palette[counts_PxY.argmax(axis=1)] + (1 - strength_Px1) * np.array(NOTHING)
        lines += [rgb_Px3] * CLASS_LINES
        if moved:
            level_M = np.clip(moved[hour] / FULL_MOVEMENT, 0, 1) ** 0.5
            gray_M = np.where(np.isnan(level_M), 1, 1 - level_M)
            lines += [np.repeat(np.repeat(gray_M, BINS_PER_HOUR // 60)[:, None], 3, axis=1)] * MOVEMENT_LINES
        lines += [np.ones((BINS_PER_HOUR, 3))] * GAP_LINES
    used_Y = np.sum([totals.minutes_of(hour) for hour in hours], axis=0)
    height = len(lines) / len(hours)
    shown_classes = int((used_Y > 0).sum())
    with new_figure(path, 11, 1.2 + max(0.26 * len(hours), 0.2 * shown_classes)) as figure:
        axis = figure.subplots()
        axis.imshow(np.stack(lines), aspect="auto", extent=(0, 60, len(hours), 0), interpolation="nearest")
        offsets = {hour.offset for hour in hours}
        labels = [f"{hour.hour:02d}:00{f' {offset_text(hour.offset)}' if len(offsets) > 1 else ''}" for hour in hours]
        axis.set_yticks(np.arange(len(hours)) + CLASS_LINES / height / 2, labels, fontsize=8)
        axis.set_xticks(range(0, 61, 10))
        axis.set_xlabel("minute of the hour" if totals.clock.known else "minute of the hour since the start")
        axis.tick_params(axis="y", length=0)
        axis.spines[["left", "bottom"]].set_visible(False)
        handles = [
            Patch(color=color(index), label=f"{brief(name)}, {_length(used_Y[index])}")
            for index, name in enumerate(totals.classes)
            if used_Y[index] > 0
        ]
        missing = sum(day_hours.values()) - float(used_Y.sum())
        if missing > 1 / 60:
            handles.append(Patch(color=NOTHING, label=f"{NO_DATA}, {_length(missing)}"))
        axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False)
        strip = "; gray: movement" if moved else ""
        figure.suptitle(f"{brief(title, 40)}, {totals.clock.day_name(day)}{strip}", x=0.01, ha="left", fontsize=10)


def _length(minutes: float) -> str:
    if minutes >= 60:
        whole = round(minutes)
        return f"{whole // 60} h {whole % 60} min"
    return f"{minutes:.0f} min" if minutes >= 9.95 else f"{minutes:.1f} min"
