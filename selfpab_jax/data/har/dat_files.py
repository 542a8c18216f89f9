"""Space-separated tables of numbers without a header, as PAMAP2 and Opportunity are published."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64

from selfpab_jax.data.har.resync import Stream, steady_times, stream_of
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.segments import check_rate, continuous_segments


@dataclass(frozen=True)
class Layout:
    """Where things are in a line; columns are counted from 0.

    Attributes:
        what: a file of it is, for messages.
        width: number of columns.
        time: column of the time.
        ticks: of the time's unit in a second.
        rate_hz: lines a second.
        first_columns: by sensor, of its x; y and z follow.
    """

    what: str
    width: int
    time: int
    ticks: float
    rate_hz: float
    first_columns: dict[str, int]


@dataclass(frozen=True)
class Session:
    """A file's times in seconds, labels (NaN where missing), and the chosen sensors' samples."""

    times_N: Float64[np.ndarray, " N"]
    labels_N: Float64[np.ndarray, " N"]
    streams: tuple[Stream, ...]

    @property
    def span(self) -> tuple[float, float]:
        """Times of the first and last line."""
        return float(self.times_N[0]), float(self.times_N[-1])


def read_session(path: Path, layout: Layout, label_column: int, sensors: list[str], gap_limit: float) -> Session:
    """The chosen sensors of a file; lines without a time are left out.

    Raises:
        UnusableError: not such a file, times out of order or of another rate, or a sensor without any value.
    """
    columns = [layout.first_columns[sensor] + axis for sensor in sensors for axis in range(3)]
    table_NxK = read_spaced(path, [layout.time, label_column, *columns], layout)
    table_NxK = table_NxK[np.isfinite(table_NxK[:, 0])]
    if len(table_NxK) < 2:
        raise UnusableError(f"too short: {len(table_NxK)} lines with a time")
    times_N = table_NxK[:, 0] / layout.ticks
    check_rate(times_N, continuous_segments(len(times_N), times_N, None, gap_limit), layout.rate_hz)
    times_N = steady_times(times_N, layout.rate_hz)
    streams = []
    for position, sensor in enumerate(sensors):
        try:
            streams.append(stream_of(times_N, table_NxK[:, 2 + 3 * position : 5 + 3 * position]))
        except UnusableError as error:
            raise UnusableError(f"no {sensor}: {error}") from None
    return Session(times_N, table_NxK[:, 1], tuple(streams))


def read_spaced(path: Path, columns: list[int], layout: Layout) -> Float64[np.ndarray, "N columns"]:
    """Some columns of the table, missing values as NaN.

    Raises:
        UnusableError: unreadable, of another number of columns, or something other than numbers in a wanted column.
    """
    try:
        with open(path, encoding="ascii") as lines:
            present = len(lines.readline().split())
        if present != layout.width:
            raise UnusableError(f"{present} columns; {layout.what} has {layout.width}, separated by spaces")
        table = pd.read_csv(path, sep=r"\s+", header=None, usecols=sorted(columns), low_memory=False)
    except (OSError, ValueError) as error:  # pandas' parser errors and wrong encodings are ValueErrors
        raise UnusableError(f"not {layout.what}: {str(error).splitlines()[0]}") from None
    for column in columns:
        if table[column].dtype.kind not in "fiu":
            raise UnusableError(f"wrong type: column {column + 1} holds something other than numbers")
    return table[columns].to_numpy(np.float64)
