"""Miniature files of labeled data sets, in the layouts and on the axes of their publishers."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

UPRIGHT = {"back": (-1.0, 0.02, -0.05), "thigh": (-0.99, -0.04, 0.09)}
"""What HARTH's sensors show while standing, in g."""
HARTH_COLUMNS = [f"{sensor}_{axis}" for sensor in UPRIGHT for axis in "xyz"]


def times(samples: int, rate_hz: float, start: str = "2019-01-12T00:00:00") -> np.ndarray:
    """Evenly spaced, in milliseconds."""
    return np.datetime64(start, "ms") + np.round(np.arange(samples) * 1000 / rate_hz).astype("timedelta64[ms]")


def standing(samples: int, gravity: tuple[float, ...], seed: int = 0) -> np.ndarray:
    """Gravity and a sensor's noise."""
    return np.asarray(gravity) + np.random.default_rng(seed).normal(0, 0.01, (samples, len(gravity)))


def write_csv(path: Path, header: list[str], columns: list[np.ndarray]) -> None:
    """Comma-separated, as the publishers' pandas writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(zip(*columns, strict=True))


def text_of(moments: np.ndarray) -> list[str]:
    """As HARTH's files write it: `2019-01-12 00:00:00.000`."""
    return [str(moment).replace("T", " ") for moment in moments]


@pytest.fixture
def write_harth() -> Callable[..., Path]:
    """Writes a subject's file: 400 samples at 50 Hz, the first half standing (6), the second sitting (7)."""

    def write(
        path: Path,
        labels: np.ndarray | None = None,
        *,
        index: bool = False,
        extra: dict[str, float] | None = None,
        moments: np.ndarray | None = None,
        signal: np.ndarray | None = None,
        left_out: tuple[str, ...] = (),
    ) -> Path:
        labels = np.repeat([6, 7], 200) if labels is None else labels
        signal = standing(len(labels), UPRIGHT["back"] + UPRIGHT["thigh"]) if signal is None else signal
        columns = {"": np.arange(len(labels))} if index else {}
        columns["timestamp"] = text_of(times(len(labels), 50) if moments is None else moments)
        columns |= dict(zip(HARTH_COLUMNS, signal.T, strict=True))
        columns |= {name: np.full(len(labels), value) for name, value in (extra or {}).items()}
        columns["label"] = labels
        kept = {name: values for name, values in columns.items() if name not in left_out}
        write_csv(path, list(kept), list(kept.values()))
        return path

    return write


@pytest.fixture
def write_trial() -> Callable[..., Path]:
    """Writes a trial of USC-HAD on its axes: x up, y forward, z left. Its numbers are text there, too."""

    def write(
        folder: Path,
        subject: int,
        activity: int,
        trial: int = 1,
        *,
        spelling: str = "activity_number",
        number: str | None = None,
        samples: int = 700,
        readings: np.ndarray | None = None,
    ) -> Path:
        if readings is None:
            readings = np.concatenate([standing(samples, (1.0, 0.18, -0.1)), np.zeros((samples, 3))], axis=1)
        content = {
            "title": "USC Human Motion Dataset",
            "version": "1.0",
            "subject": str(subject),
            spelling: str(activity) if number is None else number,
            "trial": str(trial),
            "sensor_location": "front-right-hip",
            "sensor_readings": readings,
        }
        path = folder / f"Subject{subject}" / f"a{activity}t{trial}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(path, content)
        return path

    return write
