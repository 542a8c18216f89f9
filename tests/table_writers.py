"""A walk of two sensors, and text tables of it as users and programs write them."""

import gzip
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from selfpab_jax.data.sources.blocks import whole_recordings
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.tables.format import TableFormat, sensor_columns
from selfpab_jax.data.tables.recordings import signal_blocks

RATE, START = 50.0, datetime(2021, 3, 1, 10, 0, 0)
NAMES = [column for _, column in sensor_columns(("back", "thigh"))]
COLUMNS = ",".join(NAMES)


def signal_at(times: np.ndarray) -> np.ndarray:
    """A walk at 2 Hz with a sway, upright; float64 (N, 6) in g."""
    axes = [(-1.0, 0.3, 2.0, 0.0), (0.1, 0.2, 1.0, 0.5), (0.2, 0.25, 2.0, 1.1)]
    both = [*axes, (-0.95, 0.4, 2.0, 0.3), (0.0, 0.15, 1.0, 0.9), (0.15, 0.3, 2.0, 1.9)]
    rng = np.random.default_rng(0)
    slow = [np.sin(2 * np.pi * times / rng.uniform(20, 40)) * 0.05 for _ in both]
    return np.stack(
        [
            mean + size * np.sin(2 * np.pi * hz * times + phase) + sway
            for (mean, size, hz, phase), sway in zip(both, slow, strict=True)
        ],
        axis=1,
    )


CLOCK = np.arange(6000) / RATE
CLEAN = signal_at(CLOCK)


def stamps(times: np.ndarray, style: str = "%Y-%m-%d %H:%M:%S.%f") -> list[str]:
    moments = [START + timedelta(seconds=round(float(time), 6)) for time in times]
    return [moment.strftime(style) for moment in moments]


def table(
    times: np.ndarray = CLOCK, signal: np.ndarray = CLEAN, style: str = "%Y-%m-%d %H:%M:%S.%f", delimiter: str = ",",
    decimal: str = ".", header: str | None = None, scale: float = 1.0,
) -> str:  # fmt: skip
    rows = [
        delimiter.join([stamp, *(f"{value * scale:.5f}".replace(".", decimal) for value in row)])
        for stamp, row in zip(stamps(times, style), signal, strict=True)
    ]
    head = [delimiter.join(["timestamp", *NAMES])] if header is None else [header] if header else []
    return "\n".join([*head, *rows]) + "\n"


def read(path: Path, content: str | bytes, name: str = "S01.csv", strict: bool = False, **options: object):
    data = content.encode() if isinstance(content, str) else content
    (path / name).write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
    report = FileReport(str(path / name), "S01", strict)
    layout = TableFormat(**options)  # pyright: ignore[reportArgumentType]
    return whole_recordings(signal_blocks(layout, path / name, report), "S01"), report


def lines_changed(change: Callable[[list[str]], list[str]]) -> str:
    return "\n".join(change(table().splitlines())) + "\n"
